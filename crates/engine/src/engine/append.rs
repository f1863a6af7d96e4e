//! `POST`: append, close, or both (§5.2, §5.3).

use std::sync::Arc;

use bytes::Bytes;
use durable_streams_protocol::{
    Append, AppendOutcome, Decision, Rejection, StreamPath, store_messages,
};

use super::{
    Engine,
    cell::{Reply, StreamCell},
    durable,
    errors::rejection,
    here, reloading,
};
use crate::store::Purpose;

/// What was decided is not durable yet: nobody may be told before it is.
#[must_use = "an outcome must not be told before it is durable"]
pub struct Unsettled(Reply);

impl Unsettled {
    /// Waits until it is durable.
    ///
    /// # Errors
    /// It will never be: nothing was appended.
    pub async fn settled(self) -> Result<(), Rejection> {
        durable(Some(self.0)).await
    }
}

impl Engine {
    /// Appends `body`, and answers once it is durable.
    ///
    /// A retry with the same producer headers is recognised and changes nothing.
    ///
    /// # Errors
    /// Those of [`StreamState::append`](durable_streams_protocol::StreamState::append); [`Rejection::NotFound`],
    /// [`Rejection::Gone`], [`Rejection::StorageFull`], [`Rejection::Unavailable`]. After any of them
    /// nothing was appended; after a lost connection to the server the producer headers tell.
    pub async fn append(
        &self,
        path: &StreamPath,
        append: &Append,
        body: Bytes,
    ) -> Result<AppendOutcome, Rejection> {
        let (appended, unsettled) = self.append_ahead(path, append, body).await?;
        if let Some(unsettled) = unsettled {
            unsettled.settled().await?;
        }
        Ok(appended)
    }

    /// Like [`append`](Self::append), but an acceptance comes with the wait for it, if it is not durable yet. A
    /// refusal comes when what it was judged on is durable.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_ahead(
        &self,
        path: &StreamPath,
        append: &Append,
        body: Bytes,
    ) -> Result<(AppendOutcome, Option<Unsettled>), Rejection> {
        self.store.throttle().await;
        let cell = self.loaded(path, Purpose::Look).await?;
        let (decided, wait) = self.decide_append(&cell, append, body)?;
        match decided {
            Ok(appended) => Ok((appended, wait.map(Unsettled))),
            Err(rejected) => {
                durable(wait).await?;
                if matches!(rejected, Rejection::NotFound | Rejection::Gone) {
                    self.registry.forget_absent(cell);
                }
                Err(rejected)
            }
        }
    }

    /// What becomes of an append, and what that waits for.
    fn decide_append(
        &self,
        cell: &Arc<StreamCell>,
        append: &Append,
        body: Bytes,
    ) -> Result<(Result<AppendOutcome, Rejection>, Option<Reply>), Rejection> {
        let body_empty = body.is_empty();
        // Parsing is the only long work, so it is done outside the lock. A body of another type than the
        // stream's is refused for that.
        let json = matches!(&append.content_type, Some(Ok(given)) if given.is_json());
        let stored = if json && !body_empty { store_messages(&body) } else { Ok(body) };
        self.on(cell, |cell, inner, now| {
            let state = match here(inner, now) {
                Ok(state) => state,
                Err(absent) => return Ok((Err(absent), inner.settled())),
            };
            let id = state.core.id;
            match state.append(append, body_empty, stored, now) {
                Ok(Decision::Commit(event, outcome)) => {
                    self.check_room(event.data().map_or(0, Bytes::len))?;
                    let wait = inner.commit(cell, &self.store, id, event, None);
                    Ok((Ok(outcome), wait.map_err(rejection)?))
                }
                Ok(Decision::Reply(outcome)) => {
                    self.touch(cell, inner, now);
                    Ok((Ok(outcome), inner.settled()))
                }
                Err(rejected) => Ok((Err(rejected), inner.settled())),
            }
        })
    }

    /// Refuses bytes beyond the configured total.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), Rejection> {
        let total = || self.store.stats().bytes.saturating_add(bytes as u64);
        match self.limits().max_total {
            Some(limit) if bytes > 0 && total() > limit => Err(Rejection::StorageFull),
            _ => Ok(()),
        }
    }

    /// Appends to a stream of the server's own, retrying while the store recovers from a lost write.
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
