//! What must not grow without end: memory while checkpoints lag or fail, the log after them, and syncs with
//! the number of those who wait.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use durable_streams_engine::store::{
    AnyStore, Commit, EventPlace, FileStore, FileStoreOptions, Store, StoreError,
};
use durable_streams_protocol::StreamEvent;

use crate::{
    fault_disk::{FaultDisk, Faults},
    harness::*,
};

const CHECKPOINT_SIZE: usize = 64 << 10;
/// Appends wait, or are refused, beyond this: see docs/operations.md.
const LIMIT: u64 = 4 * CHECKPOINT_SIZE as u64;
const RECORD: usize = 4096;

fn store(dir: &tempfile::TempDir, disk: &FaultDisk) -> AnyStore {
    let options = FileStoreOptions {
        checkpoint_size: CHECKPOINT_SIZE,
        wal_segment: 32 << 10,
        cache: 0,
        ..options(dir.path())
    };
    AnyStore::File(FileStore::open_on(Arc::new(disk.clone()), options).unwrap())
}

fn file(store: &AnyStore) -> &FileStore {
    let AnyStore::File(file) = store else { panic!("a file store") };
    file
}

fn is_throttled(store: &AnyStore) -> bool {
    pin!(store.throttle()).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// One append, written at once.
fn put(store: &AnyStore, version: u64) -> Result<(), StoreError> {
    let (id, event) = match load(store, "s") {
        None => (store.next_id(), StreamEvent::Created(Box::new(created("s", "")))),
        Some(found) => (found.state.core.id, StreamEvent::Appended(appended(&vec![b'x'; RECORD]))),
    };
    let sink = Arc::new(Sink::default());
    let (place, epoch) = (place(store, id, &event), store.epoch());
    store.commit(Commit { id, event, place, epoch, version, sink: sink.clone() })?;
    file(store).step();
    sink.wait_for(version)
}

#[test]
fn appends_wait_for_the_checkpoint_before_memory_runs_away() {
    let (dir, disk) = (tempdir(), FaultDisk::default());
    let store = store(&dir, &disk);
    let mut appends = 0;
    while !is_throttled(&store) {
        appends += 1;
        put(&store, appends).unwrap();
        assert!(appends < 1000, "nothing ever waits");
    }
    let pending = file(&store).file_stats().pending_bytes;
    assert!(pending > LIMIT && pending <= LIMIT + 2 * RECORD as u64, "{pending} of {LIMIT}");

    // Whoever waits goes on once a checkpoint has made room, and not before.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(store.throttle()));
        thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished(), "it goes on without a checkpoint");
        checkpoint(&store);
        waiting.join().unwrap();
    });
    assert_eq!(file(&store).file_stats().pending_bytes, 0);
    put(&store, appends + 1).unwrap();
}

#[test]
fn appends_are_refused_before_memory_runs_away_when_checkpoints_fail() {
    let (dir, disk) = (tempdir(), FaultDisk::default());
    let store = store(&dir, &disk);
    put(&store, 1).unwrap();
    disk.set_faults(Faults { no_index_commits: true, ..Faults::default() });
    assert!(file(&store).checkpoint().is_err());
    let mut appends = 1;
    let refused = loop {
        appends += 1;
        assert!(!is_throttled(&store), "nobody may wait for a checkpoint that fails");
        match put(&store, appends) {
            Ok(()) => assert!(appends < 1000, "nothing is ever refused"),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, StoreError::Io { .. }), "why checkpoints fail: {refused}");
    assert!(store.writable().is_err());
    let pending = file(&store).file_stats().pending_bytes;
    assert!(pending > LIMIT && pending <= LIMIT + 2 * RECORD as u64, "{pending} of {LIMIT}");
    let state = load(&store, "s").unwrap().state;
    assert_eq!(read_all(&store, &state, 1 << 20).len(), (appends as usize - 2) * RECORD);

    disk.set_faults(Faults::default());
    checkpoint(&store);
    store.writable().unwrap();
    put(&store, appends + 1).unwrap();
    let state = load(&store, "s").unwrap().state;
    drop(store);
    let store = self::store(&dir, &disk.copy());
    assert_eq!(load(&store, "s").unwrap().state, state);
    assert_eq!(read_all(&store, &state, 1 << 20).len(), (appends as usize - 1) * RECORD);
}

#[test]
fn events_of_a_failed_checkpoint_are_in_the_next_one() {
    let (dir, disk) = (tempdir(), FaultDisk::default());
    let before = store(&dir, &disk);
    for n in 0..3 {
        put(&before, n + 1).unwrap();
    }
    let state = load(&before, "s").unwrap().state;
    disk.set_faults(Faults { no_index_commits: true, ..Faults::default() });
    file(&before).checkpoint().unwrap_err();
    disk.set_faults(Faults::default());
    // Nothing new of this stream: only the failed checkpoint knows that it has changed.
    checkpoint(&before);
    assert_eq!(file(&before).file_stats().pending_bytes, 0);
    drop(before);
    let after = store(&dir, &disk.copy());
    assert_eq!(load(&after, "s").map(|loaded| loaded.state), Some(state.clone()));
    assert_eq!(read_all(&after, &state, 1 << 20), vec![b'x'; 2 * RECORD]);
}

#[test]
fn a_checkpoint_gives_back_all_of_the_log_but_one_segment_and_a_spare() {
    let (dir, disk) = (tempdir(), FaultDisk::default());
    let store = store(&dir, &disk);
    for round in 0..10 {
        for n in 0..40 {
            put(&store, round * 40 + n + 1).unwrap();
        }
        let grown = disk.paths(&dir.path().join("wal")).len();
        assert!(grown >= 5, "{grown} files: the log does not rotate");
        checkpoint(&store);
        let mut kept = disk.paths(&dir.path().join("wal"));
        kept.retain(|path| !path.ends_with("end"));
        assert!(kept.len() <= 2, "{kept:?}");
        assert!(file(&store).file_stats().wal_reserved_bytes <= 2 * (32 << 10));
    }
}

#[test]
fn a_checkpoint_keeps_every_segment_that_a_later_event_is_in() {
    let (dir, disk) = (tempdir(), FaultDisk::default());
    let before = store(&dir, &disk);
    for n in 0..40 {
        put(&before, n + 1).unwrap();
    }
    checkpoint(&before);
    for n in 40..60 {
        put(&before, n + 1).unwrap();
    }
    let state = load(&before, "s").unwrap().state;
    drop(before);
    let after = store(&dir, &disk.copy());
    assert_eq!(load(&after, "s").unwrap().state, state);
    assert_eq!(read_all(&after, &state, 1 << 20).len(), 59 * RECORD);
}

#[test]
fn creates_that_wait_together_share_one_sync() {
    let (dir, disk) = (tempdir(), FaultDisk::default());
    let store = store(&dir, &disk);
    let syncs = disk.syncs();
    let sinks: Vec<_> = thread::scope(|scope| {
        let creators: Vec<_> = (0..8)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    let create = |n| {
                        let event =
                            StreamEvent::Created(Box::new(created(&format!("{thread}/{n}"), "")));
                        let sink = Arc::new(Sink::default());
                        let (id, epoch) = (store.next_id(), store.epoch());
                        let (place, version) = (EventPlace::default(), 1);
                        let commit =
                            Commit { id, event, place, epoch, version, sink: sink.clone() };
                        store.commit(commit).unwrap();
                        sink
                    };
                    (0..16).map(create).collect::<Vec<_>>()
                })
            })
            .collect();
        creators.into_iter().flat_map(|creator| creator.join().unwrap()).collect()
    });
    assert!(sinks.iter().all(|sink| sink.told().is_empty()), "acknowledged before the sync");
    assert!(file(&store).step());
    assert!(sinks.iter().all(|sink| sink.wait_for(1).is_ok()));
    assert_eq!((sinks.len(), disk.syncs() - syncs), (128, 1));
}

/// The same through the engine: as many requests as there are, one sync.
#[test]
fn requests_that_create_together_share_one_sync() {
    use durable_streams_engine::{Clock, Engine, EngineLimits};
    use durable_streams_protocol::Create;
    let (dir, disk) = (tempdir(), FaultDisk::default());
    let engine = Engine::new(store(&dir, &disk), Clock::System, EngineLimits::default());
    let syncs = disk.syncs();
    let paths: Vec<_> = (0..64).map(|n| path(&format!("s{n}"))).collect();
    let create = Create::default();
    let mut requests: Vec<_> = paths
        .iter()
        .map(|path| Box::pin(engine.create(path, &create, bytes::Bytes::new())))
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    for request in &mut requests {
        assert!(request.as_mut().poll(&mut context).is_pending(), "answered before the sync");
    }
    assert!(file(engine.store()).step());
    for request in &mut requests {
        let Poll::Ready(created) = request.as_mut().poll(&mut context) else { panic!("no answer") };
        created.unwrap();
    }
    assert_eq!(disk.syncs() - syncs, 1);
}
