//! `POST`: append, close, or both (§5.2, §5.3).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use durable_streams_protocol::{
    Append, AppendOutcome, Decision, JsonError, Producer, ProducerAdmission, Rejection, StreamPath,
    store_messages,
};

use super::{
    Engine, Judged,
    cell::{DecidedEvent, LoadedProducer, StreamCell},
    errors::rejection,
    here,
    lifecycle::LifecycleReporter,
    reloading,
    usage::UsageDelta,
};
use crate::store::{LoadFor, Store};

/// So long a request waits for its predecessor before it is a gap.
const PREDECESSOR_PATIENCE: Duration = Duration::from_millis(50);
/// A request so many numbers ahead of the expected one is a gap at once.
const OVERTAKING_SPAN: u64 = 64;

/// An append's body, parsed outside the stream's lock.
struct StoredBody {
    stored: Result<Bytes, JsonError>,
    /// As received; a JSON array without elements is not.
    empty: bool,
}

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
        let judged = self.append_to(&cell, append, body).await.unwrap_or_else(Judged::refused);
        if matches!(judged.verdict, Err(Rejection::NotFound | Rejection::Gone)) {
            self.registry.forget_absent(cell);
        }
        judged
    }

    /// Judges an append on a loaded cell; an error depends on no state of the stream.
    async fn append_to(
        &self,
        cell: &Arc<StreamCell>,
        append: &Append,
        body: Bytes,
    ) -> Result<Judged<AppendOutcome>, Rejection> {
        let body_empty = body.is_empty();
        // Only a closure is a lifecycle event.
        let reporter = match append.close && self.limits().lifecycle.is_some() {
            true => Box::pin(self.reporter(&cell.path)).await?,
            false => None,
        };
        // Parsing is the only long work, so it happens outside the lock. If the stream has another content
        // type, `StreamState::append` rejects that before it looks at the parsed body.
        let json = matches!(&append.content_type, Some(Ok(given)) if given.is_json());
        let stored = if json && !body_empty { store_messages(&body) } else { Ok(body) };
        let mut body = Some(StoredBody { stored, empty: body_empty });
        let Some(producer) = &append.producer else {
            let reporter = reporter.as_ref();
            let judged = self.append_in(cell, append, &mut body, None, reporter)?;
            return judged.ok_or_else(reloading);
        };
        let mut loaded = self.predecessor_judged(cell, producer).await?;
        loop {
            let reporter = reporter.as_ref();
            if let Some(judged) = self.append_in(cell, append, &mut body, loaded, reporter)? {
                return Ok(judged);
            }
            loaded = self.load_producer(cell, producer).await?;
        }
    }

    /// Loads the store's record of a producer. The caller looks into the cell's memory afterwards, since the producer may
    /// append meanwhile.
    async fn load_producer(
        &self,
        cell: &StreamCell,
        producer: &Producer,
    ) -> Result<Option<LoadedProducer>, Rejection> {
        let lookup = cell.state.lock().producer_lookup();
        let Some((id, round)) = lookup else { return Ok(None) };
        let known = self.store.producer(id, &producer.id).await.map_err(rejection)?;
        Ok(Some(LoadedProducer { known, round }))
    }

    /// Takes the body and judges the append, or returns `None` when the append's producer must be loaded first.
    fn append_in(
        &self,
        cell: &Arc<StreamCell>,
        append: &Append,
        body: &mut Option<StoredBody>,
        loaded: Option<LoadedProducer>,
        reporter: Option<&LifecycleReporter>,
    ) -> Result<Option<Judged<AppendOutcome>>, Rejection> {
        self.on(cell, |cell, state, now| {
            if let Err(absent) = here(state, now) {
                return Ok(Some(state.judged(Err(absent))));
            }
            let known = match &append.producer {
                None => None,
                Some(producer) => match state.producer(&producer.id, loaded) {
                    Some(known) => known,
                    None => return Ok(None),
                },
            };
            let (Some(assigned), Some(body)) = (&state.assigned, body.take()) else {
                return Err(reloading());
            };
            let refused = append.producer.as_ref().and_then(|_| {
                let limit = self.limits().max_producers?;
                let full = known.is_none() && state.producers() >= limit;
                full.then_some(Rejection::TooManyProducers { limit })
            });
            let id = assigned.core.id;
            let judged = match assigned.append(append, known, body.empty, body.stored, now) {
                Ok(Decision::Commit(..)) if let Some(refused) = refused => {
                    state.judged(Err(refused))
                }
                Ok(Decision::Commit(event, outcome)) => {
                    let added = UsageDelta::appended(event.data().map_or(0, Bytes::len));
                    let usage =
                        Some(self.context.usage.change(&cell.path, added, &self.limits())?);
                    let decided = DecidedEvent { id, event, place: None, forks: None, usage };
                    let ticket = self.commit_reported(reporter, (cell, state), decided, false);
                    if let Some(producer) = &append.producer {
                        state.wake_successor(producer);
                    }
                    Judged { verdict: Ok(outcome), ticket: ticket.map_err(rejection)? }
                }
                Ok(Decision::Reply(outcome)) => {
                    self.touch(cell, state, now);
                    state.judged(Ok(outcome))
                }
                Err(rejected) => state.judged(Err(rejected)),
            };
            Ok(Some(judged))
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

    /// Lets a producer's requests overtake each other between its connections and this lock (§5.2.1, "Concurrency
    /// Requirements"): a request that is judged too early waits until its predecessor is committed. Returns the producer's
    /// record, if it was loaded.
    async fn predecessor_judged(
        &self,
        cell: &StreamCell,
        producer: &Producer,
    ) -> Result<Option<LoadedProducer>, Rejection> {
        let (mut loaded, mut patience) = (None, None);
        loop {
            let woken = {
                let mut state = cell.state.lock();
                if state.assigned.is_none() {
                    return Ok(loaded);
                }
                match state.producer(&producer.id, loaded).map(|known| producer.admit(known)) {
                    None => None,
                    Some(ProducerAdmission::Gap { expected })
                        if producer.seq - expected < OVERTAKING_SPAN =>
                    {
                        let Some(woken) = state.register_overtaking(producer) else {
                            return Ok(loaded);
                        };
                        Some(woken)
                    }
                    Some(_) => return Ok(loaded),
                }
            };
            let Some(woken) = woken else {
                loaded = self.load_producer(cell, producer).await?;
                continue;
            };
            // Boxed: rare.
            let patience =
                patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(PREDECESSOR_PATIENCE)));
            let is_over = tokio::select! {
                biased;
                _ = woken => false,
                () = patience => true,
            };
            if is_over {
                cell.state.lock().forget_cancelled();
                return Ok(loaded);
            }
        }
    }
}
