//! The admin listener, metrics and what is built on them; reload on SIGHUP.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper fails its test")]

#[cfg(target_os = "linux")]
mod admission;
#[cfg(target_os = "linux")]
mod api;
#[cfg(target_os = "linux")]
mod commands;
mod crowds;
#[cfg(target_os = "linux")]
mod data;
mod deploy;
mod endpoints;
mod leavers;
#[cfg(target_os = "linux")]
mod listing;
mod load;
mod process;
mod reload;
mod scrape;
mod segments;
#[cfg(target_os = "linux")]
mod steering;
#[cfg(target_os = "linux")]
mod subscriptions;
#[path = "../support/mod.rs"]
#[expect(unreachable_pub, reason = "shared with other test binaries")]
mod support;
#[cfg(target_os = "linux")]
mod tenants;
#[cfg(target_os = "linux")]
mod usage;

use support as harness;
use support::upstreams;
