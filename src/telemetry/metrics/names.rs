//! Every metric: its name, its labels, its meaning.
//!
//! [`ALL`] is the only list of names. The dashboard and the alert rules in `deploy/` are tested against it, and
//! so is what `/metrics` answers.

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
    TLS_HANDSHAKES: Counter "durable_streams_tls_handshakes_total" ["result"] "TLS handshakes with clients, by how they ended: ok, or why not.";
    TLS_EXPIRY: Gauge "durable_streams_tls_certificate_expiry_timestamp_seconds" ["name"] "When a certificate in use runs out, by the first name that it covers.";
    TLS_ORDER_FAILURES: Gauge "durable_streams_tls_order_failures" ["host"] "Attempts in a row to order a certificate that failed.";
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
    QUOTA_USED: Gauge "durable_streams_quota_used" ["scope", "what"]
        "What a tenant or path prefix holds that the configuration names with a quota: streams or bytes.";
    QUOTA_LIMIT: Gauge "durable_streams_quota_limit" ["scope", "what"]
        "What it may hold.";
    CELLS: Gauge "durable_streams_open_streams" []
        "Streams held in memory because they are or were just in use.";
    EVICTED: Counter "durable_streams_evicted_streams_total" []
        "Streams that left memory because nobody used them.";
    EXPIRED: Counter "durable_streams_expired_streams_total" []
        "Streams removed because their time was up.";
    TRIMMED_BYTES: Counter "durable_streams_trimmed_bytes_total" []
        "Bytes that trims and retention have removed from streams.";
    TRIMMED_MESSAGES: Counter "durable_streams_trimmed_messages_total" []
        "Messages that trims and retention have removed, as far as they were counted.";
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
    DATABASE_FREE: Gauge "durable_streams_database_free_bytes" []
        "Part of the index on disk that holds nothing: checkpoints use it again, compact gives it back.";
    DISK_LIMIT: Gauge "durable_streams_disk_limit_bytes" []
        "What log and index may take on disk together (storage.max_disk); 0 when there is no limit.";
    INDEX_AVAILABLE: Gauge "durable_streams_database_available" []
        "1 while the index takes writes; 0 after it failed, until it could be opened again for writing.";
    INDEX_REOPENED: Counter "durable_streams_database_reopened_total" []
        "Times that the index was opened again after a failure.";
    SCRUBS: Counter "durable_streams_database_scrubs_total" []
        "Checks of the whole index in the background that have ended.";
    SCRUB_AGE: Gauge "durable_streams_database_scrub_age_seconds" []
        "Time since the last such check ended, or since the start.";
    SCRUB_BYTES: Gauge "durable_streams_database_scrub_read_bytes" []
        "What the present such check, or the last one, has read.";
    SCRUB_DAMAGED: Gauge "durable_streams_database_damaged" []
        "Damaged records and pages of the index that the last such check found; the log has a line for each.";
    SEGMENTS: Gauge "durable_streams_segments" ["place"]
        "Sealed segments, by place: local, both (on the disk and an object), object.";
    SEGMENT_BYTES: Gauge "durable_streams_segment_bytes" ["place"]
        "Sizes of their files.";
    SEGMENT_LIVE: Gauge "durable_streams_segment_live_bytes" ["place"]
        "Bytes in them that streams still have.";
    SEALED_BYTES: Counter "durable_streams_sealed_bytes_total" []
        "Bytes written to sealed segments.";
    SEAL_FAILURES: Counter "durable_streams_seal_failures_total" []
        "Failed attempts to seal: the bytes stay in the index.";
    FILE_PARTS: Counter "durable_streams_segment_sent_bytes_total" []
        "Bytes of sealed segments that the kernel sent to clients without a copy in this process.";
    TIER_REQUESTS: Counter "durable_streams_tier_requests_total" ["operation", "result"]
        "Requests to the object store, each attempt, by kind and how it ended; abandoned: no answer in time.";
    TIER_RECEIVED: Counter "durable_streams_tier_received_bytes_total" []
        "Bytes of objects that arrived, those that uploads read back among them.";
    TIER_UPLOADS: Counter "durable_streams_tier_uploads_total" ["result"]
        "Uploads by how they ended: ok once the object was read back, failed after all attempts.";
    TIER_UPLOADED: Counter "durable_streams_tier_uploaded_bytes_total" []
        "Bytes of objects that were uploaded and read back.";
    TIER_DELETED: Counter "durable_streams_tier_deleted_objects_total" []
        "Objects that were deleted.";
    TIER_WAITING: Gauge "durable_streams_tier_waiting_segments" []
        "Segments that are old enough for the object store and have no verified object yet.";
    TIER_WAITING_BYTES: Gauge "durable_streams_tier_waiting_bytes" []
        "Sizes of their files.";
    TIER_WAITING_SECONDS: Gauge "durable_streams_tier_waiting_seconds" []
        "For how long the first of them has been due; 0 when none waits.";
    TIER_WAITING_DELETES: Gauge "durable_streams_tier_waiting_deletes" []
        "Objects that no stream needs and that are to be deleted.";
    TIER_READS: Counter "durable_streams_tier_reads_total" ["result"]
        "Reads of segments that are objects, by how they ended; unavailable and refused ones are answered 503.";
    TIER_OPEN_READS: Gauge "durable_streams_tier_open_reads" []
        "Such reads at this moment.";
    TIER_CACHE_BLOCKS: Counter "durable_streams_tier_cache_blocks_total" ["result"]
        "Blocks of objects that reads needed, by whether they were in memory: hit or miss.";
    TIER_CACHE_BYTES: Gauge "durable_streams_tier_cache_bytes" []
        "Memory of the blocks that are kept.";
    TIER_DAMAGED: Counter "durable_streams_tier_damaged_blocks_total" []
        "Blocks that arrived and did not match their checksum; they are read again, and never served.";
    TIER_INDEX_COPIES: Counter "durable_streams_tier_index_copies_total" ["result"]
        "Copies of the index into the object store by how they ended: ok once the manifest is there, failed.";
    TIER_INDEX_BYTES: Counter "durable_streams_tier_index_copy_bytes_total" []
        "Bytes of such copies that were uploaded and read back.";
    TIER_INDEX_AGE: Gauge "durable_streams_tier_index_copy_age_seconds" []
        "What a restore would lack: how long ago the last copy was begun, or nothing new was found; or the start, without one.";
    TIER_INDEX_INTERVAL: Gauge "durable_streams_tier_index_interval_seconds" []
        "The pause between two copies, as configured; 0 for no copies.";
    TIER_CLAIM: Gauge "durable_streams_tier_claim_held" []
        "1 while the prefix is this server's; 0 once another one has taken it over.";
    KEPT_STREAMS: Gauge "durable_streams_deleted_streams_kept" []
        "Streams that were deleted and are kept because forks need their bytes.";
    KEPT_BYTES: Gauge "durable_streams_deleted_bytes_kept" []
        "Payload bytes of those streams.";
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

    LOG_LINES_DROPPED: Counter "durable_streams_log_lines_dropped_total" []
        "Log lines dropped because standard error was not read fast enough.";

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
            assert!(help.ends_with('.'), "{name}: {help}");
        }
    }
}
