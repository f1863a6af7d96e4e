//! Subscriptions (PROTOCOL.md §6, §7) on an engine in memory: requests, wakes, leases, restarts, and a clock moved by hand.
//! The pure state has its model in crates/protocol/tests/subscriptions.rs. With the server's HTTP client, processes and
//! load, they are in tests/subscriptions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed helper fails its test"
)]

mod access;
mod callbacks;
mod deliveries;
#[cfg(unix)]
mod keys;
mod operators;
mod plain_client;
mod pull_wake;
#[allow(dead_code, reason = "the tests with the server's client use all of it")]
mod receiver;
mod requests;
mod restart;
mod rig;
mod tenants;

pub(crate) use plain_client::http_client;
