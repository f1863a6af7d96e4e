//! What a power cut may take under `interval` and `os`: only the newest acknowledged events, never more than
//! the documented bound, and never one from the middle.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use durable_streams_engine::store::{
    AnyStore, Commit, FileStore, FileStoreOptions, Store, file::Durability,
};
use durable_streams_protocol::StreamEvent;

use crate::{
    fault_disk::{FaultDisk, Faults},
    harness::*,
    workload::Rng,
};

struct Life {
    rng: Rng,
    dir: tempfile::TempDir,
    disk: FaultDisk,
    durability: Durability,
    /// Everything acknowledged, and how much of it no power cut may take.
    text: String,
    safe: usize,
    appends: u64,
}

impl Life {
    fn new(seed: u64, durability: Durability) -> Self {
        let (dir, disk) = (tempdir(), FaultDisk::default());
        Life { rng: Rng(seed), dir, disk, durability, text: String::new(), safe: 0, appends: 0 }
    }

    fn open(&self) -> AnyStore {
        let options = FileStoreOptions {
            durability: self.durability,
            wal_segment: 2048,
            ..options(self.dir.path())
        };
        AnyStore::File(FileStore::open_on(Arc::new(self.disk.clone()), options).unwrap())
    }

    /// One acknowledged append.
    fn append(&mut self, store: &AnyStore) {
        let AnyStore::File(file) = store else { panic!("a file store") };
        self.appends += 1;
        let record = format!("{}{};", self.appends, "x".repeat(self.rng.below(90) as usize));
        let (id, event) = match load(store, "s") {
            None => (store.next_id(), StreamEvent::Created(Box::new(created("s", &record)))),
            Some(found) => {
                (found.state.core.id, StreamEvent::Appended(appended(record.as_bytes())))
            }
        };
        let sink = Arc::new(Sink::default());
        let (place, epoch) = (place(store, id, &event), store.epoch());
        let commit = Commit { id, event, place, epoch, version: 1, sink: sink.clone() };
        store.commit(commit).unwrap();
        assert!(file.step());
        sink.wait_for(1).unwrap();
        self.text.push_str(&record);
    }

    /// The power goes; what is found becomes the truth. Gives the bytes that are lost.
    fn crash(&mut self) -> usize {
        self.disk = self.disk.after_power_cut(&mut self.rng);
        let store = self.open();
        let found = load(&store, "s").map_or(String::new(), |loaded| {
            String::from_utf8(read_all(&store, &loaded.state, 999)).unwrap()
        });
        assert!(self.text.starts_with(&found), "not a beginning of what was acknowledged: {found}");
        assert!(found.is_empty() || found.ends_with(';'), "half an event");
        assert!(found.len() >= self.safe, "{} bytes of {} safe ones", found.len(), self.safe);
        let lost = self.text.len() - found.len();
        (self.text, self.safe) = (found.clone(), found.len());
        lost
    }
}

#[test]
fn os_loses_at_most_what_came_after_the_last_checkpoint() {
    let mut lost = 0;
    for seed in seeds("STORE_CRASH_SEEDS", 60) {
        let mut life = Life::new(seed, Durability::Os);
        for _ in 0..4 {
            let store = life.open();
            for _ in 0..life.rng.below(40) {
                life.append(&store);
                if life.rng.below(12) == 0 {
                    checkpoint(&store);
                    life.safe = life.text.len();
                }
            }
            drop(store);
            lost += life.crash();
        }
    }
    assert!(lost > 0, "the simulated disk has lost nothing, so nothing was tested");
}

#[test]
fn interval_loses_at_most_the_last_interval() {
    const INTERVAL: Duration = Duration::from_millis(15);
    let mut lost = 0;
    for seed in seeds("STORE_INTERVAL_SEEDS", 12) {
        let mut life = Life::new(seed, Durability::Interval(INTERVAL));
        for _ in 0..3 {
            let store = life.open();
            for _ in 0..life.rng.below(5) {
                for _ in 0..life.rng.below(10) {
                    life.append(&store);
                }
                thread::sleep(INTERVAL);
                // The first batch after the interval syncs, and everything before it with it.
                life.append(&store);
                life.safe = life.text.len();
            }
            for _ in 0..life.rng.below(10) {
                life.append(&store);
            }
            drop(store);
            lost += life.crash();
        }
    }
    assert!(lost > 0, "the simulated disk has lost nothing, so nothing was tested");
}

/// Also when nothing more comes: the writer's thread syncs by itself.
#[test]
fn interval_syncs_without_another_append() {
    let dir = tempdir();
    let durability = Durability::Interval(Duration::from_millis(20));
    let options = FileStoreOptions { durability, ..options(dir.path()) };
    let store = AnyStore::File(FileStore::open(options).unwrap());
    create(&store, created("s", "x"));
    let AnyStore::File(file) = &store else { panic!("a file store") };
    let deadline = Instant::now() + Duration::from_secs(10);
    while file.file_stats().syncs == 0 {
        assert!(Instant::now() < deadline, "{:?}", file.file_stats());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn fsync_loses_nothing() {
    for seed in 0..20 {
        let mut life = Life::new(seed, Durability::Fsync);
        for _ in 0..3 {
            life.disk.set_faults(Faults::default());
            let store = life.open();
            for _ in 0..life.rng.below(20) {
                life.append(&store);
                life.safe = life.text.len();
            }
            drop(store);
            life.crash();
        }
    }
}
