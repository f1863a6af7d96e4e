//! `PUT`: create, confirm, fork (§5.1, §4.2).

use std::sync::Arc;

use bytes::Bytes;
use durable_streams_protocol::{
    Create, CreateOutcome, Decision, Fork, ForkSource, JsonError, LIFECYCLE_PATH, Offset,
    Rejection, StreamCore, StreamId, StreamPath, StreamState, store_messages,
};

use super::{
    Engine, Judged,
    cell::{DecidedEvent, StreamCell},
    errors::rejection,
    forks::{ForkChange, lock_both},
    lifecycle::LifecycleReporter,
    page::{end_of_append, skip_messages},
    present, reloading,
    usage::UsageDelta,
    view,
};
use crate::store::{AnyStore, LoadFor, Store};

/// A fork's source and the position where the fork leaves it, resolved before any lock is taken.
struct ResolvedSource {
    cell: Arc<StreamCell>,
    id: StreamId,
    position: Offset,
    json: bool,
}

impl Engine {
    /// Creates a stream, or confirms that it exists with the same configuration; returns once that is durable.
    ///
    /// # Errors
    /// Those of [`StreamState::create`] and [`StreamState::confirm`]; for forks
    /// [`Rejection::SourceNotFound`], [`Rejection::SourceDeleted`], [`Rejection::OffsetBeyondTail`],
    /// [`Rejection::OffsetInsideMessage`], [`Rejection::SubOffsetBeyondData`];
    /// [`Rejection::TooManyStreams`], [`Rejection::StorageFull`], [`Rejection::Unavailable`].
    pub async fn create(
        &self,
        path: &StreamPath,
        create: &Create,
        body: Bytes,
    ) -> Result<CreateOutcome, Rejection> {
        self.judge_create(path, create, body).await.when_durable().await
    }

    /// Like [`create`](Self::create), but returns as soon as the creation is decided. The verdict may be
    /// sent once the ticket resolves.
    pub async fn judge_create(
        &self,
        path: &StreamPath,
        create: &Create,
        body: Bytes,
    ) -> Judged<CreateOutcome> {
        self.store.throttle().await;
        let removal = match self.remove_expired(path).await {
            Ok(removal) => removal,
            Err(rejected) => return Judged::refused(rejected),
        };
        let judged = self.create_at(path, create, body).await.unwrap_or_else(Judged::refused);
        // An event of the new stream follows the removal in the log, so its ticket covers both. A refusal may
        // have no ticket, and was judged on the removal all the same.
        Judged { ticket: judged.ticket.or(removal), ..judged }
    }

    /// Judges a creation at a path without an expired stream; an error depends on no state of the path.
    async fn create_at(
        &self,
        path: &StreamPath,
        create: &Create,
        body: Bytes,
    ) -> Result<Judged<CreateOutcome>, Rejection> {
        let cell = self.loaded(path, LoadFor::State).await?;
        let occupied = cell.state.lock().assigned.is_some();
        let reporter = if occupied { None } else { self.reporter(path).await? };
        let reporter = reporter.as_ref();
        let source = match &create.fork {
            Some(fork) if !occupied => Some(self.resolve(fork).await?),
            _ => None,
        };
        let json = match (&create.content_type, &source) {
            (Some(asked), _) => asked.is_json(),
            (None, source) => source.as_ref().is_some_and(|source| source.json),
        };
        // Parsing is long work, so it happens outside the lock, and not at all if the path is taken.
        let stored = (!occupied).then(|| match json && !body.is_empty() {
            true => store_messages(&body),
            false => Ok(body),
        });
        match source {
            None => self.create_in(&cell, create, None, stored, reporter),
            Some(source) => self.create_fork(&cell, create, &source, stored, reporter),
        }
    }

    fn create_fork(
        &self,
        cell: &Arc<StreamCell>,
        create: &Create,
        source: &ResolvedSource,
        stored: Option<Result<Bytes, JsonError>>,
        reporter: Option<&LifecycleReporter>,
    ) -> Result<Judged<CreateOutcome>, Rejection> {
        if Arc::ptr_eq(cell, &source.cell) {
            return Err(Rejection::SourceNotFound);
        }
        self.create_in(cell, create, Some(source), stored, reporter)
    }

    fn create_in(
        &self,
        cell: &Arc<StreamCell>,
        create: &Create,
        source: Option<&ResolvedSource>,
        stored: Option<Result<Bytes, JsonError>>,
        reporter: Option<&LifecycleReporter>,
    ) -> Result<Judged<CreateOutcome>, Rejection> {
        let (mut state, mut source_state) = lock_both(cell, source.map(|source| &*source.cell));
        if !state.loaded || source_state.as_ref().is_some_and(|source| !source.loaded) {
            return Err(reloading());
        }
        let now = self.clock.now();
        state.follow_clock(self, now);
        if let Some(assigned) = &state.assigned {
            let confirmed = assigned.confirm(create);
            if confirmed.is_ok() {
                self.touch(cell, &mut state, now);
            }
            return Ok(state.judged(confirmed));
        }
        let Some(stored) = stored else {
            // The path was taken when the body was to be parsed, and is free now.
            return Err(reloading());
        };
        let fork_source = match (source, &source_state) {
            (Some(source), Some(locked)) => {
                let assigned = locked.assigned.as_ref();
                let state = assigned.filter(|assigned| assigned.core.id == source.id);
                let state = state.ok_or(Rejection::SourceNotFound)?;
                Some(ForkSource { state, position: source.position })
            }
            _ => None,
        };
        let added = UsageDelta::created(stored.as_ref().map_or(0, Bytes::len));
        let usage = match cell.path.as_str() == LIFECYCLE_PATH {
            true => self.context.usage.count(&cell.path, added),
            false => self.context.usage.change(&cell.path, added, &self.limits())?,
        };
        let id = self.store.next_id();
        let decision = StreamState::create(id, &cell.path, create, fork_source, stored, now)?;
        let (event, outcome) = match decision {
            Decision::Commit(event, outcome) => (event, outcome),
            Decision::Reply(outcome) => return Ok(state.judged(Ok(outcome))),
        };
        let forks = source.map(|source| ForkChange {
            source: source.cell.clone(),
            source_id: source.id,
            fork: id,
            added: true,
        });
        let decided = DecidedEvent { id, event, place: None, forks, usage: Some(usage) };
        let ticket = self.commit_reported(reporter, (cell, &mut state), decided, false);
        let ticket = ticket.map_err(rejection)?;
        if let Some(source) = &mut source_state {
            ForkChange::enter(source, id, true);
        }
        Ok(Judged { verdict: Ok(outcome), ticket })
    }

    /// Finds a fork's source and the position where the fork leaves it.
    async fn resolve(&self, fork: &Fork) -> Result<ResolvedSource, Rejection> {
        if fork.source.as_str() == LIFECYCLE_PATH {
            // Its cell's lock is taken under that of every other one.
            return Err(Rejection::SourceNotFound);
        }
        let cell = self.loaded(&fork.source, LoadFor::State).await?;
        let seen = {
            let mut state = cell.state.lock();
            if !state.loaded {
                return Err(reloading());
            }
            let now = self.clock.now();
            state.follow_clock(self, now);
            match state.assigned.as_ref().map(|assigned| present(assigned, &state, now)) {
                Some(Ok(())) | None => view(&state, now),
                Some(Err(gone)) => Err(gone),
            }
        };
        let view = seen.map_err(|rejected| match rejected {
            Rejection::Gone => Rejection::SourceDeleted,
            Rejection::NotFound => Rejection::SourceNotFound,
            other => other,
        })?;
        let (core, tail) = (&view.core, view.tail.offset);
        let anchor = fork.offset.map_or(Ok(tail), |offset| core.resolve(offset, tail))?;
        if anchor > tail {
            return Err(Rejection::OffsetBeyondTail { tail });
        }
        let earliest = view.tail.earliest;
        if anchor < earliest {
            return Err(Rejection::OffsetTrimmed { earliest });
        }
        let position = match behind_anchor(&self.store, core, anchor, tail, fork.sub_offset).await {
            Ok(position) => position.ok_or(Rejection::SubOffsetBeyondData)?,
            Err(Rejection::NotFound) => {
                return Err(match self.gone_since(core, anchor).await {
                    Rejection::NotFound => Rejection::SourceNotFound,
                    trimmed => trimmed,
                });
            }
            Err(rejected) => return Err(rejected),
        };
        Ok(ResolvedSource { cell, id: core.id, position, json: core.content_type.is_json() })
    }
}

/// The position of a fork behind its anchor (§4.2): so many messages after it, or in other streams bytes of the append that
/// begins there; where its end is not known, of those up to the tail. `None` when that is beyond the data.
///
/// # Errors
/// [`Rejection::NotFound`] when the source is deleted or trimmed meanwhile; those of [`Engine::plan`].
async fn behind_anchor(
    store: &AnyStore,
    core: &StreamCore,
    anchor: Offset,
    tail: Offset,
    sub_offset: u64,
) -> Result<Option<Offset>, Rejection> {
    if core.content_type.is_json() {
        return skip_messages(store, core, anchor, tail, sub_offset).await;
    }
    if sub_offset == 0 {
        return Ok(Some(anchor));
    }
    let end = end_of_append(store, core, anchor, tail).await?.unwrap_or(tail);
    Ok(Some(anchor.advance(sub_offset)).filter(|position| *position <= end))
}
