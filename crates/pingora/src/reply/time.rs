//! Durations and the engine's clock, and how long an answer took.

use std::time::Duration;

use durable_streams_protocol::Timestamp;
use http::{HeaderName, HeaderValue};

use crate::counters::RequestMode;

/// Milliseconds of a duration, for adding to a [`Timestamp`].
pub(super) fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

pub(super) fn later(now: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::from_millis(now.millis().saturating_add(millis(duration)))
}

/// How long until a time; the real clock's measure, so only for the system clock.
pub(super) fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::from_millis(then.millis().saturating_sub(now.millis()))
}

/// How long the server took until the answer was ready: for a write, until it was durable.
pub(crate) fn server_timing(mode: RequestMode, took: Duration) -> (HeaderName, HeaderValue) {
    static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
    let what = match mode {
        RequestMode::Create | RequestMode::Append | RequestMode::Delete | RequestMode::Patch => {
            "durable"
        }
        RequestMode::CatchUp | RequestMode::LongPoll | RequestMode::Sse | RequestMode::Head => {
            "read"
        }
        RequestMode::Preflight | RequestMode::Subscriptions | RequestMode::Invalid => "total",
    };
    let text = format!("{what};dur={:.3}", took.as_secs_f64() * 1000.0);
    let none = HeaderValue::from_static("");
    (SERVER_TIMING.clone(), HeaderValue::try_from(text).unwrap_or(none))
}
