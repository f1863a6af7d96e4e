//! `max_disk`: log and index together never take more, deletes make room again, and a start works at the limit.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use durable_streams_engine::store::{
    AnyStore, Commit, FileStore, FileStoreOptions, Store, StoreError,
    file::{SegmentOptions, segments::objects::SegmentPlace},
};
use durable_streams_protocol::{StreamEvent, StreamId};

use crate::{
    fault_disk::{FaultDisk, Faults},
    harness::*,
    workload::Rng,
};

const LIMIT: u64 = 64 << 20;

fn limited(dir: &Path) -> FileStoreOptions {
    FileStoreOptions {
        max_disk: Some(LIMIT),
        map_size: 1 << 30,
        checkpoint_size: 1 << 20,
        ..options(dir)
    }
}

fn open(dir: &Path) -> AnyStore {
    AnyStore::File(FileStore::open(limited(dir)).unwrap())
}

fn used(dir: &Path) -> u64 {
    let files = |sub: &str| fs::read_dir(dir.join(sub)).unwrap();
    let len =
        |file: std::io::Result<fs::DirEntry>| file.unwrap().metadata().map_or(0, |data| data.len());
    files("wal").chain(files("store")).map(len).sum()
}

/// Commits an event once the store is not throttled; with the checkpoint that a refusal waits for.
fn put(store: &AnyStore, id: StreamId, event: &StreamEvent) -> Result<(), StoreError> {
    for tries in 0.. {
        wait(store.throttle());
        match commit(store, id, event.clone()) {
            Err(StoreError::Limit { .. } | StoreError::Full { .. }) if tries < 40 => {
                let AnyStore::File(file) = store else { panic!("a file store") };
                // It may fail where what was accepted does not fit into the gaps; deletes then make room.
                let _ = file.checkpoint();
                file.maintain();
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            done => return done,
        }
    }
    unreachable!("it returns")
}

/// Appends until the limit refuses it; returns how many were accepted.
fn fill(store: &AnyStore, dir: &Path, rng: &mut Rng, ids: &mut Vec<StreamId>, len: usize) -> usize {
    for accepted in 0.. {
        let id = if rng.below(20) == 0 || ids.is_empty() {
            let (id, name) = (store.next_id(), format!("s/{}/{len}/{}", ids.len(), rng.next()));
            match put(store, id, &StreamEvent::Created(Box::new(created(&name, "")))) {
                Ok(()) => ids.push(id),
                Err(refused) => {
                    assert!(matches!(refused, StoreError::Limit { .. }), "{refused}");
                    return accepted;
                }
            }
            id
        } else {
            ids[rng.below(ids.len() as u64) as usize]
        };
        let appended =
            StreamEvent::Appended(appended(&vec![b'x'; 1 + rng.below(2 * len as u64) as usize]));
        if let Err(refused) = put(store, id, &appended) {
            assert!(matches!(refused, StoreError::Limit { .. }), "{refused}");
            let said = refused.to_string();
            assert!(said.contains("storage.max_disk = 67108864 bytes"), "{said}");
            return accepted;
        }
        if accepted % 16 == 0 {
            assert!(used(dir) <= LIMIT, "{} bytes are used", used(dir));
        }
    }
    unreachable!("it ends at the limit")
}

#[test]
fn log_and_index_never_take_more_and_deletes_make_room() {
    let (dir, mut rng) = (tempdir(), Rng(7));
    let mut store = open(dir.path());
    let mut ids = Vec::new();
    let first = fill(&store, dir.path(), &mut rng, &mut ids, 60_000);
    assert!(first > 300, "only {first} appends of 60 kB or so fit into 64 MiB");
    for (round, len) in [60_000, 20_000, 60_000].into_iter().enumerate() {
        if round == 1 {
            wait(store.close());
            drop(store);
            store = open(dir.path());
            assert!(used(dir.path()) <= LIMIT, "{} bytes after a start", used(dir.path()));
        }
        for id in std::mem::take(&mut ids) {
            put(&store, id, &StreamEvent::Deleted { at: at(9) }).unwrap();
        }
        assert!(used(dir.path()) <= LIMIT, "{} bytes are used", used(dir.path()));
        let again = fill(&store, dir.path(), &mut rng, &mut ids, len);
        assert!(again * len > first * 60_000 / 2, "{again} appends of {len} fit after the deletes");
        assert!(used(dir.path()) <= LIMIT, "{} bytes are used", used(dir.path()));
    }
}

/// What is sealed leaves the index, and the disk once there are objects of it: so the appends of a stream without end fit
/// into a limit. Without a place for objects nothing is sealed beyond the limit of local segments.
#[test]
fn sealed_bytes_make_room_and_have_a_limit_of_their_own() {
    const LOCAL: u64 = 8 << 20;
    let dir = tempdir();
    let segments = SegmentOptions {
        min: 1 << 20,
        keep: 0,
        size: 4 << 20,
        max_local: Some(LOCAL),
        interval: Duration::from_millis(10),
        ..SegmentOptions::DEFAULT
    };
    let options = FileStoreOptions { segments: Some(segments), ..limited(dir.path()) };
    let (store, objects) = (AnyStore::File(FileStore::open(options).unwrap()), tempdir());
    let AnyStore::File(file) = &store else { panic!("a file store") };
    let id = store.next_id();
    put(&store, id, &StreamEvent::Created(Box::new(created("s", "")))).unwrap();
    let local = || -> u64 {
        // A file may be renamed or removed meanwhile.
        let files = fs::read_dir(dir.path().join("segments")).unwrap();
        files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
    };
    let within = || {
        assert!(used(dir.path()) <= LIMIT, "{} bytes are used", used(dir.path()));
        // A file is checked for room before it is written.
        assert!(local() <= LOCAL + 2 * segments.size, "{} bytes of segments", local());
    };
    // Four times the limit, while segments become objects as soon as they are there.
    let piece = vec![b'x'; 256 << 10];
    let (mut left, mut progress) = (4 * LIMIT / piece.len() as u64, Instant::now());
    while left > 0 {
        match put(&store, id, &StreamEvent::Appended(appended(&piece))) {
            Ok(()) => (left, progress) = (left - 1, Instant::now()),
            Err(refused) => {
                assert!(progress.elapsed() < Duration::from_secs(60), "{refused}");
                // Sealing has to catch up, which it cannot while this thread takes its processor.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        for segment in file.segments_after(None, usize::MAX).unwrap() {
            if segment.place == SegmentPlace::Local {
                let name = objects.path().join(segment.number.to_string());
                fs::copy(file.segment_path(segment.number), name).unwrap();
                assert!(file.note_object(segment.number).unwrap());
                assert!(file.drop_local(segment.number).unwrap());
            }
        }
        within();
    }
    assert!(fs::read_dir(objects.path()).unwrap().count() > 30);
    // No more objects: first the local segments fill up, then the index.
    let refused = loop {
        match put(&store, id, &StreamEvent::Appended(appended(&piece))) {
            Ok(()) => {
                within();
                progress = Instant::now();
            }
            Err(refused) if local() > LOCAL => break refused,
            Err(refused) => assert!(progress.elapsed() < Duration::from_secs(60), "{refused}"),
        }
    };
    assert!(matches!(refused, StoreError::Limit { .. }), "{refused}");
    within();
}

#[test]
fn the_least_limit_has_room_for_a_log_of_four_segments_beside_as_much_of_an_index() {
    for (segment, least) in [(1 << 20, 64 << 20), (8 << 20, 64 << 20), (64 << 20, 512 << 20)] {
        assert_eq!(FileStoreOptions::least_max_disk(segment), least);
    }
    assert_eq!(FileStoreOptions::least_max_disk(u64::MAX), u64::MAX);
}

#[test]
fn failures_of_the_disk_are_noticed_under_a_limit() {
    let (dir, disk) = (tempdir(), FaultDisk::default());
    let store = FileStore::open_on(Arc::new(disk.clone()), limited(dir.path())).unwrap();
    let store = AnyStore::File(store);
    let id = crate::segments::create(&store, created("s", "one"));
    let AnyStore::File(file) = &store else { panic!("a file store") };
    disk.set_faults(Faults { no_index_commits: true, ..Faults::default() });
    assert!(file.checkpoint().is_err());
    // Once more the end of the log is not known to be durable.
    disk.set_faults(Faults { sync: 1, ..Faults::default() });
    let (sink, epoch) = (Arc::new(Sink::default()), store.epoch());
    let event = StreamEvent::Appended(appended(b"two"));
    let place = place(&store, id, &event);
    let commit = Commit { id, event, place, epoch, version: 1, sink: sink.clone() };
    store.commit(commit).unwrap();
    file.step();
    assert!(sink.wait_for(1).is_err(), "it may not be on the disk");
}
