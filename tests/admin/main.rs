//! The admin listener, metrics and what is built on them; reload on SIGHUP.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper fails its test")]

#[cfg(target_os = "linux")]
mod admission;
#[cfg(target_os = "linux")]
mod api;
mod crowds;
mod deploy;
mod endpoints;
mod leavers;
mod load;
mod process;
mod reload;
mod scrape;
#[path = "../support/mod.rs"]
#[expect(unreachable_pub, reason = "shared with other test binaries")]
mod support;

use support as harness;
use support::upstreams;
