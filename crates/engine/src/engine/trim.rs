//! Trims and changes of the expiry.
//!
//! A trim takes effect for readers once it is durable. Bytes that forks need stay, and count against quotas, until the last
//! fork is gone.

use std::sync::{Arc, atomic::Ordering};

use durable_streams_protocol::{
    Decision, Expiry, Offset, Rejection, StreamCore, StreamEvent, StreamPath, StreamState, Tail,
    Timestamp,
};

use super::{
    Engine, Judged,
    cell::{CellState, DecidedEvent, StreamCell},
    errors::rejection,
    here,
    lifecycle::LifecycleReporter,
    reloading,
    usage::UsageDelta,
};
use crate::store::{AppendEnd, LoadFor, Store, StoreError};

impl Engine {
    /// Removes everything before an offset: readers find nothing there from now on. In a JSON stream the offset must be
    /// where a message begins, as for a read; in others it is moved back to where an append begins. Returns the earliest
    /// offset, once that is durable. A trim that was done before changes nothing.
    ///
    /// # Errors
    /// [`Rejection::OffsetBeyondTail`], [`Rejection::OffsetInsideMessage`], [`Rejection::OffsetOfDeletedStream`];
    /// [`Rejection::NotFound`], [`Rejection::Gone`], the store's errors.
    pub async fn trim(&self, path: &StreamPath, before: Offset) -> Result<Offset, Rejection> {
        self.judge_trim(path, before).await.when_durable().await
    }

    /// Like [`trim`](Self::trim), but returns as soon as the trim is decided. The verdict may be sent once the ticket
    /// resolves.
    pub async fn judge_trim(&self, path: &StreamPath, before: Offset) -> Judged<Offset> {
        let found = async {
            let view = self.head(path).await?;
            let before = view.core.resolve(before, view.tail.offset)?;
            let before = self.trim_position(&view.core, before, view.tail).await?;
            Ok((view.core, before))
        };
        match found.await {
            Ok((core, before)) => {
                self.judge_trim_at(path, &core, before, None).await.unwrap_or_else(Judged::refused)
            }
            Err(rejected) => Judged::refused(rejected),
        }
    }

    /// Decides a trim of the stream `core` before a position where a message or an append begins.
    pub(super) async fn judge_trim_at(
        &self,
        path: &StreamPath,
        core: &StreamCore,
        before: Offset,
        messages: Option<u64>,
    ) -> Result<Judged<Offset>, Rejection> {
        let reporter = self.reporter(path).await?;
        let reporter = reporter.as_ref();
        self.look(path, LoadFor::State, |cell, state, now| {
            let assigned = match here(state, now) {
                Ok(assigned) if assigned.core.id == core.id => assigned,
                Ok(_) => return Err(reloading()),
                Err(absent) => return Ok(state.judged(Err(absent))),
            };
            match assigned.trim(before, messages, !state.forks.is_empty(), now) {
                Ok(Decision::Commit(event, earliest)) => {
                    let ticket =
                        self.commit_trim(reporter, cell, state, event).map_err(rejection)?;
                    Ok(Judged { verdict: Ok(earliest), ticket })
                }
                Ok(Decision::Reply(earliest)) => Ok(state.judged(Ok(earliest))),
                Err(rejected) => Ok(state.judged(Err(rejected))),
            }
        })
        .await
    }

    /// Hands a decided trim to the store.
    pub(super) fn commit_trim(
        &self,
        reporter: Option<&LifecycleReporter>,
        cell: &Arc<StreamCell>,
        state: &mut CellState,
        event: StreamEvent,
    ) -> Result<Option<super::Ticket>, StoreError> {
        let Some(assigned) = &state.assigned else { return Ok(None) };
        let freed = freed_by(assigned, &event);
        self.count_trim(assigned, &event);
        let id = assigned.core.id;
        // What shrinks is never refused.
        let usage =
            self.context.usage.change(&cell.path, UsageDelta::trimmed(freed), &self.limits()).ok();
        let decided = DecidedEvent { id, event, place: None, forks: None, usage };
        self.commit_reported(reporter, (cell, state), decided, false)
    }

    fn count_trim(&self, before: &StreamState, event: &StreamEvent) {
        let StreamEvent::Trimmed(trimmed) = event else { return };
        let bytes = trimmed.before.position().saturating_sub(before.earliest.position());
        self.trimmed_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let (Some(now), Some(was)) = (trimmed.messages, before.messages_before) {
            self.trimmed_messages.fetch_add(now.saturating_sub(was), Ordering::Relaxed);
        }
    }

    /// Lets go of bytes that only forks needed, when the last fork of a stream is gone.
    pub(super) fn release_trimmed(&self, cell: &Arc<StreamCell>, now: Timestamp) {
        let mut state = cell.state.lock();
        let Some(assigned) = &state.assigned else { return };
        if !state.forks.is_empty() || assigned.soft_deleted || !assigned.keeps_trimmed_bytes() {
            return;
        }
        if let Ok(Decision::Commit(event, _)) = assigned.trim(assigned.earliest, None, false, now)
            && let Err(error) = self.commit_trim(None, cell, &mut state, event)
        {
            // The next trim lets go of them.
            tracing::debug!(path = cell.path.as_str(), %error, "trimmed bytes stay for now");
        }
    }

    /// Changes when a stream goes away by itself; returns once that is durable. A TTL begins again.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], [`Rejection::Gone`], the store's errors.
    pub async fn change_expiry(&self, path: &StreamPath, expiry: Expiry) -> Result<(), Rejection> {
        self.judge_change_expiry(path, expiry).await.when_durable().await
    }

    /// Like [`change_expiry`](Self::change_expiry), but returns as soon as the change is decided.
    pub async fn judge_change_expiry(&self, path: &StreamPath, expiry: Expiry) -> Judged<()> {
        let judged = self.look(path, LoadFor::State, |cell, state, now| {
            let assigned = match here(state, now) {
                Ok(assigned) => assigned,
                Err(absent) => return Ok(state.judged(Err(absent))),
            };
            match assigned.change_expiry(expiry, now) {
                Decision::Commit(event, ()) => {
                    let id = assigned.core.id;
                    let decided = DecidedEvent { id, event, place: None, forks: None, usage: None };
                    let ticket = state.commit(cell, &self.store, decided).map_err(rejection)?;
                    Ok(Judged { verdict: Ok(()), ticket })
                }
                Decision::Reply(()) => Ok(state.judged(Ok(()))),
            }
        });
        judged.await.unwrap_or_else(Judged::refused)
    }

    /// Where a trim before `before` may cut: there, or at the beginning of the append that it lies in.
    pub(super) async fn trim_position(
        &self,
        core: &StreamCore,
        before: Offset,
        tail: Tail,
    ) -> Result<Offset, Rejection> {
        let mut tail = tail;
        loop {
            match self.append_before(core, before, tail).await {
                // Another trim was faster, and the append that holds `before` may begin behind it.
                Err(Rejection::OffsetTrimmed { earliest }) => tail.earliest = earliest,
                found => return found,
            }
        }
    }

    /// As for [`trim_position`](Self::trim_position).
    ///
    /// # Errors
    /// [`Rejection::OffsetTrimmed`] when the stream begins later by now, [`Rejection::NotFound`] when it is deleted.
    async fn append_before(
        &self,
        core: &StreamCore,
        before: Offset,
        Tail { offset: tail, earliest, .. }: Tail,
    ) -> Result<Offset, Rejection> {
        if before <= earliest || before >= tail {
            // `StreamState::trim` refuses what is beyond the tail.
            return Ok(before);
        }
        if core.content_type.is_json() {
            return match self.check_offset(core, before, tail).await {
                // Another trim was faster.
                Ok(()) | Err(Rejection::OffsetTrimmed { .. }) => Ok(before),
                Err(rejected) => Err(rejected),
            };
        }
        let inherited = core.fork.iter().flat_map(|fork| &fork.ancestors);
        let stretch = inherited.map(|(_, end)| *end).filter(|end| *end <= before).max();
        let from = stretch.map_or(earliest, |start| start.max(earliest));
        if from == before {
            return Ok(before);
        }
        let (holder, until) = core.holder_of(before, tail);
        let within = before.position() - from.position();
        match self.store.append_end(holder, from, until, within).await.map_err(rejection)? {
            AppendEnd::At(end) if end <= before => Ok(end),
            AppendEnd::At(_) => Ok(from),
            // Format 1 did not keep where appends end.
            AppendEnd::Unknown => Ok(before),
            AppendEnd::Gone => Err(Box::pin(self.gone_since(core, from)).await),
        }
    }
}

/// Bytes of its own that a stream has no more after a trim.
fn freed_by(state: &StreamState, event: &StreamEvent) -> u64 {
    let StreamEvent::Trimmed(trimmed) = event else { return 0 };
    trimmed.kept.position().saturating_sub(state.first_kept().position())
}
