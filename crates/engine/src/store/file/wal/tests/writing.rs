//! Batches become frames, and segments follow one another.

use super::*;
use crate::store::file::wal::{end_mark::EndMark, recovery::OldSegment};

#[test]
fn a_segment_is_filled_to_its_last_byte_and_the_next_batch_begins_another() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    let size = (32 + 2 * TOUCH + APPEND + 10) as u64;
    let mut log = begin(&disk, dir.path(), size).unwrap();
    let old = log.old_segments();
    assert_eq!(old.reserved(), size);
    assert_eq!(write(&mut log, &[touch(), touch()]).unwrap(), (1, 2 * TOUCH as u64));
    assert_eq!(write(&mut log, &[append(10)]).unwrap(), (3, (APPEND + 10) as u64));
    assert_eq!(segments(dir.path()), [(1, size)]);
    assert_eq!(write(&mut log, &[append(11), touch()]).unwrap().0, 4);
    assert_eq!(segments(dir.path()), [(1, size), (2, size)]);
    assert_eq!(old.reserved(), 2 * size);
    assert_eq!(write(&mut log, &[touch()]).unwrap().0, 6);
    assert_eq!(segments(dir.path()).len(), 3);
    assert_eq!(recover(&disk, dir.path(), 0).unwrap().next, 7);
}

/// A batch that no segment of the usual size has room for.
#[test]
fn a_batch_that_is_larger_than_a_segment_makes_its_own_larger() {
    for (before, fits) in [(0, true), (0, false), (1, true), (1, false)] {
        let dir = tempfile::tempdir().unwrap();
        let disk = SmallDisk::default();
        let mut log = begin(&disk, dir.path(), 1000).unwrap();
        (0..before).for_each(|_| assert!(write(&mut log, &[touch()]).is_ok()));
        let most = 1000 - 32 - APPEND;
        let event = append(if fits { most } else { most + 1 });
        write(&mut log, &[event]).unwrap();
        let larger = (1 + before, if fits { 1000 } else { 1001 });
        assert_eq!(segments(dir.path()).last(), Some(&larger));
        write(&mut log, &[touch()]).unwrap();
        assert_eq!(segments(dir.path()).last(), Some(&(2 + before, 1000)), "of the usual size");
        assert_eq!(recover(&disk, dir.path(), 0).unwrap().next, 3 + before);
    }
}

#[test]
fn a_log_that_is_synced_is_not_synced_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    let mut log = begin(&disk, dir.path(), 1000).unwrap();
    assert!(log.is_synced());
    disk.done();
    assert!(log.append(&[touch(), touch()], false).is_ok());
    assert!(!log.is_synced());
    // A segment was the spare file, and is called so here.
    let name = || segment::SPARE.to_owned();
    assert_eq!(disk.done(), [Done::Wrote(name(), 32, 2 * TOUCH)]);
    assert!(log.sync().is_ok() && log.is_synced());
    assert!(log.sync().is_ok());
    assert_eq!(disk.done(), [Done::Synced(name())]);
    assert_eq!(log.sync_times().snapshot().count(), 1);
}

/// What was written without a sync is synced before another segment follows it.
#[test]
fn a_segment_is_durable_before_the_next_one_exists() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    let mut log = begin(&disk, dir.path(), (32 + TOUCH) as u64).unwrap();
    disk.done();
    assert!(log.append(&[touch()], false).is_ok());
    assert!(log.append(&[touch()], false).is_ok());
    let spare = || segment::SPARE.to_owned();
    let expected = [
        Done::Wrote(spare(), 32, TOUCH),
        Done::Synced(spare()),
        // The next one.
        Done::Wrote(spare(), 0, 32),
        Done::Synced(spare()),
        Done::SyncedNames,
        Done::Wrote(spare(), 32, TOUCH),
    ];
    assert_eq!(disk.done(), expected);
}

#[test]
fn the_end_is_marked_once_for_each_place_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    let mut log = begin(&disk, dir.path(), 1000).unwrap();
    write(&mut log, &[touch(), touch()]).unwrap();
    let old = log.old_segments();
    let marked = || EndMark::read(&RealDisk, dir.path()).unwrap();
    assert_eq!(marked(), None);
    old.mark_end();
    let crc = recover(&disk, dir.path(), 0).unwrap().last_crc;
    assert_ne!(crc, 0);
    assert_eq!(marked(), Some(EndMark { next: 3, segment: 1, crc }));
    EndMark::remove(&disk, dir.path()).unwrap();
    old.mark_end();
    assert_eq!(marked(), None, "it was written");
    write(&mut log, &[touch()]).unwrap();
    old.mark_end();
    assert_eq!(marked().map(|mark| (mark.next, mark.segment)), Some((4, 1)));
}

/// It was begun by an opening that wrote nothing to it.
#[test]
fn an_empty_segment_goes_when_there_is_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::default();
    write(&mut begin(&disk, dir.path(), 1000).unwrap(), &[touch()]).unwrap();
    drop(begin(&disk, dir.path(), 1000).unwrap());
    let found = recover(&disk, dir.path(), 0).unwrap();
    assert_eq!(found.sealed, [OldSegment { number: 1, first: 1 }]);
    assert_eq!(found.empty, Some(OldSegment { number: 2, first: 2 }));
    assert_eq!((found.next, found.next_segment), (2, 3));
    let log = begin(&disk, dir.path(), 1000).unwrap();
    assert_eq!(segments(dir.path()), [(1, 1000), (3, 1000)]);
    assert_eq!(log.old_segments().reserved(), 2000);
}
