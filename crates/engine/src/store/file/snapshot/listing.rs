//! Lists of streams with their states, for the administration API.

use std::{collections::BTreeMap, ops::Bound};

use durable_streams_protocol::{StreamId, StreamPath, StreamState};

use super::{ReadFailure, SnapshotReads, StoreSnapshot};
use crate::store::{BytePlaces, StoreError, StoredPage, StoredStream};

impl SnapshotReads<'_> {
    /// See [`Store::list_states`](crate::store::Store::list_states).
    pub(in crate::store::file) fn list_states(
        &self,
        from: Bound<&StreamPath>,
        prefix: &str,
        max: usize,
    ) -> Result<StoredPage, StoreError> {
        self.consistent(|snapshot| {
            // One more than the page has, to know whether there is another page.
            let wanted = max.saturating_add(1);
            let mut found = snapshot.names(from, prefix, wanted)?;
            let more = found.len() > max;
            let mut streams = Vec::with_capacity(found.len().min(max));
            while let Some((path, id)) = found.pop_first().filter(|_| streams.len() < max) {
                streams.extend(snapshot.listed(path, id)?);
            }
            Ok(StoredPage { streams, more })
        })
    }

    /// See [`Store::state_of`](crate::store::Store::state_of).
    pub(in crate::store::file) fn state_of(
        &self,
        id: StreamId,
    ) -> Result<Option<StreamState>, StoreError> {
        self.consistent(|snapshot| snapshot.state(id))
    }

    /// See [`Store::places`](crate::store::Store::places).
    pub(in crate::store::file) fn places(
        &self,
        id: StreamId,
    ) -> Result<Option<BytePlaces>, StoreError> {
        self.consistent(|snapshot| {
            let Some(state) = snapshot.txn.state(id)? else { return Ok(None) };
            let sealed_to = snapshot.txn.sealed_to(id)?;
            Ok(Some(BytePlaces { sealed_to, indexed_to: state.tail }))
        })
    }
}

impl StoreSnapshot<'_> {
    /// The streams at the first `wanted` paths, at least: those of the index and those that it does not have yet.
    fn names(
        &self,
        from: Bound<&StreamPath>,
        prefix: &str,
        wanted: usize,
    ) -> Result<BTreeMap<StreamPath, StreamId>, ReadFailure> {
        let unindexed = self.memtable.names.lock().range(from, prefix, wanted);
        let mut found: BTreeMap<StreamPath, StreamId> = unindexed.into_iter().collect();
        let mut indexed = 0;
        let mut add = |path: StreamPath, id: StreamId| {
            if !self.memtable.names.lock().is_deleted(id) {
                // A stream that was created since at the path of a deleted one is the newer.
                found.entry(path).or_insert(id);
                indexed += 1;
            }
            indexed < wanted
        };
        let after = match from {
            Bound::Unbounded => None,
            Bound::Excluded(path) => Some(path),
            Bound::Included(path) => {
                if let Some(id) = self.txn.path_id(path)? {
                    add(path.clone(), id);
                }
                Some(path)
            }
        };
        self.txn.each_path(after.map(StreamPath::as_str), &mut |path, id| {
            if !path.starts_with(prefix) {
                return Ok(false);
            }
            Ok(StreamPath::system(&path).map_or(true, |path| add(path, id)))
        })?;
        Ok(found)
    }

    /// What the list says about a stream; `None` for one that was deleted since its name was found.
    fn listed(&self, path: StreamPath, id: StreamId) -> Result<Option<StoredStream>, ReadFailure> {
        let state = match self.state(id) {
            Ok(Some(state)) => Ok(state),
            Ok(None) => return Ok(None),
            Err(ReadFailure::Failed(error)) => Err(error),
            Err(ReadFailure::Stale) => return Err(ReadFailure::Stale),
        };
        let forks = self.forks(id)?.len();
        Ok(Some(StoredStream { path, state, forks }))
    }
}
