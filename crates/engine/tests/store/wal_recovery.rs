//! Opening after something went wrong with the files: a cut tail is cut, damage is refused, nothing panics.

use durable_streams_engine::store::Store;
use std::{path::PathBuf, sync::Arc};

use durable_streams_engine::store::{
    AnyStore, Commit, EventPlace, FileStore, FileStoreOptions, StoreError,
    file::{
        Durability,
        disk::{Disk, RealDisk},
    },
};
use durable_streams_protocol::{Offset, StreamEvent};

use crate::{
    fault_disk::{FaultDisk, Faults},
    harness::*,
    workload::Rng,
};

struct Rig {
    dir: tempfile::TempDir,
    disk: FaultDisk,
}

impl Rig {
    fn new() -> Self {
        Rig { dir: tempdir(), disk: FaultDisk::default() }
    }

    fn options(&self) -> FileStoreOptions {
        FileStoreOptions { wal_segment: 1024, ..options(self.dir.path()) }
    }

    fn open_on(&self, disk: &FaultDisk) -> Result<AnyStore, StoreError> {
        FileStore::open_on(Arc::new(disk.clone()), self.options()).map(AnyStore::File)
    }

    fn open(&self) -> AnyStore {
        self.open_on(&self.disk).unwrap()
    }

    fn segments(&self, disk: &FaultDisk) -> Vec<PathBuf> {
        let mut paths = disk.paths(&self.dir.path().join("wal"));
        paths.retain(|path| path.extension().is_some_and(|ext| ext == "wal"));
        paths
    }
}

/// Commits events as one batch; gives what each of them heard.
fn batch(store: &AnyStore, texts: &[&str]) -> Result<(), StoreError> {
    let AnyStore::File(file) = store else { panic!("a file store") };
    let id = load(store, "s").map_or_else(|| store.next_id(), |loaded| loaded.state.core.id);
    let sink = Arc::new(Sink::default());
    let mut next = EventPlace::default();
    for (version, text) in texts.iter().enumerate() {
        let event = match load(store, "s") {
            None if version == 0 => StreamEvent::Created(Box::new(created("s", text))),
            _ => StreamEvent::Appended(appended(text.as_bytes())),
        };
        let place = if version == 0 { place(store, id, &event) } else { next };
        next = place.after(&event);
        let (version, epoch) = (version as u64, store.epoch());
        let commit = Commit { id, event, place, epoch, version, sink: sink.clone() };
        store.commit(commit)?;
    }
    file.step();
    sink.wait_for(texts.len() as u64 - 1)
}

fn text(store: &AnyStore) -> String {
    let Some(loaded) = load(store, "s") else { return String::new() };
    String::from_utf8(read_all(store, &loaded.state, 4096)).unwrap()
}

/// A log of three batches: `a`, then `bc` in one, then `d`.
fn small_log() -> (Rig, PathBuf, usize) {
    let rig = Rig::new();
    let store = rig.open();
    batch(&store, &["a"]).unwrap();
    batch(&store, &["b", "c"]).unwrap();
    batch(&store, &["d"]).unwrap();
    let path = rig.segments(&rig.disk)[0].clone();
    let bytes = rig.disk.read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (rig, path, used)
}

#[test]
fn a_log_cut_anywhere_opens_with_whole_events_or_is_refused_in_the_header() {
    let (rig, path, used) = small_log();
    for cut in 0..=used {
        let disk = rig.disk.copy();
        disk.tamper(&path, |bytes| bytes.truncate(cut));
        match rig.open_on(&disk) {
            Ok(store) => {
                let text = text(&store);
                assert!("abcd".starts_with(&text), "{text} after a cut at {cut}");
                assert!(cut < used || text == "abcd", "nothing was cut");
            }
            Err(error) => {
                assert!(cut < 32, "{error} after a cut at {cut}");
                assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            }
        }
    }
}

#[test]
fn a_flipped_byte_is_a_torn_tail_only_in_the_last_batch() {
    let (rig, path, used) = small_log();
    let last_frame = used - (52 + 9 + 3 + 1);
    for at in 0..used {
        let disk = rig.disk.copy();
        disk.tamper(&path, |bytes| bytes[at] ^= 0x40);
        match rig.open_on(&disk) {
            Ok(store) => {
                assert!(at >= last_frame, "byte {at} was durable when a later batch was written");
                assert_eq!(text(&store), "abc", "byte {at}");
            }
            Err(StoreError::Corrupt { path: named, offset, found }) => {
                assert!(at < last_frame, "byte {at}: {found}");
                assert_eq!(named, path);
                assert!(offset <= at as u64, "the damage at {at} is said to be at {offset}");
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

/// With the end marked, as a checkpoint or a clean stop does, also when the index cannot commit.
#[test]
fn damage_in_the_last_batch_is_noticed_once_the_end_is_marked() {
    for stop in [false, true] {
        let (rig, path, used) = small_log();
        rig.disk.set_faults(Faults { no_index_commits: true, ..Faults::default() });
        let store = rig.open();
        if stop {
            wait(store.close());
        } else {
            let AnyStore::File(file) = &store else { panic!("a file store") };
            file.checkpoint().unwrap_err();
        }
        drop(store);
        let refused = |disk: &FaultDisk, what: &str| match rig.open_on(disk).map(|_| ()) {
            Err(StoreError::Corrupt { found, .. }) => found,
            other => panic!("{what}: {other:?}"),
        };
        for at in 0..used {
            let disk = rig.disk.copy();
            disk.tamper(&path, |bytes| bytes[at] ^= 0x40);
            refused(&disk, &format!("byte {at}"));
            let disk = rig.disk.copy();
            disk.tamper(&path, |bytes| bytes.truncate(at));
            refused(&disk, &format!("cut at {at}"));
        }
        let disk = rig.disk.copy();
        for segment in &rig.segments(&rig.disk)[1..] {
            disk.remove(segment).unwrap();
        }
        disk.tamper(&path, |bytes| bytes[used - 1] ^= 1);
        let found = refused(&disk, "the last event");
        assert!(found.contains("the log ends before event 4 (of stream "), "{found}");
        assert!(found.contains("the events up to 4 were safe on disk"), "{found}");
        // What is written after the mark may be torn, as before.
        rig.disk.set_faults(Faults::default());
        let store = rig.open();
        batch(&store, &["e"]).unwrap();
        drop(store);
        let last = rig.segments(&rig.disk).pop().unwrap();
        let disk = rig.disk.copy();
        disk.tamper(&last, |bytes| bytes.truncate(40));
        assert_eq!(text(&rig.open_on(&disk).unwrap()), "abcd");
        assert_eq!(text(&rig.open()), "abcde");
    }
}

/// A damaged mark costs nothing by itself, and the next checkpoint replaces it.
#[test]
fn a_damaged_mark_stops_nothing() {
    let (rig, _, _) = small_log();
    let store = rig.open();
    checkpoint(&store);
    drop(store);
    let mark = rig.dir.path().join("wal/end");
    assert!(rig.disk.read(&mark).is_ok());
    rig.disk.tamper(&mark, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 0x11));
    let store = rig.open();
    assert_eq!(text(&store), "abcd");
    batch(&store, &["e"]).unwrap();
    checkpoint(&store);
    drop(store);
    assert_eq!(text(&rig.open()), "abcde");
}

#[test]
fn a_missing_segment_is_noticed() {
    let rig = Rig::new();
    let store = rig.open();
    for _ in 0..5 {
        batch(&store, &["x".repeat(600).as_str()]).unwrap();
    }
    drop(store);
    let segments = rig.segments(&rig.disk);
    assert!(segments.len() >= 4, "{segments:?}");
    for gone in &segments[..segments.len() - 1] {
        let disk = rig.disk.copy();
        disk.remove(gone).unwrap();
        let refused = rig.open_on(&disk).map(|_| ());
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{gone:?}: {refused:?}");
    }
    let store = rig.open();
    checkpoint(&store);
    drop(store);
    let disk = FaultDisk::default();
    let version = rig.dir.path().join("VERSION");
    let file = disk.open(&version, true).unwrap();
    file.write_at(0, &rig.disk.read(&version).unwrap()).unwrap();
    let refused = rig.open_on(&disk).map(|_| ());
    let Err(StoreError::Corrupt { found, .. }) = refused else { panic!("{refused:?}") };
    assert!(found.contains("the log is gone"), "{found}");
}

#[test]
fn what_a_failed_write_left_is_never_read_back_once_writing_goes_on() {
    let rig = Rig::new();
    let store = rig.open();
    batch(&store, &["0"]).unwrap();
    // The first two of four frames are on disk when the write fails.
    rig.disk.set_faults(Faults { write: 1, ..Faults::default() });
    let failed = batch(&store, &["A", "B", "C", "D"]);
    assert!(matches!(failed, Err(StoreError::Full { .. })), "{failed:?}");
    assert_eq!(text(&store), "0");
    // Of the same length as A: B would follow it.
    batch(&store, &["1"]).unwrap();
    assert_eq!(text(&store), "01");
    drop(store);
    assert_eq!(text(&rig.open()), "01");
    assert_eq!(text(&rig.open()), "01", "and once more");
}

#[test]
fn a_failed_write_supersedes_what_was_decided_on_it() {
    let rig = Rig::new();
    let store = rig.open();
    batch(&store, &["0"]).unwrap();
    let epoch = store.epoch();
    rig.disk.set_faults(Faults { write: 1, ..Faults::default() });
    assert!(batch(&store, &["1"]).is_err());
    let id = load(&store, "s").unwrap().state.core.id;
    let late = commit_at(&store, epoch, id, StreamEvent::Appended(appended(b"2")));
    assert!(matches!(late, Err(StoreError::Superseded)), "{late:?}");
    batch(&store, &["3"]).unwrap();
    assert_eq!(text(&store), "03");
}

#[test]
fn after_a_failed_sync_nothing_is_accepted_and_reads_go_on() {
    let rig = Rig::new();
    let store = rig.open();
    batch(&store, &["0"]).unwrap();
    rig.disk.set_faults(Faults { sync: 1, ..Faults::default() });
    let failed = batch(&store, &["1"]);
    assert!(matches!(failed, Err(StoreError::Poisoned { .. })), "{failed:?}");
    let later = batch(&store, &["2"]);
    assert!(matches!(later, Err(StoreError::Poisoned { .. })), "{later:?}");
    assert_eq!(text(&store), "0");
    let AnyStore::File(file) = &store else { panic!("a file store") };
    assert!(file.file_stats().poisoned);
    checkpoint(&store);
    assert_eq!(text(&store), "0");
    drop(store);
    let found = text(&rig.open());
    assert!(found == "0" || found == "01", "{found}");
}

/// Two accidents in a row: what an opening found in the page cache only is durable before anything follows it.
#[test]
fn what_a_killed_process_left_unsynced_survives_a_power_cut_after_the_restart() {
    let mut rig = Rig::new();
    let unsynced = FileStoreOptions { durability: Durability::Os, ..rig.options() };
    let store = FileStore::open_on(Arc::new(rig.disk.clone()), unsynced).map(AnyStore::File);
    let store = store.unwrap();
    batch(&store, &["a"]).unwrap();
    batch(&store, &["b"]).unwrap();
    drop(store);
    rig.disk = rig.disk.after_kill(&mut Rng(1));
    let store = rig.open();
    assert_eq!(text(&store), "ab");
    batch(&store, &["c"]).unwrap();
    drop(store);
    rig.disk = rig.disk.without_unsynced();
    assert_eq!(text(&rig.open()), "abc");
}

/// The kernel takes pages for clean whose sync failed: only writing them again makes them durable.
#[test]
fn what_a_failed_sync_left_survives_a_power_cut_after_the_restart() {
    for fails in 1..4 {
        let mut rig = Rig::new();
        let store = rig.open();
        batch(&store, &["0"]).unwrap();
        batch(&store, &["1"]).unwrap();
        rig.disk.set_faults(Faults { sync: fails, ..Faults::default() });
        for text in ["2", "3", "4"] {
            let _ = batch(&store, &[text]);
        }
        drop(store);
        rig.disk = rig.disk.after_kill(&mut Rng(1));
        let store = rig.open();
        let found = text(&store);
        assert!("01234".starts_with(&found) && found.len() as u64 > fails + 1, "{found}");
        batch(&store, &["+"]).unwrap();
        drop(store);
        rig.disk = rig.disk.without_unsynced();
        assert_eq!(text(&rig.open()), format!("{found}+"));
    }
}

/// A process that is killed during an index commit may leave it in the page cache only.
#[test]
fn segments_are_recycled_only_after_this_process_has_committed_to_the_index() {
    let rig = Rig::new();
    let store = rig.open();
    batch(&store, &["a"]).unwrap();
    checkpoint(&store);
    drop(store);
    let store = rig.open();
    let AnyStore::File(file) = &store else { panic!("a file store") };
    assert_eq!(rig.segments(&rig.disk).len(), 2);
    rig.disk.set_faults(Faults { no_index_commits: true, ..Faults::default() });
    file.checkpoint().unwrap_err();
    assert_eq!(rig.segments(&rig.disk).len(), 2);
    rig.disk.set_faults(Faults::default());
    file.checkpoint().unwrap();
    assert_eq!(rig.segments(&rig.disk).len(), 1);
}

#[test]
fn openings_alone_pile_up_no_segments() {
    let rig = Rig::new();
    batch(&rig.open(), &["a"]).unwrap();
    for _ in 0..20 {
        drop(rig.open());
    }
    assert_eq!(rig.segments(&rig.disk).len(), 2);
    let store = rig.open();
    checkpoint(&store);
    assert_eq!(rig.segments(&rig.disk).len(), 1);
    assert_eq!((text(&store), load(&store, "s").unwrap().state.tail), ("a".into(), Offset::new(1)));
}

#[test]
fn random_bytes_in_the_log_open_or_are_refused() {
    let (rig, path, _) = small_log();
    for seed in seeds("STORE_NOISE_SEEDS", 300) {
        let mut rng = Rng(seed);
        let disk = rig.disk.copy();
        disk.tamper(&path, |bytes| match rng.below(3) {
            0 => *bytes = (0..rng.below(3000)).map(|_| rng.next() as u8).collect(),
            1 => {
                let from = rng.below(bytes.len() as u64) as usize;
                bytes[from..].iter_mut().for_each(|byte| *byte = rng.next() as u8);
            }
            _ => {
                // A piece of the log in another place.
                let (from, to) = (rng.below(300) as usize, rng.below(300) as usize);
                let piece = bytes[from..from + 200].to_vec();
                bytes[to..to + 200].copy_from_slice(&piece);
            }
        });
        match rig.open_on(&disk) {
            Ok(store) => assert!("abcd".starts_with(&text(&store)), "seed {seed}"),
            Err(StoreError::Corrupt { .. }) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
}

#[test]
fn directories_of_others_are_refused_and_say_why() {
    let open = |dir: &std::path::Path| match FileStore::open(options(dir)) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    };
    let dir = tempdir();
    std::fs::write(dir.path().join("holiday.jpg"), b"x").unwrap();
    assert!(open(dir.path()).contains("is not empty (there is \"holiday.jpg\")"));

    let dir = tempdir();
    std::fs::write(dir.path().join("VERSION"), "durable-streams-server data, format 3\n").unwrap();
    let newer = open(dir.path());
    assert!(newer.contains("format 3, and this version knows format 2"), "{newer}");

    let dir = tempdir();
    std::fs::write(dir.path().join("VERSION"), [0xff, 0]).unwrap();
    assert!(open(dir.path()).contains("this server did not write"));

    let dir = tempdir();
    let first = file(dir.path());
    assert!(open(dir.path()).contains("in use by another process"));
    drop(first);
    drop(file(dir.path()));

    let dir = tempdir();
    std::fs::write(dir.path().join("a-file"), b"").unwrap();
    let below = open(&dir.path().join("a-file").join("data"));
    assert!(below.starts_with("cannot create"), "{below}");

    let dir = tempdir();
    drop(file(dir.path()));
    std::fs::write(dir.path().join("store").join("data.mdb"), vec![7; 20_000]).unwrap();
    let foreign = open(dir.path());
    assert!(foreign.contains("data.mdb"), "{foreign}");
    assert!(RealDisk.list(dir.path()).is_ok());
}
