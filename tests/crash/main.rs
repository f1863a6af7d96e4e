//! What is acknowledged survives: the real binary under load, killed, stopped, starved of room and of
//! working syncs, started again and checked over HTTP.
//!
//! The long run: `make crash ROUNDS=300`.

#![allow(
    dead_code,
    reason = "what only the tests of full disks and failing syncs use is not used everywhere"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper fails its test")]

mod client;
mod kill;
mod oracle;
mod server;
mod shared;
mod workload;
