//! Two events that are committed as a pair: whatever happens to the log's end, both are there or neither.

use std::sync::Arc;

use durable_streams_engine::store::{
    AnyStore, Commit, EventPlace, FileStore, FileStoreOptions, Store, StoreError,
};
use durable_streams_protocol::{StreamEvent, StreamId};

use crate::{fault_disk::FaultDisk, harness::*};

struct PairLog {
    dir: tempfile::TempDir,
    disk: FaultDisk,
    store: Option<AnyStore>,
    ids: [StreamId; 2],
}

impl PairLog {
    /// A log with two streams, `a` and `b`.
    fn new() -> Self {
        let (dir, disk) = (tempdir(), FaultDisk::default());
        let mut log = PairLog { dir, disk, store: None, ids: [StreamId(0); 2] };
        log.store = Some(log.open_on(&log.disk).unwrap());
        let store = log.store();
        let ids = ["a", "b"].map(|name| {
            let id = store.next_id();
            let event = StreamEvent::Created(Box::new(created(name, "")));
            let (place, sink) = (EventPlace::default(), Arc::new(Sink::default()));
            let epoch = store.epoch();
            store.commit(Commit { id, event, place, epoch, version: 1, sink }).unwrap();
            log.file().step();
            id
        });
        PairLog { ids, ..log }
    }

    fn open_on(&self, disk: &FaultDisk) -> Result<AnyStore, StoreError> {
        let options = FileStoreOptions { wal_segment: 4096, ..options(self.dir.path()) };
        FileStore::open_on(Arc::new(disk.clone()), options).map(AnyStore::File)
    }

    fn store(&self) -> &AnyStore {
        self.store.as_ref().unwrap()
    }

    fn file(&self) -> &FileStore {
        let AnyStore::File(file) = self.store() else { panic!("a file store") };
        file
    }

    /// Appends to both streams as pairs, all of them in one batch.
    fn pairs(&self, texts: &[&str]) -> Result<(), StoreError> {
        let sink = Arc::new(Sink::default());
        let first = StreamEvent::Touched { at: at(1) };
        let mut places = self.ids.map(|id| place(self.store(), id, &first));
        for (version, text) in texts.iter().enumerate() {
            let mut commits = [0, 1].map(|of| {
                let event = StreamEvent::Appended(appended(text.as_bytes()));
                let (id, place, epoch) = (self.ids[of], places[of], self.store().epoch());
                places[of] = place.after(&event);
                let version = version as u64 * 2 + of as u64;
                Some(Commit { id, event, place, epoch, version, sink: sink.clone() })
            });
            let [first, second] = [0, 1].map(|of| commits[of].take().unwrap());
            self.store().commit_pair(first, second)?;
        }
        self.file().step();
        sink.wait_for(texts.len() as u64 * 2 - 1)
    }
}

fn text(store: &AnyStore, name: &str) -> String {
    let Some(loaded) = load(store, name) else { return String::new() };
    String::from_utf8(read_all(store, &loaded.state, 4096)).unwrap()
}

/// Two batches, of one pair and of two.
fn three_pairs() -> (PairLog, std::path::PathBuf, usize) {
    let mut log = PairLog::new();
    log.pairs(&["1"]).unwrap();
    log.pairs(&["2", "3"]).unwrap();
    let mut paths = log.disk.paths(&log.dir.path().join("wal"));
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "wal"));
    let bytes = durable_streams_engine::store::file::disk::Disk::read(&log.disk, &paths[0]);
    let used = bytes.unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    log.store = None;
    (log, paths.swap_remove(0), used)
}

#[test]
fn a_log_that_is_cut_anywhere_has_both_of_a_pair_or_neither() {
    let (log, path, used) = three_pairs();
    let mut found = [0; 4];
    for cut in 32..=used {
        let disk = log.disk.copy();
        disk.tamper(&path, |bytes| bytes[cut..].fill(0));
        let store = log.open_on(&disk).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let (a, b) = (text(&store, "a"), text(&store, "b"));
        assert!("123".starts_with(&a) && a == b, "{a} and {b} after a cut at {cut}");
        found[a.len()] += 1;
        if load(&store, "b").is_none() {
            continue;
        }
        // The log goes on from there.
        let cut_log = PairLog { dir: tempdir(), disk, store: Some(store), ids: log.ids };
        cut_log.pairs(&["4"]).unwrap();
        let PairLog { disk, store, .. } = cut_log;
        drop(store);
        let store = log.open_on(&disk).unwrap();
        assert_eq!((text(&store, "a"), text(&store, "b")), (format!("{a}4"), format!("{a}4")));
    }
    assert!(found[..3].iter().all(|cuts| *cuts > 50) && found[3] == 1, "{found:?}");
}

#[test]
fn a_flipped_byte_never_parts_a_pair() {
    let (log, path, used) = three_pairs();
    for at in 32..used {
        let disk = log.disk.copy();
        disk.tamper(&path, |bytes| bytes[at] ^= 0x40);
        match log.open_on(&disk) {
            Ok(store) => {
                let (a, b) = (text(&store, "a"), text(&store, "b"));
                assert!(a == b && a.starts_with('1'), "{a} and {b}, byte {at}");
            }
            Err(StoreError::Corrupt { .. }) => {}
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

#[test]
fn a_pair_of_an_older_log_epoch_is_refused_as_a_whole() {
    let log = PairLog::new();
    let commit = |of: usize, epoch| {
        let event = StreamEvent::Appended(appended(b"x"));
        let (id, place) = (log.ids[of], place(log.store(), log.ids[of], &event));
        Commit { id, event, place, epoch, version: 1, sink: Arc::new(Sink::default()) }
    };
    let epoch = log.store().epoch();
    log.disk.set_faults(crate::fault_disk::Faults { write: 1, ..Default::default() });
    assert!(log.pairs(&["lost"]).is_err());
    let now = log.store().epoch();
    assert!(now > epoch);
    for (first, second) in [(epoch, now), (now, epoch)] {
        let refused = log.store().commit_pair(commit(0, first), commit(1, second));
        assert!(matches!(refused, Err(StoreError::Superseded)), "{refused:?}");
    }
    assert!(!log.file().step(), "nothing was queued");
    log.pairs(&["kept"]).unwrap();
    assert_eq!((text(log.store(), "a"), text(log.store(), "b")), ("kept".into(), "kept".into()));
}
