//! The index's file does not shrink: what leaves it is room for later records, of which it needs only so much.

use durable_streams_engine::store::{AnyStore, Store as _, file::SegmentOptions};
use durable_streams_protocol::StreamId;

use crate::{
    harness::*,
    segments::{append, create, files, large, open, payload, seal, with},
};

/// Bytes that each stream gets, in one append.
const BYTES: usize = 200_000;

fn write(store: &AnyStore, streams: std::ops::Range<usize>) -> Vec<StreamId> {
    let ids = streams.map(|n| {
        let id = create(store, created(&format!("s{n}"), ""));
        append(store, id, &payload(n, BYTES));
        id
    });
    let ids = ids.collect();
    files(store).checkpoint().unwrap();
    ids
}

/// Size of the index's file, and how much of it is free.
fn index(store: &AnyStore) -> (u64, u64) {
    let stats = files(store).file_stats();
    (stats.index_bytes, stats.index_free_bytes)
}

#[test]
fn nothing_is_sealed_while_a_quarter_of_the_index_is_free() {
    let dir = tempdir();
    let store = open(with(dir.path(), SegmentOptions { most_free: 0, ..large() }));
    let mut ids = write(&store, 0..20);
    let all = (20 * BYTES) as u64;
    let first = seal(&store);
    let (grown, free) = index(&store);
    assert!(first > 0 && first < all * 2 / 3, "{first} of {all}");
    assert!(free > grown / 4, "{free} of {grown} are free");
    assert!(free < grown / 2, "it went on: {free} of {grown} are free");
    for _ in 0..3 {
        assert_eq!(seal(&store), 0, "it pauses");
    }
    // New records take the free room, and sealing goes on.
    ids.extend(write(&store, 20..26));
    let (after, free) = index(&store);
    assert!(free <= after / 4, "{free} of {after} are free");
    assert!(after < grown + grown / 4, "the file has grown from {grown} to {after}");
    assert!(seal(&store) > 0);
    assert_eq!(seal(&store), 0);
    for (n, id) in ids.into_iter().enumerate() {
        let state = wait(store.state_of(id)).unwrap().unwrap();
        assert!(read_all(&store, &state, 70_000) == payload(n, BYTES), "stream {n}");
    }
}

#[test]
fn less_than_a_gibibyte_of_free_room_is_no_reason_to_wait() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    assert_eq!(large().most_free, 1 << 30);
    write(&store, 0..20);
    let sealed = seal(&store);
    assert_eq!(sealed, 20 * BYTES as u64);
    let (grown, free) = index(&store);
    assert!(free > grown / 2, "{free} of {grown} are free");
}
