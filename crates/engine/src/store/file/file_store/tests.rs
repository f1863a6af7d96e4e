//! What an opening makes of its options.

use std::{fs, path::Path};

use super::*;
use crate::store::{
    EventPlace,
    file::{SegmentOptions, index::checkpoint::LoggedChange},
};
use crate::test_events;

fn open(dir: &Path, segments: Option<SegmentOptions>) -> FileStore {
    let options = FileStoreOptions {
        map_size: 8 << 20,
        checkpoint_size: 1 << 20,
        wal_segment: 1 << 20,
        max_disk: Some(64 << 20),
        segments,
        ..FileStoreOptions::new(dir)
    };
    FileStore::open_on(Arc::new(RealDisk), options).unwrap()
}

/// Four checkpoints and four segments of a log are 8 MiB; 12 MiB were sealed.
#[test]
fn segments_from_before_a_limit_take_room_of_the_index_unless_they_have_their_own() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), None));
    for (name, len) in [("one", 5 << 20), ("two", 7 << 20)] {
        fs::File::create(dir.path().join("segments").join(name)).unwrap().set_len(len).unwrap();
    }
    let share = |segments| open(dir.path(), segments).core.limit.unwrap().index >> 20;
    let of = |max_local| SegmentOptions { max_local, ..SegmentOptions::DEFAULT };
    assert_eq!(share(None), 64 - 8 - 12);
    assert_eq!(share(Some(of(None))), 64 - 8 - 12);
    assert_eq!(share(Some(of(Some(1 << 30)))), 64 - 8);
    let store = open(dir.path(), None);
    assert_eq!(store.file_stats().disk_limit_bytes, 64 << 20);
    assert_eq!(store.directory(), dir.path());
}

/// Clients compare incarnations, which begin again at 1 after 10^16 - 1 ids.
#[test]
fn the_next_ids_have_growing_incarnations_for_longer_than_a_directory_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), None);
    let last = StreamId(Offset::MAX.position() - 100);
    let path = StreamPath::new("s").unwrap();
    let created = test_events::creation(Timestamp::default(), path, Bytes::new());
    let created = StreamEvent::Created(Box::new(created));
    let events_of = |_| vec![LoggedChange { lsn: 1, from: 0, event: created.clone() }];
    store.core.index.checkpoint(&|| Ok(()), 1, (&[last], &events_of), &[]).unwrap();
    drop(store);
    let next = open(dir.path(), None).next_id();
    assert_eq!((next, next.incarnation()), (StreamId(Offset::MAX.position()), 1));
}

#[test]
fn a_read_is_as_large_as_its_range_or_its_limit() {
    let most = |from, to, max| {
        let (from, to) = (Offset::new(from), Offset::new(to));
        WantedBytes { id: StreamId(1), from, to, max }.most()
    };
    assert_eq!((most(10, 50, 100), most(10, 50, 30), most(50, 10, 100)), (40, 30, 0));
}

#[test]
fn bytes_that_nobody_reads_leave_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (store, id) = (open(dir.path(), None), StreamId(1));
    let path = StreamPath::new("s").unwrap();
    let created = test_events::creation(Timestamp::default(), path, Bytes::from_static(b"one"));
    let created = StreamEvent::Created(Box::new(created));
    store.core.memtable.publish(1, std::iter::once((id, EventPlace::default(), created)));
    store.checkpoint().unwrap();
    let cached = || store.core.memtable.read(id, Offset::ZERO, Offset::new(3), 9).is_some();
    store.release_idle_memory();
    assert!(cached(), "it was written since the call before");
    store.release_idle_memory();
    store.release_idle_memory();
    assert!(!cached());
}
