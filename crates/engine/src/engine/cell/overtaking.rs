//! Requests of producers that were judged before their predecessor arrived (§5.2.1, "Concurrency Requirements").

use durable_streams_protocol::{Producer, ProducerId};
use tokio::sync::oneshot;

/// Requests of one stream that wait for a predecessor at a time; one more is a gap at once. A waiting request costs
/// about 100 bytes here.
const MOST_WAITING: usize = 256;

/// Wakes one request once its predecessor is committed.
#[derive(Debug)]
struct OvertakingRequest {
    id: ProducerId,
    epoch: u64,
    seq: u64,
    wake: oneshot::Sender<()>,
}

/// The requests of one stream that wait for their predecessor. Most streams never have one, so nothing is allocated
/// before the first.
#[expect(clippy::box_collection, reason = "8 bytes in every cell in memory, in place of 24")]
#[derive(Debug, Default)]
pub(super) struct OvertakingRequests(Option<Box<Vec<OvertakingRequest>>>);

impl OvertakingRequests {
    /// Registers `producer`'s request. The receiver resolves when the predecessor is committed, or when the stream is
    /// loaded again. `None` when too many requests wait already.
    pub(super) fn register(&mut self, producer: &Producer) -> Option<oneshot::Receiver<()>> {
        self.forget_cancelled();
        let waiting = self.0.get_or_insert_default();
        if waiting.len() >= MOST_WAITING {
            return None;
        }
        let (wake, woken) = oneshot::channel();
        let Producer { id, epoch, seq } = producer.clone();
        waiting.push(OvertakingRequest { id, epoch, seq, wake });
        Some(woken)
    }

    /// Wakes the requests that wait for `committed`.
    pub(super) fn wake_successor(&mut self, committed: &Producer) {
        let Some(waiting) = &mut self.0 else { return };
        let next = (committed.epoch, committed.seq + 1);
        let is_next = |request: &mut OvertakingRequest| {
            (request.epoch, request.seq) == next && request.id == committed.id
        };
        for request in waiting.extract_if(.., is_next) {
            // The request may have been cancelled.
            let _ = request.wake.send(());
        }
        if waiting.is_empty() {
            self.0 = None;
        }
    }

    /// Drops requests that are cancelled or no longer wait.
    pub(super) fn forget_cancelled(&mut self) {
        let Some(waiting) = &mut self.0 else { return };
        waiting.retain(|request| !request.wake.is_closed());
        if waiting.is_empty() {
            self.0 = None;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(id: &str, epoch: u64, seq: u64) -> Producer {
        Producer { id: ProducerId::new(id).unwrap(), epoch, seq }
    }

    #[test]
    fn a_commit_wakes_its_successor_only() {
        let mut requests = OvertakingRequests::default();
        let mut wait = |id, epoch, seq| requests.register(&producer(id, epoch, seq)).unwrap();
        let mut waiting = [wait("a", 0, 2), wait("a", 0, 3), wait("a", 1, 2), wait("b", 0, 2)];
        requests.wake_successor(&producer("a", 0, 1));
        assert_eq!(waiting[0].try_recv(), Ok(()));
        for other in &mut waiting[1..] {
            assert_eq!(other.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        }
        assert_eq!(requests.len(), 3);
    }

    #[test]
    fn waiting_requests_are_bounded_and_leave_nothing_behind() {
        let mut requests = OvertakingRequests::default();
        let waiting: Vec<_> =
            (0..MOST_WAITING as u64).map(|seq| requests.register(&producer("a", 0, seq))).collect();
        assert!(waiting.iter().all(Option::is_some));
        assert!(requests.register(&producer("a", 0, 7)).is_none(), "one too many");
        drop(waiting);
        assert!(requests.register(&producer("a", 0, 7)).is_some(), "the others have gone");
        requests.forget_cancelled();
        assert!(requests.0.is_none());
    }
}
