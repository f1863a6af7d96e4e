//! Where a batch ends up: set once, and seen by all tasks that wait for one of its messages.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use super::error::ProducerError;
use crate::position::StreamOffset;

/// The offset after the batch, or why it was not stored.
pub(super) type BatchOutcome = Result<StreamOffset, ProducerError>;

/// Makes an outcome known: [`ProducerError::Stopped`] when it is dropped before it was resolved.
#[derive(Debug, Default)]
pub(super) struct OutcomeSender(Arc<OutcomeCell>);

/// An outcome that may still be unknown.
#[derive(Clone, Debug)]
pub(super) struct PendingOutcome(Arc<OutcomeCell>);

#[derive(Debug, Default)]
struct OutcomeCell {
    outcome: OnceLock<BatchOutcome>,
    known: Notify,
}

impl OutcomeSender {
    pub(super) fn subscribe(&self) -> PendingOutcome {
        PendingOutcome(self.0.clone())
    }

    pub(super) fn resolve(self, outcome: BatchOutcome) {
        // It is empty: this is the only sender, and it ends here.
        let _ = self.0.outcome.set(outcome);
    }
}

impl Drop for OutcomeSender {
    fn drop(&mut self) {
        self.0.outcome.get_or_init(|| Err(ProducerError::Stopped));
        self.0.known.notify_waiters();
    }
}

impl PendingOutcome {
    pub(super) async fn wait(&self) -> BatchOutcome {
        // Made before the look, it misses no notification after it.
        let known = self.0.known.notified();
        if self.known().is_none() {
            known.await;
        }
        self.known().cloned().unwrap_or(Err(ProducerError::Stopped))
    }

    pub(super) fn known(&self) -> Option<&BatchOutcome> {
        self.0.outcome.get()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn everybody_who_waits_has_the_outcome() {
        let sender = OutcomeSender::default();
        let (early, late) = (sender.subscribe(), sender.subscribe());
        let mut waiting = Box::pin(early.wait());
        assert!(waiting.as_mut().now_or_never().is_none() && late.known().is_none());
        sender.resolve(Ok(StreamOffset::new("7").unwrap()));
        for outcome in [waiting.await, late.wait().await] {
            assert_eq!(outcome.unwrap().as_str(), "7");
        }
    }

    #[tokio::test]
    async fn what_is_never_resolved_is_stopped() {
        let sender = OutcomeSender::default();
        let outcome = sender.subscribe();
        let waiting = tokio::spawn(async move { outcome.wait().await });
        tokio::task::yield_now().await;
        drop(sender);
        assert!(matches!(waiting.await.unwrap(), Err(ProducerError::Stopped)));
    }
}
