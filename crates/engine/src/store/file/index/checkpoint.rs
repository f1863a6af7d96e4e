//! Folding the log into the index: one transaction that also records how far it came.
//!
//! The cost follows the streams that changed. Producers are read by no fold: a state without any gathers
//! exactly those that changed.

use std::io;

use bytes::Bytes;
use durable_streams_protocol::{Offset, StreamEvent, StreamId, StreamState, Timestamp};
use heed::RwTxn;

use super::{
    env::Environment,
    gate::{Index, WriteError},
    keys::{self, Meta},
};
use crate::store::{StoreError, file::wal::Lsn};

/// What a checkpoint folded in.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store::file) struct Folded {
    /// Payload bytes of streams that are deleted now.
    pub(in crate::store::file) freed: u64,
    /// The change of what is kept for forks only.
    pub(in crate::store::file) kept: Kept<i64>,
}

/// Streams that were deleted and are kept because forks need their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store::file) struct Kept<N> {
    pub(in crate::store::file) streams: N,
    /// Their own payload.
    pub(in crate::store::file) bytes: N,
}

impl Kept<u64> {
    fn of(state: Option<&StreamState>) -> Self {
        let state = state.filter(|state| state.soft_deleted);
        state.map_or(Kept::default(), |state| Kept { streams: 1, bytes: own_len(state) })
    }

    /// With a change.
    pub(in crate::store::file) fn add(&mut self, change: Kept<i64>) {
        self.streams = self.streams.saturating_add_signed(change.streams);
        self.bytes = self.bytes.saturating_add_signed(change.bytes);
    }
}

impl Kept<i64> {
    fn add(&mut self, before: Kept<u64>, after: Kept<u64>) {
        self.streams += after.streams as i64 - before.streams as i64;
        self.bytes += after.bytes as i64 - before.bytes as i64;
    }
}

/// The events of one stream, oldest first.
pub(in crate::store::file) type Events = Vec<(Lsn, StreamEvent)>;

/// A stream's own bytes, without those it inherits.
pub(in crate::store::file) fn own_len(state: &StreamState) -> u64 {
    state.tail.position().saturating_sub(state.core.own_start().position())
}

impl Index {
    /// Folds in the events of `ids` up to `upto`; `events_of` gives those of one stream.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub(in crate::store::file) fn checkpoint(
        &self,
        before_commit: &dyn Fn() -> io::Result<()>,
        upto: Lsn,
        ids: &[StreamId],
        events_of: &dyn Fn(StreamId) -> Events,
    ) -> Result<Folded, StoreError> {
        self.has_changed(ids.len());
        self.write(before_commit, |index, txn| {
            let before = index.meta(txn)?;
            let mut fold = Fold { meta: before, folded: Folded::default(), value: Vec::new() };
            for id in ids {
                let mut events = events_of(*id);
                events.retain(|(lsn, _)| *lsn > before.lsn && *lsn <= upto);
                fold.stream(index, txn, *id, &events)?;
            }
            fold.meta.lsn = fold.meta.lsn.max(upto);
            keys::seal(keys::META, &fold.meta.encode(), &mut fold.value);
            index.meta.put(txn, keys::META, &fold.value)?;
            Ok(fold.folded)
        })
    }

    /// What is kept for forks only. Looks at each such stream; a checkpoint says how it changes.
    pub(in crate::store::file) fn kept(&self) -> Result<Kept<u64>, StoreError> {
        let reading = self.read()?;
        let (mut kept, mut failed) = (Kept::<u64>::default(), None);
        // Where `StreamState::due_at` puts them.
        reading.each_due(Timestamp::default(), &mut |id| {
            match reading.state(id) {
                Ok(state) => {
                    let Kept { streams, bytes } = Kept::of(state.as_ref());
                    kept = Kept { streams: kept.streams + streams, bytes: kept.bytes + bytes };
                }
                Err(error) => failed = Some(error),
            }
            Ok(failed.is_none())
        })?;
        failed.map_or(Ok(kept), Err)
    }

    /// Removes some of what deleted streams left behind. Gives whether there is more.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub(in crate::store::file) fn purge_some(
        &self,
        before_commit: &dyn Fn() -> io::Result<()>,
        max: usize,
    ) -> Result<bool, StoreError> {
        let reading = self.read()?;
        let none = reading.index().purge.is_empty(&reading.txn);
        drop(reading);
        if matches!(none, Ok(true)) {
            return Ok(false);
        }
        self.write(before_commit, |index, txn| index.purge(txn, max))
    }
}

/// A checkpoint under way.
struct Fold {
    meta: Meta,
    folded: Folded,
    /// A buffer for sealed values.
    value: Vec<u8>,
}

impl Fold {
    fn stream(
        &mut self,
        index: &Environment,
        txn: &mut RwTxn<'_>,
        id: StreamId,
        events: &[(Lsn, StreamEvent)],
    ) -> Result<(), WriteError> {
        if events.is_empty() {
            return Ok(());
        }
        let before = index.state(txn, id)?;
        let mut state = before.clone();
        let mut data = Vec::new();
        for (_, event) in events {
            if matches!(event, StreamEvent::Deleted { .. }) {
                self.folded.freed += state.as_ref().map_or(0, own_len);
            }
            state = StreamState::fold(state, id, event);
            data.extend(event.data());
        }
        self.meta.next_id = self.meta.next_id.max(id.0 + 1);
        self.folded.kept.add(Kept::of(before.as_ref()), Kept::of(state.as_ref()));
        match (before, state) {
            (before, Some(state)) => self.put(index, txn, before.as_ref(), &state, &data),
            (Some(before), None) => self.remove(index, txn, &before),
            (None, None) => Ok(()),
        }
    }

    fn put(
        &mut self,
        index: &Environment,
        txn: &mut RwTxn<'_>,
        before: Option<&StreamState>,
        state: &StreamState,
        data: &[&Bytes],
    ) -> Result<(), WriteError> {
        let core = &state.core;
        let id = keys::id(core.id);
        let mut contents = Vec::with_capacity(128);
        state.encode(&mut contents);
        keys::seal(&id, &contents, &mut self.value);
        index.streams.put(txn, &id, &self.value)?;
        if before.is_none() {
            self.meta.streams += 1;
            index.put_path(txn, &core.path, core.id, &mut self.meta.next_node)?;
            if let Some(fork) = &core.fork {
                index.forks.put(txn, &keys::fork(fork.source, core.id), &[])?;
            }
        }
        let (was, now) = (before.and_then(StreamState::due_at), state.due_at());
        if was != now {
            if let Some(was) = was {
                index.deadlines.delete(txn, &keys::deadline(was, core.id))?;
            }
            if let Some(now) = now {
                index.deadlines.put(txn, &keys::deadline(now, core.id), &[])?;
            }
        }
        for (producer, known) in &state.producers {
            let key = keys::producer(core.id, producer);
            keys::seal(&key, &known.encode(), &mut self.value);
            index.producers.put(txn, &key, &self.value)?;
        }
        let tail: Offset = before.map_or(core.own_start(), |before| before.tail);
        self.meta.bytes += data.iter().map(|piece| piece.len() as u64).sum::<u64>();
        index.append(txn, core.id, tail, data)
    }

    fn remove(
        &mut self,
        index: &Environment,
        txn: &mut RwTxn<'_>,
        before: &StreamState,
    ) -> Result<(), WriteError> {
        let core = &before.core;
        let id = keys::id(core.id);
        index.remove_path(txn, &core.path, core.id)?;
        index.streams.delete(txn, &id)?;
        if let Some(at) = before.due_at() {
            index.deadlines.delete(txn, &keys::deadline(at, core.id))?;
        }
        if let Some(fork) = &core.fork {
            index.forks.delete(txn, &keys::fork(fork.source, core.id))?;
        }
        index.purge.put(txn, &id, &[])?;
        self.meta.streams = self.meta.streams.saturating_sub(1);
        self.meta.bytes = self.meta.bytes.saturating_sub(own_len(before));
        Ok(())
    }
}
