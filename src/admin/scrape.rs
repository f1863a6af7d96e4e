//! What `/metrics` says.

use durable_streams_engine::{
    ScopeUsage,
    store::{Store, file::segments::objects::SegmentPlace},
};

use super::AdminEndpoints;
use crate::telemetry::{Exposition, build, metrics, process};

impl AdminEndpoints {
    fn tls_metrics(&self, out: &mut Exposition) {
        let Some(tls) = &self.tls else { return };
        let (completed, failed) = tls.handshake_counts();
        out.number(metrics::TLS_HANDSHAKES, &["ok"], completed as f64);
        for (reason, count) in failed {
            out.number(metrics::TLS_HANDSHAKES, &[reason], count as f64);
        }
        for certificate in tls.certificates() {
            let expiry = certificate.not_after.millis() as f64 / 1000.0;
            // One series per certificate; a certificate has a hundred names at most, and the first tells which it is.
            let name = certificate.names.first().map(String::as_str).unwrap_or_default();
            out.number(metrics::TLS_EXPIRY, &[name], expiry);
        }
        for host in tls.ordered() {
            out.number(metrics::TLS_ORDER_FAILURES, &[&host.host], host.failures.into());
        }
    }

    pub(super) fn metrics(&self) -> String {
        let mut out = Exposition::default();
        let built = [build::VERSION, build::COMMIT, build::TARGET, build::STORE_FORMAT];
        out.number(metrics::BUILD_INFO, &built, 1.0);
        out.number(metrics::READY, &[], f64::from(u8::from(self.not_ready().is_none())));
        self.edge.write(&mut out);
        self.engine_metrics(&mut out);
        self.tls_metrics(&mut out);
        self.tier_metrics(&mut out);
        process::write(&mut out);
        out.text()
    }

    fn engine_metrics(&self, out: &mut Exposition) {
        let stats = self.engine.stats();
        for (metric, value) in [
            (metrics::STREAMS, stats.store.streams),
            (metrics::STORED_BYTES, stats.store.bytes),
            (metrics::CELLS, stats.cells as u64),
            (metrics::INFLIGHT, stats.inflight_append_bytes as u64),
            (metrics::EVICTED, stats.evicted),
            (metrics::EXPIRED, stats.expired),
            (metrics::TRIMMED_BYTES, stats.trimmed_bytes),
            (metrics::TRIMMED_MESSAGES, stats.trimmed_messages),
        ] {
            out.number(metric, &[], value as f64);
        }
        for ScopeUsage { name, streams, bytes, quota } in self.engine.scope_usage() {
            for (what, used, limit) in
                [("streams", streams, quota.streams), ("bytes", bytes, quota.bytes)]
            {
                out.number(metrics::QUOTA_USED, &[&name, what], used as f64);
                if let Some(limit) = limit {
                    out.number(metrics::QUOTA_LIMIT, &[&name, what], limit as f64);
                }
            }
        }
        let Some(disk) = self.engine.store().disk_stats() else { return };
        out.sizes(metrics::BATCH_EVENTS, &disk.batches);
        out.durations(metrics::SYNC_DURATION, &disk.syncs);
        let files = &disk.files;
        for (metric, labels, value) in [
            (metrics::LOG_WRITTEN, &[][..], files.wal_written_bytes),
            (metrics::LOG_BYTES, &[], files.wal_reserved_bytes),
            (metrics::DATABASE_BYTES, &[], files.index_bytes),
            (metrics::DATABASE_FREE, &[], files.index_free_bytes),
            (metrics::DISK_LIMIT, &[], files.disk_limit_bytes),
            (metrics::INDEX_AVAILABLE, &[], u64::from(files.index_available)),
            (metrics::INDEX_REOPENED, &[], files.index_reopenings),
            (metrics::SCRUBS, &[], files.scrubs),
            (metrics::SCRUB_AGE, &[], files.scrub_age.as_secs()),
            (metrics::SCRUB_BYTES, &[], files.scrub_bytes),
            (metrics::SCRUB_DAMAGED, &[], files.scrub_damaged),
            (metrics::SEALED_BYTES, &[], files.sealed_bytes),
            (metrics::SEAL_FAILURES, &[], files.seal_failures),
            (metrics::FILE_PARTS, &[], files.file_part_bytes),
            (metrics::KEPT_STREAMS, &[], files.kept_streams),
            (metrics::KEPT_BYTES, &[], files.kept_bytes),
            (metrics::CHECKPOINTS, &["ok"], files.checkpoints),
            (metrics::CHECKPOINTS, &["failed"], files.checkpoint_failures),
            (metrics::CHECKPOINT_LAG, &[], files.checkpoint_lag_events),
            (metrics::CHECKPOINT_PENDING, &[], files.pending_bytes),
        ] {
            out.number(metric, labels, value as f64);
        }
        out.number(metrics::CHECKPOINT_SECONDS, &[], files.checkpoint_time.as_secs_f64());
        for (place, totals) in SegmentPlace::ALL.iter().zip(&files.segments_by_place) {
            let place = [place.name()];
            out.number(metrics::SEGMENTS, &place, totals.files as f64);
            out.number(metrics::SEGMENT_BYTES, &place, totals.bytes as f64);
            out.number(metrics::SEGMENT_LIVE, &place, totals.live as f64);
        }
    }
}
