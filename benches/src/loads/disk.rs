//! What the disk allows: appends to a preallocated file, each followed by `fdatasync`.

use crate::loads::Scale;
use crate::results::DiskRow;
use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

const FILE: u64 = 256 << 20;
const SIZES: [usize; 5] = [256, 1024, 4096, 16 * 1024, 64 * 1024];

/// Measures each size in turn in a file of its own in `dir`.
pub(crate) fn measure(dir: &Path, scale: Scale) -> Result<Vec<DiskRow>> {
    SIZES.iter().map(|size| one(dir, *size, scale)).collect()
}

fn one(dir: &Path, size: usize, scale: Scale) -> Result<DiskRow> {
    let path = dir.join("fdatasync");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    fallocate(&file, FallocateFlags::empty(), 0, FILE as i64).context("preallocating")?;
    // Writes over preallocated but unwritten extents would pay for their conversion.
    for at in (0..FILE).step_by(1 << 20) {
        file.write_all_at(&vec![0; 1 << 20], at)?;
    }
    file.sync_all()?;
    let body = vec![b'x'; size];
    let mut latency = Histogram::<u64>::new_with_bounds(1, 600_000_000_000, 3)?;
    let start = Instant::now();
    let mut at = 0;
    while start.elapsed() < scale.window {
        let before = Instant::now();
        file.write_all_at(&body, at)?;
        file.sync_data()?;
        latency.saturating_record(before.elapsed().as_nanos() as u64);
        at = (at + size as u64) % (FILE - size as u64);
    }
    let row = DiskRow {
        bytes: size,
        per_second: latency.len() as f64 / start.elapsed().as_secs_f64(),
        p50_us: latency.value_at_quantile(0.5) as f64 / 1e3,
        p99_us: latency.value_at_quantile(0.99) as f64 / 1e3,
    };
    std::fs::remove_file(&path)?;
    Ok(row)
}
