//! What of the names is not in the index yet: paths, forks, deadlines of streams created, deleted or
//! soft-deleted since.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use durable_streams_protocol::{StreamEvent, StreamId, StreamPath, Timestamp};
use rustc_hash::FxHashMap;

use super::wal::Lsn;
use crate::store::Spare;

/// See the module.
#[derive(Default)]
pub(super) struct Names {
    /// The newest stream at each path created since.
    paths: BTreeMap<StreamPath, (Lsn, StreamId)>,
    deleted: FxHashMap<StreamId, Lsn>,
    forks: FxHashMap<StreamId, BTreeSet<StreamId>>,
    /// First deadlines of streams created since, and 0 for those soft-deleted since. Later touches only
    /// push a deadline back, so a stream that is due is found here or in the index.
    deadlines: BTreeSet<(Timestamp, StreamId)>,
}

/// What [`Names::add`] needs of an event.
pub(super) enum Named {
    Created { path: StreamPath, source: Option<StreamId>, deadline: Option<Timestamp> },
    SoftDeleted,
    Deleted,
}

impl Names {
    /// Whether an event changes names.
    pub(super) fn has(event: &StreamEvent) -> bool {
        match event {
            StreamEvent::Created(_)
            | StreamEvent::SoftDeleted { .. }
            | StreamEvent::Deleted { .. } => true,
            StreamEvent::Appended(_) | StreamEvent::Touched { .. } => false,
        }
    }

    /// What to add for an event.
    pub(super) fn needs(event: &StreamEvent) -> Named {
        match event {
            StreamEvent::Created(created) => Named::Created {
                path: created.path.clone(),
                source: created.fork.as_ref().map(|fork| fork.source),
                deadline: created.expiry.deadline(created.at),
            },
            StreamEvent::SoftDeleted { .. } => Named::SoftDeleted,
            StreamEvent::Deleted { .. }
            | StreamEvent::Appended(_)
            | StreamEvent::Touched { .. } => Named::Deleted,
        }
    }

    pub(super) fn add(&mut self, lsn: Lsn, id: StreamId, named: Named) {
        match named {
            Named::Created { path, source, deadline } => {
                self.paths.insert(path, (lsn, id));
                if let Some(source) = source {
                    self.forks.entry(source).or_default().insert(id);
                }
                self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
            }
            Named::SoftDeleted => {
                self.deadlines.insert((Timestamp::default(), id));
            }
            Named::Deleted => {
                self.deleted.insert(id, lsn);
            }
        }
    }

    /// Gives back tables that many streams once filled.
    pub(super) fn shrink(&mut self) {
        self.deleted.give_back();
        self.forks.give_back();
    }

    /// Forgets what an event added; the index has it now.
    pub(super) fn remove(&mut self, lsn: Lsn, id: StreamId, event: &StreamEvent) {
        match Self::needs(event) {
            Named::Created { path, source, deadline } => {
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
            Named::SoftDeleted => {
                self.deadlines.remove(&(Timestamp::default(), id));
            }
            Named::Deleted => {
                self.deleted.remove(&id);
            }
        }
    }

    /// The stream created at a path since.
    pub(super) fn at(&self, path: &StreamPath) -> Option<StreamId> {
        self.paths.get(path).map(|(_, id)| *id)
    }

    pub(super) fn is_deleted(&self, id: StreamId) -> bool {
        self.deleted.contains_key(&id)
    }

    /// The forks of a stream, given those that the index has.
    pub(super) fn forks(&self, source: StreamId, indexed: Vec<StreamId>) -> Vec<StreamId> {
        let mut forks: BTreeSet<StreamId> = indexed.into_iter().collect();
        forks.extend(self.forks.get(&source).into_iter().flatten());
        forks.into_iter().filter(|fork| !self.is_deleted(*fork)).collect()
    }

    /// Streams that may be due: a superset.
    pub(super) fn maybe_due(&self, now: Timestamp) -> Vec<StreamId> {
        let due = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        due.map(|(_, id)| *id).collect()
    }

    /// Paths of live streams after `after` created since, in order; at most `max`.
    pub(super) fn list(&self, after: Option<&StreamPath>, max: usize) -> Vec<StreamPath> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.paths.range((from, Bound::Unbounded));
        let live = range.filter(|(_, (_, id))| !self.is_deleted(*id));
        live.take(max).map(|(path, _)| path.clone()).collect()
    }
}
