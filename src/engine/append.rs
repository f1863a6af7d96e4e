//! `POST`: append, close, or both (§5.2, §5.3).

use bytes::Bytes;

use super::{Engine, durable, errors::rejection, here, reloading};
use crate::protocol::{Append, AppendOutcome, Decision, Rejection, StreamPath, store_messages};

impl Engine {
    /// Appends `body`, and answers once it is durable.
    ///
    /// A retry with the same producer headers is recognised and changes nothing.
    ///
    /// # Errors
    /// Those of [`StreamState::append`](crate::protocol::StreamState::append); [`Rejection::NotFound`],
    /// [`Rejection::Gone`], [`Rejection::StorageFull`], [`Rejection::Unavailable`]. After any of them
    /// nothing was appended; after a lost connection to the server the producer headers tell.
    pub async fn append(
        &self,
        path: &StreamPath,
        append: &Append,
        body: Bytes,
    ) -> Result<AppendOutcome, Rejection> {
        self.store.throttle().await;
        let cell = self.loaded(path).await?;
        let body_empty = body.is_empty();
        // Parsing is the only long work, so it is done outside the lock. A body of another type than the
        // stream's is refused for that.
        let json = matches!(&append.content_type, Some(Ok(given)) if given.is_json());
        let stored = if json && !body_empty { store_messages(&body) } else { Ok(body) };

        let mut wait = None;
        let decided = self.on(&cell, |cell, inner, now| {
            let state = match here(inner, now) {
                Ok(state) => state,
                Err(absent) => {
                    wait = inner.settled();
                    return Ok(Err(absent));
                }
            };
            let id = state.core.id;
            match state.append(append, body_empty, stored, now) {
                Ok(Decision::Commit(event, outcome)) => {
                    self.check_room(event.data().map_or(0, Bytes::len))?;
                    wait = inner.commit(cell, &self.store, id, event, None).map_err(rejection)?;
                    Ok(Ok(outcome))
                }
                Ok(Decision::Reply(outcome)) => {
                    self.touch(cell, inner, now);
                    wait = inner.settled();
                    Ok(Ok(outcome))
                }
                Err(rejected) => {
                    wait = inner.settled();
                    Ok(Err(rejected))
                }
            }
        })?;
        durable(wait).await?;
        if matches!(decided, Err(Rejection::NotFound | Rejection::Gone)) {
            self.registry.forget_absent(cell);
        }
        decided
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
