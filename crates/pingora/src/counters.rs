//! What the stream routes count. A scrape reads it; nothing here knows a metrics library.
//!
//! Rows and columns are enums: a request adds to a handful of numbers that its thread (nearly) owns, and labels are
//! made for a scrape only.

mod gauges;
mod requests;
mod status;
mod usage;

use std::{sync::OnceLock, time::Duration};

use durable_streams_engine::counters::{
    DurationHistogram, HistogramSnapshot, RelaxedCounter, ShardedCounters,
};
use http::{Method, StatusCode};

pub use requests::RequestMode;
pub use status::{StatusCounts, by_status};
pub use usage::{MAX_PREFIXES, MAX_TENANTS, RequestUsage, UsageCounters, UsageOptions};

pub(crate) use gauges::LiveKind;
use requests::RequestCounts;
pub(crate) use usage::UsagePlace;

/// What is written on an SSE connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SseEvent {
    /// Stream bytes, with the control event that follows them.
    Data,
    /// A control event alone.
    Control,
    /// A comment.
    KeepAlive,
}

const SSE_EVENT_NAMES: [&str; 3] = ["data", "control", "keep_alive"];

/// The counters of the stream routes. Every number but that of live readers only grows.
#[derive(Default)]
pub struct StreamCounters {
    shards: ShardedCounters<StreamShard>,
    /// Empty unless requests are counted by prefix or tenant.
    usage: OnceLock<UsageCounters>,
}

/// The counters of one thread.
#[derive(Default)]
struct StreamShard {
    requests: RequestCounts,
    append: DurationHistogram,
    read: DurationHistogram,
    bytes_in: RelaxedCounter,
    bytes_out: RelaxedCounter,
    /// Long-poll and SSE readers that came, and that left.
    live: [(RelaxedCounter, RelaxedCounter); 2],
    sse_events: [RelaxedCounter; 3],
    sse_bytes: RelaxedCounter,
}

/// How many requests of one kind ended with one status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestCount {
    /// `GET`, ..., or `other`.
    pub method: &'static str,
    /// The name of the [`RequestMode`].
    pub mode: &'static str,
    /// A status, a class such as `4xx`, or `0` when the client left before a response.
    pub status: String,
    /// How many.
    pub count: u64,
}

impl StreamCounters {
    /// Requests that ended. A live read counts when it ends.
    pub fn requests(&self) -> Vec<RequestCount> {
        requests::sums(self.shards.all().map(|shard| &shard.requests))
    }

    /// From the received body of an append to its durable commit, nanoseconds.
    pub fn append_durations(&self) -> HistogramSnapshot {
        self.shards.snapshot(|shard| &shard.append)
    }

    /// From a catch-up request to the response that is ready to be written, nanoseconds.
    pub fn read_durations(&self) -> HistogramSnapshot {
        self.shards.snapshot(|shard| &shard.read)
    }

    /// Bytes of request bodies, and bytes of response bodies.
    pub fn body_bytes(&self) -> (u64, u64) {
        (self.shards.sum(|shard| &shard.bytes_in), self.shards.sum(|shard| &shard.bytes_out))
    }

    /// Live readers at this moment, by the name of their [`RequestMode`].
    pub fn live_readers(&self) -> [(&'static str, u64); 2] {
        [LiveKind::LongPoll, LiveKind::Sse].map(|kind| (kind.name(), self.now_live(kind)))
    }

    /// SSE events sent, by kind: `data`, `control`, `keep_alive`.
    pub fn sse_events(&self) -> [(&'static str, u64); 3] {
        let mut at = 0..;
        SSE_EVENT_NAMES.map(|name| {
            let at = at.next().unwrap_or_default();
            let counts = self.shards.all().filter_map(|shard| shard.sse_events.get(at));
            (name, counts.map(RelaxedCounter::get).sum())
        })
    }

    /// Bytes of SSE events sent, their framing included.
    pub fn sse_bytes(&self) -> u64 {
        self.shards.sum(|shard| &shard.sse_bytes)
    }

    /// Counts requests by prefix and by tenant, too, from now on. Only the first call has an effect.
    pub fn count_usage(&self, options: UsageOptions) {
        let _ = self.usage.set(UsageCounters::new(options));
    }

    /// Requests by prefix and by tenant; `None` where they are not counted.
    pub fn usage(&self) -> Option<&UsageCounters> {
        self.usage.get()
    }

    pub(crate) fn request(&self, mode: RequestMode, method: &Method, status: Option<StatusCode>) {
        self.shards.mine().requests.add(mode, method, status);
    }

    pub(crate) fn bytes(&self, received: usize, sent: usize) {
        let mine = self.shards.mine();
        for (count, bytes) in [(&mine.bytes_in, received), (&mine.bytes_out, sent)] {
            if bytes > 0 {
                count.add(bytes as u64);
            }
        }
    }

    pub(crate) fn appended(&self, took: Duration) {
        self.shards.mine().append.observe_duration(took);
    }

    pub(crate) fn read(&self, took: Duration) {
        self.shards.mine().read.observe_duration(took);
    }

    pub(crate) fn sse_event(&self, event: SseEvent, bytes: usize) {
        let mine = self.shards.mine();
        if let Some(count) = mine.sse_events.get(event as usize) {
            count.add(1);
        }
        mine.sse_bytes.add(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_by_method_mode_and_status() {
        let counters = StreamCounters::default();
        counters.request(RequestMode::Append, &Method::POST, Some(StatusCode::NO_CONTENT));
        counters.request(RequestMode::Invalid, &Method::POST, Some(StatusCode::BAD_REQUEST));
        counters.request(RequestMode::Invalid, &Method::TRACE, Some(StatusCode::IM_A_TEAPOT));
        counters.request(RequestMode::Sse, &Method::GET, None);
        let requests = counters.requests();
        for (method, mode, status, count) in [
            ("POST", "append", "204", 1),
            ("POST", "invalid", "400", 1),
            ("other", "invalid", "4xx", 1),
            ("GET", "sse", "0", 1),
            ("PUT", "create", "500", 0),
        ] {
            let expected = RequestCount { method, mode, status: status.to_owned(), count };
            assert!(requests.contains(&expected), "{expected:?}\n{requests:?}");
        }
    }

    #[test]
    fn events_are_counted_by_kind() {
        let counters = StreamCounters::default();
        counters.sse_event(SseEvent::Data, 10);
        counters.sse_event(SseEvent::KeepAlive, 3);
        counters.sse_event(SseEvent::KeepAlive, 3);
        assert_eq!(counters.sse_events(), [("data", 1), ("control", 0), ("keep_alive", 2)]);
        assert_eq!(counters.sse_bytes(), 16);
    }
}
