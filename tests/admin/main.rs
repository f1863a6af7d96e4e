//! The admin listener, metrics and what is built on them; reload on SIGHUP.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper fails its test")]

mod deploy;
mod endpoints;
#[path = "../proxy/harness.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the tests of the proxy")]
mod harness;
mod load;
mod process;
mod reload;
mod scrape;
#[path = "../support/upstreams.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the tests of the proxy")]
mod upstreams;
