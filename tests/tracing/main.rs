//! Traces, of the real binary with the feature `otel`, as a collector receives them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper fails its test")]

mod collector;
#[path = "../proxy/harness.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the tests of the proxy")]
mod harness;
#[path = "../admin/process.rs"]
#[expect(dead_code, reason = "shared with the tests of the admin listener")]
mod process;
mod spans;
mod troubles;
#[path = "../support/upstreams.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the tests of the proxy")]
mod upstreams;
