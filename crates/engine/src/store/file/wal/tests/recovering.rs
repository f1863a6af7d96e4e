//! What recovery finds in several segments, and what it refuses.

use super::*;
use crate::store::file::wal::{
    end_mark::{self, EndMark},
    recovery::{OldSegment, ReplayedFrames},
    segment::WalSegment,
};

/// Seven events, two in a segment.
fn log(disk: &SmallDisk, dir: &Path) -> WalWriter {
    let mut log = begin(disk, dir, (32 + 2 * TOUCH) as u64).unwrap();
    (0..7).for_each(|_| assert!(write(&mut log, &[touch()]).is_ok()));
    log
}

fn refused(found: Result<RecoveredLog, StoreError>) -> (PathBuf, String) {
    match found {
        Err(StoreError::Corrupt { path, found, .. }) => (path, found.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn recovery_tells_what_there_is_and_what_may_not_be_durable() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    drop(log(&disk, dir.path()));
    let sealed = [1, 2, 3, 4].map(|number| OldSegment { number, first: 2 * number - 1 });
    let end = 32 + TOUCH as u64;
    for checkpoint in 0..=7 {
        let found = recover(&disk, dir.path(), checkpoint).unwrap();
        assert_eq!((&found.sealed, found.empty), (&sealed.into(), None));
        assert_eq!((found.next, found.next_segment), (8, 5));
        let skipped = (checkpoint / 2).min(3);
        // Each event was synced before the next one was written.
        let whole = end + TOUCH as u64;
        let mut replayed: Vec<_> = (skipped + 1..4)
            .map(|number| ReplayedFrames { number, from: whole, to: whole })
            .collect();
        replayed.push(ReplayedFrames { number: 4, from: 32, to: end });
        assert_eq!(found.replayed, replayed, "after {checkpoint}");
    }
}

#[test]
fn what_no_sync_followed_is_written_again_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    let mut log = begin(&disk, dir.path(), 4 << 20).unwrap();
    write(&mut log, &[touch()]).unwrap();
    for bytes in [500_000, 900_000, 700_000] {
        assert!(log.append(&[append(bytes)], false).is_ok());
    }
    drop(log);
    let name = segment::file_name(1);
    let before = fs::read(dir.path().join(&name)).unwrap();
    let found = recover(&disk, dir.path(), 0).unwrap();
    let (from, to) = (32 + TOUCH as u64, (32 + TOUCH + 3 * APPEND + 2_100_000) as u64);
    assert_eq!(found.replayed, [ReplayedFrames { number: 1, from, to }]);
    disk.done();
    found.make_durable(&disk, dir.path()).unwrap();
    let piece = 1 << 20;
    let rest = (to - from) as usize - 2 * piece;
    let wrote = |at: usize, len| Done::Wrote(name.clone(), from + at as u64, len);
    let expected = [
        Done::SyncedNames,
        wrote(0, piece),
        wrote(piece, piece),
        wrote(2 * piece, rest),
        Done::Synced(name.clone()),
    ];
    assert_eq!(disk.done(), expected);
    assert!(fs::read(dir.path().join(&name)).unwrap() == before, "with the same bytes");
    let file = RealDisk.open(&dir.path().join(&name), false).unwrap();
    drop(file);
    fs::write(dir.path().join(&name), &before[..to as usize - 1]).unwrap();
    found.make_durable(&disk, dir.path()).expect_err("a byte is gone");
}

#[test]
fn a_log_that_does_not_belong_to_the_index_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    assert_eq!(recover(&disk, dir.path(), 0).unwrap().next, 1);
    let (_, found) = refused(recover(&disk, dir.path(), 1));
    assert_eq!(found, "the log is gone, but the index has events up to 1");
    drop(log(&disk, dir.path()));
    fs::remove_file(dir.path().join(segment::file_name(1))).unwrap();
    assert_eq!(recover(&disk, dir.path(), 2).unwrap().next, 8);
    let (path, found) = refused(recover(&disk, dir.path(), 1));
    assert_eq!(path, dir.path().join(segment::file_name(2)));
    assert!(found.starts_with("the log begins with event 3, but the index ends with event 1;"));
    // The checkpoint is newer than the log.
    assert_eq!(recover(&disk, dir.path(), 20).unwrap().next, 21);
}

/// A failed write is followed by a segment that begins where the abandoned one did, never earlier.
#[test]
fn segments_begin_in_the_order_of_their_numbers() {
    for (second, fine) in [(4, false), (5, true)] {
        let dir = tempfile::tempdir().unwrap();
        let disk = SmallDisk::default();
        for (number, first) in [(8, 5), (9, second)] {
            assert!(WalSegment::create(&disk, dir.path(), number, first, 100).is_ok());
        }
        let found = recover(&disk, dir.path(), 4);
        if fine {
            let found = found.unwrap();
            assert_eq!((found.next, found.next_segment), (5, 10));
        } else {
            let (path, found) = refused(found);
            assert_eq!(path, dir.path().join(segment::file_name(9)));
            assert_eq!(found, "the segment begins before the one it follows");
        }
    }
}

#[test]
fn a_gap_between_segments_names_the_event() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    drop(log(&disk, dir.path()));
    let path = dir.path().join(segment::file_name(2));
    let mut bytes = fs::read(&path).unwrap();
    bytes[32 + TOUCH + frame::HEADER] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (damaged, found) = refused(recover(&disk, dir.path(), 0));
    assert_eq!(damaged, path);
    assert_eq!(found, "event 4 (of stream 1) is missing or broken, and later ones exist");
    refused(recover(&disk, dir.path(), 3));
    // The index has it.
    assert_eq!(recover(&disk, dir.path(), 4).unwrap().next, 8);
}

#[test]
fn the_mark_of_the_end_is_compared_with_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    drop(log(&disk, dir.path()));
    let last = recover(&disk, dir.path(), 0).unwrap().last_crc;
    let with = |next, crc| {
        let _ = fs::remove_file(dir.path().join(end_mark::NAME));
        EndMark { next, segment: 4, crc }.write(&RealDisk, dir.path()).unwrap();
        recover(&disk, dir.path(), 0)
    };
    for (next, crc) in [(8, last), (8, 0), (1, last), (0, 5)] {
        assert_eq!(with(next, crc).unwrap().next, 8, "{next} {crc}");
    }
    let (path, found) = refused(with(8, last ^ 1));
    assert_eq!(path, dir.path().join(segment::file_name(4)));
    let expected = "event 7 is whole, but is not the one that was safe on disk: another process has written here";
    assert_eq!(found, expected);
    let (_, found) = refused(with(4, last));
    assert!(found.starts_with("event 3 is whole, but is not the one"), "{found}");
    let (_, found) = refused(with(9, 0));
    let expected =
        "the log ends before event 8, but the events up to 8 were safe on disk (in segment 4,";
    assert!(found.starts_with(expected), "{found}");
}

#[test]
fn a_mark_is_missing_unwritten_damaged_or_not_readable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(end_mark::NAME);
    let read = || EndMark::read(&RealDisk, dir.path());
    assert_eq!(read().unwrap(), None);
    fs::write(&path, [0; 8192]).unwrap();
    assert_eq!(read().unwrap(), None, "the first mark was not written any more");
    fs::write(&path, [1; 8192]).unwrap();
    assert!(matches!(read(), Err(StoreError::Corrupt { .. })));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(read(), Err(StoreError::Io { .. })), "{:?}", read());
    assert!(matches!(EndMark::remove(&RealDisk, dir.path()), Err(StoreError::Io { .. })));
}
