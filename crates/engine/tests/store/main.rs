//! The stores: one contract for all of them, and what only the one on disk can break.

#![expect(unreachable_pub, reason = "modules of one test binary share by `pub`")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod bounds;
mod cold_reads;
mod compaction;
mod concurrent;
mod contract;
mod copies;
mod crash_fault;
mod disk_limit;
mod durability;
mod expiry;
mod fault_disk;
mod file_parts;
mod flip_places;
mod flips;
mod formats;
mod full_disk;
mod harness;
mod index_damage;
mod index_repair;
mod lifecycle_crashes;
mod lives;
mod log_repair;
mod model;
#[cfg(unix)]
mod modes;
mod objects;
mod offline;
mod pairs;
mod producers;
mod scrub;
mod segment_ahead;
mod segment_catalog;
mod segment_crashes;
mod segment_figures;
mod segment_repair;
mod segment_room;
mod segments;
mod stats;
mod tiering;
mod trims;
mod wait;
mod wal_recovery;
mod workload;
