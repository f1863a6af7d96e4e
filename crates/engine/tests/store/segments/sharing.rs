//! Segments that streams share: when one is written, and how many streams and bytes it has.

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use durable_streams_engine::store::{AnyStore, FileStore, FileStoreOptions, file::SegmentOptions};
use durable_streams_protocol::{Created, StreamId};

use super::{append, create, files, footer, large, open, payload, seal, segments, verify, with};
use crate::harness::{checkpoint, created, tempdir};

const BYTES: usize = 900;

fn fill(store: &AnyStore, count: usize) -> Vec<StreamId> {
    let one = |n| {
        let data = Bytes::from(payload(n, BYTES));
        create(store, Created { data, ..created(&format!("s/{n}"), "") })
    };
    (0..count).map(one).collect()
}

#[test]
fn a_shared_segment_is_full_at_the_size_of_one() {
    let dir = tempdir();
    let options = SegmentOptions { idle: Duration::ZERO, size: 3 * BYTES as u64, ..large() };
    let store = open(with(dir.path(), options));
    fill(&store, 8);
    assert_eq!(seal(&store), 8 * BYTES as u64);
    let counts: Vec<usize> =
        segments(dir.path()).iter().map(|path| footer(path).extents.len()).collect();
    assert_eq!(counts, [3, 3, 2]);
    let written: u64 =
        segments(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let stats = files(&store).file_stats();
    assert_eq!((stats.sealed_files, stats.sealed_bytes), (3, written));
    assert_eq!(seal(&store), 0);
    drop(store);
    verify(dir.path());
}

#[test]
fn a_shared_segment_waits_for_as_many_bytes_as_it_is_worth() {
    let dir = tempdir();
    let options =
        SegmentOptions { min: 1000, keep: 10_000, idle: Duration::ZERO, share: 2000, ..large() };
    let store = open(with(dir.path(), options));
    let ids = fill(&store, 2);
    assert_eq!(seal(&store), 0, "1,800 bytes are not worth a file");
    append(&store, ids[0], &[7; 200]);
    assert_eq!(seal(&store), 2000);
    // Another 1,000 bytes of a stream that has an extent.
    append(&store, ids[0], &[8; 1000]);
    assert_eq!(seal(&store), 0);
    append(&store, ids[1], &[9; 1000]);
    assert_eq!(seal(&store), 2000);
    assert_eq!(segments(dir.path()).len(), 2);
}

#[test]
fn a_damaged_stream_is_left_out_of_a_shared_segment() {
    let dir = tempdir();
    let options = with(dir.path(), SegmentOptions { idle: Duration::ZERO, ..large() });
    let store = open(options.clone());
    fill(&store, 3);
    files(&store).checkpoint().unwrap();
    drop(store);
    let index = dir.path().join("store/data.mdb");
    let mut bytes = fs::read(&index).unwrap();
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, &payload(1, BYTES)).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[at + 100] ^= 1);
    fs::write(&index, bytes).unwrap();
    let store = open(options);
    assert_eq!(seal(&store), 2 * BYTES as u64);
    let [shared] = &segments(dir.path())[..] else { panic!("one file") };
    assert_eq!(footer(shared).extents.len(), 2);
}

/// The thread looks at 256 streams, and goes on after a pause.
#[test]
fn the_thread_that_seals_comes_to_all_streams() {
    const STREAMS: usize = 300;
    let dir = tempdir();
    let options =
        SegmentOptions { idle: Duration::ZERO, interval: Duration::from_millis(20), ..large() };
    let written = open(with(dir.path(), options));
    fill(&written, STREAMS);
    checkpoint(&written);
    drop(written);
    let options: FileStoreOptions = with(dir.path(), options);
    let store = AnyStore::File(FileStore::open(options).unwrap());
    let begun = Instant::now();
    while files(&store).file_stats().segment_live_bytes < (STREAMS * BYTES) as u64 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", files(&store).file_stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(files(&store).file_stats().segment_files, 1);
}
