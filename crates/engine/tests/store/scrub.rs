//! The scrub, the names that a damaged page hides, and deleting a stream that can only be deleted.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use durable_streams_engine::store::{
    AnyStore, FileStore, LoadFor, Store, StoreError,
    file::offline::{self, IndexDamage},
};
use durable_streams_engine::{Clock, Engine, EngineLimits};
use durable_streams_protocol::{Create, ForkPoint, Rejection, StreamEvent};

use crate::harness::*;

const STREAMS: usize = 300;

fn name(n: usize) -> String {
    format!("names/{n:04}")
}

fn files(store: &AnyStore) -> &FileStore {
    let AnyStore::File(files) = store else { panic!("a file store") };
    files
}

fn fill(dir: &Path) {
    let store = file(dir);
    for n in 0..STREAMS {
        create(&store, created(&name(n), "bytes"));
    }
    checkpoint(&store);
    wait(store.close());
}

/// Changes pages of the index for which `change` returns true; returns how many.
fn change_pages(dir: &Path, mut change: impl FnMut(&mut [u8]) -> bool) -> usize {
    let index = dir.join("store/data.mdb");
    let mut bytes = fs::read(&index).unwrap();
    let changed = bytes.chunks_mut(4096).map(&mut change).filter(|changed| *changed).count();
    fs::write(&index, &bytes).unwrap();
    changed
}

fn repair(dir: &Path) -> Option<IndexDamage> {
    offline::repair_index(&options(dir), true, &mut |_| {}).unwrap()
}

fn problems(dir: &Path) -> u64 {
    offline::verify(&options(dir), &mut |_| {}).unwrap().count
}

/// Takes the last record off every leaf page of `paths`, as a bit of a page header may.
fn hide_names(dir: &Path) {
    let key = [&[0; 8], b"names/".as_slice()].concat();
    let hidden = change_pages(dir, |page| {
        let leaf = page[10..12] == [2, 0] && page[16..].windows(key.len()).any(|at| at == key);
        let lower = u16::from_le_bytes([page[12], page[13]]);
        if leaf {
            page[12..14].copy_from_slice(&(lower - 2).to_le_bytes());
        }
        leaf
    });
    assert!(hidden > 0);
}

#[test]
fn a_name_that_a_page_hides_is_refused_and_not_created_anew() {
    let dir = tempdir();
    fill(dir.path());
    hide_names(dir.path());
    let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
    let first = report.problems[0].to_string();
    assert!(first.contains("does not list the nodes that it holds"), "pages come first: {first}");
    // Without threads: nothing was scrubbed yet.
    let disk = std::sync::Arc::new(durable_streams_engine::store::file::disk::RealDisk);
    let store = AnyStore::File(FileStore::open_on(disk, options(dir.path())).unwrap());
    let find = |n| wait(store.load(&path(&name(n)), LoadFor::State));
    let hidden: Vec<usize> = (0..STREAMS).filter(|n| find(*n).is_err()).collect();
    assert!(!hidden.is_empty() && hidden.len() < STREAMS / 2, "{hidden:?}");
    assert!((0..STREAMS).all(|n| !matches!(find(n), Ok(None))), "none is simply not found");
    store.writable().unwrap();
    assert!(files(&store).scrub() > 0);
    let refused = wait(store.load(&path("never/there"), LoadFor::State));
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    assert!(store.writable().unwrap_err().to_string().contains("repair"));
    drop(store);
    let engine = Engine::new(file(dir.path()), Clock::System, EngineLimits::default());
    let created =
        wait(engine.create(&path(&name(hidden[0])), &Create::default(), Default::default()));
    assert_eq!(created.unwrap_err(), Rejection::Damaged);
    wait(engine.close());
    drop(engine);

    let done = repair(dir.path()).unwrap();
    assert!(done.lost.is_empty() && done.rewritten.contains(&"paths"), "{done:?}");
    assert_eq!(problems(dir.path()), 0);
    let store = file(dir.path());
    assert!((0..STREAMS).all(|n| load(&store, &name(n)).is_some()));
    assert!(load(&store, "never/there").is_none());
    assert_eq!(files(&store).scrub(), 0);
    store.writable().unwrap();
}

#[test]
fn a_wrong_number_of_names_is_noticed_at_the_start() {
    let dir = tempdir();
    fill(dir.path());
    // A record of a database: its number of records is 32 bytes in.
    let changed = change_pages(dir.path(), |page| {
        let Some(at) = memchr::memmem::find(page, b"\x05\0paths") else { return false };
        let at = at + 7 + 32;
        let count = u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        page[at] ^= 4;
        count == STREAMS as u64
    });
    assert!(changed > 0);
    let store = file(dir.path());
    assert!(store.writable().is_err());
    assert!(load(&store, &name(1)).is_some(), "what is found is right");
    let refused = wait(store.load(&path("never/there"), LoadFor::State));
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    // A checkpoint does not make it right.
    let id = load(&store, &name(1)).unwrap().state.core.id;
    append(&store, id, b"more");
    checkpoint(&store);
    drop(store);
    assert!(file(dir.path()).writable().is_err());
    assert!(repair(dir.path()).unwrap().lost.is_empty());
    let store = file(dir.path());
    store.writable().unwrap();
    assert_eq!(read_all(&store, &load(&store, &name(1)).unwrap().state, 100), b"bytesmore");
}

#[test]
fn a_scrub_beside_writes_finds_nothing() {
    let dir = tempdir();
    let store = file(dir.path());
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                assert_eq!(files(&store).scrub(), 0);
            }
        });
        let mut ids = Vec::new();
        for round in 0..60 {
            for n in 0..20 {
                ids.push(create(&store, created(&format!("s/{round}/{n}"), &"x".repeat(n * 900))));
            }
            append(&store, ids[round], &[7; 70_000]);
            checkpoint(&store);
            if round % 3 == 2 {
                commit(&store, ids.swap_remove(round), StreamEvent::Deleted { at: at(9) }).unwrap();
                files(&store).maintain();
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert!(files(&store).file_stats().scrubs > 1);
}

#[test]
fn a_damaged_branch_page_is_refused_at_the_start_and_repaired() {
    let dir = tempdir();
    fill(dir.path());
    let store = file(dir.path());
    let id = load(&store, &name(3)).unwrap().state.core.id;
    append(&store, id, b" in the log");
    drop(store);
    let changed = change_pages(dir.path(), |page| {
        let branch = page[10..12] == [1, 0];
        // The number of the page that a node leads to.
        let node = usize::from(u16::from_le_bytes([page[18], page[19]]));
        if branch {
            page[node] ^= 1;
        }
        branch
    });
    assert!(changed > 0);
    let refused = FileStore::open(options(dir.path())).err().unwrap();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    let refused = offline::StoppedSegments::open(&options(dir.path())).err();
    assert!(matches!(refused, Some(StoreError::Corrupt { .. })), "{refused:?}");
    assert!(problems(dir.path()) > 0);
    let done = repair(dir.path()).unwrap();
    let lost: Vec<u64> = done.lost.iter().map(|lost| lost.id).collect();
    assert_eq!(problems(dir.path()), 0);
    let store = file(dir.path());
    let there = (0..STREAMS).filter(|n| load(&store, &name(*n)).is_some()).count();
    assert!(there + lost.len() >= STREAMS, "{there} are there and {} are lost", lost.len());
    if let Some(found) = load(&store, &name(3)) {
        let bytes = read_all(&store, &found.state, 100);
        assert!(bytes.ends_with(b" in the log") || lost.contains(&id.0));
    }
}

/// Changes a byte of every copy of the state of the stream with this path.
fn damage_state(dir: &Path, name: &str) {
    let text = [&(name.len() as u16).to_le_bytes(), name.as_bytes()].concat();
    let changed = change_pages(dir, |page| {
        let places: Vec<usize> = memchr::memmem::find_iter(page, &text).collect();
        places.iter().for_each(|at| page[at + 2] ^= 1);
        !places.is_empty()
    });
    assert!(changed > 0);
}

#[test]
fn a_stream_with_a_damaged_state_can_be_deleted() {
    let dir = tempdir();
    let store = file(dir.path());
    create(&store, created("whole", "whole"));
    let mut lost = created("lost", "of a stream that is lost");
    lost.expiry = durable_streams_protocol::Expiry::Ttl(1_000_000_000);
    let id = create(&store, lost);
    checkpoint(&store);
    append(&store, id, b"in the log");
    drop(store);
    damage_state(dir.path(), "lost");
    let open = || Engine::new(file(dir.path()), Clock::System, EngineLimits::default());
    let engine = open();
    assert_eq!(wait(engine.head(&path("lost"))).unwrap_err(), Rejection::Damaged);
    wait(engine.delete(&path("lost"))).unwrap();
    assert_eq!(wait(engine.head(&path("lost"))).unwrap_err(), Rejection::NotFound);
    assert_eq!(wait(engine.delete(&path("lost"))).unwrap_err(), Rejection::NotFound);
    // Nothing is folded in yet: the deletion is in the log.
    drop(engine);
    let engine = open();
    assert_eq!(wait(engine.head(&path("lost"))).unwrap_err(), Rejection::NotFound);
    wait(engine.create(&path("lost"), &Create::default(), Default::default())).unwrap();
    let AnyStore::File(files) = engine.store() else { panic!("a file store") };
    files.checkpoint().unwrap();
    files.maintain();
    assert!(wait(engine.head(&path("lost"))).is_ok() && wait(engine.head(&path("whole"))).is_ok());
    assert_eq!(files.scrub(), 0, "nothing of it is left");
    wait(engine.close());
    drop(engine);
    assert_eq!(problems(dir.path()), 0);
}

#[test]
fn a_damaged_source_is_deleted_after_its_forks() {
    let dir = tempdir();
    let store = file(dir.path());
    let source = create(&store, created("source", "inherited"));
    let state = load(&store, "source").unwrap().state;
    let mut fork = created("fork", "own");
    fork.fork = Some(ForkPoint {
        source,
        source_path: path("source"),
        position: state.tail,
        requested: None,
        sub_offset: 0,
        ancestors: state.core.ancestors_up_to(state.tail),
    });
    create(&store, fork);
    wait(store.close());
    drop(store);
    damage_state(dir.path(), "source");
    // The fork's state names the source, too.
    let engine = Engine::new(file(dir.path()), Clock::System, EngineLimits::default());
    assert_eq!(wait(engine.delete(&path("source"))).unwrap_err(), Rejection::Damaged);
    wait(engine.delete(&path("fork"))).unwrap();
    wait(engine.delete(&path("source"))).unwrap();
    let AnyStore::File(files) = engine.store() else { panic!("a file store") };
    files.checkpoint().unwrap();
    files.maintain();
    wait(engine.close());
    drop(engine);
    assert_eq!(problems(dir.path()), 0);
}
