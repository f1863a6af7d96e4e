//! What waits for its upload, so that an operator sees that uploads are behind before the disk is full.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Segments that are due to be uploaded and have no verified object yet. Some tens of bytes of memory for each.
#[derive(Debug, Default)]
pub struct UploadBacklog {
    noted: Mutex<Option<NotedBacklog>>,
}

#[derive(Debug)]
struct NotedBacklog {
    at: Instant,
    waiting: BTreeMap<u64, WaitingSegment>,
}

/// A segment that is due to be uploaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingSegment {
    pub(super) number: u64,
    /// Size of its file.
    pub(super) bytes: u64,
    /// For how long it has been due.
    pub(super) waited: Duration,
}

/// What waits, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BacklogTotals {
    /// Segments that wait.
    pub segments: u64,
    /// Sizes of their files, bytes.
    pub bytes: u64,
    /// For how long the first of them has been due.
    pub oldest: Duration,
}

impl UploadBacklog {
    /// Replaces what is known by what is due now.
    pub(super) fn note(&self, due: &[WaitingSegment]) {
        let waiting = due.iter().map(|one| (one.number, *one)).collect();
        *self.noted.lock() = Some(NotedBacklog { at: Instant::now(), waiting });
    }

    /// A segment has its object, or needs none any more.
    pub(super) fn done(&self, number: u64) {
        if let Some(noted) = &mut *self.noted.lock() {
            noted.waiting.remove(&number);
        }
    }

    /// What waits now.
    pub fn totals(&self) -> BacklogTotals {
        let noted = self.noted.lock();
        let Some(noted) = &*noted else { return BacklogTotals::default() };
        let oldest = noted.waiting.values().map(|one| one.waited).max();
        BacklogTotals {
            segments: noted.waiting.len() as u64,
            bytes: noted.waiting.values().map(|one| one.bytes).sum(),
            oldest: oldest.map_or(Duration::ZERO, |waited| waited + noted.at.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_grows_older_until_it_is_uploaded() {
        let backlog = UploadBacklog::default();
        assert_eq!(backlog.totals(), BacklogTotals::default());
        let waiting = |number, seconds| WaitingSegment {
            number,
            bytes: 10 * number,
            waited: Duration::from_secs(seconds),
        };
        backlog.note(&[waiting(3, 50), waiting(4, 20)]);
        tokio::time::advance(Duration::from_secs(100)).await;
        let totals = backlog.totals();
        assert_eq!((totals.segments, totals.bytes, totals.oldest.as_secs()), (2, 70, 150));
        backlog.done(3);
        let totals = backlog.totals();
        assert_eq!((totals.segments, totals.bytes, totals.oldest.as_secs()), (1, 40, 120));
        backlog.done(4);
        assert_eq!(backlog.totals(), BacklogTotals::default());
    }
}
