//! Subscriptions (PROTOCOL.md §6, §7): the pure state against a model, and the whole against real webhook
//! receivers, restarts and a clock moved by hand.

#![allow(clippy::single_match, reason = "both outcomes of a step are worth naming")]
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
mod model;
mod pull_wake;
mod receiver;
mod requests;
mod restart;
mod rig;
mod scale;
mod webhooks;
mod workers;
