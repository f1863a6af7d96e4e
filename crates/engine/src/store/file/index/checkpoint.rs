//! A checkpoint: one transaction folds the log's events into the index and records the last of them.
//!
//! Its cost follows the streams that changed. It does not read a stream's producers: a state loaded without them collects
//! exactly the producers that changed.

use std::io;

use bytes::Bytes;
use durable_streams_protocol::{Offset, StreamEvent, StreamId, StreamState, Timestamp};
use heed::RwTxn;

use super::{
    appends,
    env::IndexEnvironment,
    extents::NewSegment,
    handle::{IndexHandle, WriteError},
    keys::{self, IndexMeta},
    records::Purged,
    streams::IndexedStream,
};
use crate::store::{
    StoreError,
    file::{append_ends::put_len, wal::Lsn},
};

/// What a checkpoint has found out.
#[derive(Clone, Debug, Default)]
pub(in crate::store::file) struct FoldedTotals {
    /// The JSON streams among those that it changed, in order: their messages delimit themselves, so the ends of their
    /// appends need not be kept.
    pub(in crate::store::file) json: Vec<StreamId>,
    /// Payload bytes of the streams that it deleted, and those that it trimmed.
    pub(in crate::store::file) freed: u64,
    /// The numbers of the segments that it references, of those that were offered.
    pub(in crate::store::file) referenced: Vec<u64>,
    /// The change of what is retained for forks only.
    pub(in crate::store::file) retained: RetainedTotals<i64>,
}

/// Deleted streams that are retained because forks need their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store::file) struct RetainedTotals<N> {
    pub(in crate::store::file) streams: N,
    /// Their own payload, without what they inherit.
    pub(in crate::store::file) bytes: N,
}

impl RetainedTotals<u64> {
    fn of(state: Option<&StreamState>) -> Self {
        let state = state.filter(|state| state.soft_deleted);
        state.map_or(RetainedTotals::default(), |state| RetainedTotals {
            streams: 1,
            bytes: state.own_len(),
        })
    }

    pub(in crate::store::file) fn add(&mut self, change: RetainedTotals<i64>) {
        self.streams = self.streams.saturating_add_signed(change.streams);
        self.bytes = self.bytes.saturating_add_signed(change.bytes);
    }
}

impl RetainedTotals<i64> {
    fn add(&mut self, before: RetainedTotals<u64>, after: RetainedTotals<u64>) {
        self.streams += after.streams as i64 - before.streams as i64;
        self.bytes += after.bytes as i64 - before.bytes as i64;
    }
}

/// An event to fold in.
pub(in crate::store::file) struct LoggedChange {
    pub(in crate::store::file) lsn: Lsn,
    /// The position of the stream's tail before the event.
    pub(in crate::store::file) from: u64,
    pub(in crate::store::file) event: StreamEvent,
}

/// The events of one stream, oldest first.
pub(in crate::store::file) type StreamEvents = Vec<LoggedChange>;

impl IndexHandle {
    /// Folds in the events of `ids` up to `upto`; `events_of` returns those of one stream. Bytes that are in one of the segments,
    /// durable files with an extent each, are referenced there.
    ///
    /// # Errors
    /// The index is unchanged then, unless the error was the commit's.
    pub(in crate::store::file) fn checkpoint(
        &self,
        before_commit: &dyn Fn() -> io::Result<()>,
        upto: Lsn,
        (ids, events_of): (&[StreamId], &dyn Fn(StreamId) -> StreamEvents),
        segments: &[NewSegment],
    ) -> Result<FoldedTotals, StoreError> {
        self.note_checkpoint_size(ids.len());
        self.write(before_commit, |index, txn| {
            let before = index.meta(txn)?;
            let (folded, value) = (FoldedTotals::default(), Vec::new());
            let mut fold = CheckpointFold { meta: before, segments, folded, value };
            for id in ids {
                let mut events = events_of(*id);
                events.retain(|change| change.lsn > before.lsn && change.lsn <= upto);
                fold.stream(index, txn, *id, &events)?;
            }
            fold.meta.lsn = fold.meta.lsn.max(upto);
            index.put_meta(txn, &mut fold.meta)?;
            Ok(fold.folded)
        })
    }

    /// Commits twice without a change. LMDB does not use the pages that its last transaction freed, nor those of the one
    /// before; a transaction that fails for want of pages would fail for the same want again and again.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`].
    pub(in crate::store::file) fn age_free_pages(
        &self,
        before_commit: &dyn Fn() -> io::Result<()>,
    ) -> Result<(), StoreError> {
        for _ in 0..2 {
            self.write(before_commit, |index, txn| {
                let mut meta = index.meta(txn)?;
                Ok(index.put_meta(txn, &mut meta)?)
            })?;
        }
        Ok(())
    }

    /// Counts what is retained for forks only, by loading each such stream.
    pub(in crate::store::file) fn retained(&self) -> Result<RetainedTotals<u64>, StoreError> {
        let txn = self.read()?;
        let (mut retained, mut failed) = (RetainedTotals::<u64>::default(), None);
        // `StreamState::due_at` puts soft-deleted streams at time 0.
        txn.each_due(Timestamp::default(), &mut |id| {
            match txn.state(id) {
                Ok(state) => {
                    let RetainedTotals { streams, bytes } = RetainedTotals::of(state.as_ref());
                    retained = RetainedTotals {
                        streams: retained.streams + streams,
                        bytes: retained.bytes + bytes,
                    };
                }
                Err(error) => failed = Some(error),
            }
            Ok(failed.is_none())
        })?;
        failed.map_or(Ok(retained), Err)
    }

    /// Removes up to `max` records of deleted streams.
    ///
    /// # Errors
    /// The index is unchanged then.
    pub(in crate::store::file) fn purge_some(
        &self,
        before_commit: &dyn Fn() -> io::Result<()>,
        max: usize,
    ) -> Result<Purged, StoreError> {
        let txn = self.read()?;
        let none = txn.index().purge.is_empty(&txn.txn);
        drop(txn);
        if matches!(none, Ok(true)) {
            return Ok(Purged::default());
        }
        self.write(before_commit, |index, txn| {
            let purged = index.purge(txn, max)?;
            let mut meta = index.meta(txn)?;
            index.put_meta(txn, &mut meta)?;
            Ok(purged)
        })
    }
}

struct CheckpointFold<'s> {
    meta: IndexMeta,
    /// With bytes of the events, in the order of their positions.
    segments: &'s [NewSegment],
    folded: FoldedTotals,
    /// A reused buffer for sealed values.
    value: Vec<u8>,
}

impl CheckpointFold<'_> {
    fn stream(
        &mut self,
        index: &IndexEnvironment,
        txn: &mut RwTxn<'_>,
        id: StreamId,
        events: &[LoggedChange],
    ) -> Result<(), WriteError> {
        if events.is_empty() {
            return Ok(());
        }
        let joins = |stream: &Option<IndexedStream<'_>>| {
            let tail = stream.as_ref().map(|stream| stream.state.tail.position());
            let from = events.first().map(|change| change.from);
            tail.is_none() || tail == from
        };
        let stream = match index.stream(txn, id) {
            Ok(stream) if joins(&stream) => stream,
            Ok(_) => {
                let what =
                    "its events do not begin where it ends, so another process has written here";
                report_lost(id, events, &index.damaged(what));
                return Ok(());
            }
            Err(StoreError::Corrupt { .. })
                if matches!(
                    events.last().map(|change| &change.event),
                    Some(StreamEvent::Deleted { .. })
                ) =>
            {
                let bytes = index.remove_damaged(txn, id)?;
                self.meta.streams = self.meta.streams.saturating_sub(1);
                self.meta.bytes = self.meta.bytes.saturating_sub(bytes);
                self.folded.freed += bytes;
                return Ok(());
            }
            Err(error @ StoreError::Corrupt { .. }) => {
                report_lost(id, events, &error);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let (before, lens, producers) = match stream {
            Some(stream) => (Some(stream.state), stream.lens.to_vec(), stream.producers),
            None => (None, Vec::new(), Some(0)),
        };
        let mut state = before.clone();
        let mut data = Vec::new();
        for LoggedChange { event, .. } in events {
            let had = state.as_ref().map_or(0, StreamState::own_len);
            state = StreamState::fold(state, id, event);
            if matches!(event, StreamEvent::Deleted { .. } | StreamEvent::Trimmed(_)) {
                self.folded.freed += had - state.as_ref().map_or(0, StreamState::own_len).min(had);
            }
            data.extend(event.data());
        }
        self.meta.next_id = self.meta.next_id.max(id.0 + 1);
        let (was, now) = (before.as_ref(), state.as_ref());
        self.folded.retained.add(RetainedTotals::of(was), RetainedTotals::of(now));
        if state.as_ref().is_some_and(|state| state.core.content_type.is_json()) {
            self.folded.json.push(id);
        }
        match (before, state) {
            (before, Some(state)) => {
                let producers = self.put_producers(index, txn, &state, producers)?;
                self.put(index, txn, (before.as_ref(), lens), &state, producers, &data)
            }
            (Some(before), None) => self.remove(index, txn, &before),
            (None, None) => Ok(()),
        }
    }

    /// Writes the producers that changed. Returns how many the stream has, given how many it had.
    fn put_producers(
        &mut self,
        index: &IndexEnvironment,
        txn: &mut RwTxn<'_>,
        state: &StreamState,
        mut count: Option<u64>,
    ) -> Result<u64, WriteError> {
        for (producer, known) in &state.producers {
            let key = keys::producer(state.core.id, producer);
            if let Some(count) = &mut count {
                *count += u64::from(index.producers.get(txn, &key)?.is_none());
            }
            keys::seal(&key, &known.encode(), &mut self.value);
            index.producers.put(txn, &key, &self.value)?;
        }
        match count {
            Some(count) => Ok(count),
            // Format 1 did not count them.
            None => Ok(index.producers.prefix_iter(txn, &keys::id(state.core.id))?.count() as u64),
        }
    }

    fn put(
        &mut self,
        index: &IndexEnvironment,
        txn: &mut RwTxn<'_>,
        (before, mut lens): (Option<&StreamState>, Vec<u8>),
        state: &StreamState,
        producers: u64,
        data: &[&Bytes],
    ) -> Result<(), WriteError> {
        let core = &state.core;
        let id = keys::id(core.id);
        let tail: Offset = before.map_or(core.own_start(), |before| before.tail);
        if !core.content_type.is_json() {
            let start = tail.position().saturating_sub(appends::total(&lens));
            let added = data.iter().filter(|piece| !piece.is_empty());
            added.for_each(|piece| put_len(&mut lens, piece.len() as u64));
            if lens.len() > appends::INLINE {
                index.put_appends(txn, core.id, start, &lens)?;
                lens.clear();
            }
        }
        let mut contents = Vec::with_capacity(256);
        IndexedStream::encode(state, &lens, producers, &mut contents);
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
        let had = before.map_or(0, StreamState::own_len);
        self.meta.bytes = (self.meta.bytes + state.own_len()).saturating_sub(had);
        let ahead = index.reference_ahead(txn, (core.id, tail), data, self.segments)?;
        for number in ahead.segments {
            self.meta.next_segment = self.meta.next_segment.max(number + 1);
            self.folded.referenced.push(number);
        }
        index.append(txn, core.id, ahead.end, ahead.rest)?;
        let kept = state.first_kept();
        if kept > before.map_or(core.own_start(), StreamState::first_kept) {
            // The bytes go later, some in each transaction.
            index.purge.put(txn, &keys::chunk(core.id, kept), &[])?;
        }
        Ok(())
    }

    fn remove(
        &mut self,
        index: &IndexEnvironment,
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
        self.meta.bytes = self.meta.bytes.saturating_sub(before.own_len());
        Ok(())
    }
}

/// Says that events cannot be folded in. Stopping instead would in the end stop the writes of all streams.
fn report_lost(id: StreamId, events: &[LoggedChange], error: &StoreError) {
    let bytes: usize = events.iter().filter_map(|change| change.event.data()).map(Bytes::len).sum();
    tracing::error!(%error, stream = id.0, events = events.len(), bytes, "events of a stream are lost");
}
