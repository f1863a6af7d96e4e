//! The engine and the stores under it against a model that a reader can check by eye, below HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

mod concurrent;
mod expiry;
mod last_messages;
mod lifecycle;
mod limits;
mod listing;
mod live;
mod model;
mod observer;
mod ops;
mod plans;
mod quotas;
mod sequences;
mod stores;
#[path = "../support/stores.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other test binaries")]
mod support;
mod trims;
