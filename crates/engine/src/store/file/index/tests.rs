//! Tests of the index by itself: what checkpoints fold in is found again, by the byte, and goes again.

use std::collections::BTreeMap;

use bytes::Bytes;
use durable_streams_protocol::{
    Appended, ContentType, Created, Expiry, ForkPoint, Offset, Producer, ProducerId, ProducerState,
    StreamEvent, StreamId, StreamPath, StreamState, Timestamp, Trimmed,
};

use super::{
    checkpoint::{FoldedTotals, LoggedChange, RetainedTotals},
    extents::{ExtentRecord, HandedOver, NewExtent, NewSegment, SegmentPlace, SegmentRecord},
    handle::IndexHandle,
    keys,
    records::{ChunkRun, IndexPiece, Purged},
};
use crate::store::{DeadlineCursor, StoreError, file::wal::Lsn};
use crate::test_events;

mod appends;
mod copying;
mod counting;
mod folding;
mod naming;
mod purging;
mod repairing;
mod scrubbing;
mod sealing;
mod verifying;

pub(in crate::store::file) const ONE: StreamId = StreamId(1);
pub(in crate::store::file) const TWO: StreamId = StreamId(2);

pub(in crate::store::file) struct TestIndex {
    pub(in crate::store::file) index: IndexHandle,
    lsn: Lsn,
    tails: BTreeMap<StreamId, u64>,
    _dir: tempfile::TempDir,
}

impl TestIndex {
    pub(in crate::store::file) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let index = IndexHandle::open(dir.path(), 8 << 20).unwrap();
        TestIndex { index, lsn: 0, tails: BTreeMap::new(), _dir: dir }
    }

    /// Folds in events, in one checkpoint.
    pub(in crate::store::file) fn fold(
        &mut self,
        events: impl IntoIterator<Item = (StreamId, StreamEvent)>,
    ) -> FoldedTotals {
        self.fold_ahead(events, &[])
    }

    /// The same, with segments that may have bytes of the events.
    fn fold_ahead(
        &mut self,
        events: impl IntoIterator<Item = (StreamId, StreamEvent)>,
        segments: &[NewSegment],
    ) -> FoldedTotals {
        let mut changes: BTreeMap<StreamId, Vec<LoggedChange>> = BTreeMap::new();
        for (id, event) in events {
            self.lsn += 1;
            let start = match &event {
                StreamEvent::Created(created) => {
                    created.fork.as_ref().map_or(0, |fork| fork.position.position())
                }
                _ => 0,
            };
            let tail = self.tails.entry(id).or_insert(start);
            let (lsn, from) = (self.lsn, *tail);
            *tail += event.data().map_or(0, Bytes::len) as u64;
            changes.entry(id).or_default().push(LoggedChange { lsn, from, event });
        }
        self.fold_changes_ahead(&changes, self.lsn, segments)
    }

    fn fold_changes(
        &self,
        changes: &BTreeMap<StreamId, Vec<LoggedChange>>,
        upto: Lsn,
    ) -> FoldedTotals {
        self.fold_changes_ahead(changes, upto, &[])
    }

    fn fold_changes_ahead(
        &self,
        changes: &BTreeMap<StreamId, Vec<LoggedChange>>,
        upto: Lsn,
        segments: &[NewSegment],
    ) -> FoldedTotals {
        let ids: Vec<StreamId> = changes.keys().copied().collect();
        let of = |id: StreamId| {
            let copy =
                |change: &LoggedChange| LoggedChange { event: change.event.clone(), ..*change };
            changes[&id].iter().map(copy).collect()
        };
        self.index.checkpoint(&|| Ok(()), upto, (&ids, &of), segments).unwrap()
    }

    fn state(&self, id: StreamId) -> Option<StreamState> {
        self.index.read().unwrap().state(id).unwrap()
    }

    fn bytes(&self, id: StreamId, from: u64, to: u64, max: usize) -> Vec<u8> {
        let reading = self.index.read().unwrap();
        reading.bytes(id, Offset::new(from), Offset::new(to), max).unwrap().to_vec()
    }

    /// The keys of a stream's records, with the lengths of their contents.
    fn records(&self, table: &str, id: StreamId) -> Vec<(u64, usize)> {
        let reading = self.index.read().unwrap();
        let index = reading.index();
        let table = match table {
            "chunks" => index.chunks,
            _ => index.appends,
        };
        let records = table.prefix_iter(&reading.txn, &keys::id(id)).unwrap().map(|record| {
            let (key, value) = record.unwrap();
            (keys::unpair(key).unwrap().1, keys::open(key, value).unwrap().len())
        });
        records.collect()
    }

    fn count(&self) -> u64 {
        self.index.records().unwrap()
    }
}

/// Calls `look` with a value of a new index where LMDB has it: on pages of its own.
#[cfg(target_os = "linux")]
pub(in crate::store::file) fn with_mapped_value(
    dir: &std::path::Path,
    value: &[u8],
    look: impl FnOnce(&[u8]),
) {
    let index = IndexHandle::open(dir, 1 << 20).unwrap();
    let put = index.write(&|| Ok(()), |index, txn| Ok(index.purge.put(txn, &[0; 8], value)?));
    put.unwrap();
    let reading = index.read().unwrap();
    look(reading.index().purge.get(&reading.txn, &[0; 8]).unwrap().unwrap());
}

/// Bytes that differ from their neighbours.
pub(in crate::store::file) fn bytes(from: u64, len: usize) -> Bytes {
    (from..from + len as u64).map(|at| (at % 251) as u8).collect()
}

fn path(path: &str) -> StreamPath {
    StreamPath::new(path).unwrap()
}

pub(in crate::store::file) const fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn creation(name: &str, data: Bytes) -> Created {
    test_events::creation(at(1000), path(name), data)
}

pub(in crate::store::file) fn created(name: &str, data: Bytes) -> StreamEvent {
    StreamEvent::Created(Box::new(creation(name, data)))
}

pub(in crate::store::file) fn json(name: &str) -> StreamEvent {
    let content_type = ContentType::parse("application/json").unwrap();
    StreamEvent::Created(Box::new(Created { content_type, ..creation(name, Bytes::new()) }))
}

fn expiring(name: &str, deadline: u64) -> StreamEvent {
    let expiry = Expiry::At(at(deadline));
    StreamEvent::Created(Box::new(Created { expiry, ..creation(name, Bytes::new()) }))
}

fn fork(name: &str, source: &StreamState, position: u64, data: Bytes) -> StreamEvent {
    let position = Offset::new(position);
    let fork = ForkPoint {
        source: source.core.id,
        source_path: source.core.path.clone(),
        position,
        requested: None,
        sub_offset: 0,
        ancestors: source.core.ancestors_up_to(position),
    };
    StreamEvent::Created(Box::new(Created { fork: Some(fork), ..creation(name, data) }))
}

pub(in crate::store::file) fn appended(data: Bytes) -> StreamEvent {
    StreamEvent::Appended(Appended {
        at: at(2000),
        data,
        terminators: 0,
        producer: None,
        stream_seq: None,
        close: false,
    })
}

fn produced(data: Bytes, producer: &str, seq: u64) -> StreamEvent {
    let StreamEvent::Appended(mut event) = appended(data) else { unreachable!() };
    event.producer = Some(Producer { id: ProducerId::new(producer).unwrap(), epoch: 0, seq });
    StreamEvent::Appended(event)
}

fn trimmed(before: u64) -> StreamEvent {
    let before = Offset::new(before);
    StreamEvent::Trimmed(Trimmed { at: at(3000), before, kept: before, messages: None })
}

const fn deleted() -> StreamEvent {
    StreamEvent::Deleted { at: at(4000) }
}

const fn soft_deleted() -> StreamEvent {
    StreamEvent::SoftDeleted { at: at(4000) }
}
