//! What operators do: verify, back up, restore, compact, repair.

use durable_streams_engine::store::Store;
use std::path::{Path, PathBuf};

use durable_streams_engine::store::{
    AnyStore, FileStore, FileStoreOptions, StoreError,
    file::offline::{self, VerifiedTotals},
};
use durable_streams_protocol::StreamEvent;

use crate::{harness::*, workload::*};

fn fill(store: &AnyStore, seed: u64, events: usize) -> Model {
    let (mut rng, mut model) = (Rng(seed), Model::default());
    for _ in 0..events {
        let (id, event) = next_event(&mut rng, &model, store);
        model.apply(id, &event);
        commit(store, id, event).unwrap();
    }
    model
}

fn verify(dir: &Path) -> Result<VerifiedTotals, StoreError> {
    offline::verify(&options(dir), &mut |_| {})?.whole()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).unwrap()
}

#[test]
fn verify_counts_what_is_whole() {
    let dir = tempdir();
    let store = file(dir.path());
    fill(&store, 1, 200);
    checkpoint(&store);
    let stats = store.stats();
    let extra = create(&store, created("extra", "12"));
    append(&store, extra, b"3");
    let locked = verify(dir.path());
    assert!(matches!(locked, Err(StoreError::Locked { .. })), "{locked:?}");
    drop(store);
    let found = verify(dir.path()).unwrap();
    assert_eq!((found.streams, found.bytes, found.events), (stats.streams, stats.bytes, 2));
}

#[test]
fn verify_and_reads_find_a_changed_byte() {
    let dir = tempdir();
    let store = file(dir.path());
    let id = create(&store, created("s", "the quick brown fox"));
    wait(store.close());
    drop(store);
    change(&dir.path().join("store/data.mdb"), |bytes| {
        let at = find(bytes, b"quick brown");
        bytes[at] = b'Q';
    });
    let found = verify(dir.path());
    assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{found:?}");
    let store = file(dir.path());
    let tail = load(&store, "s").unwrap().state.tail;
    let read = wait(store.read(id, Default::default(), tail, 100));
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
}

#[test]
fn a_backup_of_a_serving_store_is_a_data_directory() {
    let (dir, to, again) = (tempdir(), tempdir(), tempdir());
    let store = file(dir.path());
    let model = fill(&store, 2, 150);
    let AnyStore::File(serving) = &store else { panic!("a file store") };
    serving.backup(to.path()).unwrap();
    let refused = serving.backup(to.path());
    assert!(matches!(refused, Err(StoreError::Format { .. })), "{refused:?}");
    create(&store, created("later", ""));
    drop(store);

    offline::restore(to.path(), &options(again.path()), &mut |_| {}).unwrap();
    for dir in [to.path(), again.path()] {
        verify(dir).unwrap();
        let store = file(dir);
        model.check(&store).unwrap();
        let id = create(&store, created("more", "1"));
        drop(store);
        let store = file(dir);
        assert_eq!(load(&store, "more").unwrap().state.core.id, id);
    }
    let nothing =
        offline::backup(&options(&dir.path().join("none")), again.path(), &[], &mut |_| {});
    assert!(matches!(nothing, Err(StoreError::Format { .. })), "{nothing:?}");
}

#[test]
fn compact_shrinks_the_index_and_keeps_the_rest() {
    let dir = tempdir();
    let store = file(dir.path());
    let gone: Vec<_> = (0..20).map(|n| create(&store, created(&format!("gone{n}"), ""))).collect();
    for id in &gone {
        append(&store, *id, &vec![1; 200_000]);
    }
    let model = fill(&store, 3, 100);
    checkpoint(&store);
    for id in &gone {
        commit(&store, *id, StreamEvent::Deleted { at: at(9) }).unwrap();
    }
    wait(store.close());
    drop(store);
    let done = offline::compact(&options(dir.path()), &mut |_| {}).unwrap();
    let (before, after) = (done.before, done.after);
    assert!(after < before - 3_000_000, "{before} to {after}");
    verify(dir.path()).unwrap();
    model.check(&file(dir.path())).unwrap();
}

#[test]
fn an_index_that_was_cut_is_refused() {
    let dir = tempdir();
    let store = file(dir.path());
    let id = create(&store, created("s", ""));
    append(&store, id, &vec![1; 4 << 20]);
    wait(store.close());
    drop(store);
    change(&dir.path().join("store/data.mdb"), |bytes| bytes.truncate(1 << 20));
    let Err(refused) = durable_streams_engine::store::FileStore::open(options(dir.path())) else {
        panic!("it opened")
    };
    assert!(refused.to_string().contains("the file ends here"), "{refused}");
}

/// Three batches in a log that is damaged in the second one.
fn damaged() -> (tempfile::TempDir, FileStoreOptions, PathBuf) {
    let dir = tempdir();
    let store = file(dir.path());
    let id = create(&store, created("s", "one"));
    append(&store, id, b"damage me");
    append(&store, id, b"three");
    drop(store);
    let path = dir.path().join("wal/00000000000000000001.wal");
    change(&path, |bytes| {
        let at = find(bytes, b"damage me");
        bytes[at] = b'D';
    });
    let options = options(dir.path());
    (dir, options, path)
}

#[test]
fn repair_says_what_it_would_drop_and_drops_it_when_told_to() {
    let (dir, options, path) = damaged();
    let before = std::fs::read(&path).unwrap();
    let damage = offline::repair(&options, false).unwrap().unwrap();
    assert_eq!((&damage.path, damage.first_lost, damage.last_found), (&path, 2, Some(3)));
    assert_eq!(std::fs::read(&path).unwrap(), before, "nothing is changed yet");
    assert!(matches!(verify(dir.path()), Err(StoreError::Corrupt { .. })));

    assert_eq!(offline::repair(&options, true).unwrap(), Some(damage));
    assert_eq!(offline::repair(&options, true).unwrap(), None, "nothing is left to do");
    assert_eq!(std::fs::read(path.with_extension("dropped")).unwrap(), before, "kept aside");
    let store = file(dir.path());
    let state = load(&store, "s").unwrap().state;
    assert_eq!(read_all(&store, &state, 100), b"one");
    append(&store, state.core.id, b"!");
}

/// The log's last event is damaged, of which the mark of a clean stop says that it was safe.
#[test]
fn a_damaged_end_is_found_and_repaired() {
    let dir = tempdir();
    let store = file(dir.path());
    let id = create(&store, created("s", "one"));
    let index = dir.path().join("store/data.mdb");
    let before = std::fs::read(&index).unwrap();
    append(&store, id, b"damage me");
    wait(store.close());
    drop(store);
    // As if the checkpoint of the stop had failed.
    std::fs::write(&index, before).unwrap();
    assert_eq!(verify(dir.path()).unwrap().events, 2);
    change(&dir.path().join("wal/00000000000000000001.wal"), |bytes| {
        let at = find(bytes, b"damage me");
        bytes[at] = b'D';
    });
    let found = verify(dir.path()).unwrap_err().to_string();
    assert!(found.contains("the log ends before event 2 (of stream "), "{found}");
    let options = options(dir.path());
    assert!(FileStore::open(options.clone()).is_err());
    let damage = offline::repair(&options, true).unwrap().unwrap();
    assert_eq!((damage.first_lost, damage.last_found), (2, None));
    assert_eq!(offline::repair(&options, true).unwrap(), None);
    verify(dir.path()).unwrap();
    let store = file(dir.path());
    let state = load(&store, "s").unwrap().state;
    assert_eq!(read_all(&store, &state, 100), b"one");
    append(&store, id, b"!");
}

/// Two processes wrote to one directory: the index is of one, the end of the log of the other.
#[test]
fn events_that_do_not_join_their_stream_are_never_applied() {
    let (dir, other) = (tempdir(), tempdir());
    let store = file(dir.path());
    let id = create(&store, created("s", "one"));
    wait(store.close());
    drop(store);
    offline::backup(&options(dir.path()), &other.path().join("b"), &[], &mut |_| {}).unwrap();
    let other = other.path().join("b");
    let mine = file(dir.path());
    append(&mine, id, b"a");
    append(&mine, id, b"b");
    drop(mine);
    let theirs = file(&other);
    append(&theirs, id, b"longer");
    wait(theirs.close());
    drop(theirs);
    std::fs::copy(other.join("store/data.mdb"), dir.path().join("store/data.mdb")).unwrap();
    let found = verify(dir.path()).unwrap_err().to_string();
    assert!(found.contains("event 3 is event 3 of stream "), "{found}");
    assert!(
        found.contains("begins at position 4, but the stream has 2 events and ends at 9"),
        "{found}"
    );
    let Err(refused) = FileStore::open(options(dir.path())) else { panic!("it opened") };
    assert!(refused.to_string().contains("another process has written here"), "{refused}");
    let damage = offline::repair(&options(dir.path()), true).unwrap().unwrap();
    assert_eq!((damage.first_lost, damage.last_found), (3, Some(3)));
    let store = file(dir.path());
    let state = load(&store, "s").unwrap().state;
    assert_eq!(read_all(&store, &state, 100), b"onelonger");
}

#[test]
fn repair_keeps_later_segments_beside_the_log() {
    let dir = tempdir();
    let small = FileStoreOptions { wal_segment: 1024, ..options(dir.path()) };
    let store = AnyStore::File(FileStore::open(small.clone()).unwrap());
    let id = create(&store, created("s", "one"));
    for piece in ["damage me", "b another", "c another", "d another"] {
        append(&store, id, piece.repeat(60).as_bytes());
    }
    drop(store);
    let segments: Vec<_> = (1..=4).map(|n| dir.path().join(format!("wal/{n:020}.wal"))).collect();
    change(&segments[0], |bytes| {
        let at = find(bytes, b"damage me");
        bytes[at] = b'D';
    });
    let before: Vec<_> = segments.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let damage = offline::repair(&small, true).unwrap().unwrap();
    assert!(damage.segments.len() >= 2, "{damage:?}");
    assert_eq!(damage.segments, segments[1..][..damage.segments.len()]);
    for (path, bytes) in segments.iter().zip(&before).take(damage.segments.len() + 1) {
        assert_eq!(&std::fs::read(path.with_extension("dropped")).unwrap(), bytes, "{path:?}");
    }
    assert!(damage.segments.iter().all(|path| !path.exists()));
}

#[test]
fn a_copy_that_is_no_longer_wanted_ends() {
    let dir = tempdir();
    let store = file(dir.path());
    let id = create(&store, created("s", ""));
    for _ in 0..16 {
        append(&store, id, &vec![1; 1 << 20]);
    }
    let AnyStore::File(serving) = &store else { panic!("a file store") };
    let target = dir.path().join("copy");
    let copy = std::fs::File::create_new(&target).unwrap();
    let asked = std::sync::atomic::AtomicU32::new(0);
    let wanted = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 4;
    serving.copy_index(&copy, &mut |_| {}, &wanted).unwrap_err();
    let copied = copy.metadata().unwrap().len();
    assert!(copied < 2 << 20, "{copied} bytes of 16 MiB were copied all the same");
    // Nothing of it goes on: pages are free again, and the next copy is whole.
    let copy = std::fs::File::create(&target).unwrap();
    serving.copy_index(&copy, &mut |_| {}, &|| true).unwrap();
    assert!(copy.metadata().unwrap().len() > 16 << 20);
}
