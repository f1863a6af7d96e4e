//! `/admin/v1/overview`: the counters of this moment, and rates and latencies of the last minutes.
//!
//! A task samples the counters, which exist for the metrics anyway, while the API is on. [`SAMPLES`] samples are kept, a few
//! kilobytes; without the API there is no task.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use durable_streams_engine::{Engine, counters::HistogramSnapshot, store::Store};
use durable_streams_protocol::Timestamp;
use durable_streams_subscriptions::Subscriptions;
use http::{Response, StatusCode};
use parking_lot::Mutex;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};
use serde_json::{Value, json};

use super::AdminApi;
use crate::admin::response::json;
use crate::edge::EdgeControl;
use crate::telemetry::{build, process};

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// Samples that are kept: five minutes.
const SAMPLES: usize = 60;

/// What is sampled.
#[derive(Clone)]
struct OverviewSource {
    engine: Arc<Engine>,
    edge: EdgeControl,
    subscriptions: Arc<OnceLock<Subscriptions>>,
}

/// Numbers that only grow.
#[derive(Clone, Default)]
struct OverviewTotals {
    requests: u64,
    appends: u64,
    reads: u64,
    live_reads: u64,
    errors: u64,
    refused: u64,
    deliveries: u64,
    delivery_failures: u64,
    append_durations: HistogramSnapshot,
    read_durations: HistogramSnapshot,
}

/// The samples of the last minutes.
#[derive(Default)]
pub(super) struct OverviewHistory {
    samples: Mutex<VecDeque<Value>>,
}

impl OverviewSource {
    fn totals(&self) -> OverviewTotals {
        let counters = self.edge.streams();
        let mut totals = OverviewTotals {
            append_durations: counters.append_durations(),
            read_durations: counters.read_durations(),
            ..OverviewTotals::default()
        };
        for one in counters.requests() {
            totals.requests += one.count;
            let ok = one.status.starts_with('2');
            match one.mode {
                "append" if ok => totals.appends += one.count,
                "catch_up" if ok || one.status == "304" => totals.reads += one.count,
                "long_poll" | "sse" => totals.live_reads += one.count,
                _ => {}
            }
            match one.status.as_bytes().first() {
                Some(b'5') => totals.errors += one.count,
                Some(b'4') => totals.refused += one.count,
                _ => {}
            }
        }
        if let Some(subscriptions) = self.subscriptions.get() {
            (totals.deliveries, totals.delivery_failures) = subscriptions.deliveries();
        }
        totals
    }

    fn live_readers(&self) -> u64 {
        self.edge.streams().live_readers().iter().map(|(_, count)| count).sum()
    }

    /// What happened between two samples.
    fn sample(&self, now: Timestamp, before: &OverviewTotals, after: &OverviewTotals) -> Value {
        let seconds = INTERVAL.as_secs_f64();
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        let appends = difference(&before.append_durations, &after.append_durations);
        let reads = difference(&before.read_durations, &after.read_durations);
        let disk = self.engine.store().disk_stats();
        json!({
            "at": now.to_string(),
            "appends": rate(before.appends, after.appends),
            "reads": rate(before.reads, after.reads),
            "deliveries": rate(before.deliveries, after.deliveries),
            "errors": rate(before.errors, after.errors),
            "refused": rate(before.refused, after.refused),
            "live_readers": self.live_readers(),
            "append_p50": quantile(&appends, 0.5),
            "append_p99": quantile(&appends, 0.99),
            "read_p50": quantile(&reads, 0.5),
            "read_p99": quantile(&reads, 0.99),
            "log_bytes": disk.as_ref().map(|disk| disk.files.wal_reserved_bytes),
            "disk_free": disk_room(&self.engine),
        })
    }
}

/// Bytes that are free on the file system of the data directory.
pub(super) fn disk_room(engine: &Engine) -> Option<u64> {
    let durable_streams_engine::store::AnyStore::File(store) = engine.store() else { return None };
    store.free_bytes()
}

impl AdminApi {
    fn source(&self) -> OverviewSource {
        OverviewSource {
            engine: self.engine.clone(),
            edge: self.edge.clone(),
            subscriptions: self.subscriptions.clone(),
        }
    }

    pub(super) fn overview(&self, not_ready: Option<String>) -> Response<Vec<u8>> {
        let source = self.source();
        let totals = source.totals();
        let stats = self.engine.stats();
        let counters = self.edge.streams();
        let (bytes_in, bytes_out) = counters.body_bytes();
        let events: u64 = counters.sse_events().iter().map(|(_, count)| count).sum();
        let live = counters.live_readers();
        let disk = self.engine.store().disk_stats();
        let files = disk.as_ref().map(|disk| &disk.files);
        let upstreams: Vec<Value> = self.upstreams();
        let started = Timestamp::from_millis((process::start() * 1000.0) as u64);
        let value = json!({
            "now": self.engine.now().to_string(),
            "started": started.to_string(),
            "version": build::VERSION,
            "ready": not_ready.is_none(),
            "not_ready": not_ready,
            "totals": {
                "requests": totals.requests, "appends": totals.appends, "reads": totals.reads,
                "live_reads": totals.live_reads, "deliveries": totals.deliveries,
                "delivery_failures": totals.delivery_failures, "bytes_in": bytes_in,
                "bytes_out": bytes_out, "sse_events": events, "errors": totals.errors,
                "refused": totals.refused,
            },
            "append_seconds": buckets(&totals.append_durations),
            "read_seconds": buckets(&totals.read_durations),
            "live_readers": live.iter().map(|(kind, count)| ((*kind).to_owned(), json!(count)))
                .collect::<serde_json::Map<_, _>>(),
            "subscriptions": self.subscriptions.get().map_or(0, Subscriptions::len),
            "streams": stats.store.streams,
            "bytes": stats.store.bytes,
            "inflight_append_bytes": stats.inflight_append_bytes,
            "log": disk.as_ref().map(|disk| json!({
                "bytes": disk.files.wal_reserved_bytes, "written": disk.files.wal_written_bytes,
                "syncs": disk.files.syncs,
            })),
            "index_bytes": files.map(|files| files.index_bytes),
            "disk_free": disk_room(&self.engine),
            "disk_limit": files.map(|files| files.disk_limit_bytes).filter(|limit| *limit > 0),
            "checkpoint_lag": files.map(|files| files.checkpoint_lag_events),
            "upstreams": upstreams,
            "interval_seconds": INTERVAL.as_secs(),
            "history": *self.history.samples.lock(),
        });
        json(StatusCode::OK, &value)
    }

    /// The upstreams, each with its servers.
    pub(super) fn upstreams(&self) -> Vec<Value> {
        let one = |(name, servers): (String, Vec<(std::net::SocketAddr, bool)>)| {
            let servers = servers.into_iter().map(
                |(address, healthy)| json!({ "address": address.to_string(), "healthy": healthy }),
            );
            json!({ "name": name, "servers": servers.collect::<Vec<_>>() })
        };
        self.edge.upstreams().into_iter().map(one).collect()
    }

    /// The task that samples.
    pub(in crate::admin) fn background(&self) -> Arc<dyn BackgroundService + Send + Sync> {
        Arc::new(OverviewSampler { source: self.source(), history: self.history.clone() })
    }
}

struct OverviewSampler {
    source: OverviewSource,
    history: Arc<OverviewHistory>,
}

#[async_trait]
impl BackgroundService for OverviewSampler {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let sampling = async {
            let mut before = self.source.totals();
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let after = self.source.totals();
                let sample = self.source.sample(self.source.engine.now(), &before, &after);
                before = after;
                let mut samples = self.history.samples.lock();
                if samples.len() >= SAMPLES {
                    samples.pop_front();
                }
                samples.push_back(sample);
            }
        };
        tokio::select! {
            () = sampling => {}
            _ = shutdown.wait_for(|stopping| *stopping) => {}
        }
    }
}

/// Cumulative buckets by their upper bounds in seconds.
fn buckets(durations: &HistogramSnapshot) -> Value {
    let mut sum = 0;
    let cumulative = durations.bounds.iter().zip(&durations.counts).map(|(bound, count)| {
        sum += count;
        json!([*bound as f64 / 1e9, sum])
    });
    let buckets: Vec<Value> = cumulative.collect();
    let count: u64 = durations.counts.iter().sum();
    json!({ "buckets": buckets, "count": count, "sum": durations.sum as f64 / 1e9 })
}

fn difference(before: &HistogramSnapshot, after: &HistogramSnapshot) -> HistogramSnapshot {
    let known = before.counts.iter().chain(std::iter::repeat(&0));
    let counts =
        after.counts.iter().zip(known).map(|(after, before)| after.saturating_sub(*before));
    HistogramSnapshot {
        bounds: after.bounds,
        counts: counts.collect(),
        sum: after.sum.saturating_sub(before.sum),
    }
}

/// The duration in seconds that a part of all values does not exceed, by linear interpolation inside a bucket. `None` when
/// there are no values.
fn quantile(durations: &HistogramSnapshot, part: f64) -> Option<f64> {
    let count: u64 = durations.counts.iter().sum();
    if count == 0 {
        return None;
    }
    let rank = part * count as f64;
    let (mut below, mut lower) = (0_u64, 0_u64);
    for (bound, inside) in durations.bounds.iter().zip(&durations.counts) {
        let until = below + inside;
        if *inside > 0 && until as f64 >= rank {
            let within = (rank - below as f64) / *inside as f64;
            return Some((lower as f64 + within * (*bound - lower) as f64) / 1e9);
        }
        (below, lower) = (until, *bound);
    }
    Some(lower as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_in_its_bucket() {
        static BOUNDS: [u64; 3] = [1_000_000, 2_000_000, 4_000_000];
        let of =
            |counts: &[u64]| HistogramSnapshot { bounds: &BOUNDS, counts: counts.to_vec(), sum: 0 };
        assert_eq!(quantile(&of(&[0, 0, 0, 0]), 0.5), None);
        assert_eq!(quantile(&of(&[10, 0, 0, 0]), 0.5), Some(0.0005));
        assert_eq!(quantile(&of(&[0, 4, 0, 0]), 0.5), Some(0.0015));
        assert_eq!(quantile(&of(&[98, 1, 0, 1]), 0.99), Some(0.002));
        assert_eq!(quantile(&of(&[0, 0, 0, 5]), 0.5), Some(0.004), "at least the last bound");
    }

    #[test]
    fn a_difference_is_what_came_between() {
        static BOUNDS: [u64; 1] = [1_000];
        let snapshot = |counts: Vec<u64>, sum| HistogramSnapshot { bounds: &BOUNDS, counts, sum };
        let between = difference(&snapshot(vec![1, 2], 5), &snapshot(vec![4, 2], 9));
        assert_eq!((between.counts, between.sum), (vec![3, 0], 4));
        let first = difference(&HistogramSnapshot::default(), &snapshot(vec![4, 2], 9));
        assert_eq!(first.counts, [4, 2]);
    }
}
