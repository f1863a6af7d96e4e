//! The facts of the machine a run was made on.

use nix::sys::statvfs::statvfs;
use serde::Serialize;
use std::fs;
use std::path::Path;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// The file system under the data directories, and its room.
    pub(crate) disk: String,
    pub(crate) descriptors: u64,
    /// Load average over the minute before the run: what else the machine was doing.
    pub(crate) load_before: String,
}

impl Machine {
    pub(crate) fn read(data_root: &Path, descriptors: u64) -> Self {
        let line = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let word = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let kib = line("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok());
        let load = word("/proc/loadavg");
        Self {
            cpu: line("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib.unwrap_or(0) >> 20,
            kernel: word("/proc/sys/kernel/osrelease"),
            disk: mount_of(data_root),
            descriptors,
            load_before: load.split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// Whether the data directories lie in memory, where no durable figure means anything.
    pub(crate) fn disk_is_memory(&self) -> bool {
        self.disk.contains("tmpfs") || self.disk.contains("ramfs")
    }
}

/// The mount with the longest path that holds `path`.
fn mount_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let best = mounts
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            path.starts_with(fields.get(1)?).then_some(fields)
        })
        .max_by_key(|fields| fields[1].len());
    let free = statvfs(&path).map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
    match best.as_deref() {
        Some([_, _, kind, ..]) => format!("{kind}, {} GiB free", free >> 30),
        _ => "unknown".into(),
    }
}
