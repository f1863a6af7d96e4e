//! `durable-streams-client` and the commands on top of it, against the real binary.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a scene that cannot be set up ends the test"
)]

mod commands;
mod examples;
mod faults;
mod follow;
mod http2;
mod produce;
mod proxy;
mod requests;
mod scene;
mod secure;
mod telemetry;
mod trim;

#[path = "../crash/client.rs"]
#[allow(dead_code, reason = "`server` needs it")]
mod client;
/// The real binary on a data directory; at home with the crash tests.
#[path = "../crash/server.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod server;

/// An authority, and the binary with any configuration; at home with the TLS tests.
#[path = "../tls/authority.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod authority;
#[path = "../tls/process.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod process;
