//! What sealing costs and saves: bytes written per byte appended, and processor time per byte replayed.
//!
//! `cargo test -p durable-streams-engine --release --test store segment_figures -- --ignored --nocapture --test-threads 1`

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, Commit, FileStore, FileStoreOptions, Store,
    file::{SegmentOptions, disk::RealDisk},
};
use durable_streams_protocol::{Created, Offset, StreamEvent, StreamId, StreamState};

use crate::harness::*;

const MIB: u64 = 1 << 20;

/// Bytes that this process has handed to the system, as Linux counts them.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").expect("Linux");
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("a counter");
    line.parse().expect("a number")
}

/// Processor time of this process.
fn processor() -> Duration {
    let stat = fs::read_to_string("/proc/self/schedstat").expect("Linux");
    Duration::from_nanos(stat.split(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
}

fn open(dir: &std::path::Path, sealed: bool) -> (AnyStore, Arc<Sink>) {
    let segments = SegmentOptions { min: 4 * MIB, idle: Duration::ZERO, ..SegmentOptions::DEFAULT };
    let options = FileStoreOptions {
        segments: sealed.then_some(segments),
        wal_segment: 64 * MIB,
        cache: 0,
        map_size: 4 << 30,
        ..options(dir)
    };
    let store = FileStore::open_on(Arc::new(RealDisk), options).unwrap();
    (AnyStore::File(store), Arc::default())
}

/// Commits events of several streams in one batch.
fn commit_all(store: &AnyStore, sink: &Arc<Sink>, states: &mut [StreamState], data: &Bytes) {
    use durable_streams_engine::store::EventPlace;
    let AnyStore::File(file) = store else { panic!("a file store") };
    for state in states {
        let mut event = appended(b"");
        event.data = data.clone();
        let (id, event, epoch) = (state.core.id, StreamEvent::Appended(event), store.epoch());
        let (place, sink) = (EventPlace::behind(state), sink.clone());
        *state = StreamState::fold(Some(state.clone()), id, &event).unwrap();
        store.commit(Commit { id, event, place, epoch, version: 1, sink }).unwrap();
    }
    file.step();
}

fn create_all(store: &AnyStore, sink: &Arc<Sink>, count: u64) -> Vec<StreamState> {
    use durable_streams_engine::store::EventPlace;
    let AnyStore::File(file) = store else { panic!("a file store") };
    let states = (0..count).map(|n| {
        let id: StreamId = store.next_id();
        let created: Created = created(&format!("tenant/stream-{n:06}"), "");
        let place = EventPlace::of_creation(&created);
        let event = StreamEvent::Created(Box::new(created));
        let (epoch, sink) = (store.epoch(), sink.clone());
        let state = StreamState::fold(None, id, &event).unwrap();
        store.commit(Commit { id, event, place, epoch, version: 1, sink }).unwrap();
        state
    });
    let states = states.collect();
    file.step();
    states
}

fn fold_and_seal(store: &AnyStore) -> u64 {
    let AnyStore::File(file) = store else { panic!("a file store") };
    file.checkpoint().unwrap();
    file.maintain();
    file.seal().unwrap()
}

#[test]
#[ignore = "measures"]
fn bytes_written_per_byte_appended() {
    for (name, streams, append, rounds, per_fold) in [
        ("one busy stream, appends of 4 KiB, 16 MiB between checkpoints", 1, 4096, 32 * 1024, 4096),
        ("one large stream, appends of 4 KiB, 2 MiB between checkpoints", 1, 4096, 32 * 1024, 512),
        ("20,000 streams of 256 bytes, one append", 20_000, 256, 1, 1),
        ("20,000 streams of 1 KiB, 4 appends", 20_000, 256, 4, 1),
    ] {
        for sealed in [false, true] {
            let dir = tempdir();
            let (store, sink) = open(dir.path(), sealed);
            let mut states = create_all(&store, &sink, streams);
            fold_and_seal(&store);
            let (before, data) = (written(), Bytes::from(vec![7; append]));
            for round in 1..=rounds {
                commit_all(&store, &sink, &mut states, &data);
                if round % per_fold == 0 {
                    fold_and_seal(&store);
                }
            }
            let payload = streams * append as u64 * rounds as u64;
            let AnyStore::File(file) = &store else { panic!("a file store") };
            let stats = file.file_stats();
            println!(
                "{name}, sealed: {sealed}: {:.2} bytes written per byte; index {:.1} MiB ({:.1} free), {} segments of {:.1} MiB",
                (written() - before) as f64 / payload as f64,
                stats.index_bytes as f64 / MIB as f64,
                stats.index_free_bytes as f64 / MIB as f64,
                stats.segment_files,
                stats.segment_bytes as f64 / MIB as f64,
            );
        }
    }
}

#[test]
#[ignore = "measures"]
fn processor_time_per_byte_replayed() {
    const ROUNDS: u64 = 8;
    for sealed in [false, true] {
        let dir = tempdir();
        let (store, sink) = open(dir.path(), sealed);
        let mut states = create_all(&store, &sink, 1);
        let data = Bytes::from(vec![7; 1 << 20]);
        (0..128).for_each(|_| commit_all(&store, &sink, &mut states, &data));
        fold_and_seal(&store);
        rest(&store);
        rest(&store);
        let (state, mut bytes) = (&states[0], 0);
        let mut read = |rounds| {
            for _ in 0..rounds {
                let mut at = Offset::ZERO;
                while at < state.tail {
                    let pieces =
                        wait(store.read(state.core.id, at, state.tail, 512 << 10)).unwrap();
                    let got: usize = pieces.iter().map(Bytes::len).sum();
                    at = at.advance(got as u64);
                    bytes += got as u64;
                }
            }
        };
        read(1);
        let before = processor();
        read(ROUNDS);
        let each = (processor() - before).as_micros() as u64 / (ROUNDS * 128);
        println!("sealed: {sealed}: {each} microseconds per MiB in pieces of 512 KiB");
    }
}
