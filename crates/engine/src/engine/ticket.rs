//! A verdict and the wait that belongs to it.
//!
//! The engine judges a command on the state decided so far, which may run ahead of what is durable. The
//! verdict may reach the client only once that state is durable: a duplicate answered early would
//! acknowledge bytes that a crash still loses, a conflict would report a stream that never was.

use durable_streams_protocol::Rejection;
use tokio::sync::oneshot;

use super::errors::rejection;
use crate::store::StoreError;

/// The store's end of a ticket.
pub(super) type TicketResolver = oneshot::Sender<Result<(), StoreError>>;

/// The wait until a decided event, and every event before it, is durable.
///
/// Dropping a ticket cancels nothing: the event becomes durable all the same.
#[must_use = "a verdict must not be sent before its ticket resolves"]
#[derive(Debug)]
pub struct Ticket(oneshot::Receiver<Result<(), StoreError>>);

/// A verdict, with the ticket it waits for. `ticket` is `None` when the state it was judged on is durable.
#[must_use = "a verdict must not be sent before its ticket resolves"]
#[derive(Debug)]
pub struct Judged<T> {
    /// What the engine decided; a refusal is judged on assigned state like an acceptance.
    pub verdict: Result<T, Rejection>,
    /// To be awaited before the verdict is sent.
    pub ticket: Option<Ticket>,
}

impl Ticket {
    /// A ticket, and the sender that resolves it.
    pub(super) fn new() -> (TicketResolver, Self) {
        let (resolver, resolved) = oneshot::channel();
        (resolver, Ticket(resolved))
    }

    /// Waits until the event is durable.
    ///
    /// # Errors
    /// The event is lost, and with it everything decided on top of it: [`Rejection::StorageFull`],
    /// [`Rejection::Unavailable`], [`Rejection::ShuttingDown`]. Nothing was stored.
    pub async fn wait(self) -> Result<(), Rejection> {
        match self.0.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(rejection(error)),
            Err(_) => Err(Rejection::ShuttingDown),
        }
    }

    /// Waits until the event is durable or lost, for callers to whom the difference does not matter.
    pub(super) async fn resolved(self) {
        let _ = self.0.await;
    }

    /// The resolution so far; `None` while the event is neither durable nor lost.
    #[cfg(test)]
    pub(super) fn try_wait(&mut self) -> Option<Result<(), ()>> {
        match self.0.try_recv() {
            Ok(resolved) => Some(resolved.map_err(|_| ())),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => panic!("resolved twice, or dropped"),
        }
    }
}

impl<T> Judged<T> {
    /// A refusal that depends on no state of the stream.
    pub(super) fn refused(rejection: Rejection) -> Self {
        Judged { verdict: Err(rejection), ticket: None }
    }

    /// The same judgement with another outcome.
    pub fn map<U>(self, outcome: impl FnOnce(T) -> U) -> Judged<U> {
        Judged { verdict: self.verdict.map(outcome), ticket: self.ticket }
    }

    /// Waits for the ticket and returns the verdict.
    ///
    /// # Errors
    /// The verdict's, or [`Ticket::wait`]'s when the state it was judged on is lost.
    pub async fn when_durable(self) -> Result<T, Rejection> {
        if let Some(ticket) = self.ticket {
            ticket.wait().await?;
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_verdict_on_lost_state_becomes_the_loss() {
        let full = || StoreError::Full { path: "data".into() };
        for verdict in [Ok(7), Err(Rejection::NotFound)] {
            let (resolver, ticket) = Ticket::new();
            let judged = Judged { verdict: verdict.clone(), ticket: Some(ticket) };
            resolver.send(Ok(())).unwrap();
            assert_eq!(judged.when_durable().await, verdict);

            let (resolver, ticket) = Ticket::new();
            let judged = Judged { verdict, ticket: Some(ticket) };
            resolver.send(Err(full())).unwrap();
            assert_eq!(judged.when_durable().await, Err(Rejection::StorageFull));
        }
    }

    #[tokio::test]
    async fn a_store_that_drops_the_ticket_is_shutting_down() {
        let (resolver, ticket) = Ticket::new();
        drop(resolver);
        assert_eq!(ticket.wait().await, Err(Rejection::ShuttingDown));
    }
}
