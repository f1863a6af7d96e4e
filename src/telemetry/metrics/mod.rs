//! What the HTTP side counts, and the names of all metrics.
//!
//! | file | what it is |
//! |---|---|
//! | `names` | every metric: name, labels, meaning |
//! | `requests` | stream requests by mode and method |
//! | `status` | requests by status |
//! | `open` | live readers and connections |
//!
//! Rows and columns are enums: a request adds to a handful of numbers that its thread (nearly) owns, and
//! labels are made for a scrape only.

mod names;
mod open;
mod requests;
mod status;

use http::{Method, StatusCode};

pub use names::*;
pub use open::Open;
pub use requests::Mode;
pub use status::{ByStatus, by_status};

use super::Exposition;
use durable_streams_engine::counters::{Count, Durations, Sharded};
use open::What;
use requests::Requests;

/// What is sent on an SSE connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SseEvent {
    /// Stream bytes, with the control event that follows them.
    Data,
    /// A control event alone.
    Control,
    /// A comment.
    KeepAlive,
}

const SSE_EVENTS_NAMES: [&str; 3] = ["data", "control", "keep_alive"];
const ROUTES: [&str; 2] = ["streams", "proxy"];

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Stream requests.
    Streams,
    /// Everything else.
    Proxy,
}

/// What the HTTP side counts.
#[derive(Default)]
pub struct Metrics {
    shards: Sharded<Counters>,
    reloads: [Count; 2],
}

/// One thread's.
#[derive(Default)]
struct Counters {
    requests: Requests,
    unrouted: ByStatus,
    append: Durations,
    read: Durations,
    bytes_in: [Count; 2],
    bytes_out: [Count; 2],
    /// Long-poll and SSE readers that came, and that left.
    live: [(Count, Count); 2],
    sse_events: [Count; 3],
    sse_bytes: Count,
    connections: (Count, Count),
    connections_refused: Count,
}

impl Metrics {
    /// A stream request ended.
    pub fn request(&self, mode: Mode, method: &Method, status: Option<StatusCode>) {
        self.shards.mine().requests.add(mode, method, status);
    }

    /// A request was answered before it reached a stream or an upstream.
    pub fn unrouted(&self, status: Option<StatusCode>) {
        self.shards.mine().unrouted.add(status);
    }

    /// Body bytes of a request and its response.
    pub fn bytes(&self, traffic: Traffic, received: usize, sent: usize) {
        let mine = self.shards.mine();
        let at = traffic as usize;
        for (counts, bytes) in [(&mine.bytes_in, received), (&mine.bytes_out, sent)] {
            if let Some(count) = counts.get(at).filter(|_| bytes > 0) {
                count.add(bytes as u64);
            }
        }
    }

    /// An append is durable.
    pub fn appended(&self, took: std::time::Duration) {
        self.shards.mine().append.observe_duration(took);
    }

    /// A catch-up read is ready to be sent.
    pub fn read(&self, took: std::time::Duration) {
        self.shards.mine().read.observe_duration(took);
    }

    /// Bytes were sent on an SSE connection.
    pub fn sse_event(&self, event: SseEvent, bytes: usize) {
        let mine = self.shards.mine();
        if let Some(count) = mine.sse_events.get(event as usize) {
            count.add(1);
        }
        mine.sse_bytes.add(bytes as u64);
    }

    /// A long-poll waits, until the guard is dropped.
    pub fn long_poll(&self) -> Open<'_> {
        self.open(What::Live(0))
    }

    /// An SSE reader is there, until the guard is dropped.
    pub fn sse(&self) -> Open<'_> {
        self.open(What::Live(1))
    }

    /// A connection was accepted; it is open until the guard is dropped.
    pub fn connection(&self) -> Open<'_> {
        self.open(What::Connection)
    }

    /// A connection was refused.
    pub fn connection_refused(&self) {
        self.shards.mine().connections_refused.add(1);
    }

    /// A reload of the configuration was accepted or refused.
    pub fn reloaded(&self, accepted: bool) {
        let [refused, ok] = &self.reloads;
        if accepted { ok } else { refused }.add(1);
    }

    /// Everything, to be scraped.
    pub fn write(&self, out: &mut Exposition) {
        let shards = &self.shards;
        requests::write(shards.all().map(|shard| &shard.requests), out);
        for (status, count) in by_status(shards.all().map(|shard| &shard.unrouted)) {
            out.number(REFUSED, &[&status], count as f64);
        }
        out.durations(APPEND_DURATION, &shards.snapshot(|shard| &shard.append));
        out.durations(READ_DURATION, &shards.snapshot(|shard| &shard.read));
        let sum = |of: fn(&Counters) -> &[Count], at: usize| -> f64 {
            let counts = shards.all().filter_map(|shard| of(shard).get(at));
            counts.map(Count::get).sum::<u64>() as f64
        };
        for (at, route) in ROUTES.into_iter().enumerate() {
            out.number(REQUEST_BYTES, &[route], sum(|shard| &shard.bytes_in, at));
            out.number(RESPONSE_BYTES, &[route], sum(|shard| &shard.bytes_out, at));
        }
        for (at, event) in SSE_EVENTS_NAMES.into_iter().enumerate() {
            out.number(SSE_EVENTS, &[event], sum(|shard| &shard.sse_events, at));
        }
        out.number(SSE_BYTES, &[], shards.sum(|shard| &shard.sse_bytes) as f64);
        for (at, mode) in ["long_poll", "sse"].into_iter().enumerate() {
            out.number(LIVE_READERS, &[mode], self.now_open(What::Live(at)) as f64);
        }
        for (result, count) in ["refused", "ok"].into_iter().zip(&self.reloads) {
            out.number(CONFIG_RELOADS, &[result], count.get() as f64);
        }
        out.number(CONNECTIONS, &[], self.now_open(What::Connection) as f64);
        let accepted = shards.sum(|shard| &shard.connections.0);
        out.number(CONNECTIONS_ACCEPTED, &[], accepted as f64);
        let refused = shards.sum(|shard| &shard.connections_refused);
        out.number(CONNECTIONS_REFUSED, &[], refused as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_scraped_by_method_mode_and_status() {
        let metrics = Metrics::default();
        metrics.request(Mode::Append, &Method::POST, Some(StatusCode::NO_CONTENT));
        metrics.request(Mode::Invalid, &Method::POST, Some(StatusCode::BAD_REQUEST));
        metrics.request(Mode::Invalid, &Method::PATCH, Some(StatusCode::IM_A_TEAPOT));
        metrics.request(Mode::Sse, &Method::GET, None);
        let mut out = Exposition::default();
        metrics.write(&mut out);
        let text = out.text();
        for line in [
            r#"requests_total{method="POST",mode="append",status="204"} 1"#,
            r#"requests_total{method="POST",mode="invalid",status="400"} 1"#,
            r#"requests_total{method="other",mode="invalid",status="4xx"} 1"#,
            r#"requests_total{method="GET",mode="sse",status="0"} 1"#,
            r#"requests_total{method="PUT",mode="create",status="500"} 0"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
