//! A disk that fills up: the reserve, small segments, the spare file.

use super::*;
use crate::store::file::wal::reserve;
use durable_streams_protocol::{Expiry, Offset, Trimmed};

const SIZE: u64 = 4000;

fn spare(dir: &Path) -> Option<u64> {
    len(dir, segment::SPARE)
}

fn reserved(dir: &Path) -> Option<u64> {
    len(dir, "reserve")
}

#[test]
fn the_spare_file_has_the_size_of_a_segment_if_there_is_room_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    let path = dir.path().join(segment::SPARE);
    let prepared = |room| {
        disk.set_room(room);
        segment::prepare_spare(&disk, dir.path(), SIZE);
        (spare(dir.path()), disk.done().len())
    };
    assert_eq!(prepared(None), (Some(SIZE), 1), "synced once");
    assert_eq!(prepared(None), (Some(SIZE), 0), "it is there");
    for (has, room, expected) in [
        (100, Some(SIZE - 100), Some(SIZE)),
        (100, Some(SIZE - 101), None),
        (SIZE, Some(0), Some(SIZE)),
        (2 * SIZE, None, Some(2 * SIZE)),
        (2 * SIZE + 1, None, None),
    ] {
        fs::write(&path, vec![7; has as usize]).unwrap();
        assert_eq!(prepared(room).0, expected, "{has} bytes with room for {room:?}");
    }
    disk.set_capacity(SIZE - 1);
    assert_eq!(prepared(None).0, None, "the disk is full");
}

#[test]
fn the_reserve_is_made_of_half_of_the_room_at_most_or_of_the_spare_file() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    let ensured = |room| {
        disk.set_room(room);
        (reserve::ensure(&disk, dir.path(), SIZE), reserved(dir.path()))
    };
    let forget = || drop(fs::remove_file(dir.path().join("reserve")));
    assert_eq!(
        ensured(Some(2 * SIZE + 1)),
        (false, None),
        "half of it is no more than the reserve"
    );
    assert_eq!(ensured(Some(2 * SIZE + 2)), (true, Some(SIZE)));
    disk.done();
    assert_eq!(ensured(Some(0)), (true, Some(SIZE)), "it is there");
    assert_eq!(disk.done(), []);
    forget();
    assert_eq!(ensured(None), (true, Some(SIZE)), "nobody knows how much there is");
    // One that was not finished.
    fs::write(dir.path().join("reserve"), [0; SIZE as usize - 1]).unwrap();
    assert_eq!(ensured(None), (true, Some(SIZE)));
    forget();
    let write_spare = |len: u64| {
        fs::write(dir.path().join(segment::SPARE), vec![0; len as usize]).unwrap();
    };
    write_spare(SIZE - 1);
    assert_eq!(ensured(Some(0)), (false, None));
    write_spare(SIZE);
    assert_eq!(ensured(Some(0)), (true, Some(SIZE)));
    assert_eq!(spare(dir.path()), None);
    forget();
    disk.set_capacity(SIZE - 1);
    assert_eq!(ensured(None), (false, None), "the disk is full");
    disk.set_capacity(u64::MAX);
    disk.set_room(None);
    assert!(reserve::ensure(&disk, dir.path(), 64 << 20));
    assert_eq!(reserved(dir.path()), Some(8 << 20), "that of larger segments");
}

#[test]
fn only_what_makes_room_may_use_the_reserve() {
    let at = Timestamp::default();
    let (before, kept) = (Offset::ZERO, Offset::ZERO);
    for (event, frees) in [
        (StreamEvent::Deleted { at }, true),
        (StreamEvent::SoftDeleted { at }, true),
        (StreamEvent::Trimmed(Trimmed { at, before, kept, messages: None }), true),
        (append_of(0), false),
        (StreamEvent::Touched { at }, false),
        (StreamEvent::ExpiryChanged { at, expiry: Expiry::Never }, false),
        (StreamEvent::Marked { at }, false),
    ] {
        assert_eq!(reserve::frees_space(&event), frees, "{event:?}");
        let [first, second] = QueuedCommit::pair(commit(1, event), commit(2, append_of(5)));
        assert_eq!((first.frees_space(), second.frees_space()), (frees, frees));
    }
    assert_eq!(reserve::small_segment(SIZE), SIZE);
    assert_eq!(reserve::small_segment(64 << 20), 1 << 20);
}

/// With the first segment and the reserve the disk is full.
fn full() -> (tempfile::TempDir, SmallDisk, WalWriter) {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    let mut log = begin(&disk, dir.path(), SIZE).unwrap();
    assert!(reserve::ensure(&disk, dir.path(), SIZE));
    write(&mut log, &[append(SIZE as usize - 32 - APPEND)]).unwrap();
    disk.set_capacity(2 * SIZE + 100);
    (dir, disk, log)
}

#[test]
fn a_batch_of_deletions_finds_room_in_the_reserve_and_no_other_does() {
    let (dir, disk, mut log) = full();
    let old = log.old_segments();
    for batch in [vec![append(1)], vec![deletion(), append(1)], vec![append(1), deletion()]] {
        let refused = write(&mut log, &batch);
        assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
        assert!(!old.is_reserve_released());
        assert_eq!(reserved(dir.path()), Some(SIZE));
    }
    assert_eq!(write(&mut log, &[deletion(), deletion()]).unwrap().0, 2);
    assert!(old.is_reserve_released());
    assert_eq!((reserved(dir.path()), segments(dir.path()).len()), (None, 2));
    assert!(!old.release_reserve(), "there is none");
    assert!(old.is_reserve_released());
    // Until there is room for another one.
    old.prepare_files();
    assert!(old.is_reserve_released());
    disk.set_capacity(u64::MAX);
    old.prepare_files();
    assert!(!old.is_reserve_released());
    assert_eq!((reserved(dir.path()), spare(dir.path())), (Some(SIZE), Some(SIZE)));
    assert!(old.release_reserve() && old.is_reserve_released());
}

/// A start that has found the disk full goes on with the reserve's room, and a second one with that of the segment that the
/// first has not written to.
#[test]
fn a_start_finds_room_for_its_segment() {
    let (dir, disk, log) = full();
    drop(log);
    let log = begin(&disk, dir.path(), SIZE).unwrap();
    assert!(log.old_segments().is_reserve_released());
    assert_eq!((reserved(dir.path()), segments(dir.path())), (None, vec![(1, SIZE), (2, SIZE)]));
    drop(log);
    let log = begin(&disk, dir.path(), SIZE).unwrap();
    assert!(log.old_segments().is_reserve_released());
    assert_eq!(segments(dir.path()), [(1, SIZE), (3, SIZE)]);
    drop(log);
    disk.set_capacity(2 * SIZE - 1);
    let refused = begin(&disk, dir.path(), SIZE).map(|_| ());
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    disk.set_capacity(u64::MAX);
    assert!(!begin(&disk, dir.path(), SIZE).unwrap().old_segments().is_reserve_released());
}

/// The only segment of a log says which event is next.
#[test]
fn the_only_segment_stays_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    drop(begin(&disk, dir.path(), SIZE).unwrap());
    disk.set_capacity(SIZE);
    let refused = begin(&disk, dir.path(), SIZE).map(|_| ());
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    assert_eq!(segments(dir.path()), [(1, SIZE)]);
}

#[test]
fn a_large_segment_is_replaced_by_a_small_one_when_there_is_no_room_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    disk.set_capacity(3 << 20);
    drop(begin(&disk, dir.path(), 8 << 20).unwrap());
    assert_eq!(segments(dir.path()), [(1, 1 << 20)]);
}

/// Its space is reserved before it is written: what does not fit leaves the segment as it was.
#[test]
fn a_batch_that_finds_no_room_leaves_the_segment_to_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    let mut log = begin(&disk, dir.path(), SIZE).unwrap();
    disk.set_capacity(SIZE + 1000);
    let refused = write(&mut log, &[append(SIZE as usize + 1000)]);
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    assert_eq!(write(&mut log, &[append(10)]).unwrap().0, 1);
    assert_eq!(segments(dir.path()), [(1, SIZE)]);
}
