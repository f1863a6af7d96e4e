//! Traces, of the real binary with the feature `otel`, as a collector receives them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper fails its test")]

mod collector;
#[path = "../admin/process.rs"]
#[expect(dead_code, reason = "shared with the tests of the admin listener")]
mod process;
mod spans;
#[path = "../support/mod.rs"]
#[expect(unreachable_pub, reason = "shared with other test binaries")]
mod support;
mod troubles;

use support as harness;
use support::upstreams;
