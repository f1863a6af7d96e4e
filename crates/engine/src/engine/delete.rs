//! `DELETE`, expiry and the cascade over forks (§5.4, §4.2).
//!
//! A stream with forks is soft-deleted; when its last fork goes, it goes too, and so on up the chain. The
//! cascade is decided in log order, child first, so a crash in between leaves a soft-deleted stream
//! without forks, which the sweeper finds.

use std::sync::Arc;

use durable_streams_protocol::{Rejection, StreamEvent, StreamPath, Timestamp};

use super::{
    Engine, Judged,
    cell::{Inner, StreamCell},
    errors::rejection,
    forks::{ForkChange, lock_both},
    here, reloading,
};
use crate::store::Purpose;

/// Why a stream goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// A client's `DELETE`.
    Asked,
    /// Its time is up, or its last fork is gone.
    Due,
}

/// One decided removal, and the source cell of the fork that went, which it may have kept alive.
type Removal = (Judged<()>, Option<Arc<StreamCell>>);

impl Engine {
    /// Deletes a stream; soft-deletes it while it has forks.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], [`Rejection::Gone`], [`Rejection::Unavailable`],
    /// [`Rejection::StorageFull`].
    pub async fn delete(&self, path: &StreamPath) -> Result<(), Rejection> {
        self.judge_delete(path).await.when_durable().await
    }

    /// Like [`delete`](Self::delete), but returns as soon as the deletion is decided. The verdict may be
    /// sent once the ticket resolves.
    pub async fn judge_delete(&self, path: &StreamPath) -> Judged<()> {
        let judged = self.remove(path, Cause::Asked).await.unwrap_or_else(Judged::refused);
        if judged.verdict == Err(Rejection::NotFound) {
            self.registry.forget_absent(self.registry.cell(path));
        }
        judged
    }

    /// Removes what is at a path if its time is up; no error if nothing is.
    pub(super) async fn remove_expired(&self, path: &StreamPath) -> Result<(), Rejection> {
        let due =
            self.look(path, Purpose::Look, |_, inner, now| Ok(is_due(inner, now))).await.or_else(
                |rejected| {
                    if rejected == Rejection::NotFound { Ok(false) } else { Err(rejected) }
                },
            )?;
        if due {
            // The new stream's event follows in the same log, so nobody has to wait for this one.
            let _ = self.remove(path, Cause::Due).await?;
        }
        Ok(())
    }

    /// Decides the removal of one stream and of every ancestor that it kept alive.
    async fn remove(&self, path: &StreamPath, cause: Cause) -> Result<Judged<()>, Rejection> {
        let (mut judged, mut child) = self.remove_one(path, cause).await?;
        while let Some(source) = child.take() {
            let orphaned = {
                let inner = source.inner.lock();
                inner.assigned.as_ref().is_some_and(|state| state.soft_deleted)
                    && inner.forks.is_empty()
            };
            if orphaned {
                // What was asked for is done; if the rest cannot be done now, the sweeper does it.
                let Ok((above, next)) = self.remove_one(&source.path, Cause::Due).await else {
                    break;
                };
                // The log is in order: once the last removal is durable, all are.
                judged.ticket = above.ticket.or(judged.ticket);
                child = next;
            }
        }
        Ok(judged)
    }

    async fn remove_one(&self, path: &StreamPath, cause: Cause) -> Result<Removal, Rejection> {
        let cell = self.loaded(path, Purpose::Look).await?;
        // The source is in memory before the removal is decided, so its set of forks stays right.
        let source = {
            let inner = cell.inner.lock();
            inner.assigned.as_ref().and_then(|state| state.core.fork.clone())
        };
        let source = match source {
            None => None,
            Some(fork) => Some((fork.source, self.loaded(&fork.source_path, Purpose::Look).await?)),
        };
        let now = self.clock.now();
        let (mut inner, mut source_inner) = lock_both(&cell, source.as_ref().map(|(_, s)| &**s));
        if !inner.loaded || source_inner.as_ref().is_some_and(|source| !source.loaded) {
            return Err(reloading());
        }
        let state = match here(&inner, now) {
            Err(absent) if cause == Cause::Asked => {
                return Ok((inner.judged(Err(absent)), None));
            }
            _ if cause == Cause::Due && !is_due(&inner, now) => {
                return Ok((inner.judged(Ok(())), None));
            }
            _ => inner.assigned.as_ref().ok_or(Rejection::NotFound)?,
        };
        let (id, fork) = (state.core.id, state.core.fork.as_ref().map(|fork| fork.source));
        if !inner.forks.is_empty() {
            let event = StreamEvent::SoftDeleted { at: now };
            let ticket = inner.commit(&cell, &self.store, id, event, None).map_err(rejection)?;
            return Ok((Judged { verdict: Ok(()), ticket }, None));
        }
        if fork != source.as_ref().map(|(id, _)| *id) {
            return Err(reloading());
        }
        let change = source.as_ref().map(|(source_id, source)| ForkChange {
            source: source.clone(),
            source_id: *source_id,
            fork: id,
            added: false,
        });
        let event = StreamEvent::Deleted { at: now };
        let ticket = inner.commit(&cell, &self.store, id, event, change).map_err(rejection)?;
        if let Some(source) = &mut source_inner {
            ForkChange::enter(source, id, false);
        }
        drop((inner, source_inner));
        Ok((Judged { verdict: Ok(()), ticket }, source.map(|(_, source)| source)))
    }

    /// The sweeper's work on one stream: remove it if its time is up, otherwise tell the store the newer
    /// deadline that reads have given it.
    pub(super) async fn sweep(&self, path: &StreamPath) -> Result<bool, Rejection> {
        let due = self
            .look(path, Purpose::Look, |cell, inner, now| {
                inner.renew_read_live(now);
                let due = is_due(inner, now);
                if !due {
                    self.store_touch(cell, inner).map_err(rejection)?;
                }
                Ok(due)
            })
            .await?;
        if due {
            self.remove(path, Cause::Due).await?.when_durable().await?;
        }
        Ok(due)
    }
}

/// Whether the assigned stream is due, its live readers considered: they keep it, unless it is soft-deleted.
fn is_due(inner: &Inner, now: Timestamp) -> bool {
    inner.assigned.as_ref().is_some_and(|state| {
        state.is_due(!inner.forks.is_empty(), now) && (state.soft_deleted || inner.is_expired(now))
    })
}
