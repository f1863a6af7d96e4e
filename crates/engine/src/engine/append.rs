//! `POST`: append, close, or both (§5.2, §5.3).

use std::sync::Arc;

use bytes::Bytes;
use durable_streams_protocol::{
    Append, AppendOutcome, Decision, Producer, ProducerAdmission, Rejection, StreamPath,
    store_messages,
};

use super::{
    Engine, Judged,
    cell::{DecidedEvent, StreamCell},
    errors::rejection,
    here, reloading,
    usage::UsageDelta,
};
use crate::store::{LoadFor, Store};

/// A request whose predecessor is missing waits while so many rounds of ready tasks run, before it is a gap.
const OVERTAKEN_ROUNDS: u32 = 16;
/// A producer with more requests in flight than this gets the 409 at once.
const OVERTAKEN_SPAN: u64 = 64;

impl Engine {
    /// Appends `body`, closes the stream, or both; returns once that is durable.
    ///
    /// A retry with the same producer headers is recognised as a duplicate and changes nothing (§5.2.1).
    ///
    /// # Errors
    /// Those of [`StreamState::append`](durable_streams_protocol::StreamState::append); [`Rejection::NotFound`],
    /// [`Rejection::Gone`], [`Rejection::StorageFull`], [`Rejection::Unavailable`]. After any of them
    /// nothing was appended.
    pub async fn append(
        &self,
        path: &StreamPath,
        append: &Append,
        body: Bytes,
    ) -> Result<AppendOutcome, Rejection> {
        self.judge_append(path, append, body).await.when_durable().await
    }

    /// Like [`append`](Self::append), but returns as soon as the append is decided. The verdict may be sent
    /// once the ticket resolves.
    pub async fn judge_append(
        &self,
        path: &StreamPath,
        append: &Append,
        body: Bytes,
    ) -> Judged<AppendOutcome> {
        self.store.throttle().await;
        let cell = match self.loaded(path, LoadFor::State).await {
            Ok(cell) => cell,
            Err(rejected) => return Judged::refused(rejected),
        };
        if let Some(producer) = &append.producer {
            predecessor_judged(&cell, producer).await;
        }
        let judged = self.append_in(&cell, append, body).unwrap_or_else(Judged::refused);
        if matches!(judged.verdict, Err(Rejection::NotFound | Rejection::Gone)) {
            self.registry.forget_absent(cell);
        }
        judged
    }

    /// Judges an append on a loaded cell; an error depends on no state of the stream.
    fn append_in(
        &self,
        cell: &Arc<StreamCell>,
        append: &Append,
        body: Bytes,
    ) -> Result<Judged<AppendOutcome>, Rejection> {
        let body_empty = body.is_empty();
        // Parsing is the only long work, so it happens outside the lock. If the stream has another content
        // type, `StreamState::append` rejects that before it looks at the parsed body.
        let json = matches!(&append.content_type, Some(Ok(given)) if given.is_json());
        let stored = if json && !body_empty { store_messages(&body) } else { Ok(body) };
        self.on(cell, |cell, state, now| {
            let assigned = match here(state, now) {
                Ok(assigned) => assigned,
                Err(absent) => return Ok(state.judged(Err(absent))),
            };
            let id = assigned.core.id;
            let refused = append.producer.as_ref().and_then(|producer| {
                let limit = self.limits().max_producers?;
                let known = assigned.producers.contains_key(&producer.id);
                let full = !known && assigned.producers.len() as u64 >= limit;
                full.then_some(Rejection::TooManyProducers { limit })
            });
            match assigned.append(append, body_empty, stored, now) {
                Ok(Decision::Commit(..)) if let Some(refused) = refused => {
                    Ok(state.judged(Err(refused)))
                }
                Ok(Decision::Commit(event, outcome)) => {
                    let added = UsageDelta::appended(event.data().map_or(0, Bytes::len));
                    let usage =
                        Some(self.context.usage.change(&cell.path, added, &self.limits())?);
                    let decided = DecidedEvent { id, event, place: None, forks: None, usage };
                    let ticket = state.commit(cell, &self.store, decided);
                    Ok(Judged { verdict: Ok(outcome), ticket: ticket.map_err(rejection)? })
                }
                Ok(Decision::Reply(outcome)) => {
                    self.touch(cell, state, now);
                    Ok(state.judged(Ok(outcome)))
                }
                Err(rejected) => Ok(state.judged(Err(rejected))),
            }
        })
    }

    /// Appends to one of the server's own streams, with up to three retries while the store recovers from a lost
    /// write.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_system(
        &self,
        path: &StreamPath,
        append: &Append,
        body: Bytes,
    ) -> Result<AppendOutcome, Rejection> {
        for _ in 0..3 {
            match self.append(path, append, body.clone()).await {
                Err(again) if again == reloading() => tokio::task::yield_now().await,
                done => return done,
            }
        }
        self.append(path, append, body).await
    }
}

/// Lets a producer's requests overtake each other between its connections and this lock (§5.2.1, "Concurrency
/// Requirements"): the predecessor of a request that comes too early is most often with another worker already.
async fn predecessor_judged(cell: &StreamCell, producer: &Producer) {
    for _ in 0..OVERTAKEN_ROUNDS {
        let known = match &cell.state.lock().assigned {
            Some(state) => state.producers.get(&producer.id).copied(),
            None => return,
        };
        match producer.admit(known) {
            ProducerAdmission::Gap { expected } if producer.seq - expected < OVERTAKEN_SPAN => {}
            _ => return,
        }
        tokio::task::yield_now().await;
    }
}
