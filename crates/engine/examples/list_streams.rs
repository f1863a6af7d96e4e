//! What a page of the list of streams costs: creates streams in a data directory, then lists them page by page.
//!
//! ```sh
//! cargo run --release -p durable-streams-engine --example list_streams -- 1000000 [DIRECTORY]
//! ```
//!
//! Prints the time of a page of 100 at several places (warm: the median of 50), the time of a walk over all streams, and the
//! resident memory before and after it.

use std::{
    error::Error,
    io::{Write, stdout},
    ops::Bound,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use durable_streams_engine::{
    Clock, Engine, EngineLimits,
    store::{AnyStore, FileStore, FileStoreOptions, file::Durability},
};
use durable_streams_protocol::{Create, StreamPath};

/// Creations that are decided before their syncs are awaited.
const BATCH: usize = 2_000;

fn path(number: usize) -> Result<StreamPath, Box<dyn Error>> {
    Ok(StreamPath::new(&format!("tenant-{:03}/device-{:07}", number % 1_000, number))?)
}

/// Resident memory of this process, KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let dir = arguments.next().map_or_else(|| folder.path().to_owned(), PathBuf::from);
    let options = FileStoreOptions { durability: Durability::Os, ..FileStoreOptions::new(dir) };
    let store = AnyStore::File(FileStore::open(options)?);
    let engine = Arc::new(Engine::new(store, Clock::System, EngineLimits::default()));
    tokio::spawn(Engine::housekeeping(Arc::downgrade(&engine)));
    let began = Instant::now();
    create(&engine, count).await?;
    let mut out = stdout();
    writeln!(out, "{count} streams created in {:.1} s", began.elapsed().as_secs_f64())?;
    // Then the index has them, and idle cells have left memory.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = resident();
    let folder = StreamPath::new("tenant-777/")?;
    for (what, from, prefix) in [
        ("first page", Bound::Unbounded, ""),
        ("page in the middle", Bound::Excluded(path(count / 2)?), ""),
        ("page of a prefix", Bound::Included(folder.clone()), folder.as_str()),
    ] {
        let mut times = Vec::new();
        for _ in 0..51 {
            let began = Instant::now();
            engine.list_streams(from.as_ref(), prefix, 100).await?;
            times.push(began.elapsed());
        }
        times.sort();
        let [median, slowest] = [25, 50].map(|at| times.get(at).map_or(0.0, Duration::as_secs_f64));
        writeln!(out, "{what}: median {:.2} ms, slowest {:.2} ms", median * 1e3, slowest * 1e3)?;
    }
    let began = Instant::now();
    let listed = walk(&engine).await?;
    writeln!(out, "walk over {listed}: {:.1} s", began.elapsed().as_secs_f64())?;
    let cells = engine.stats().cells;
    writeln!(out, "resident: {before} KiB before, {} KiB after; {cells} cells", resident())?;
    engine.close().await;
    Ok(())
}

async fn create(engine: &Arc<Engine>, count: usize) -> Result<(), Box<dyn Error>> {
    for first in (0..count).step_by(BATCH) {
        let mut pending = Vec::new();
        for number in first..(first + BATCH).min(count) {
            let (engine, path) = (engine.clone(), path(number)?);
            pending.push(tokio::spawn(async move {
                let body = bytes::Bytes::from_static(b"hello");
                engine.create(&path, &Create::default(), body).await.map(|_| ())
            }));
        }
        for one in pending {
            one.await??;
        }
    }
    Ok(())
}

/// Lists all streams, page by page; returns how many there are.
async fn walk(engine: &Engine) -> Result<usize, Box<dyn Error>> {
    let (mut from, mut listed) = (Bound::Unbounded, 0);
    loop {
        let page = engine.list_streams(from.as_ref(), "", 1_000).await?;
        listed += page.streams.len();
        match page.next {
            Some(next) => from = Bound::Excluded(next),
            None => return Ok(listed),
        }
    }
}
