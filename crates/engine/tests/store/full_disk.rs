//! A full disk: deletes are accepted, a start works, and once deletes have made room, so are appends.

use std::sync::Arc;

use durable_streams_engine::store::{
    AnyStore, Commit, FileStore, FileStoreOptions, Store, StoreError,
};
use durable_streams_protocol::{Decision, StreamEvent, StreamId};

use crate::{fault_disk::FaultDisk, harness::*};

const SEGMENT: usize = 16 << 10;

struct FullDisk {
    dir: tempfile::TempDir,
    disk: FaultDisk,
    store: Option<AnyStore>,
    ids: Vec<StreamId>,
}

impl FullDisk {
    fn open(&mut self) {
        self.store = None;
        let options = FileStoreOptions {
            checkpoint_size: 1 << 20,
            wal_segment: SEGMENT as u64,
            ..options(self.dir.path())
        };
        let opened = FileStore::open_on(Arc::new(self.disk.clone()), options);
        self.store = Some(AnyStore::File(opened.unwrap()));
    }

    fn store(&self) -> (&AnyStore, &FileStore) {
        let Some(any @ AnyStore::File(file)) = &self.store else { panic!("a file store") };
        (any, file)
    }

    fn commit(&self, id: StreamId, event: StreamEvent) -> Result<(), StoreError> {
        let (store, file) = self.store();
        let sink = Arc::new(Sink::default());
        let (place, epoch) = (place(store, id, &event), store.epoch());
        store.commit(Commit { id, event, place, epoch, version: 1, sink: sink.clone() })?;
        file.step();
        sink.wait_for(1)
    }

    fn append(&self, id: StreamId) -> Result<(), StoreError> {
        self.commit(id, StreamEvent::Appended(appended(&[b'x'; 1000])))
    }

    /// A store with two streams on a disk with no room for another event.
    fn new() -> Self {
        let (dir, disk) = (tempdir(), FaultDisk::default());
        let mut full = FullDisk { dir, disk, store: None, ids: Vec::new() };
        full.open();
        for name in ["a", "b"] {
            let id = full.store().0.next_id();
            full.commit(id, StreamEvent::Created(Box::new(created(name, "")))).unwrap();
            full.ids.push(id);
        }
        full.store().1.maintain();
        full.disk.set_capacity(6 * SEGMENT);
        let refused = (0..1000).find_map(|_| full.append(full.ids[0]).err());
        assert!(matches!(refused, Some(StoreError::Full { .. })), "{refused:?}");
        full
    }
}

#[test]
fn deletes_are_accepted_and_make_room_for_appends() {
    let full = FullDisk::new();
    let [a, b] = full.ids[..] else { panic!("two streams") };
    full.commit(a, StreamEvent::Deleted { at: at(1) }).unwrap();
    let (store, file) = full.store();
    assert!(load(store, "a").is_none());
    let refused = full.append(b);
    assert!(
        matches!(refused, Err(StoreError::Full { .. })),
        "the reserve is for deletes: {refused:?}"
    );

    file.checkpoint().unwrap();
    file.maintain();
    for _ in 0..100 {
        if full.append(b).is_err() {
            file.checkpoint().unwrap();
            file.maintain();
            full.append(b).unwrap();
        }
    }
    let state = load(store, "b").unwrap().state;
    assert_eq!(read_all(store, &state, 1 << 20).len(), 100_000);
    // The reserve exists again, too.
    while full.append(b).is_ok() {}
    full.commit(b, StreamEvent::Deleted { at: at(1) }).unwrap();
}

#[test]
fn a_start_works() {
    let mut full = FullDisk::new();
    for _ in 0..3 {
        full.open();
        let state = load(full.store().0, "a").unwrap().state;
        assert!(state.tail.position() > 3 * SEGMENT as u64, "{state:?}");
    }
    full.commit(full.ids[0], StreamEvent::Deleted { at: at(1) }).unwrap();
    full.store().1.checkpoint().unwrap();
    full.store().1.maintain();
    full.append(full.ids[1]).unwrap();
}

#[test]
fn trims_are_accepted_and_make_room_for_appends() {
    let full = FullDisk::new();
    let [a, b] = full.ids[..] else { panic!("two streams") };
    let state = load(full.store().0, "a").unwrap().state;
    let trimmed = state.trim(state.tail, None, false, at(9)).unwrap();
    let Decision::Commit(event, _) = trimmed else { panic!("a trim") };
    full.commit(a, event).unwrap();
    let refused = full.append(b);
    assert!(matches!(refused, Err(StoreError::Full { .. })), "the reserve is kept: {refused:?}");
    let (store, file) = full.store();
    file.checkpoint().unwrap();
    file.maintain();
    for _ in 0..40 {
        if full.append(b).is_err() {
            file.checkpoint().unwrap();
            file.maintain();
            full.append(b).unwrap();
        }
    }
    let state = load(store, "b").unwrap().state;
    assert_eq!(read_all(store, &state, 1 << 20).len(), 40_000);
    assert_eq!(load(store, "a").unwrap().state.own_len(), 0);
}
