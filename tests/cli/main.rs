//! The command line, driven as the real binary.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a scene that cannot be set up ends the test"
)]

mod access;
mod authorities;
mod check;
mod describe;
mod examples;
mod forward_auth;
mod from_tier;
mod healthcheck;
mod help;
mod hostile;
mod issuers;
#[cfg(unix)]
mod keys;
mod operate;
mod support;
mod tier;
mod under_load;

/// The real binary on a data directory, with a client; at home with the crash tests.
#[path = "../crash/client.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "this binary uses a part of it")]
mod client;
#[path = "../crash/mount.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod mount;
#[path = "../crash/server.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "this binary uses a part of it")]
mod server;
#[path = "../support/skips.rs"]
mod skips;
