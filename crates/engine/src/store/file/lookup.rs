//! Looking streams up: the index as of its last event, and the recent events after it.
//!
//! Each look takes a moment of the index and then what is recent. When a checkpoint is settled in between,
//! events may be in neither; [`Recent::check`] notices, and the look starts over.

use std::collections::BTreeSet;

use bytes::Bytes;
use durable_streams_protocol::{Offset, StreamId, StreamPath, StreamState, Timestamp};

use super::{
    index::gate::{Index, Reading},
    recent::{Begin, Recent, Settled},
    wal::Lsn,
};
use crate::store::{Loaded, Purpose, StoreError};

/// A stream of which the index has no more bytes than this is kept in memory when it is read.
const SMALL: u64 = 16 << 10;

/// A look, or why there was none.
enum Missed {
    Settled,
    Failed(StoreError),
}

impl From<Settled> for Missed {
    fn from(_: Settled) -> Self {
        Missed::Settled
    }
}

impl From<StoreError> for Missed {
    fn from(error: StoreError) -> Self {
        Missed::Failed(error)
    }
}

/// The two places where streams are.
pub(super) struct Lookup<'s> {
    pub(super) index: &'s Index,
    pub(super) recent: &'s Recent,
}

/// One moment of both.
struct Look<'s> {
    recent: &'s Recent,
    reading: Reading<'s>,
    begin: Begin,
    /// The last event that the index has.
    lsn: Lsn,
}

impl Lookup<'_> {
    fn look<T>(&self, each: impl Fn(&Look<'_>) -> Result<T, Missed>) -> Result<T, StoreError> {
        loop {
            let begin = self.recent.begin();
            let reading = self.index.read()?;
            let lsn = reading.meta()?.lsn;
            let look = Look { recent: self.recent, reading, begin, lsn };
            let found = each(&look).and_then(|found| {
                self.recent.check(begin)?;
                Ok(found)
            });
            match found {
                Ok(found) => return Ok(found),
                Err(Missed::Failed(error)) => return Err(error),
                Err(Missed::Settled) => {}
            }
        }
    }

    /// The stream at a path, if that needs no look at the index.
    pub(super) fn load_recent(&self, path: &StreamPath) -> Option<Loaded> {
        let begin = self.recent.begin();
        if !Recent::is_quiet(begin) {
            return None;
        }
        let names = self.recent.names.lock();
        let id = names.at(path)?;
        let forks = names.forks(id, Vec::new());
        drop(names);
        if !self.recent.begins_here(id) {
            return None;
        }
        let state = self.recent.fold(begin, id, 0, None).ok()??;
        self.recent.check(begin).ok()?;
        Some(Loaded { state, forks })
    }

    pub(super) fn load(
        &self,
        path: &StreamPath,
        purpose: Purpose,
    ) -> Result<Option<Loaded>, StoreError> {
        self.look(|look| {
            let recent = self.recent.names.lock().at(path);
            let id = match recent {
                Some(id) => Some(id),
                None => look.reading.path_id(path)?,
            };
            let Some(id) = id else { return Ok(None) };
            let Some(state) = look.state(id, true)? else { return Ok(None) };
            if purpose == Purpose::Read {
                look.keep_small(&state)?;
            }
            Ok(Some(Loaded { state, forks: look.forks(id)? }))
        })
    }

    /// Own bytes of a stream, from memory or from the index.
    pub(super) fn read(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        // Learns where the recent bytes begin.
        self.look(|look| {
            let state = look.state(id, false)?;
            state.as_ref().map_or(Ok(()), |state| look.keep_small(state))
        })?;
        if let Some(found) = self.recent.read(id, from, to, max) {
            return Ok(found);
        }
        let bytes = self.index.read()?.bytes(id, from, to, max)?;
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()).into_iter().collect())
    }

    pub(super) fn due(&self, now: Timestamp, max: usize) -> Result<Vec<StreamPath>, StoreError> {
        self.look(|look| {
            let mut due = Vec::new();
            let mut seen = BTreeSet::new();
            let mut consider = |id: StreamId| -> Result<bool, Missed> {
                if seen.insert(id)
                    && let Some(state) = look.state(id, false)?
                    && state.is_due(!look.forks(id)?.is_empty(), now)
                {
                    due.push(state.core.path.clone());
                }
                Ok(due.len() < max)
            };
            let recent = self.recent.names.lock().maybe_due(now);
            for id in recent {
                if !consider(id)? {
                    break;
                }
            }
            let mut settled = false;
            look.reading.each_due(now, &mut |id| match consider(id) {
                Ok(go_on) => Ok(go_on),
                Err(Missed::Failed(error)) => Err(error),
                Err(Missed::Settled) => {
                    settled = true;
                    Ok(false)
                }
            })?;
            due.truncate(max);
            if settled { Err(Missed::Settled) } else { Ok(due) }
        })
    }

    pub(super) fn list(
        &self,
        after: Option<&StreamPath>,
        max: usize,
    ) -> Result<Vec<StreamPath>, StoreError> {
        self.look(|look| {
            let recent = self.recent.names.lock().list(after, max);
            let mut paths: BTreeSet<StreamPath> = recent.into_iter().collect();
            let mut indexed = 0;
            look.reading.each_path(after.map(StreamPath::as_str), &mut |path, id| {
                if !self.recent.names.lock().is_deleted(id)
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

impl Look<'_> {
    /// A stream's state, with its producers if asked for.
    fn state(&self, id: StreamId, producers: bool) -> Result<Option<StreamState>, Missed> {
        let mut base = self.reading.state(id)?;
        if producers && let Some(base) = &mut base {
            self.reading.producers(base)?;
        }
        Ok(self.recent.fold(self.begin, id, self.lsn, base)?)
    }

    /// Puts the bytes of a small stream with those in memory, where the reads that follow find them.
    fn keep_small(&self, state: &StreamState) -> Result<(), Missed> {
        let (id, start, tail) = (state.core.id, state.core.own_start(), state.tail);
        let len = tail.position().saturating_sub(start.position());
        if len == 0 || len > SMALL || self.recent.has(id) {
            return Ok(());
        }
        // Damage is told to those who need the bytes.
        let bytes = self.reading.bytes(id, start, tail, len as usize);
        match bytes.ok().filter(|bytes| bytes.len() as u64 == len) {
            Some(bytes) => Ok(self.recent.keep(self.begin, id, bytes, tail)?),
            None => Ok(()),
        }
    }

    fn forks(&self, id: StreamId) -> Result<Vec<StreamId>, Missed> {
        let indexed = self.reading.forks(id)?;
        Ok(self.recent.names.lock().forks(id, indexed))
    }
}
