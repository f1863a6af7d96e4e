//! What the server counts around the stream routes, and the names of all metrics.
//!
//! | file | what it is |
//! |---|---|
//! | `names` | every metric: name, labels, meaning |
//! | `gauges` | connections at this moment |
//!
//! The stream routes count by themselves ([`StreamCounters`]); [`Metrics::write`] renders both.

mod gauges;
mod names;

use durable_streams_engine::counters::{RelaxedCounter, ShardedCounters};
use durable_streams_pingora::StreamCounters;
use durable_streams_pingora::transport::{StatusCounts, WrittenReply, by_status};
use http::StatusCode;

pub use gauges::ConnectionGuard;
pub use names::*;

use super::Exposition;

/// What the server counts around the stream routes.
#[derive(Default)]
pub struct Metrics {
    shards: ShardedCounters<EdgeShard>,
    reloads: [RelaxedCounter; 2],
}

/// The counters of one thread.
#[derive(Default)]
struct EdgeShard {
    unrouted: StatusCounts,
    bytes_in: RelaxedCounter,
    bytes_out: RelaxedCounter,
    connections: (RelaxedCounter, RelaxedCounter),
    connections_refused: RelaxedCounter,
}

impl Metrics {
    /// A request was answered before it reached a stream or an upstream.
    pub fn unrouted(&self, status: Option<StatusCode>) {
        self.shards.mine().unrouted.add(status);
    }

    /// Adds the body bytes of a request that was not for a stream.
    pub fn proxied_bytes(&self, written: &WrittenReply) {
        let mine = self.shards.mine();
        for (count, bytes) in [(&mine.bytes_in, written.received), (&mine.bytes_out, written.sent)]
        {
            if bytes > 0 {
                count.add(bytes as u64);
            }
        }
    }

    /// A connection was accepted; it counts as open until the guard is dropped.
    pub fn connection(&self) -> ConnectionGuard<'_> {
        self.connection_opened()
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

    /// Adds everything to a scrape, with what the stream routes counted.
    pub fn write(&self, streams: &StreamCounters, out: &mut Exposition) {
        write_streams(streams, out);
        let shards = &self.shards;
        for (status, count) in by_status(shards.all().map(|shard| &shard.unrouted)) {
            out.number(REFUSED, &[&status], count as f64);
        }
        let (received, sent) = streams.body_bytes();
        let proxied = shards.sum(|shard| &shard.bytes_in);
        out.number(REQUEST_BYTES, &["streams"], received as f64);
        out.number(REQUEST_BYTES, &["proxy"], proxied as f64);
        let proxied = shards.sum(|shard| &shard.bytes_out);
        out.number(RESPONSE_BYTES, &["streams"], sent as f64);
        out.number(RESPONSE_BYTES, &["proxy"], proxied as f64);
        for (result, count) in ["refused", "ok"].into_iter().zip(&self.reloads) {
            out.number(CONFIG_RELOADS, &[result], count.get() as f64);
        }
        out.number(CONNECTIONS, &[], self.open_connections() as f64);
        let accepted = shards.sum(|shard| &shard.connections.0);
        out.number(CONNECTIONS_ACCEPTED, &[], accepted as f64);
        let refused = shards.sum(|shard| &shard.connections_refused);
        out.number(CONNECTIONS_REFUSED, &[], refused as f64);
    }
}

fn write_streams(streams: &StreamCounters, out: &mut Exposition) {
    for row in streams.requests() {
        out.number(REQUESTS, &[row.method, row.mode, &row.status], row.count as f64);
    }
    out.durations(APPEND_DURATION, &streams.append_durations());
    out.durations(READ_DURATION, &streams.read_durations());
    for (event, count) in streams.sse_events() {
        out.number(SSE_EVENTS, &[event], count as f64);
    }
    out.number(SSE_BYTES, &[], streams.sse_bytes() as f64);
    for (mode, count) in streams.live_readers() {
        out.number(LIVE_READERS, &[mode], count as f64);
    }
}
