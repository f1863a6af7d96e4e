//! What is counted of the object store, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use durable_streams_engine::counters::RelaxedCounter;
use durable_streams_engine::store::file::segments::cold::ColdError;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::upload_backlog::UploadBacklog;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct TierCounters {
    /// Requests to the object store, in the order of [`TierOperation::ALL`].
    requests: [OutcomeCounters; TierOperation::ALL.len()],
    /// Bytes of objects that arrived, those that uploads read back among them.
    pub received_bytes: RelaxedCounter,
    /// Objects that were created and verified.
    pub uploads: RelaxedCounter,
    /// Their bytes.
    pub uploaded_bytes: RelaxedCounter,
    /// Uploads that failed after all attempts.
    pub upload_failures: RelaxedCounter,
    /// What waits for its upload.
    pub backlog: UploadBacklog,
    /// Objects that were deleted.
    pub deletes: RelaxedCounter,
    /// Copies of the index that became whole.
    pub index_copies: RelaxedCounter,
    /// Bytes of such copies, and of interrupted ones.
    pub index_copy_bytes: RelaxedCounter,
    /// Copies of the index that failed.
    pub index_copy_failures: RelaxedCounter,
    /// How long ago the last copy of the index was begun.
    pub index_age: IndexAge,
    /// Objects that are known to be of no use and wait for their deletion.
    waiting_deletes: AtomicU64,
    /// Reads of segments that are objects, each of a range; those that are answered from memory among them.
    pub reads: OutcomeCounters,
    /// Blocks that were found in the cache.
    pub cache_hits: RelaxedCounter,
    /// Blocks that were not.
    pub cache_misses: RelaxedCounter,
    /// Whether another server has taken the prefix over.
    pub superseded: RelaxedCounter,
    /// Blocks that did not match their checksum.
    pub damaged_blocks: RelaxedCounter,
}

/// How long ago the last copy of the index was begun, or last nothing had happened since it was.
#[derive(Debug)]
pub struct IndexAge(Mutex<Instant>);

impl Default for IndexAge {
    /// Since now: the time before the start is not known.
    fn default() -> Self {
        IndexAge(Mutex::new(Instant::now()))
    }
}

impl IndexAge {
    pub(super) fn note(&self, begun: Instant) {
        *self.0.lock() = begun;
    }

    /// Since the last one, or the start of the server.
    pub fn get(&self) -> Duration {
        self.0.lock().elapsed()
    }
}

/// A kind of request to the object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierOperation {
    /// A range of an object, or a small one.
    Get,
    /// The size of an object.
    Head,
    /// A new object.
    Put,
    /// A page of names.
    List,
    /// The end of an object.
    Delete,
}

impl TierOperation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Get, Self::Head, Self::Put, Self::List, Self::Delete];

    /// Its name, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put => "put",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

impl TierCounters {
    /// A request begins; it counts as abandoned unless its guard notes another result.
    pub(super) fn request(&self, operation: TierOperation) -> OutcomeGuard<'_> {
        self.requests[operation as usize].begin()
    }

    /// Requests of a kind.
    pub fn requests(&self, operation: TierOperation) -> &OutcomeCounters {
        &self.requests[operation as usize]
    }

    pub(super) fn note_waiting_deletes(&self, objects: usize) {
        self.waiting_deletes.store(objects as u64, Ordering::Relaxed);
    }

    /// Objects that wait for their deletion.
    pub fn waiting_deletes(&self) -> u64 {
        self.waiting_deletes.load(Ordering::Relaxed)
    }
}

/// How something ended: an index into [`OUTCOMES`].
#[derive(Clone, Copy)]
enum TierOutcome {
    Ok,
    Missing,
    Unavailable,
    Refused,
    Damaged,
    Abandoned,
}

/// The names of outcomes, as metrics have them.
const OUTCOMES: [&str; 6] = ["ok", "missing", "unavailable", "refused", "damaged", "abandoned"];

/// How many began, and how they ended.
#[derive(Debug, Default)]
pub struct OutcomeCounters {
    begun: RelaxedCounter,
    ended: [RelaxedCounter; OUTCOMES.len()],
}

impl OutcomeCounters {
    pub(super) fn begin(&self) -> OutcomeGuard<'_> {
        self.begun.add(1);
        OutcomeGuard { counters: self, outcome: TierOutcome::Abandoned }
    }

    /// How many ended in which way: `ok`, or why not. `abandoned` ones had no answer in time, or were no longer waited for.
    pub fn by_outcome(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.into_iter().zip(self.ended.iter().map(RelaxedCounter::get))
    }

    /// How many go on.
    pub fn open(&self) -> u64 {
        // Ended ones are summed first, so that one that begins and ends meanwhile does not make the number negative.
        let ended: u64 = self.ended.iter().map(RelaxedCounter::get).sum();
        self.begun.get().saturating_sub(ended)
    }
}

/// One that has begun.
pub(super) struct OutcomeGuard<'c> {
    counters: &'c OutcomeCounters,
    outcome: TierOutcome,
}

impl OutcomeGuard<'_> {
    /// It ended so.
    pub(super) fn end<T>(mut self, result: &Result<T, ColdError>) {
        self.outcome = match result {
            Ok(_) => TierOutcome::Ok,
            Err(ColdError::NotFound) => TierOutcome::Missing,
            Err(ColdError::Refused(_)) => TierOutcome::Refused,
            Err(ColdError::Damaged(_)) => TierOutcome::Damaged,
            Err(_) => TierOutcome::Unavailable,
        };
    }
}

impl Drop for OutcomeGuard<'_> {
    fn drop(&mut self) {
        self.counters.ended[self.outcome as usize].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::failure::unavailable;

    #[test]
    fn each_request_counts_once_under_how_it_ended() {
        let counters = TierCounters::default();
        let gets = counters.requests(TierOperation::Get);
        let open = counters.request(TierOperation::Get);
        for result in [
            Ok(()),
            Ok(()),
            Err(ColdError::NotFound),
            Err(unavailable("503")),
            Err(ColdError::Refused("403".into())),
            Err(ColdError::Damaged("short".into())),
        ] {
            counters.request(TierOperation::Get).end(&result);
        }
        assert_eq!(gets.open(), 1);
        drop(open);
        let ended: Vec<_> = gets.by_outcome().map(|(_, count)| count).collect();
        assert_eq!((ended, gets.open()), (vec![2, 1, 1, 1, 1, 1], 0));
        assert_eq!(
            counters.requests(TierOperation::Put).by_outcome().map(|one| one.1).sum::<u64>(),
            0
        );
    }
}
