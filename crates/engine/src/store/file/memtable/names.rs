//! Names that the index does not have yet: paths, forks and deadlines of streams that were created, deleted or
//! soft-deleted since the last checkpoint.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use durable_streams_protocol::{StreamEvent, StreamId, StreamPath, Timestamp};
use rustc_hash::FxHashMap;

use crate::store::{ShrinkSparse, file::wal::Lsn};

#[derive(Default)]
pub(in crate::store::file) struct UnindexedNames {
    /// The newest stream at each path.
    paths: BTreeMap<StreamPath, (Lsn, StreamId)>,
    deleted: FxHashMap<StreamId, Lsn>,
    /// How many trims there are.
    trims: usize,
    forks: FxHashMap<StreamId, BTreeSet<StreamId>>,
    /// First deadlines of new streams, deadlines that were changed, and 0 for soft-deleted streams. Later touches push a deadline back, so a stream
    /// that is due is found here or in the index. Only after the clock was set back, a touch may bring a deadline forward;
    /// then it is found after the next checkpoint.
    deadlines: BTreeSet<(Timestamp, StreamId)>,
}

/// The change of names that an event makes.
pub(super) enum NameChange {
    Created { path: StreamPath, source: Option<StreamId>, deadline: Option<Timestamp> },
    SoftDeleted,
    Deleted,
    Trimmed,
    ExpiryChanged { deadline: Timestamp },
}

impl NameChange {
    /// `None` for events that change no names.
    pub(super) fn of(event: &StreamEvent) -> Option<Self> {
        match event {
            StreamEvent::Created(created) => Some(NameChange::Created {
                path: created.path.clone(),
                source: created.fork.as_ref().map(|fork| fork.source),
                deadline: created.expiry.deadline(created.at),
            }),
            StreamEvent::SoftDeleted { .. } => Some(NameChange::SoftDeleted),
            StreamEvent::Deleted { .. } => Some(NameChange::Deleted),
            StreamEvent::Trimmed(_) => Some(NameChange::Trimmed),
            StreamEvent::ExpiryChanged { at, expiry } => {
                expiry.deadline(*at).map(|deadline| NameChange::ExpiryChanged { deadline })
            }
            StreamEvent::Appended(_) | StreamEvent::Touched { .. } | StreamEvent::Marked { .. } => {
                None
            }
        }
    }
}

impl UnindexedNames {
    pub(super) fn add(&mut self, lsn: Lsn, id: StreamId, change: NameChange) {
        match change {
            NameChange::Created { path, source, deadline } => {
                self.paths.insert(path, (lsn, id));
                if let Some(source) = source {
                    self.forks.entry(source).or_default().insert(id);
                }
                self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
            }
            NameChange::SoftDeleted => {
                self.deadlines.insert((Timestamp::default(), id));
            }
            NameChange::Deleted => {
                self.deleted.insert(id, lsn);
            }
            NameChange::Trimmed => self.trims += 1,
            NameChange::ExpiryChanged { deadline } => {
                self.deadlines.insert((deadline, id));
            }
        }
    }

    /// Shrinks tables that many streams once filled.
    pub(super) fn shrink(&mut self) {
        self.deleted.shrink_if_sparse();
        self.forks.shrink_if_sparse();
    }

    /// Undoes [`add`](Self::add) once the index has the event.
    pub(super) fn remove(&mut self, lsn: Lsn, id: StreamId, change: NameChange) {
        match change {
            NameChange::Created { path, source, deadline } => {
                if self.paths.get(&path) == Some(&(lsn, id)) {
                    self.paths.remove(&path);
                }
                if let Some(source) = source
                    && let Some(forks) = self.forks.get_mut(&source)
                {
                    forks.remove(&id);
                    if forks.is_empty() {
                        self.forks.remove(&source);
                    }
                }
                if let Some(deadline) = deadline {
                    self.deadlines.remove(&(deadline, id));
                }
            }
            NameChange::SoftDeleted => {
                self.deadlines.remove(&(Timestamp::default(), id));
            }
            NameChange::Deleted => {
                self.deleted.remove(&id);
            }
            NameChange::Trimmed => self.trims = self.trims.saturating_sub(1),
            NameChange::ExpiryChanged { deadline } => {
                self.deadlines.remove(&(deadline, id));
            }
        }
    }

    /// The new stream at a path.
    pub(in crate::store::file) fn at(&self, path: &StreamPath) -> Option<StreamId> {
        self.paths.get(path).map(|(_, id)| *id)
    }

    /// Whether a stream was deleted or trimmed since the last checkpoint: folding that in makes room.
    pub(in crate::store::file) fn has_deletions(&self) -> bool {
        !self.deleted.is_empty() || self.trims > 0
    }

    pub(in crate::store::file) fn is_deleted(&self, id: StreamId) -> bool {
        self.deleted.contains_key(&id)
    }

    /// The forks of a stream, given those that the index has.
    pub(in crate::store::file) fn forks(
        &self,
        source: StreamId,
        indexed: Vec<StreamId>,
    ) -> Vec<StreamId> {
        let mut forks: BTreeSet<StreamId> = indexed.into_iter().collect();
        forks.extend(self.forks.get(&source).into_iter().flatten());
        forks.into_iter().filter(|fork| !self.is_deleted(*fork)).collect()
    }

    /// Streams that may be due: a superset.
    pub(in crate::store::file) fn maybe_due(&self, now: Timestamp) -> Vec<StreamId> {
        let due = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        due.map(|(_, id)| *id).collect()
    }

    /// New streams from `from` on whose paths begin with `prefix`, in the order of their paths, deleted ones left out; at
    /// most `max`.
    pub(in crate::store::file) fn range(
        &self,
        from: Bound<&StreamPath>,
        prefix: &str,
        max: usize,
    ) -> Vec<(StreamPath, StreamId)> {
        let range = self.paths.range::<StreamPath, _>((from, Bound::Unbounded));
        let inside = range.take_while(|(path, _)| path.as_str().starts_with(prefix));
        let there = inside.filter(|(_, (_, id))| !self.is_deleted(*id));
        there.take(max).map(|(path, (_, id))| (path.clone(), *id)).collect()
    }

    /// New streams that expire.
    pub(in crate::store::file) fn expiring(&self) -> Vec<StreamId> {
        self.deadlines.iter().map(|(_, id)| *id).collect()
    }

    /// Paths of new streams after `after`, in order, deleted ones left out; at most `max`.
    pub(in crate::store::file) fn list(
        &self,
        after: Option<&StreamPath>,
        max: usize,
    ) -> Vec<StreamPath> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.paths.range((from, Bound::Unbounded));
        let there = range.filter(|(_, (_, id))| !self.is_deleted(*id));
        there.take(max).map(|(path, _)| path.clone()).collect()
    }
}
