//! A store that crashes again and again on a simulated disk, and what must be there after each crash.

use std::sync::Arc;

use durable_streams_engine::store::{
    AnyStore, Commit, EventPlace, FileStore, FileStoreOptions, Store, StoreError,
};
use durable_streams_protocol::{StreamEvent, StreamId};

use super::{
    fault_disk::FaultDisk,
    harness::*,
    workload::{Rng, next_event},
};

pub type Events = Vec<(StreamId, StreamEvent)>;

pub struct Lives {
    pub rng: Rng,
    pub dir: tempfile::TempDir,
    pub disk: FaultDisk,
    /// Bytes of the tail cache.
    cache: usize,
    /// What was acknowledged.
    pub acked: Model,
    /// Batches of which a beginning may be there: the last ones that failed.
    pub maybe: Vec<Events>,
}

impl Lives {
    pub fn new(seed: u64, cache: usize) -> Self {
        Lives {
            rng: Rng(seed),
            dir: tempdir(),
            disk: FaultDisk::default(),
            cache,
            acked: Model::default(),
            maybe: Vec::new(),
        }
    }

    fn options(&self) -> FileStoreOptions {
        FileStoreOptions { wal_segment: 4096, cache: self.cache, ..sealing(self.dir.path()) }
    }

    pub fn open(&self) -> Result<AnyStore, StoreError> {
        FileStore::open_on(Arc::new(self.disk.clone()), self.options()).map(AnyStore::File)
    }

    /// Commits a batch in one write; moves it to `acked` or `maybe`. Returns what was tried.
    pub fn batch(&mut self, store: &AnyStore) -> Events {
        let AnyStore::File(file) = store else { panic!("a file store") };
        let mut decided = self.acked.clone();
        let mut batch = Events::new();
        let sink = Arc::new(Sink::default());
        for version in 0..=self.rng.below(6) {
            let (id, event) = next_event(&mut self.rng, &decided, store);
            let (epoch, sink) = (store.epoch(), sink.clone());
            let place = match (&event, decided.streams.get(&id)) {
                (_, Some((state, _))) => EventPlace::behind(state),
                (StreamEvent::Created(created), None) => EventPlace::of_creation(created),
                _ => unreachable!("of a stream that exists"),
            };
            match store.commit(Commit { id, event: event.clone(), place, epoch, version, sink }) {
                Ok(_) => {
                    decided.apply(id, &event);
                    batch.push((id, event));
                }
                // The reserve is in use, and this event would need room.
                Err(StoreError::Full { .. }) => break,
                Err(error) => {
                    assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
                    return Events::new();
                }
            }
        }
        assert_eq!(file.step(), !batch.is_empty());
        if batch.is_empty() {
            return batch;
        }
        let told = sink.told();
        if told.iter().all(Result::is_ok) {
            assert_eq!(told.last().unwrap().as_ref().unwrap(), &(batch.len() as u64 - 1));
            self.acked = decided;
            self.maybe.clear();
        } else {
            assert_eq!(told.len(), batch.len(), "each one fails: {told:?}");
            self.maybe.push(batch.clone());
        }
        batch
    }

    /// Finds which unacknowledged events are there; from then on they must stay, as readers have seen them.
    pub fn settle(&mut self, store: &AnyStore) -> Result<(), String> {
        let mut wrong = match self.acked.check(store) {
            Ok(()) => return Ok(()),
            Err(wrong) => wrong,
        };
        for batch in std::mem::take(&mut self.maybe) {
            let mut model = self.acked.clone();
            for (id, event) in &batch {
                model.apply(*id, event);
                match model.check(store) {
                    Ok(()) => {
                        self.acked = model;
                        return Ok(());
                    }
                    Err(also) => wrong = format!("{wrong}\n  or: {also}"),
                }
            }
        }
        Err(wrong)
    }

    /// The disk as a crash leaves it; returns whether that was a power cut.
    pub fn crash(&mut self) -> bool {
        let power_cut = self.rng.below(2) != 0;
        self.disk = if power_cut {
            self.disk.after_power_cut(&mut self.rng)
        } else {
            self.disk.after_kill(&mut self.rng)
        };
        power_cut
    }
}
