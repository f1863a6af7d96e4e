//! Writers, readers and checkpoints at the same time: what is acknowledged is seen, at every moment.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use durable_streams_engine::store::{AnyStore, FileStore, FileStoreOptions, LoadFor, Store};
use durable_streams_protocol::{Offset, StreamEvent};

use crate::{harness::*, workload::Rng};

const WRITERS: u64 = 3;
const ROUNDS: u64 = 400;

/// How far a writer is; each is the length of its stream and 1, or 0 before the stream exists.
#[derive(Default)]
struct Progress {
    acked: AtomicU64,
    /// With the append under way.
    begun: AtomicU64,
}

/// The byte at a position of stream `n`: so that any range can be checked.
fn byte(n: u64, at: u64) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8) ^ n) as u8
}

fn bytes(n: u64, from: u64, len: u64) -> Vec<u8> {
    (from..from + len).map(|at| byte(n, at)).collect()
}

/// Appends to its own stream, and creates and deletes others under one path all the time.
fn write(store: &AnyStore, n: u64, progress: &Progress) {
    let mut rng = Rng(n);
    progress.begun.store(1, Ordering::Release);
    let id = create(store, created(&format!("s{n}"), ""));
    progress.acked.store(1, Ordering::Release);
    let (mut tail, come) = (0, format!("comes-and-goes-{n}"));
    let mut other = None;
    for _ in 0..ROUNDS {
        let len = rng.below(900);
        wait(store.throttle());
        progress.begun.store(tail + len + 1, Ordering::Release);
        append(store, id, &bytes(n, tail, len));
        tail += len;
        progress.acked.store(tail + 1, Ordering::Release);
        let found = load(store, &come).map(|loaded| loaded.state.core.id);
        assert_eq!(found, other, "{come}");
        other = match other {
            Some(id) => {
                commit(store, id, StreamEvent::Deleted { at: at(1) }).unwrap();
                None
            }
            None => Some(create(store, created(&come, "x"))),
        };
    }
}

/// Loads and reads at random positions; nothing acknowledged may be missing, and nothing else may be there than the
/// append under way.
fn read(store: &AnyStore, writers: &[Progress], rng: &mut Rng) {
    let n = rng.below(WRITERS);
    let writer = &writers[n as usize];
    let known = writer.acked.load(Ordering::Acquire);
    if known == 0 {
        return;
    }
    let purpose = if rng.below(2) == 0 { LoadFor::State } else { LoadFor::Bytes };
    let loaded = wait(store.load(&path(&format!("s{n}")), purpose)).unwrap();
    let state = loaded.expect("it was created").state;
    let tail = state.tail.position();
    assert!(tail >= known - 1, "stream {n} ends at {tail}, and {} was acknowledged", known - 1);
    let begun = writer.begun.load(Ordering::Acquire) - 1;
    assert!(tail <= begun, "stream {n} ends at {tail}, and only {begun} were ever appended");
    if tail == 0 {
        return;
    }
    let from = if rng.below(2) == 0 { rng.below(tail) } else { tail.saturating_sub(500) };
    let pieces = wait(store.read(state.core.id, Offset::new(from), state.tail, 3000)).unwrap();
    let got: Vec<u8> = pieces.concat();
    assert!(!got.is_empty() || from == tail, "nothing at {from} of {tail}");
    assert_eq!(got, bytes(n, from, got.len() as u64), "stream {n} from {from}");
    let listed = wait(store.list(None, 100)).unwrap();
    assert!(listed.iter().any(|path| path.as_str() == format!("s{n}")), "{listed:?}");
}

#[test]
fn readers_see_everything_acknowledged_while_checkpoints_run_and_memory_is_given_back() {
    let dir = tempdir();
    let options = FileStoreOptions {
        checkpoint_interval: Duration::from_millis(1),
        checkpoint_size: 16 << 10,
        cache: 64 << 10,
        map_size: 1 << 20,
        ..options(dir.path())
    };
    let store = AnyStore::File(FileStore::open(options).unwrap());
    let progress: Vec<Progress> = (0..WRITERS).map(|_| Progress::default()).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|seed| {
                let (store, progress, done) = (&store, &progress, &done);
                scope.spawn(move || {
                    let mut rng = Rng(seed);
                    while !done.load(Ordering::Relaxed) {
                        read(store, progress, &mut rng);
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let (store, progress) = (&store, &progress[n as usize]);
                scope.spawn(move || write(store, n, progress))
            })
            .collect();
        let leisure = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                rest(&store);
                thread::sleep(Duration::from_micros(300));
            }
        });
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        written.into_iter().for_each(|written| written.unwrap());
        leisure.join().unwrap();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    let AnyStore::File(serving) = &store else { panic!("a file store") };
    let stats = serving.file_stats();
    assert!(stats.checkpoints > 20, "{stats:?}");
    for (n, writer) in (0..).zip(&progress) {
        let state = load(&store, &format!("s{n}")).unwrap().state;
        let tail = writer.acked.load(Ordering::Acquire) - 1;
        assert_eq!(state.tail.position(), tail);
        assert!(read_all(&store, &state, 10_000) == bytes(n, 0, tail), "stream {n}");
    }
    wait(store.close());
    drop(store);
    durable_streams_engine::store::file::offline::verify(
        &FileStoreOptions::new(dir.path()),
        &mut |_| {},
    )
    .unwrap()
    .whole()
    .unwrap();
}

#[test]
fn concurrent_commits_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = file(dir.path());
    thread::scope(|scope| {
        for n in 0..16 {
            let store = &store;
            scope.spawn(move || {
                let id = create(store, created(&format!("s{n}"), ""));
                for _ in 0..30 {
                    append(store, id, b"x");
                }
            });
        }
    });
    let AnyStore::File(serving) = &store else { panic!("a file store") };
    let stats = serving.file_stats();
    assert_eq!(stats.events, 16 * 31);
    assert!(stats.batches < stats.events / 2, "{stats:?}");
}

/// Reads that were begun and given up must not keep the index open: the directory may be opened at once.
#[test]
fn a_directory_opens_again_right_after_reads_that_nobody_waits_for() {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Waker},
    };
    let dir = tempdir();
    let mut store = file(dir.path());
    create(&store, created("s", "text"));
    let known = path("s");
    for round in 0..60 {
        checkpoint(&store);
        for _ in 0..16 {
            let mut load = pin!(store.load(&known, LoadFor::Bytes));
            let _ = load.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        if round % 2 == 0 {
            wait(store.close());
        }
        drop(store);
        store = file(dir.path());
        assert!(load(&store, "s").is_some(), "round {round}");
    }
}
