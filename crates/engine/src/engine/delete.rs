//! `DELETE`, expiry and the cascade over forks (§5.4, §4.2).
//!
//! A stream with forks is soft-deleted. When its last fork is removed, it is removed too, and so on up the
//! lineage. The cascade is decided in log order, fork first, so a crash in between leaves a soft-deleted stream
//! without forks, which the sweeper finds.

use std::sync::Arc;

use durable_streams_protocol::{Rejection, StreamEvent, StreamPath, StreamState, Timestamp};

use super::{
    Engine, Judged, Ticket,
    cell::{CellState, DecidedEvent, StreamCell},
    errors::rejection,
    forks::{ForkChange, lock_both},
    here, reloading,
    usage::UsageDelta,
};
use crate::store::{DamagedStream, LoadFor, Store};

/// Why a stream is removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RemovalCause {
    /// A client's `DELETE`.
    Requested,
    /// It has expired, or it is soft-deleted and its last fork is gone.
    Due,
}

/// What became of a stream that the sweeper examined.
pub(super) enum Swept {
    Removed,
    /// It is not due; the wait until its last use is durable.
    Kept(Option<Ticket>),
}

/// One decided removal, and the cell of the removed fork's source, which may now be due itself.
type DecidedRemoval = (Judged<()>, Option<Arc<StreamCell>>);

impl Engine {
    /// Deletes a stream, or soft-deletes it while it has forks; returns once that is durable.
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
        let judged =
            self.remove(path, RemovalCause::Requested).await.unwrap_or_else(Judged::refused);
        if judged.verdict == Err(Rejection::NotFound) {
            self.registry.forget_absent(self.registry.cell(path));
        }
        judged
    }

    /// Decides the removal of the stream at a path if it is due; does nothing when no stream exists there.
    /// Returns the removal's ticket.
    pub(super) async fn remove_expired(
        &self,
        path: &StreamPath,
    ) -> Result<Option<Ticket>, Rejection> {
        let due =
            self.look(path, LoadFor::State, |_, state, now| Ok(is_due(state, now))).await.or_else(
                |rejected| {
                    if rejected == Rejection::NotFound { Ok(false) } else { Err(rejected) }
                },
            )?;
        if due { Ok(self.remove(path, RemovalCause::Due).await?.ticket) } else { Ok(None) }
    }

    /// Decides the removal of one stream, and of every soft-deleted ancestor whose last fork it was.
    async fn remove(
        &self,
        path: &StreamPath,
        cause: RemovalCause,
    ) -> Result<Judged<()>, Rejection> {
        let (mut judged, mut child) = match self.remove_one(path, cause).await {
            Err(Rejection::Damaged) if cause == RemovalCause::Requested => {
                (self.remove_damaged(path).await?, None)
            }
            removed => removed?,
        };
        while let Some(source) = child.take() {
            let orphaned = {
                let state = source.state.lock();
                state.assigned.as_ref().is_some_and(|assigned| assigned.soft_deleted)
                    && state.forks.is_empty()
            };
            if orphaned {
                // The requested removal is decided. If this one fails, the sweeper repeats it.
                let Ok((above, next)) = self.remove_one(&source.path, RemovalCause::Due).await
                else {
                    break;
                };
                // Events become durable in log order, so the last removal's ticket covers them all.
                judged.ticket = above.ticket.or(judged.ticket);
                child = next;
            } else {
                self.release_trimmed(&source, self.clock.now());
            }
        }
        Ok(judged)
    }

    async fn remove_one(
        &self,
        path: &StreamPath,
        cause: RemovalCause,
    ) -> Result<DecidedRemoval, Rejection> {
        let reporter = self.reporter(path).await?;
        let (reporter, expired) = (reporter.as_ref(), cause == RemovalCause::Due);
        let cell = self.loaded(path, LoadFor::State).await?;
        // The source is loaded before the removal is decided: its set of forks changes with the removal.
        let source = {
            let state = cell.state.lock();
            state.assigned.as_ref().and_then(|assigned| assigned.core.fork.clone())
        };
        let mut damaged = None;
        let source = match source {
            None => None,
            Some(fork) => match self.loaded(&fork.source_path, LoadFor::State).await {
                // Deleting its forks makes a damaged source deletable.
                Err(Rejection::Damaged) => {
                    damaged = Some(fork.source);
                    None
                }
                source => Some((fork.source, source?)),
            },
        };
        let now = self.clock.now();
        let (mut state, mut source_state) = lock_both(&cell, source.as_ref().map(|(_, s)| &**s));
        if !state.loaded || source_state.as_ref().is_some_and(|source| !source.loaded) {
            return Err(reloading());
        }
        state.follow_clock(self, now);
        let assigned = match here(&state, now) {
            Err(absent) if cause == RemovalCause::Requested => {
                return Ok((state.judged(Err(absent)), None));
            }
            _ if cause == RemovalCause::Due && !is_due(&state, now) => {
                return Ok((state.judged(Ok(())), None));
            }
            _ => state.assigned.as_ref().ok_or(Rejection::NotFound)?,
        };
        let (id, fork) = (assigned.core.id, assigned.core.fork.as_ref().map(|fork| fork.source));
        if !state.forks.is_empty() {
            let event = StreamEvent::SoftDeleted { at: now };
            let decided = DecidedEvent { id, event, place: None, forks: None, usage: None };
            let ticket = self.commit_reported(reporter, (&cell, &mut state), decided, expired);
            let ticket = ticket.map_err(rejection)?;
            return Ok((Judged { verdict: Ok(()), ticket }, None));
        }
        if fork != source.as_ref().map(|(id, _)| *id).or(damaged) {
            return Err(reloading());
        }
        let usage = Some(self.context.usage.change(
            &cell.path,
            UsageDelta::deleted(assigned),
            &self.limits(),
        )?);
        let forks = source.as_ref().map(|(source_id, source)| ForkChange {
            source: source.clone(),
            source_id: *source_id,
            fork: id,
            added: false,
        });
        let event = StreamEvent::Deleted { at: now };
        let decided = DecidedEvent { id, event, place: None, forks, usage };
        let ticket = self.commit_reported(reporter, (&cell, &mut state), decided, expired);
        let ticket = ticket.map_err(rejection)?;
        if let Some(source) = &mut source_state {
            ForkChange::enter(source, id, false);
        }
        drop((state, source_state));
        Ok((Judged { verdict: Ok(()), ticket }, source.map(|(_, source)| source)))
    }

    /// Decides the removal of a stream of which the state is damaged: it can be neither read nor appended to.
    async fn remove_damaged(&self, path: &StreamPath) -> Result<Judged<()>, Rejection> {
        let reporter = self.reporter(path).await?;
        let cell = self.registry.cell(path);
        // Nothing loads the stream meanwhile.
        let _loading = cell.loading.lock().await;
        let epoch = self.store.epoch();
        let found = self.store.damaged(path).await.map_err(rejection)?;
        let Some(DamagedStream { id, place }) = found else { return Err(Rejection::Damaged) };
        let mut state = cell.state.lock();
        if state.loaded || !state.can_load() {
            return Err(reloading());
        }
        // Its bytes are unknown, and counted until a restart.
        let delta = UsageDelta { streams: -1, bytes: 0 };
        let usage = Some(self.context.usage.change(&cell.path, delta, &self.limits())?);
        state.install(None, epoch);
        let event = StreamEvent::Deleted { at: self.clock.now() };
        let decided = DecidedEvent { id, event, place: Some(place), forks: None, usage };
        let ticket = self.commit_reported(reporter.as_ref(), (&cell, &mut state), decided, false);
        let ticket = ticket.map_err(rejection)?;
        Ok(Judged { verdict: Ok(()), ticket })
    }

    /// The sweeper's work on one stream: removes it if it is due; otherwise commits the later deadline that reads
    /// have given it, or the earlier one that a step of the clock back has.
    pub(super) async fn sweep(&self, path: &StreamPath) -> Result<Swept, Rejection> {
        let kept = self
            .look(path, LoadFor::State, |cell, state, now| {
                state.renew_held(now);
                if is_due(state, now) {
                    return Ok(None);
                }
                let touch = self.store_touch(cell, state).map_err(rejection)?;
                Ok(Some(touch.or_else(|| state.ticket())))
            })
            .await?;
        if let Some(ticket) = kept {
            return Ok(Swept::Kept(ticket));
        }
        self.remove(path, RemovalCause::Due).await?.when_durable().await?;
        Ok(Swept::Removed)
    }
}

/// Whether the assigned stream is due, its live readers considered: they keep it, unless it is soft-deleted.
fn is_due(state: &CellState, now: Timestamp) -> bool {
    let is_due = |assigned: &StreamState| {
        assigned.is_due(!state.forks.is_empty(), now)
            && (assigned.soft_deleted || state.is_expired(now))
    };
    state.assigned.as_ref().is_some_and(is_due)
}
