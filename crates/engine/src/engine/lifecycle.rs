//! Lifecycle events: a stream of the server's own that says which streams were created, closed, trimmed, deleted and
//! expired. It exists while [`EngineLimits::lifecycle`](super::EngineLimits::lifecycle) says how much of it to keep.
//!
//! Invariants
//! - A message and the event that it is about are committed as a pair: a crash, a lost write and a refusal keep both or
//!   neither. So there is no queue between them, nothing to catch up with after a start, and no message twice.
//! - Messages are in the order of their events in the log: both are handed to the store under the lock of the lifecycle
//!   stream's cell. It is the last lock that is taken, and no other cell's lock is taken under it.
//! - Readers see the change before they see its message: the store acknowledges the pair in its order.
//! - The stream has at least the last `keep` bytes, and at most about twice as many.

use std::sync::Arc;

use bytes::Bytes;
use durable_streams_protocol::{
    Append, ContentType, Create, Decision, LIFECYCLE_PATH, LifecycleChange, Rejection, StreamPath,
    StreamState, Timestamp, split_stored, subscription::Glob,
};
use futures_util::future::BoxFuture;

use super::{
    Engine, RetentionRule, Ticket,
    cell::{CellState, DecidedEvent, StreamCell},
    errors::rejection,
    lifecycle_log::{LifecycleUpkeep, TrimMark},
    reloading,
    usage::UsageDelta,
};
use crate::store::{Committed, LoadFor, Store, StoreError};

/// After a failure to create or to delete the stream, milliseconds.
const RETRY_AFTER: u64 = 10_000;
/// How often a request looks for the stream while it is loaded, created, or comes back after a lost write.
const LOOKS: usize = 4;

/// The lifecycle stream, loaded, for one operation that may add a message.
pub(super) struct LifecycleReporter {
    cell: Arc<StreamCell>,
    keep: u64,
}

impl Engine {
    /// Creates the lifecycle stream if it is on, and deletes it if it is off: a reader that goes on then learns that messages
    /// are missing. [`housekeeping`](Self::housekeeping) does this after changes of the limits; a server does it before it
    /// serves the first request.
    pub async fn keep_lifecycle(&self) {
        let keep = self.limits().lifecycle;
        let now = self.clock.steady_now();
        let LifecycleUpkeep { exists, retry_at } = *self.lifecycle.upkeep.lock();
        if exists == Some(keep.is_some()) || now < retry_at {
            return;
        }
        let done = match keep {
            Some(keep) => self.begin_lifecycle(keep).await,
            None => self.end_lifecycle().await,
        };
        let upkeep = match done {
            Ok(exists) => LifecycleUpkeep { exists: Some(exists), retry_at: now },
            Err(error) => {
                tracing::warn!(%error, "the lifecycle stream is not what it should be; trying again");
                let retry_at = Timestamp::from_millis(now.millis() + RETRY_AFTER);
                LifecycleUpkeep { exists: None, retry_at }
            }
        };
        *self.lifecycle.upkeep.lock() = upkeep;
    }

    /// Returns whether the stream is there.
    async fn begin_lifecycle(&self, keep: u64) -> Result<bool, Rejection> {
        let Some(cell) = self.lifecycle_cell().await? else {
            return Err(Rejection::StorageFull);
        };
        // An earlier process may have kept more, and where its messages begin is not in memory.
        let loaded = self.store.load(&cell.path, LoadFor::State).await.map_err(rejection)?;
        let Some(loaded) = loaded else { return Ok(true) };
        let paths = Glob::parse(LIFECYCLE_PATH).map_err(|_| Rejection::Damaged)?;
        let rule =
            RetentionRule { paths, keep_for: None, keep_bytes: Some(keep), keep_messages: None };
        let kept = self.kept_by(&loaded.state, &rule, self.clock.now()).await?;
        if kept.from > loaded.state.earliest {
            let core = &loaded.state.core;
            let judged = self.judge_trim_at(&cell.path, core, kept.from, kept.messages).await?;
            judged.when_durable().await?;
        }
        Ok(true)
    }

    async fn end_lifecycle(&self) -> Result<bool, Rejection> {
        let path = StreamPath::system(LIFECYCLE_PATH)?;
        match self.delete(&path).await {
            Ok(()) | Err(Rejection::NotFound | Rejection::Gone) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What an operation on the stream at `path` needs to add a message; `None` while there is no lifecycle stream, and
    /// for the server's own streams. To be called before any lock is taken.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn reporter(
        &self,
        path: &StreamPath,
    ) -> Result<Option<LifecycleReporter>, Rejection> {
        let Some(keep) = self.limits().lifecycle else { return Ok(None) };
        if split_stored(path.as_str()).is_none() {
            return Ok(None);
        }
        let present = self.registry.find(&StreamPath::system(LIFECYCLE_PATH)?).filter(|cell| {
            cell.mark_used(self.clock.steady_now());
            let state = cell.state.lock();
            state.loaded && state.assigned.is_some()
        });
        let cell = match present {
            Some(cell) => Some(cell),
            None => self.lifecycle_cell().await?,
        };
        Ok(cell.map(|cell| LifecycleReporter { cell, keep }))
    }

    /// The stream's cell, loaded; the stream is created if it is not there. `None` where that is refused: messages begin
    /// when it can be created, and nothing else waits for that.
    fn lifecycle_cell(&self) -> BoxFuture<'_, Result<Option<Arc<StreamCell>>, Rejection>> {
        Box::pin(async {
            let path = StreamPath::system(LIFECYCLE_PATH)?;
            for _ in 0..LOOKS {
                match self.loaded(&path, LoadFor::State).await {
                    Ok(cell) if cell.state.lock().assigned.is_some() => return Ok(Some(cell)),
                    Ok(_) => {}
                    Err(Rejection::Damaged) => {
                        tracing::error!(
                            "the lifecycle stream is damaged; another one takes its place"
                        );
                        self.delete(&path).await?;
                    }
                    Err(again) if again == reloading() => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                if self.limits().lifecycle.is_none() {
                    return Ok(None);
                }
                let json = ContentType::parse("application/json");
                let create = Create { content_type: json, ..Create::default() };
                match self.create(&path, &create, Bytes::new()).await {
                    Ok(_) => {}
                    Err(again) if again == reloading() => tokio::task::yield_now().await,
                    Err(Rejection::StorageFull) => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
            Err(reloading())
        })
    }

    /// Applies an event and hands it to the store, as [`CellState::commit`] does, together with the message about it.
    ///
    /// # Errors
    /// As [`CellState::commit`]; there is no message then.
    pub(super) fn commit_reported(
        &self,
        reporter: Option<&LifecycleReporter>,
        (cell, state): (&Arc<StreamCell>, &mut CellState),
        decided: DecidedEvent<'_>,
        expired: bool,
    ) -> Result<Option<Ticket>, StoreError> {
        let Some(LifecycleReporter { cell: log_cell, keep }) = reporter else {
            return state.commit(cell, &self.store, decided);
        };
        let mut log = log_cell.state.lock();
        if !log.loaded {
            // A write was lost since. The caller comes again and finds the stream as it is stored.
            return Err(StoreError::Superseded);
        }
        let change = LifecycleChange {
            path: &cell.path,
            before: state.assigned.as_ref(),
            event: &decided.event,
            expired,
        };
        let now = self.clock.now();
        let Some(message) = log.assigned.as_ref().and_then(|log| report(log, &change, now)) else {
            // It has just been switched off, or there is nothing to say.
            drop(log);
            return state.commit(cell, &self.store, decided);
        };
        let before = log.assigned.clone();
        let usage = message.event.data().map_or(0, Bytes::len);
        let usage = self.context.usage.count(&log_cell.path, UsageDelta::appended(usage));
        let message = DecidedEvent { usage: Some(usage), ..message };
        let epoch = self.store.epoch();
        let pair = |event| {
            let second = |message| self.store.commit_pair(event, message);
            let ticket = log.commit_to(log_cell, epoch, second, message)?;
            Ok(if ticket.is_some() { Committed::Queued } else { Committed::Now })
        };
        let committed = state.commit_to(cell, epoch, pair, decided);
        match &committed {
            Ok(_) => self.trim_lifecycle(log_cell, &mut log, *keep, now),
            // Its own earlier events may be lost.
            Err(StoreError::Superseded) => {}
            Err(_) => log.restore(before),
        }
        committed
    }

    /// Removes the oldest messages when there are `keep` bytes behind them.
    fn trim_lifecycle(
        &self,
        cell: &Arc<StreamCell>,
        log: &mut CellState,
        keep: u64,
        now: Timestamp,
    ) {
        let Some(stream) = &log.assigned else { return };
        let tail = TrimMark { stream: stream.core.id, at: stream.tail, messages: stream.messages };
        let mut next = self.lifecycle.mark.lock();
        let Some(mark) = next.filter(|mark| mark.stream == stream.core.id) else {
            *next = Some(tail);
            return;
        };
        if stream.tail.position().saturating_sub(mark.at.position()) < keep {
            return;
        }
        *next = Some(tail);
        let trim = stream.trim(mark.at, mark.messages, !log.forks.is_empty(), now);
        if let Ok(Decision::Commit(event, _)) = trim
            && let Err(error) = self.commit_trim(None, cell, log, event)
        {
            tracing::debug!(%error, "old lifecycle events stay for now");
        }
    }
}

/// The message about a change, decided on the lifecycle stream; `None` when there is none.
fn report(
    log: &StreamState,
    change: &LifecycleChange<'_>,
    now: Timestamp,
) -> Option<DecidedEvent<'static>> {
    let message = change.stored_message(log.messages.unwrap_or(0) + 1)?;
    let content_type = Some(Ok(log.core.content_type.clone()));
    let append = Append { content_type, ..Append::default() };
    match log.append(&append, None, false, Ok(message.into()), now) {
        Ok(Decision::Commit(event, _)) => {
            let id = log.core.id;
            Some(DecidedEvent { id, event, place: None, forks: None, usage: None })
        }
        Ok(Decision::Reply(_)) => None,
        Err(error) => {
            tracing::error!(%error, "a lifecycle event is missing");
            None
        }
    }
}
