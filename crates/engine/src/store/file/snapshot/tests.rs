//! Reads over index and memtable: while the one takes over from the other, of small streams, and of what is damaged.

use ::bytes::Bytes;
use durable_streams_protocol::{Appended, StreamEvent};

use super::{bytes::FoundPiece, *};
use crate::store::{
    EventPlace,
    file::index::{
        checkpoint::LoggedChange,
        tests::{ONE, TWO, TestIndex, bytes, created},
    },
};
use crate::test_events;

fn events(path: &StreamPath) -> Vec<(StreamId, EventPlace, StreamEvent)> {
    let created =
        test_events::creation(Timestamp::default(), path.clone(), Bytes::from_static(b"one"));
    let appended = Appended {
        at: Timestamp::default(),
        data: Bytes::from_static(b"two"),
        terminators: 0,
        producer: None,
        stream_seq: None,
        close: false,
    };
    let appended = StreamEvent::Appended(appended);
    let created = StreamEvent::Created(Box::new(created));
    let place = |events, position| EventPlace { events, position };
    let events = [created, appended.clone(), appended];
    let places = [place(0, 0), place(1, 3), place(2, 6)];
    places.into_iter().zip(events).map(|(place, event)| (StreamId(7), place, event)).collect()
}

/// Between the index's commit and the eviction both have the same events.
#[test]
fn events_that_the_index_has_are_not_folded_again() {
    let dir = tempfile::tempdir().unwrap();
    let index = IndexHandle::open(dir.path(), 1 << 20).unwrap();
    let disk = std::sync::Arc::new(crate::store::file::disk::RealDisk);
    let segments = SegmentFiles::new(disk, dir.path(), 1);
    let memtable = Memtable::new(0, 1, 0, 0, 0);
    let path = StreamPath::new("s").unwrap();
    let events = events(&path);
    for upto in 0..=events.len() {
        let events_of = |_| {
            let indexed = (1..).zip(&events).take(upto);
            let change = |(lsn, (_, place, event)): (Lsn, &(StreamId, EventPlace, StreamEvent))| {
                LoggedChange { lsn, from: place.position, event: event.clone() }
            };
            indexed.map(change).collect()
        };
        let lsn = upto as Lsn;
        index.checkpoint(&|| Ok(()), lsn, (&[StreamId(7)], &events_of), &[]).unwrap();
        if upto == 0 {
            memtable.publish(1, events.clone().into_iter());
        }
        let reads = SnapshotReads { index: &index, segments: &segments, memtable: &memtable };
        let state = reads.load(&path, LoadFor::State).unwrap().unwrap().state;
        assert_eq!(state.tail, Offset::new(9), "{upto} of 3 events are in the index");
        let pieces = reads.read(StreamId(7), Offset::ZERO, state.tail, 100).unwrap();
        let bytes = pieces.into_iter().flat_map(|piece| match piece {
            FoundPiece::Bytes(bytes) => bytes,
            FoundPiece::Object { .. } => panic!("nothing is in an object"),
        });
        let bytes: Vec<u8> = bytes.collect();
        assert_eq!(bytes, b"onetwotwo", "{upto} of 3 events are in the index");
    }
}

/// An index, and a memtable without events.
struct Reads<'i> {
    index: &'i IndexHandle,
    segments: SegmentFiles,
    memtable: Memtable,
}

impl<'i> Reads<'i> {
    fn of(index: &'i IndexHandle) -> Self {
        let meta = index.read().unwrap().meta().unwrap();
        let disk = std::sync::Arc::new(crate::store::file::disk::RealDisk);
        let segments = SegmentFiles::new(disk, index.path(), 1);
        let memtable = Memtable::new(meta.lsn, meta.next_id, meta.streams, meta.bytes, 64 << 20);
        Reads { index, segments, memtable }
    }

    fn reads(&self) -> SnapshotReads<'_> {
        let Reads { index, segments, memtable } = self;
        SnapshotReads { index, segments, memtable }
    }

    fn load(&self, path: &str, purpose: LoadFor) -> Result<Option<LoadedStream>, StoreError> {
        self.reads().load(&StreamPath::new(path).unwrap(), purpose)
    }

    fn damaged(&self, path: &str) -> Option<DamagedStream> {
        self.reads().damaged(&StreamPath::new(path).unwrap()).unwrap()
    }

    /// What is read, and how much of it the tail cache has afterwards.
    fn read(&self, id: StreamId, from: u64, to: u64, max: usize) -> Result<usize, StoreError> {
        let pieces = self.reads().read(id, Offset::new(from), Offset::new(to), max)?;
        let len = |piece: &FoundPiece| match piece {
            FoundPiece::Bytes(bytes) => bytes.len(),
            FoundPiece::Object { .. } => panic!("nothing is in an object"),
        };
        Ok(pieces.iter().map(len).sum())
    }

    fn cached(&self, id: StreamId, from: u64, to: u64) -> Option<Vec<u8>> {
        let found = self.memtable.read(id, Offset::new(from), Offset::new(to), usize::MAX)?;
        Some(found.concat())
    }
}

#[test]
fn streams_of_16_kib_are_in_memory_once_they_were_looked_at_to_be_read() {
    let mut index = TestIndex::new();
    let len = 16 << 10;
    index.fold([(ONE, created("one", bytes(0, len))), (TWO, created("two", bytes(0, len + 1)))]);
    let store = Reads::of(&index.index);
    for name in ["one", "two"] {
        store.load(name, LoadFor::State).unwrap();
    }
    assert_eq!(store.cached(ONE, 0, 1), None, "nobody reads it");
    for name in ["one", "two"] {
        store.load(name, LoadFor::Bytes).unwrap();
    }
    assert_eq!(store.cached(ONE, 0, len as u64).unwrap(), bytes(0, len));
    assert_eq!(store.cached(TWO, 0, 1), None);
    assert_eq!(store.read(TWO, 0, len as u64 + 1, usize::MAX).unwrap(), len + 1);
    assert_eq!(store.cached(TWO, 0, 1), None, "it is too large");
    let store = Reads::of(&index.index);
    assert_eq!(store.read(ONE, 100, 110, 100).unwrap(), 10);
    assert_eq!(store.cached(ONE, 0, len as u64).unwrap(), bytes(0, len), "all of it");
}

#[test]
fn what_the_index_should_have_and_has_not_is_damage_and_the_rest_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (id, path) = (StreamId(0x0011_2233_4455_6677), dir.path().join("data.mdb"));
    let index = IndexHandle::open(dir.path(), 1 << 20).unwrap();
    let event = created("one", bytes(0, 10));
    let events_of = |_| vec![LoggedChange { lsn: 1, from: 0, event: event.clone() }];
    index.checkpoint(&|| Ok(()), 1, (&[id], &events_of), &[]).unwrap();
    drop(index);
    // The chunk at 0 has the key of one far behind it.
    let mut file = std::fs::read(&path).unwrap();
    let key = [id.0.to_be_bytes(), [0; 8]].concat();
    let places: Vec<_> = memchr::memmem::find_iter(&file, &key).collect();
    places.iter().for_each(|at| file[at + 8] = 0x7f);
    std::fs::write(&path, file).unwrap();
    let index = IndexHandle::open(dir.path(), 1 << 20).unwrap();
    let store = Reads::of(&index);
    let missing = store.read(id, 4, 10, 100).unwrap_err().to_string();
    assert!(missing.contains(&format!("the bytes of one (stream {}) from 4", id.0)), "{missing}");
    assert_eq!(store.read(id, 4, 10, 0).unwrap(), 0, "none are wanted");
    assert_eq!(store.read(id, 4, 4, 100).unwrap(), 0, "none are wanted");
    assert_eq!(store.read(id, 10, 12, 100).unwrap(), 0, "the tail");
    assert_eq!(store.read(TWO, 4, 10, 100).unwrap(), 0, "no stream");
    assert_eq!(store.load("one", LoadFor::Bytes).unwrap().unwrap().state.tail, Offset::new(10));
}

#[test]
fn a_path_that_names_another_stream_is_damage_and_not_that_stream() {
    let mut index = TestIndex::new();
    index.fold([(ONE, created("one", bytes(0, 10)))]);
    let store = Reads::of(&index.index);
    let whole = store.damaged("one").unwrap();
    assert_eq!((whole.id, whole.place), (ONE, EventPlace { events: 1, position: 10 }));
    assert_eq!(store.damaged("two"), None);
    // The same id has another path from here on, as if a record were of another index.
    index.fold([(ONE, created("two", bytes(0, 10)))]);
    let store = Reads::of(&index.index);
    let found = store.load("one", LoadFor::State).unwrap_err().to_string();
    assert!(found.contains("the path one names stream 1, whose path is two"), "{found}");
    assert_eq!(store.damaged("one"), None, "`repair` decides");
}

#[test]
fn a_stream_that_only_the_memtable_has_is_found_without_the_index() {
    let index = TestIndex::new();
    let store = Reads::of(&index.index);
    let (new, other) = (StreamPath::new("new").unwrap(), StreamPath::new("other").unwrap());
    store.memtable.publish(1, events(&new).into_iter());
    let found = store.reads().load_unindexed(&new).unwrap();
    assert_eq!((found.state.core.id, found.state.tail), (StreamId(7), Offset::new(9)));
    assert!(store.reads().load_unindexed(&other).is_none());
}

#[test]
fn a_deletion_that_the_index_has_not_yet_hides_damage_of_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data.mdb");
    let index = IndexHandle::open(dir.path(), 1 << 20).unwrap();
    let event = created("damaged", bytes(0, 10));
    let events_of = |_| vec![LoggedChange { lsn: 1, from: 0, event: event.clone() }];
    index.checkpoint(&|| Ok(()), 1, (&[ONE], &events_of), &[]).unwrap();
    drop(index);
    // The path in the stream's state, behind its length.
    let mut content = std::fs::read(&file).unwrap();
    let places: Vec<_> = memchr::memmem::find_iter(&content, b"\x07\0damaged").collect();
    places.iter().for_each(|at| content[at + 2] ^= 1);
    std::fs::write(&file, content).unwrap();
    let index = IndexHandle::open(dir.path(), 1 << 20).unwrap();
    let store = Reads::of(&index);
    let damaged = store.load("damaged", LoadFor::State);
    assert!(matches!(damaged, Err(StoreError::Corrupt { .. })), "{:?}", damaged.err());
    assert_eq!(store.damaged("damaged").unwrap().id, ONE);
    let deleted = StreamEvent::Deleted { at: Timestamp::default() };
    store.memtable.publish(2, std::iter::once((ONE, EventPlace::default(), deleted)));
    assert!(store.load("damaged", LoadFor::State).unwrap().is_none());
}

#[test]
fn a_page_of_streams_says_whether_there_are_more() {
    let mut index = TestIndex::new();
    index.fold([(ONE, created("a/one", bytes(0, 10))), (TWO, created("a/two", bytes(0, 10)))]);
    let store = Reads::of(&index.index);
    store.memtable.publish(3, events(&StreamPath::new("b").unwrap()).into_iter());
    let page = |prefix: &str, max| {
        let page = store.reads().list_states(std::ops::Bound::Unbounded, prefix, max).unwrap();
        let paths = page.streams.iter().map(|stream| stream.path.as_str().to_owned());
        (paths.collect::<Vec<_>>().join(" "), page.more)
    };
    assert_eq!(page("", 2), ("a/one a/two".to_owned(), true));
    assert_eq!(page("", 3), ("a/one a/two b".to_owned(), false));
    assert_eq!(page("a/", 2), ("a/one a/two".to_owned(), false));
    assert_eq!(page("a/", 1), ("a/one".to_owned(), true));
}

#[test]
fn a_file_that_is_missing_is_looked_for_again_once() {
    use crate::store::file::segments::files::{SegmentReadError, missing};
    // The files that are missing, one look after the other.
    let look = |files: &[u64]| {
        let looks = std::cell::Cell::new(0);
        let found = super::bytes::present(|| {
            let look = looks.replace(looks.get() + 1);
            Ok(match files.get(look) {
                Some(file) => {
                    Err((*file, SegmentReadError::Missing(missing(std::path::Path::new("x")))))
                }
                None => Ok(()),
            })
        });
        (found.is_ok(), looks.get())
    };
    assert_eq!((look(&[]), look(&[1]), look(&[1, 2])), ((true, 1), (true, 2), (true, 3)));
    assert_eq!(look(&[1, 1, 1]), (false, 2));
}
