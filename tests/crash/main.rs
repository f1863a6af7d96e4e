//! What is acknowledged survives: the real binary under load, killed, stopped, starved of room and of
//! working syncs, started again and checked over HTTP.
//!
//! The long runs: `make crash ROUNDS=300`, `make crash-maintenance MAINTENANCE_ROUNDS=200`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper fails its test")]

mod client;
mod directory;
mod disk_full;
mod failing_sync;
mod kill;
mod lifecycle;
#[cfg(unix)]
mod maintenance;
#[cfg(target_os = "linux")]
mod map_fault;
mod memory;
mod mount;
mod oracle;
#[cfg(unix)]
mod puller;
mod read_only;
mod restart;
mod server;
mod shared;
mod workload;

#[path = "../support/skips.rs"]
mod skips;
