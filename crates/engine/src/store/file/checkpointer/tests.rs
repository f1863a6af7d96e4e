use std::{
    fs, io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use bytes::Bytes;
use durable_streams_protocol::{
    Appended, Created, ForkPoint, Offset, Producer, ProducerId, StreamEvent, StreamId, StreamPath,
    Timestamp,
};
use futures_util::FutureExt as _;

use super::*;
use crate::store::{
    Commit, CommitSink, EventPlace, LogEpoch,
    file::{
        FileStoreOptions,
        commit_queue::CommitQueue,
        disk::{DiskFile, RealDisk},
        disk_limit::DiskLimit,
        index::{dropped::DroppedRanges, handle::IndexHandle},
        memtable::Memtable,
        options::SegmentOptions,
        segments::files::SegmentFiles,
        stats::StoreCounters,
        wal::{recovery, writer::WalWriter},
    },
};

const ONE: StreamId = StreamId(1);
const TWO: StreamId = StreamId(2);
/// Memory of an append beside its data, and of a creation.
const APPEND: usize = 256;
const CREATION: usize = 1024;

mod rig;
mod thread_tests;

use rig::*;

#[test]
fn memory_is_full_with_four_times_a_checkpoint_or_what_the_logs_share_has_room_for() {
    assert_eq!(Rig::new(None).checkpointer.limit(), 200_000);
    assert_eq!(Rig::new(Some(LIMIT)).checkpointer.limit(), 200_000);
    let small = DiskLimit { log: 45_000, ..LIMIT };
    assert_eq!(Rig::new(Some(small)).checkpointer.limit(), 15_000, "beside three segments");
}

/// Only while checkpoints fail are appends refused for the memory they take; otherwise they wait.
#[test]
fn appends_wait_for_memory_and_are_refused_when_checkpoints_fail() {
    let waits = |rig: &Rig| rig.checkpointer.throttle().now_or_never().is_none();
    let rig = Rig::new(None);
    rig.pend(200_000);
    assert!(!waits(&rig) && !rig.is_requested());
    rig.fail(Some(damaged()));
    assert!(rig.checkpointer.has_room().is_ok(), "there is as much room as this");
    rig.fail(None);
    rig.publish([(ONE, 200_000 - CREATION as u64, appended(Bytes::new(), None))]);
    assert!(waits(&rig) && rig.is_requested(), "one that waits makes the checkpoint begin");
    assert!(rig.checkpointer.has_room().is_ok());
    rig.fail(Some(damaged()));
    assert!(!waits(&rig) && !rig.is_requested());
    assert!(matches!(rig.checkpointer.has_room(), Err(StoreError::Corrupt { .. })));
    assert!(rig.checkpointer.admit(&queued(deleted())).is_ok(), "it makes room");
    assert!(rig.checkpointer.admit(&queued(appended(Bytes::new(), None))).is_err());
    rig.fail(None);
    let mut waiting = Box::pin(rig.checkpointer.throttle());
    assert!(waiting.as_mut().now_or_never().is_none());
    rig.checkpointer.checkpoint().unwrap();
    assert!(waiting.now_or_never().is_some(), "its end wakes those who wait");
}

#[test]
fn a_limited_index_refuses_what_it_may_have_no_room_for() {
    let rig = Rig::new(Some(LIMIT));
    let core = rig.core();
    let with = |room, used| {
        core.index_room.store(room, Relaxed);
        core.index_used.store(used, Relaxed);
        rig.checkpointer.has_room()
    };
    assert!(with(0, 1 << 30).is_ok(), "nothing waits");
    rig.pend(5000);
    rig.publish([(TWO, 0, appended(Bytes::new(), None))]);
    let pending = 2 * (5000 + APPEND as u64);
    // Two streams have changed, of 16 KiB of pages each.
    let pages = 2 * (16 << 10);
    assert!(with(pages + pending, 1 << 30).is_ok() && !rig.is_requested());
    let Err(StoreError::Limit { path, limit }) = with(pages + pending - 1, 1 << 30) else {
        panic!("it has no room")
    };
    assert_eq!((&*path, limit), (rig.dir.path(), 99 << 20));
    assert!(rig.is_requested());
    assert!(with(100 + pending, 100).is_ok(), "no more than all that is used is written anew");
    assert!(with(99 + pending, 100).is_err());
    rig.is_requested();
    rig.fail(Some(damaged()));
    assert!(with(1 << 30, 0).is_ok());
    rig.fail(Some(full()));
    assert!(matches!(with(1 << 30, 0), Err(StoreError::Limit { .. })) && rig.is_requested());
    rig.fail(None);
    rig.checkpointer.checkpoint().unwrap();
    rig.fail(Some(full()));
    assert!(with(1 << 30, 0).is_err() && !rig.is_requested(), "there is nothing to fold in");
    rig.checkpointer.failing.store(false, Relaxed);
    assert!(with(1 << 30, 0).is_ok(), "the last checkpoint has worked");
    let unlimited = Rig::new(None);
    unlimited.fail(Some(full()));
    assert!(unlimited.checkpointer.has_room().is_ok());
}

#[test]
fn an_event_that_no_frame_holds_is_refused() {
    let rig = Rig::new(None);
    let admitted = |bytes| rig.checkpointer.admit(&queued(appended(vec![0; bytes].into(), None)));
    assert!(admitted(LARGEST).is_ok());
    let error = admitted(LARGEST + 1).unwrap_err().to_string();
    assert!(error.contains("it has more than 1072693248 bytes"), "{error}");
}

/// Once the reserve is used only deletes are accepted, and the disk is looked at each second.
#[test]
fn while_the_reserve_is_in_use_only_what_makes_room_is_accepted() {
    let rig = Rig::new(None);
    let old_segments = &rig.core().old_segments;
    old_segments.prepare_files();
    assert_eq!(rig.checkpointer.interval(), Duration::from_secs(3600));
    assert!(old_segments.release_reserve());
    assert_eq!(rig.checkpointer.interval(), Duration::from_secs(1));
    assert!(rig.checkpointer.admit(&queued(deleted())).is_ok());
    let refused = rig.checkpointer.admit(&queued(appended(Bytes::new(), None)));
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    rig.checkpointer.run_maintenance();
    assert_eq!(rig.checkpointer.interval(), Duration::from_secs(3600), "there was room for it");
}

#[test]
fn a_checkpoint_that_fails_is_repeated_and_one_without_events_writes_nothing() {
    let rig = Rig::new(None);
    let (checkpointer, core) = (&rig.checkpointer, rig.core());
    checkpointer.checkpoint().unwrap();
    assert_eq!((rig.disk.commits.load(Relaxed), core.counters.checkpoints.load(Relaxed)), (0, 0));
    rig.publish([(ONE, 0, created("/a", Bytes::from_static(b"abc"), None))]);
    *rig.disk.failing.lock() = Some(io::ErrorKind::Other);
    checkpointer.checkpoint().unwrap_err();
    assert!(checkpointer.failing.load(Relaxed) && checkpointer.failure.lock().is_some());
    assert_eq!((checkpointer.checkpointed(), core.memtable.dirty(), rig.streams()), (0, 1, 0));
    assert_eq!(core.counters.checkpoint_failures.load(Relaxed), 1);
    assert!(core.memtable.has_pending(ONE));
    *rig.disk.failing.lock() = None;
    checkpointer.checkpoint().unwrap();
    assert!(!checkpointer.failing.load(Relaxed) && checkpointer.failure.lock().is_none());
    assert_eq!((checkpointer.checkpointed(), core.memtable.dirty(), rig.streams()), (1, 0, 1));
    assert!(!core.memtable.has_pending(ONE));
    let commits = rig.disk.commits.load(Relaxed);
    checkpointer.checkpoint().unwrap();
    assert_eq!(rig.disk.commits.load(Relaxed), commits);
    assert_eq!(core.counters.checkpoints.load(Relaxed), 1);
}

/// Pages that were freed are of use two commits later.
#[test]
fn while_the_sealer_is_at_work_a_checkpoint_seals_nothing_itself() {
    let rig = Rig::sealing(None, SegmentOptions { ahead: 10_000, ..SegmentOptions::DEFAULT });
    let extents = || {
        let extents = rig.core().index.read().unwrap().extents(ONE).unwrap();
        extents.into_iter().map(|(_, extent)| extent.unwrap()).collect::<Vec<_>>()
    };
    rig.pend(CREATION + 10_000);
    let at_work = rig.checkpointer.sealer.pause();
    rig.checkpointer.checkpoint().unwrap();
    assert_eq!(extents(), []);
    drop(at_work);
    // The chunks of before come with what is sealed next, and one byte less than so much is not sealed.
    let data = Bytes::from(vec![b'y'; 9_999]);
    rig.publish([(ONE, 10_000, appended(data.clone(), None))]);
    rig.checkpointer.checkpoint().unwrap();
    assert_eq!(extents(), []);
    rig.publish([
        (ONE, 19_999, appended(data, None)),
        (ONE, 29_998, appended(Bytes::from_static(b"z"), None)),
    ]);
    rig.checkpointer.checkpoint().unwrap();
    let [extent] = extents()[..] else { panic!("{:?}", extents()) };
    assert_eq!((extent.start, extent.end), (0, 29_999));
    let reading = rig.core().index.read().unwrap();
    assert_eq!(reading.first_chunks(ONE, 1 << 20).unwrap(), None);
    let segment = reading.segment(extent.file).unwrap().unwrap();
    assert_eq!((segment.live, segment.data), (29_999, 29_999));
    let stats = rig.checkpointer.sealer.stats();
    assert_eq!((stats.files, stats.bytes, stats.failures), (1, segment.file_len, 0));
    assert!(rig.core().segments.path(extent.file).exists());
    // No number is used twice.
    assert!(reading.meta().unwrap().next_segment > extent.file);
}

#[test]
fn a_checkpoint_without_room_is_tried_again_once() {
    let rig = Rig::new(None);
    rig.publish([(ONE, 0, created("/a", Bytes::new(), None))]);
    *rig.disk.failing.lock() = Some(io::ErrorKind::StorageFull);
    rig.checkpointer.checkpoint().unwrap_err();
    assert_eq!(rig.disk.commits.load(Relaxed), 2, "itself, and a commit that ages free pages");
    rig.publish([(ONE, 0, deleted())]);
    rig.checkpointer.checkpoint().unwrap_err();
    assert_eq!(rig.disk.commits.load(Relaxed), 4, "there is no reserve to be freed");
    rig.core().old_segments.prepare_files();
    *rig.disk.failing.lock() = Some(io::ErrorKind::Other);
    rig.checkpointer.checkpoint().unwrap_err();
    assert_eq!(rig.disk.commits.load(Relaxed), 5, "room would not help");
    assert!(!rig.core().old_segments.is_reserve_released());
    *rig.disk.failing.lock() = Some(io::ErrorKind::StorageFull);
    rig.checkpointer.checkpoint().unwrap_err();
    assert_eq!(rig.disk.commits.load(Relaxed), 8, "deletes have the reserve's room");
    assert!(rig.core().old_segments.is_reserve_released());
    let limited = Rig::new(Some(LIMIT));
    limited.publish([(ONE, 0, created("/a", Bytes::new(), None)), (ONE, 0, deleted())]);
    *limited.disk.failing.lock() = Some(io::ErrorKind::StorageFull);
    limited.core().old_segments.prepare_files();
    limited.checkpointer.checkpoint().unwrap_err();
    assert_eq!(limited.disk.commits.load(Relaxed), 3, "deletes have the index's reserve");
    assert!(!limited.core().old_segments.is_reserve_released());
}

#[test]
fn a_limited_index_has_the_room_that_is_not_used_and_half_of_what_is_free() {
    let rig = Rig::new(Some(LIMIT));
    rig.pend(150_000);
    rig.checkpointer.checkpoint().unwrap();
    let most = LIMIT.index - LIMIT.index_reserve;
    let room = |rig: &Rig| {
        rig.checkpointer.note_room();
        (rig.core().index_used.load(Relaxed), rig.core().index_room.load(Relaxed))
    };
    for _ in 0..2 {
        let (used, grown) = rig.core().index.extent().unwrap();
        assert!(used < grown);
        assert_eq!(room(&rig), (used, most - grown + (grown - used) / 2));
        rig.publish([(ONE, 149_000, deleted())]);
        rig.checkpointer.checkpoint().unwrap();
        rig.checkpointer.run_maintenance();
    }
    let unlimited = Rig::new(None);
    assert_eq!(room(&unlimited), (0, 0));
}

#[test]
fn maintenance_removes_all_that_deleted_streams_leave_and_counts_what_is_retained() {
    let rig = Rig::new(None);
    let producers = (0..2500).map(|n| {
        let id = ProducerId::new(format!("p{n}").as_str()).unwrap();
        (ONE, 3, appended(Bytes::new(), Some(Producer { id, epoch: 0, seq: 0 })))
    });
    let position = Offset::new(3);
    let fork = ForkPoint {
        source: TWO,
        source_path: StreamPath::new("/b").unwrap(),
        position,
        requested: None,
        sub_offset: 0,
        ancestors: vec![(TWO, position)],
    };
    rig.publish([(ONE, 0, created("/a", Bytes::from_static(b"abc"), None))]);
    rig.publish(producers);
    rig.publish([
        (TWO, 0, created("/b", Bytes::from_static(b"abcde"), None)),
        (StreamId(3), 3, created("/c", Bytes::new(), Some(fork))),
    ]);
    rig.checkpointer.checkpoint().unwrap();
    let records = || rig.core().index.records().unwrap();
    let before = records();
    rig.publish([
        (ONE, 3, deleted()),
        (TWO, 5, StreamEvent::SoftDeleted { at: Timestamp::default() }),
    ]);
    rig.checkpointer.checkpoint().unwrap();
    let retained = || {
        let RetainedTotals { streams, bytes } = rig.checkpointer.retained();
        (streams, bytes)
    };
    assert_eq!(retained(), (0, 0), "not counted yet");
    rig.checkpointer.run_maintenance();
    assert_eq!(retained(), (1, 5));
    // Its producers, its chunk, its state and its path; and a deadline of the other one is new.
    assert_eq!(before - records(), 2500 + 3 - 1);
    rig.publish([(StreamId(3), 3, deleted()), (TWO, 5, deleted())]);
    rig.checkpointer.checkpoint().unwrap();
    assert_eq!(retained(), (0, 0), "checkpoints keep the count");
}

/// LMDB says of a write that was cut short that it failed, whatever the reason.
#[test]
fn a_write_that_was_cut_short_next_to_no_room_is_a_full_disk() {
    let disk = TestDisk::default();
    let failed = |number, room| {
        *disk.room.lock() = room;
        let error = io_error("write", Path::new("a/b"))(io::Error::from_raw_os_error(number));
        matches!(full_or(error, &disk, Path::new("a/b")), StoreError::Full { .. })
    };
    assert!(failed(5, Some((1 << 20) - 1)));
    assert!(!failed(5, Some(1 << 20)) && !failed(5, None));
    assert!(!failed(13, Some(0)));
    assert!(matches!(full_or(damaged(), &disk, Path::new("a/b")), StoreError::Corrupt { .. }));
}
