//! What moves segments between the disk and an object store needs of the file store, without an object store.

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, FileStore, FileStoreOptions, StoreError,
    file::{
        SegmentOptions,
        disk::Disk as _,
        segments::objects::{SegmentInfo, SegmentPlace},
    },
};
use durable_streams_protocol::{Created, StreamEvent, StreamId};

use crate::fault_disk::FaultDisk;
use crate::harness::*;
use crate::segments::{append, commit, create, files, large, open, payload, seal, segments, with};

/// A stream of a million bytes, of which the most is in segments of some 300,000.
pub(crate) fn sealed(store: &AnyStore) -> StreamId {
    let id = create(store, created("s", ""));
    (0..20).for_each(|n| append(store, id, &payload(n, 50_000)));
    assert!(seal(store) > 0);
    id
}

pub(crate) fn all(store: &AnyStore) -> Vec<SegmentInfo> {
    files(store).segments_after(None, 100).unwrap()
}

pub(crate) fn to_object(store: &AnyStore, number: u64) {
    assert!(files(store).note_object(number).unwrap());
    assert!(files(store).drop_local(number).unwrap());
}

#[test]
fn a_segment_becomes_an_object_in_two_steps_and_comes_back() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    sealed(&store);
    let number = all(&store)[0].number;
    let (store, path) = (files(&store), files(&store).segment_path(number));
    let place = || store.segments_after(None, 1).unwrap()[0].place;
    let bytes = fs::read(&path).unwrap();
    let file = || Ok::<_, StoreError>(store.segment_file(number)?.map(|parts| parts.concat()));
    assert_eq!((place(), store.is_object(number).unwrap()), (SegmentPlace::Local, false));
    assert!(file().unwrap() == Some(bytes.clone()));
    assert!(!store.drop_local(number).unwrap(), "its object is not there");
    assert!(path.exists() && !store.has_objects().unwrap());

    assert!(store.note_object(number).unwrap());
    assert_eq!((place(), store.is_object(number).unwrap()), (SegmentPlace::Both, true));
    assert!(file().unwrap() == Some(bytes.clone()));
    store.note_lost_object(number).unwrap();
    assert_eq!((place(), store.is_object(number).unwrap()), (SegmentPlace::Local, false));
    assert!(store.note_object(number).unwrap() && store.note_object(number).unwrap(), "twice");
    assert!(!store.bring_back(number, &[bytes.clone().into()]).unwrap(), "it is here");

    assert!(store.drop_local(number).unwrap());
    assert_eq!((place(), store.is_object(number).unwrap()), (SegmentPlace::Object, true));
    assert!(!path.exists() && file().unwrap().is_none() && store.has_objects().unwrap());
    assert!(!store.drop_local(number).unwrap(), "it was dropped before");

    let mut other = bytes.clone();
    other[bytes.len() / 2] ^= 1;
    let refused = store.bring_back(number, &[other.into()]);
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    assert!(!path.exists());
    let (first, last) = bytes.split_at(100_000);
    let parts = [Bytes::copy_from_slice(first), Bytes::copy_from_slice(last)];
    assert!(store.bring_back(number, &parts).unwrap());
    assert!(fs::read(&path).unwrap() == bytes && file().unwrap() == Some(bytes));
}

#[test]
fn a_segment_comes_back_where_there_is_room_for_four_of_it() {
    let (dir, disk) = (tempdir(), FaultDisk::default());
    let options = with(dir.path(), large());
    let store = AnyStore::File(FileStore::open_on(Arc::new(disk.clone()), options).unwrap());
    sealed(&store);
    let SegmentInfo { number, file_len, .. } = all(&store)[0];
    let bytes = Bytes::from(disk.read(&files(&store).segment_path(number)).unwrap());
    assert_eq!(bytes.len() as u64, file_len);
    to_object(&store, number);
    const ALL: usize = 1 << 30;
    disk.set_capacity(ALL);
    let used = ALL - disk.room(dir.path()).unwrap() as usize;
    let bring_back = |room: u64| {
        disk.set_capacity(used + room as usize);
        files(&store).bring_back(number, std::slice::from_ref(&bytes))
    };
    for room in [0, file_len, file_len * 4 - 1] {
        let refused = bring_back(room);
        assert!(matches!(refused, Err(StoreError::Full { .. })), "{room}: {refused:?}");
    }
    assert!(bring_back(file_len * 4).unwrap());
}

#[test]
fn what_is_no_segment_is_none() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    sealed(&store);
    let (store, last) = (files(&store), all(&store).last().unwrap().number);
    for none in [last + 1, last + 100] {
        assert!(!store.has_segment(none).unwrap() && !store.is_object(none).unwrap());
        assert!(!store.note_object(none).unwrap() && !store.drop_local(none).unwrap());
        assert!(store.segment_file(none).unwrap().is_none());
        store.note_lost_object(none).unwrap();
    }
    assert!(store.has_segment(last).unwrap());
    assert_eq!(store.segments_named().unwrap().last(), Some(&last));
}

#[test]
fn objects_of_which_less_than_half_lives_are_sparse() {
    let dir = tempdir();
    let options = with(dir.path(), SegmentOptions { idle: Duration::ZERO, ..large() });
    let store = open(options.clone());
    // They share a segment.
    let ids = ["a", "b", "c"].map(|name| {
        create(&store, Created { data: Bytes::from(payload(1, 900)), ..created(name, "") })
    });
    assert!(seal(&store) > 0);
    let [shared] = all(&store)[..] else { panic!("{:?}", all(&store)) };
    let sparse = |store: &AnyStore, max| {
        let found = files(store).sparse_objects(max).unwrap();
        found.iter().map(|one| one.number).collect::<Vec<_>>()
    };
    let delete = |id: StreamId| {
        commit(&store, id, StreamEvent::Deleted { at: at(9) });
        files(&store).checkpoint().unwrap();
        files(&store).maintain();
    };
    assert!(files(&store).note_object(shared.number).unwrap());
    delete(ids[0]);
    assert!(files(&store).drop_local(shared.number).unwrap());
    assert!(sparse(&store, 9).is_empty(), "two thirds");
    delete(ids[1]);
    let left = all(&store)[0].live;
    assert!(left > 0 && left < shared.data / 2, "{left} of {}", shared.data);
    assert_eq!(sparse(&store, 9), [shared.number]);
    assert!(sparse(&store, 0).is_empty());
    drop(store);
    let without = open(FileStoreOptions { segments: None, ..options });
    assert!(sparse(&without, 9).is_empty(), "nothing would rewrite them");
}

#[test]
fn a_copy_of_the_index_keeps_the_files_that_are_no_objects_yet() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    let id = sealed(&store);
    let before = all(&store);
    to_object(&store, before[0].number);
    assert!(!files(&store).holds_segments());
    assert!(files(&store).copy_index_for_objects(&|| false).is_err(), "it was not wanted");
    assert!(!files(&store).holds_segments(), "what failed holds nothing");
    let holds = std::cell::Cell::new(false);
    let wanted = || {
        holds.set(files(&store).holds_segments());
        true
    };
    let mut copy = files(&store).copy_index_for_objects(&wanted).unwrap();
    assert!(holds.get(), "no file is removed while it is made");
    assert!(copy.bytes > 0 && copy.bytes == copy.file.metadata().unwrap().len());
    assert_eq!((copy.segments, copy.event), (before.len() as u64, files(&store).last_event()));
    assert_eq!(copy.segment_bytes, before.iter().map(|one| one.file_len).sum::<u64>());
    let local: Vec<u64> = copy.local.iter().map(|one| one.number).collect();
    assert_eq!(local, before[1..].iter().map(|one| one.number).collect::<Vec<_>>());
    let paths = segments(dir.path());
    let whole: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let tidy = || {
        files(&store).checkpoint().unwrap();
        files(&store).maintain();
    };
    commit(&store, id, StreamEvent::Deleted { at: at(9) });
    tidy();
    assert_eq!(segments(dir.path()), paths, "the copy needs them");
    assert_eq!(all(&store), []);
    for (info, bytes) in copy.local.iter().zip(&whole) {
        assert!(files(&store).held_segment_file(info).unwrap().concat() == *bytes);
        assert!(files(&store).segment_file(info.number).unwrap().is_none(), "no stream has it");
    }
    copy.release(local[0]);
    tidy();
    assert_eq!(segments(dir.path()), paths[1..]);
    drop(copy);
    tidy();
    assert!(segments(dir.path()).is_empty());
}

#[test]
fn segments_that_nobody_needs_are_named_once_and_numbers_begin_where_they_are_told_to() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    let id = sealed(&store);
    assert!(files(&store).free_bytes().unwrap() > 1 << 20, "of the disk");
    let numbers: Vec<u64> = all(&store).iter().map(|segment| segment.number).collect();
    assert!(numbers.len() > 1 && files(&store).freed_segments().is_empty());
    commit(&store, id, StreamEvent::Deleted { at: at(9) });
    files(&store).checkpoint().unwrap();
    files(&store).maintain();
    let mut freed = files(&store).freed_segments();
    freed.sort_unstable();
    assert_eq!(freed, numbers);
    assert!(files(&store).freed_segments().is_empty());

    files(&store).number_segments_from(1000);
    let id = create(&store, created("t", ""));
    (0..20).for_each(|n| append(&store, id, &payload(n, 50_000)));
    assert!(seal(&store) > 0);
    assert_eq!(all(&store)[0].number, 1000);
    files(&store).number_segments_from(7);
    (0..20).for_each(|n| append(&store, id, &payload(n, 50_000)));
    seal(&store);
    assert!(all(&store).iter().all(|segment| segment.number >= 1000), "none is used again");
}

#[test]
fn segments_are_written_again_when_less_than_half_lives_or_dead_bytes_are_old() {
    let segment = SegmentInfo {
        number: 1,
        file_len: 1100,
        data: 1000,
        live: 1000,
        footer_crc: 0,
        place: SegmentPlace::Local,
        sealed_at: Some(at(5_000_000_000)),
    };
    let is_due = |live, age: u64| {
        let now = at(5_000_000_000 + age);
        SegmentInfo { live, ..segment }.is_to_be_rewritten(now)
    };
    let month = 30 * 24 * 3_600_000;
    assert!(!is_due(1000, 0) && !is_due(1000, 10 * month), "it is whole");
    assert!(!is_due(500, 0) && is_due(499, 0));
    assert!(!is_due(999, month - 1) && is_due(999, month));
    assert!(
        !SegmentInfo { live: 999, ..segment }.is_to_be_rewritten(at(0)),
        "a clock that went back"
    );
    assert!(SegmentInfo { live: 999, sealed_at: None, ..segment }.is_to_be_rewritten(at(month)));
}
