//! `max_disk`: log and index together never take more, deletes make room again, and a start works at the limit.

use std::{fs, path::Path};

use durable_streams_engine::store::{AnyStore, FileStore, FileStoreOptions, Store, StoreError};
use durable_streams_protocol::{StreamEvent, StreamId};

use crate::{harness::*, workload::Rng};

const LIMIT: u64 = 64 << 20;

fn open(dir: &Path) -> AnyStore {
    let options = FileStoreOptions {
        max_disk: Some(LIMIT),
        map_size: 1 << 30,
        checkpoint_size: 1 << 20,
        ..options(dir)
    };
    AnyStore::File(FileStore::open(options).unwrap())
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
