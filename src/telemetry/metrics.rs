//! Every metric: its name, its labels, its meaning; and the counters that requests add to.
//!
//! [`ALL`] is the only list of names. The dashboard and the alert rules in `deploy/` are tested against it,
//! and so is what `/metrics` answers. Rows and columns of the counters are enums: no label is looked up or
//! built for a request, only for a scrape.
//!
//! One file because a name, its labels and its counter are one row of one table.

use std::array;

use http::{Method, StatusCode};

use super::counters::{Count, Durations, Sharded};

/// One metric as Prometheus knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As scraped. Histograms get `_bucket`, `_sum` and `_count` behind it.
    pub name: &'static str,
    /// What it counts, with its unit.
    pub help: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its labels, in the order of their values.
    pub labels: &'static [&'static str],
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values between bounds.
    Histogram,
}

macro_rules! metrics {
    ($( $id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal; )*) => {
        $(
            #[doc = $help]
            pub const $id: Metric =
                Metric { name: $name, help: $help, kind: Kind::$kind, labels: &[$($label),*] };
        )*
        /// All of them.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    BUILD_INFO: Gauge "durable_streams_build_info" ["version", "commit", "target", "store_format"]
        "Always 1; the labels say what runs.";
    READY: Gauge "durable_streams_ready" []
        "1 while the store accepts writes and no stop has begun, as /readyz.";

    REQUESTS: Counter "durable_streams_requests_total" ["method", "mode", "status"]
        "Stream requests that ended; a live read counts when it ends. Status 0: the client left first.";
    APPEND_DURATION: Histogram "durable_streams_append_duration_seconds" []
        "From the received body of an append to its durable commit.";
    READ_DURATION: Histogram "durable_streams_read_duration_seconds" []
        "Catch-up reads: from the request to the response that is ready to be sent.";
    REQUEST_BYTES: Counter "durable_streams_request_body_bytes_total" ["route"]
        "Body bytes received.";
    RESPONSE_BYTES: Counter "durable_streams_response_body_bytes_total" ["route"]
        "Body bytes sent.";
    REFUSED: Counter "durable_streams_unrouted_requests_total" ["status"]
        "Requests answered before they reached a stream or an upstream.";

    LIVE_READERS: Gauge "durable_streams_live_readers" ["mode"]
        "Live readers at this moment.";
    SSE_EVENTS: Counter "durable_streams_sse_events_total" ["event"]
        "SSE events sent.";
    SSE_BYTES: Counter "durable_streams_sse_bytes_total" []
        "Bytes of SSE events sent, framing included.";

    STREAMS: Gauge "durable_streams_streams" []
        "Streams in the store, soft-deleted ones included.";
    STORED_BYTES: Gauge "durable_streams_stored_bytes" []
        "Payload bytes of all streams.";
    CELLS: Gauge "durable_streams_open_streams" []
        "Streams held in memory because they are or were just in use.";
    EVICTED: Counter "durable_streams_evicted_streams_total" []
        "Streams that left memory because nobody used them.";
    EXPIRED: Counter "durable_streams_expired_streams_total" []
        "Streams removed because their time was up.";
    INFLIGHT: Gauge "durable_streams_inflight_append_bytes" []
        "Bytes of request bodies being received or made durable.";

    BATCH_EVENTS: Histogram "durable_streams_commit_batch_events" []
        "Events made durable by one write to the log.";
    SYNC_DURATION: Histogram "durable_streams_log_sync_duration_seconds" []
        "Duration of one sync of the log.";
    LOG_WRITTEN: Counter "durable_streams_log_written_bytes_total" []
        "Bytes written to the log.";
    LOG_BYTES: Gauge "durable_streams_log_bytes" []
        "Disk space of the log, its preallocated part included.";
    DATABASE_BYTES: Gauge "durable_streams_database_bytes" []
        "Size of the index on disk.";
    CHECKPOINTS: Counter "durable_streams_checkpoints_total" ["result"]
        "Checkpoints of the log into the index, by how they ended.";
    CHECKPOINT_SECONDS: Counter "durable_streams_checkpoint_seconds_total" []
        "Time spent in checkpoints.";
    CHECKPOINT_LAG: Gauge "durable_streams_checkpoint_lag_events" []
        "Events that no checkpoint covers yet; a restart replays them.";
    CHECKPOINT_PENDING: Gauge "durable_streams_checkpoint_pending_bytes" []
        "Memory held by those events, roughly; appends wait at four times storage.checkpoint_size.";

    CONNECTIONS: Gauge "durable_streams_connections" []
        "Client connections at this moment.";
    CONNECTIONS_ACCEPTED: Counter "durable_streams_connections_accepted_total" []
        "Client connections accepted.";
    CONNECTIONS_REFUSED: Counter "durable_streams_connections_refused_total" []
        "Client connections refused because there were too many.";

    UPSTREAM_REQUESTS: Counter "durable_streams_upstream_requests_total" ["upstream", "status"]
        "Proxied requests that ended. Status 0: the client left first.";
    UPSTREAM_HEALTHY: Gauge "durable_streams_upstream_healthy" ["upstream", "server"]
        "1 while the server gets requests, 0 while its health checks fail.";

    CONFIG_RELOADS: Counter "durable_streams_config_reloads_total" ["result"]
        "Reloads of the configuration asked for, by how they ended.";

    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "User and system CPU time of the process (Linux).";
    PROCESS_RESIDENT: Gauge "process_resident_memory_bytes" []
        "Resident memory of the process (Linux).";
    PROCESS_FDS: Gauge "process_open_fds" []
        "Open file descriptors of the process (Linux).";
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "Most file descriptors the process may open (Linux).";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "When the process started, seconds since 1970.";
}

/// What a stream request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `PUT`.
    Create,
    /// `POST`.
    Append,
    /// `GET` of what is there.
    CatchUp,
    /// `GET` that waits for one answer.
    LongPoll,
    /// `GET` that stays.
    Sse,
    /// `HEAD`.
    Head,
    /// `DELETE`.
    Delete,
    /// `OPTIONS`.
    Preflight,
    /// Subscriptions, under the reserved segment; counted by method.
    Control,
    /// Could not be understood; counted by method.
    Invalid,
}

/// Every mode that has one method, with its label.
const MODES: [(Mode, &str, &str); 8] = [
    (Mode::Create, "create", "PUT"),
    (Mode::Append, "append", "POST"),
    (Mode::CatchUp, "catch_up", "GET"),
    (Mode::LongPoll, "long_poll", "GET"),
    (Mode::Sse, "sse", "GET"),
    (Mode::Head, "head", "HEAD"),
    (Mode::Delete, "delete", "DELETE"),
    (Mode::Preflight, "preflight", "OPTIONS"),
];

/// Modes that come with any method.
const ANY_METHOD: [(Mode, &str); 2] = [(Mode::Control, "control"), (Mode::Invalid, "invalid")];

/// Methods by which those are told apart.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "other"];

const ROWS: usize = MODES.len() + ANY_METHOD.len() * METHODS.len();

/// Statuses with a column of their own, and one for the rest of each class. 0 is "no answer".
const STATUSES: [u16; 32] = [
    0, 101, 200, 201, 202, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409,
    410, 412, 413, 414, 415, 422, 429, 431, 500, 502, 503, 504, 507,
];

/// Labels of the columns behind [`STATUSES`].
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const COLUMNS: usize = STATUSES.len() + CLASSES.len();

/// Requests by status.
pub struct ByStatus([Count; COLUMNS]);

impl Default for ByStatus {
    fn default() -> Self {
        ByStatus(array::from_fn(|_| Count::default()))
    }
}

impl ByStatus {
    /// Counts a request that was answered with `status`, or not at all.
    pub fn add(&self, status: Option<StatusCode>) {
        let code = status.map_or(0, |status| status.as_u16());
        let column = match STATUSES.binary_search(&code) {
            Ok(column) => column,
            Err(_) => STATUSES.len() + usize::from(code / 100).clamp(1, CLASSES.len()) - 1,
        };
        if let Some(count) = self.0.get(column) {
            count.add(1);
        }
    }
}

/// Adds up what was counted in several places: status and number, without the zeros. Server errors are
/// always there, so that the first one is seen as an increase.
pub fn by_status<'a>(places: impl Iterator<Item = &'a ByStatus>) -> Vec<(String, u64)> {
    let mut sums = [0_u64; COLUMNS];
    for place in places {
        for (sum, count) in sums.iter_mut().zip(&place.0) {
            *sum += count.get();
        }
    }
    let names = STATUSES.iter().map(u16::to_string).chain(CLASSES.map(str::to_owned));
    let always = |name: &str| matches!(name, "500" | "502" | "503" | "504" | "507");
    names.zip(sums).filter(|(name, sum)| *sum > 0 || always(name)).collect()
}

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

struct Counters {
    requests: [ByStatus; ROWS],
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

impl Default for Counters {
    fn default() -> Self {
        Counters {
            requests: array::from_fn(|_| ByStatus::default()),
            unrouted: ByStatus::default(),
            append: Durations::default(),
            read: Durations::default(),
            bytes_in: <[Count; 2]>::default(),
            bytes_out: <[Count; 2]>::default(),
            live: <[(Count, Count); 2]>::default(),
            sse_events: <[Count; 3]>::default(),
            sse_bytes: Count::default(),
            connections: <(Count, Count)>::default(),
            connections_refused: Count::default(),
        }
    }
}

/// Something that is counted while it lives.
pub struct Open<'m> {
    metrics: &'m Metrics,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Live(usize),
    Connection,
}

impl What {
    fn pair(self, counters: &Counters) -> Option<&(Count, Count)> {
        match self {
            What::Live(kind) => counters.live.get(kind),
            What::Connection => Some(&counters.connections),
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some((_, left)) = self.what.pair(self.metrics.shards.mine()) {
            left.add(1);
        }
    }
}

impl Metrics {
    /// A stream request ended.
    pub fn request(&self, mode: Mode, method: &Method, status: Option<StatusCode>) {
        let row = MODES.iter().position(|(known, ..)| *known == mode).unwrap_or_else(|| {
            let group = ANY_METHOD.iter().position(|(known, _)| *known == mode).unwrap_or(0);
            let method = METHODS.iter().position(|name| *name == method.as_str());
            MODES.len() + group * METHODS.len() + method.unwrap_or(METHODS.len() - 1)
        });
        if let Some(row) = self.shards.mine().requests.get(row) {
            row.add(status);
        }
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

    fn open(&self, what: What) -> Open<'_> {
        if let Some((came, _)) = what.pair(self.shards.mine()) {
            came.add(1);
        }
        Open { metrics: self, what }
    }

    /// Everything, to be scraped.
    pub fn write(&self, out: &mut super::Exposition) {
        let shards = &self.shards;
        for row in 0..ROWS {
            let (mode, method) = match MODES.get(row) {
                Some((_, mode, method)) => (*mode, *method),
                None => {
                    let at = row - MODES.len();
                    let mode =
                        ANY_METHOD.get(at / METHODS.len()).map_or("other", |(_, name)| *name);
                    (mode, METHODS.get(at % METHODS.len()).copied().unwrap_or("other"))
                }
            };
            let counted = by_status(shards.all().filter_map(|shard| shard.requests.get(row)));
            for (status, count) in counted {
                out.number(REQUESTS, &[method, mode, &status], count as f64);
            }
        }
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

    fn now_open(&self, what: What) -> u64 {
        // Those that left first: whoever came and left meanwhile is not counted as below zero.
        let left: u64 = self.shards.all().filter_map(|s| what.pair(s)).map(|p| p.1.get()).sum();
        let came: u64 = self.shards.all().filter_map(|s| what.pair(s)).map(|p| p.0.get()).sum();
        came.saturating_sub(left)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut seen = HashSet::new();
        for metric in ALL {
            let Metric { name, help, kind, .. } = metric;
            assert!(seen.insert(name), "{name} is there twice");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(help.ends_with('.') || help.ends_with("1970."), "{name}: {help}");
        }
    }

    #[test]
    fn every_mode_has_its_row_and_every_status_its_column() {
        assert!(STATUSES.is_sorted());
        let metrics = Metrics::default();
        metrics.request(Mode::Append, &Method::POST, Some(StatusCode::NO_CONTENT));
        metrics.request(Mode::Invalid, &Method::POST, Some(StatusCode::BAD_REQUEST));
        metrics.request(Mode::Invalid, &Method::PATCH, Some(StatusCode::IM_A_TEAPOT));
        metrics.request(Mode::Sse, &Method::GET, None);
        let mut out = super::super::Exposition::default();
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

    #[test]
    fn what_is_open_is_counted_while_it_lives() {
        let metrics = Metrics::default();
        let open = (metrics.sse(), metrics.sse(), metrics.long_poll(), metrics.connection());
        assert_eq!(metrics.now_open(What::Live(1)), 2);
        drop(open.0);
        assert_eq!(metrics.now_open(What::Live(1)), 1);
        assert_eq!(metrics.now_open(What::Live(0)), 1);
        drop(open.3);
        assert_eq!(metrics.now_open(What::Connection), 0);
    }
}
