//! What `repair` says of a damaged log, by stream, and where the log goes on afterwards; logs whose events do not fit together.

use std::{
    fs,
    path::{Path, PathBuf},
};

use durable_streams_engine::store::{
    AnyStore, FileStore, FileStoreOptions, StoreError,
    file::offline::{self, LogDamage},
};
use durable_streams_protocol::{StreamEvent, StreamId};

use crate::{harness::*, segments};

fn damage(path: &Path, what: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = memchr::memmem::find(&bytes, what).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn repair(dir: &Path, apply: bool) -> Option<LogDamage> {
    offline::repair(&options(dir), apply).unwrap()
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("wal")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "wal")).collect();
    paths.sort();
    paths
}

#[test]
fn whole_events_behind_the_damage_are_counted_by_stream() {
    let dir = tempdir();
    let store = file(dir.path());
    let indexed = create(&store, created("indexed", ""));
    checkpoint(&store);
    let early = create(&store, created("early", "1"));
    append(&store, early, b"damage me");
    append(&store, early, b"12345");
    append(&store, indexed, b"123");
    append(&store, early, b"1234567");
    let late = create(&store, created("late", "12"));
    commit(&store, late, StreamEvent::Deleted { at: at(9) }).unwrap();
    drop(store);
    damage(&logs(dir.path())[0], b"damage me");
    let damage = repair(dir.path(), false).unwrap();
    assert_eq!((damage.first_lost, damage.last_found), (3, Some(8)));
    let lost =
        damage.lost.iter().map(|lost| (lost.id, lost.path.as_deref(), lost.events, lost.bytes));
    assert_eq!(
        lost.collect::<Vec<_>>(),
        [
            (indexed.0, Some("indexed"), 1, 3),
            (early.0, Some("early"), 2, 12),
            (late.0, Some("late"), 2, 2)
        ]
    );
    assert!(damage.segments.is_empty());
}

#[test]
fn a_segment_whose_header_is_damaged_is_set_aside_and_the_log_goes_on_behind_the_index() {
    let dir = tempdir();
    let store = file(dir.path());
    let id = create(&store, created("s", "one"));
    checkpoint(&store);
    append(&store, id, b"two");
    drop(store);
    let paths = logs(dir.path());
    let [path] = &paths[..] else { panic!("{paths:?}") };
    damage(path, &1_u64.to_le_bytes());
    let damage = repair(dir.path(), true).unwrap();
    assert_eq!((&damage.path, damage.first_lost, damage.last_found), (path, 2, None));
    assert!(path.with_extension("dropped").exists());
    let new = dir.path().join("wal/00000000000000000002.wal");
    assert_eq!(logs(dir.path()), std::slice::from_ref(&new), "its number was not used");
    let first = fs::read(new).unwrap()[16..24].try_into().unwrap();
    assert_eq!(u64::from_le_bytes(first), 2);
    let store = file(dir.path());
    let state = load(&store, "s").unwrap().state;
    assert_eq!(read_all(&store, &state, 100), b"one");
    append(&store, id, b"!");
}

#[test]
fn a_log_that_is_gone_begins_again_behind_the_index() {
    let dir = tempdir();
    let store = file(dir.path());
    let id = create(&store, created("s", "one"));
    wait(durable_streams_engine::store::Store::close(&store));
    drop(store);
    for path in logs(dir.path()) {
        fs::remove_file(path).unwrap();
    }
    let damage = repair(dir.path(), true).unwrap();
    assert_eq!((damage.path, damage.first_lost), (dir.path().join("wal"), 2));
    assert_eq!(repair(dir.path(), true), None);
    let store = file(dir.path());
    append(&store, id, b"!");
    let state = load(&store, "s").unwrap().state;
    assert_eq!(read_all(&store, &state, 100), b"one!");
}

#[test]
fn segments_before_the_damage_stay_and_those_behind_it_are_set_aside() {
    let dir = tempdir();
    let small = FileStoreOptions { wal_segment: 1024, ..options(dir.path()) };
    let store = AnyStore::File(FileStore::open(small).unwrap());
    let id = create(&store, created("s", &"one".repeat(300)));
    append(&store, id, "damage me".repeat(100).as_bytes());
    append(&store, id, "three".repeat(100).as_bytes());
    drop(store);
    let paths = logs(dir.path());
    let [first, second, third] = &paths[..] else { panic!("{paths:?}") };
    let whole = fs::read(first).unwrap();
    damage(second, b"damage me");
    let damage = repair(dir.path(), true).unwrap();
    assert_eq!((&damage.path, damage.segments), (second, vec![third.clone()]));
    assert_eq!((damage.first_lost, damage.last_found, damage.lost[0].bytes), (2, Some(3), 500));
    assert_eq!(logs(dir.path()), [first.clone(), second.clone()]);
    assert!(fs::read(first).unwrap() == whole && third.with_extension("dropped").exists());
    let store = file(dir.path());
    let state = load(&store, "s").unwrap().state;
    assert_eq!(read_all(&store, &state, 5000), "one".repeat(300).as_bytes());
}

#[test]
fn an_index_that_is_gone_is_not_made_anew() {
    let dir = tempdir();
    drop(file(dir.path()));
    let index = dir.path().join("store/data.mdb");
    fs::remove_file(&index).unwrap();
    let refused = offline::verify(&options(dir.path()), &mut |_| {}).unwrap().whole();
    assert!(refused.unwrap_err().to_string().contains("the index is gone"));
    assert!(!index.exists());
    fs::create_dir(&index).unwrap();
    let refused = offline::verify(&options(dir.path()), &mut |_| {});
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
}

/// As no engine does: the store itself takes any event.
#[test]
fn events_of_no_stream_and_a_second_creation_are_refused_at_the_next_start() {
    let again = StreamEvent::Created(Box::new(created("s", "")));
    let other = StreamEvent::Appended(appended(b"!"));
    for (event, other_id, found) in
        [(again, false, "which exists"), (other, true, "which is not there")]
    {
        let dir = tempdir();
        let store = segments::open(options(dir.path()));
        let id = segments::create(&store, created("s", "one"));
        let id = if other_id { StreamId(id.0 + 1) } else { id };
        segments::commit(&store, id, event);
        drop(store);
        let refused = FileStore::open(options(dir.path())).err().unwrap().to_string();
        assert!(refused.contains(&format!("stream {}, {found}", id.0)), "{refused}");
        let damage = repair(dir.path(), true).unwrap();
        assert_eq!((damage.first_lost, damage.last_found), (2, Some(2)));
        assert!(load(&file(dir.path()), "s").is_some());
    }
}
