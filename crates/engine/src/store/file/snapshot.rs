//! Snapshot reads: the index as of its last event, and the memtable's events after that.
//!
//! Each read takes a read transaction of the index first and looks into the memtable second. When a checkpoint's events
//! are evicted from the memtable in between, some may be in neither; [`Memtable::validate`] notices, and the read
//! starts over.

pub(super) mod bytes;
mod listing;
mod small;

use std::collections::{BTreeMap, BTreeSet};

use durable_streams_protocol::{
    Offset, ProducerId, ProducerState, StreamId, StreamPath, StreamState, Timestamp,
};

use super::{
    index::handle::{IndexHandle, ReadTxn},
    memtable::{Memtable, ReadGuard, StaleRead},
    segments::files::SegmentFiles,
    wal::Lsn,
};
use crate::store::{
    AppendEnd, DamagedStream, DeadlineCursor, EventPlace, LoadFor, LoadedStream, StoreError,
    UsedAfter,
};

/// Why a read has no result.
enum ReadFailure {
    /// Start over.
    Stale,
    Failed(StoreError),
}

impl From<StaleRead> for ReadFailure {
    fn from(_: StaleRead) -> Self {
        ReadFailure::Stale
    }
}

impl From<StoreError> for ReadFailure {
    fn from(error: StoreError) -> Self {
        ReadFailure::Failed(error)
    }
}

/// Reads over both places where events are.
pub(super) struct SnapshotReads<'s> {
    pub(super) index: &'s IndexHandle,
    pub(super) segments: &'s SegmentFiles,
    pub(super) memtable: &'s Memtable,
}

/// One moment of both.
struct StoreSnapshot<'s> {
    memtable: &'s Memtable,
    txn: ReadTxn<'s>,
    guard: ReadGuard,
    /// The last event that the index has.
    lsn: Lsn,
}

impl SnapshotReads<'_> {
    /// Runs `read` on a snapshot, again and again until no eviction overlaps it.
    fn consistent<T>(
        &self,
        read: impl Fn(&StoreSnapshot<'_>) -> Result<T, ReadFailure>,
    ) -> Result<T, StoreError> {
        loop {
            let guard = self.memtable.begin_read();
            let txn = self.index.read()?;
            let lsn = txn.meta()?.lsn;
            let snapshot = StoreSnapshot { memtable: self.memtable, txn, guard, lsn };
            let found = read(&snapshot).and_then(|found| {
                self.memtable.validate(guard)?;
                Ok(found)
            });
            match found {
                Ok(found) => return Ok(found),
                Err(ReadFailure::Failed(error)) => return Err(error),
                Err(ReadFailure::Stale) => {}
            }
        }
    }

    /// The stream at a path, if the memtable alone can answer.
    pub(super) fn load_unindexed(&self, path: &StreamPath) -> Option<LoadedStream> {
        let guard = self.memtable.begin_read();
        if !guard.is_stable() {
            return None;
        }
        let names = self.memtable.names.lock();
        let id = names.at(path)?;
        let forks = names.forks(id, Vec::new());
        drop(names);
        if !self.memtable.begins_here(id) {
            return None;
        }
        let state = self.memtable.fold(guard, id, 0, None).ok()??;
        self.memtable.validate(guard).ok()?;
        // The stream has no event elsewhere.
        Some(LoadedStream { producers: state.producers.len() as u64, state, forks })
    }

    pub(super) fn load(
        &self,
        path: &StreamPath,
        purpose: LoadFor,
    ) -> Result<Option<LoadedStream>, StoreError> {
        let found = self.consistent(|snapshot| {
            let unindexed = self.memtable.names.lock().at(path);
            let id = match unindexed {
                Some(id) => Some(id),
                None => snapshot.txn.path_id(path)?,
            };
            let Some(id) = id else {
                if self.index.health().names_may_miss() {
                    return Err(self.index.hidden_names().into());
                }
                return Ok(None);
            };
            let found = match snapshot.state_and_producers(id) {
                // Its deletion is durable, and not yet in the index.
                Err(ReadFailure::Failed(StoreError::Corrupt { .. }))
                    if self.memtable.names.lock().is_deleted(id) =>
                {
                    None
                }
                found => found?,
            };
            let Some((state, producers)) = found else {
                let deleted = self.memtable.names.lock().is_deleted(id);
                self.memtable.validate(snapshot.guard)?;
                if unindexed.is_some() || deleted {
                    return Ok(None);
                }
                let what = format!("stream {}, which the path {path} names,", id.0);
                return Err(self.index.missing(&what).into());
            };
            if state.core.path != *path {
                let (named, own) = (id.0, state.core.path.as_str());
                let what = format!(
                    "the path {path} names stream {named}, whose path is {own}: one of them"
                );
                return Err(self.index.damaged(&what).into());
            }
            let small = if purpose == LoadFor::Bytes { snapshot.small(&state) } else { None };
            Ok(Some((LoadedStream { state, producers, forks: snapshot.forks(id)? }, small)))
        })?;
        let Some((loaded, small)) = found else { return Ok(None) };
        self.cache(&loaded.state, small);
        Ok(Some(loaded))
    }

    /// What a stream remembers of a producer.
    pub(super) fn producer(
        &self,
        id: StreamId,
        producer: &ProducerId,
    ) -> Result<Option<ProducerState>, StoreError> {
        self.consistent(|snapshot| match self.memtable.producer(id, producer) {
            Some(known) => Ok(Some(known)),
            None => Ok(snapshot.txn.producer(id, producer)?),
        })
    }

    /// See [`Store::producers`](crate::store::Store::producers).
    pub(super) fn producers(
        &self,
        id: StreamId,
        after: Option<&ProducerId>,
        max: usize,
    ) -> Result<Vec<(ProducerId, ProducerState)>, StoreError> {
        self.consistent(|snapshot| {
            let indexed = snapshot.txn.producers(id, after, max)?;
            let mut page: BTreeMap<ProducerId, ProducerState> = indexed.into_iter().collect();
            page.extend(self.memtable.producers(id, after));
            Ok(page.into_iter().take(max).collect())
        })
    }

    /// See [`Store::damaged`](crate::store::Store::damaged).
    pub(super) fn damaged(&self, path: &StreamPath) -> Result<Option<DamagedStream>, StoreError> {
        self.consistent(|snapshot| {
            let Some(id) = snapshot.txn.path_id(path)? else { return Ok(None) };
            let place = match snapshot.state(id) {
                Ok(Some(state)) if state.core.path == *path => EventPlace::behind(&state),
                // A name without a state, or of another stream, is for `repair`.
                Ok(_) => return Ok(None),
                // The state alone knows, so recovery takes any place.
                Err(ReadFailure::Failed(StoreError::Corrupt { .. })) => EventPlace::default(),
                Err(other) => return Err(other),
            };
            if !snapshot.forks(id)?.is_empty() {
                let what = format!(
                    "stream {} ({path}), whose bytes a fork needs: delete the fork first, or see what `repair` would \
                     drop; it",
                    id.0
                );
                return Err(self.index.damaged(&what).into());
            }
            Ok(Some(DamagedStream { id, place }))
        })
    }

    /// See [`Store::append_end`](crate::store::Store::append_end); `to` is after `limit`.
    pub(super) fn append_end(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        limit: Offset,
    ) -> Result<AppendEnd, StoreError> {
        self.cache_small(id)?;
        // What the memtable does not have now, the snapshot has.
        if let Some(end) = self.memtable.append_end(id, from, to, limit) {
            return Ok(AppendEnd::At(end));
        }
        self.consistent(|snapshot| {
            let Some(state) = snapshot.state(id)? else { return Ok(AppendEnd::Gone) };
            if state.core.content_type.is_json() {
                return Ok(AppendEnd::Unknown);
            }
            let around = snapshot.txn.ends_around(id, limit)?;
            Ok(match around.and_then(|around| around.page_end(from.position())) {
                Some(end) => AppendEnd::At(Offset::new(end).min(to)),
                None if from.position() < state.first_kept().position() => AppendEnd::Gone,
                None => AppendEnd::Unknown,
            })
        })
    }

    pub(super) fn due(&self, now: Timestamp, max: usize) -> Result<Vec<StreamPath>, StoreError> {
        self.consistent(|snapshot| {
            let mut due = Vec::new();
            let mut seen = BTreeSet::new();
            let mut consider = |id: StreamId| -> Result<bool, ReadFailure> {
                if seen.insert(id)
                    && let Some(state) = snapshot.state(id)?
                    && state.is_due(!snapshot.forks(id)?.is_empty(), now)
                {
                    due.push(state.core.path.clone());
                }
                Ok(due.len() < max)
            };
            let unindexed = self.memtable.names.lock().maybe_due(now);
            for id in unindexed {
                if !consider(id)? {
                    break;
                }
            }
            let mut stale = false;
            snapshot.txn.each_due(now, &mut |id| match consider(id) {
                Ok(go_on) => Ok(go_on),
                Err(ReadFailure::Failed(error)) => Err(error),
                Err(ReadFailure::Stale) => {
                    stale = true;
                    Ok(false)
                }
            })?;
            due.truncate(max);
            if stale { Err(ReadFailure::Stale) } else { Ok(due) }
        })
    }

    /// See [`Store::used_after`](crate::store::Store::used_after). Streams that only the memtable has are found first.
    pub(super) fn used_after(
        &self,
        time: Timestamp,
        from: DeadlineCursor,
        max: usize,
    ) -> Result<UsedAfter, StoreError> {
        self.consistent(|snapshot| {
            let mut found = UsedAfter::default();
            let mut consider = |id: StreamId| -> Result<(), ReadFailure> {
                let state = snapshot.state(id)?.filter(|state| state.is_used_after(time));
                found.paths.extend(state.map(|state| state.core.path.clone()));
                Ok(())
            };
            if from.id == StreamId(0) {
                let unindexed = self.memtable.names.lock().expiring();
                unindexed.into_iter().try_for_each(&mut consider)?;
            }
            let (indexed, next) = snapshot.txn.deadlines_from(from, max)?;
            indexed.into_iter().try_for_each(&mut consider)?;
            found.next = next;
            Ok(found)
        })
    }

    pub(super) fn list(
        &self,
        after: Option<&StreamPath>,
        max: usize,
    ) -> Result<Vec<StreamPath>, StoreError> {
        self.consistent(|snapshot| {
            let unindexed = self.memtable.names.lock().list(after, max);
            let mut paths: BTreeSet<StreamPath> = unindexed.into_iter().collect();
            let mut indexed = 0;
            snapshot.txn.each_path(after.map(StreamPath::as_str), &mut |path, id| {
                if !self.memtable.names.lock().is_deleted(id)
                    && let Ok(path) = StreamPath::system(&path)
                {
                    paths.insert(path);
                    indexed += 1;
                }
                Ok(indexed < max)
            })?;
            Ok(paths.into_iter().take(max).collect())
        })
    }
}

impl StoreSnapshot<'_> {
    /// A stream's state; its producers are those of the memtable's events.
    fn state(&self, id: StreamId) -> Result<Option<StreamState>, ReadFailure> {
        let base = self.txn.state(id)?;
        Ok(self.memtable.fold(self.guard, id, self.lsn, base)?)
    }

    /// The same, and how many producers the stream has.
    fn state_and_producers(&self, id: StreamId) -> Result<Option<(StreamState, u64)>, ReadFailure> {
        let (base, indexed) = self.txn.state_and_producers(id)?.unzip();
        let Some(state) = self.memtable.fold(self.guard, id, self.lsn, base)? else {
            return Ok(None);
        };
        let mut producers = indexed.unwrap_or(0);
        for producer in state.producers.keys() {
            let known = producers > 0 && self.txn.has_producer(id, producer)?;
            producers += u64::from(!known);
        }
        Ok(Some((state, producers)))
    }

    fn forks(&self, id: StreamId) -> Result<Vec<StreamId>, ReadFailure> {
        let indexed = self.txn.forks(id)?;
        Ok(self.memtable.names.lock().forks(id, indexed))
    }
}

#[cfg(test)]
mod tests;
