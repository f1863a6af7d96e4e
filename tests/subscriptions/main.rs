//! Subscriptions (PROTOCOL.md §6, §7) against real webhook receivers, restarts and a clock moved by hand. The pure state
//! has its model in crates/protocol/tests/subscriptions.rs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed helper fails its test"
)]

mod callbacks;
mod client;
mod deliveries;
mod kill;
mod pull_wake;
mod receiver;
mod requests;
mod restart;
mod rig;
mod scale;
mod tenants;
mod webhooks;
mod workers;
