//! What a store says of itself.

use std::fs;

use durable_streams_engine::store::Store as _;
use durable_streams_protocol::StreamEvent;

use crate::harness::*;
use crate::segments::{self, files, large, open, with};
use crate::tiering::sealed;

#[test]
fn events_that_the_index_has_not_are_counted_and_so_are_syncs() {
    let dir = tempdir();
    let store = open(options(dir.path()));
    let id = segments::create(&store, created("s", "one"));
    segments::append(&store, id, b"two");
    assert_eq!(files(&store).file_stats().checkpoint_lag_events, 2);
    files(&store).checkpoint().unwrap();
    (0..3).for_each(|_| segments::append(&store, id, b"more"));
    let stats = store.disk_stats().unwrap();
    assert_eq!((stats.files.checkpoint_lag_events, stats.files.events), (3, 5));
    assert_eq!((stats.batches.count(), stats.syncs.count()), (5, 5), "one for each");
    assert!(!files(&store).step(), "nothing waits");
}

/// Changes a byte of every copy of what is found.
fn damage(path: &std::path::Path, what: &[u8], at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let places: Vec<_> = memchr::memmem::find_iter(&bytes, what).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|place| bytes[place + at] ^= 1);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_scrub_counts_damage_in_the_index_and_in_local_segments() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    sealed(&store);
    segments::create(&store, created("small", "the quick brown fox"));
    files(&store).checkpoint().unwrap();
    assert_eq!(files(&store).scrub(), 0);
    let whole = files(&store).file_stats();
    assert_eq!((whole.scrubs, whole.scrub_damaged), (1, 0));
    assert!(whole.scrub_bytes > whole.segment_bytes / 2, "{whole:?}");
    let numbers: Vec<u64> =
        files(&store).segments_after(None, 9).unwrap().iter().map(|one| one.number).collect();
    let paths: Vec<_> = numbers.iter().map(|number| files(&store).segment_path(*number)).collect();
    drop(store);
    damage(&dir.path().join("store/data.mdb"), b"quick brown", 0);
    let mut bytes = fs::read(&paths[0]).unwrap();
    bytes[70_000] ^= 1;
    fs::write(&paths[0], bytes).unwrap();
    fs::write(&paths[1], "no segment").unwrap();
    let store = open(with(dir.path(), large()));
    assert_eq!(files(&store).scrub(), 3);
    assert_eq!(files(&store).file_stats().scrub_damaged, 3);
}

#[test]
fn a_start_takes_deleted_streams_off_the_totals_wherever_their_deletion_is() {
    let dir = tempdir();
    let store = file(dir.path());
    let ids = ["a", "b"].map(|name| create(&store, created(name, &"x".repeat(1000))));
    create(&store, created("c", &"x".repeat(1000)));
    checkpoint(&store);
    commit(&store, ids[0], StreamEvent::Deleted { at: at(9) }).unwrap();
    append(&store, ids[1], b"1");
    drop(store);
    let stats = file(dir.path()).stats();
    assert_eq!((stats.streams, stats.bytes), (2, 1000 + 1000 + 1));
}
