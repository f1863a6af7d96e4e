//! What `/metrics` says of object storage.

use super::AdminEndpoints;
use crate::telemetry::{Exposition, metrics};
use crate::tier::TierOperation;

impl AdminEndpoints {
    pub(super) fn tier_metrics(&self, out: &mut Exposition) {
        let Some(tier) = &self.tier else { return };
        let counters = tier.counters();
        for operation in TierOperation::ALL {
            for (result, count) in counters.requests(operation).by_outcome() {
                out.number(metrics::TIER_REQUESTS, &[operation.name(), result], count as f64);
            }
        }
        for (result, count) in counters.reads.by_outcome() {
            out.number(metrics::TIER_READS, &[result], count as f64);
        }
        let backlog = counters.backlog.totals();
        for (metric, labels, value) in [
            (metrics::TIER_RECEIVED, &[][..], counters.received_bytes.get()),
            (metrics::TIER_UPLOADS, &["ok"], counters.uploads.get()),
            (metrics::TIER_UPLOADS, &["failed"], counters.upload_failures.get()),
            (metrics::TIER_UPLOADED, &[], counters.uploaded_bytes.get()),
            (metrics::TIER_DELETED, &[], counters.deletes.get()),
            (metrics::TIER_WAITING, &[], backlog.segments),
            (metrics::TIER_WAITING_BYTES, &[], backlog.bytes),
            (metrics::TIER_WAITING_DELETES, &[], counters.waiting_deletes()),
            (metrics::TIER_OPEN_READS, &[], counters.reads.open()),
            (metrics::TIER_CACHE_BLOCKS, &["hit"], counters.cache_hits.get()),
            (metrics::TIER_CACHE_BLOCKS, &["miss"], counters.cache_misses.get()),
            (metrics::TIER_CACHE_BYTES, &[], tier.cold_store().cached_bytes() as u64),
            (metrics::TIER_DAMAGED, &[], counters.damaged_blocks.get()),
            (metrics::TIER_INDEX_COPIES, &["ok"], counters.index_copies.get()),
            (metrics::TIER_INDEX_COPIES, &["failed"], counters.index_copy_failures.get()),
            (metrics::TIER_INDEX_BYTES, &[], counters.index_copy_bytes.get()),
            (metrics::TIER_CLAIM, &[], u64::from(counters.superseded.get() == 0)),
        ] {
            out.number(metric, labels, value as f64);
        }
        out.number(metrics::TIER_WAITING_SECONDS, &[], backlog.oldest.as_secs_f64());
        out.number(metrics::TIER_INDEX_AGE, &[], counters.index_age.get().as_secs_f64());
        let interval = tier.options().index_interval;
        out.number(metrics::TIER_INDEX_INTERVAL, &[], interval.as_secs_f64());
    }
}
