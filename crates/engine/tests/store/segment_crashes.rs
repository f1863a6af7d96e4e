//! Crashes and failures at every operation of sealing, rewriting and removing segments.
//!
//! Whatever happens, every stream has its bytes after the next start, and no file stays that nothing needs.

use std::{sync::Arc, time::Duration};

use durable_streams_engine::store::{
    AnyStore, Commit, FileStore, FileStoreOptions, Store, file::SegmentOptions,
};
use durable_streams_protocol::{StreamEvent, StreamId};

use crate::{
    fault_disk::{FaultDisk, Faults},
    harness::*,
    workload::Rng,
};

struct SealingRun {
    dir: tempfile::TempDir,
    disk: FaultDisk,
    model: Model,
    ids: Vec<StreamId>,
    /// The large stream is sealed by a checkpoint, ahead of its commit.
    ahead: bool,
}

fn commit(store: &AnyStore, model: &mut Model, id: StreamId, event: StreamEvent) {
    let AnyStore::File(file) = store else { panic!("a file store") };
    let sink = Arc::new(Sink::default());
    let (place, epoch) = (place(store, id, &event), store.epoch());
    model.apply(id, &event);
    store.commit(Commit { id, event, place, epoch, version: 1, sink: sink.clone() }).unwrap();
    file.step();
    sink.wait_for(1).unwrap();
}

impl SealingRun {
    /// A large stream and small ones, of which some are sealed and most of those are deleted: the next round seals own and
    /// shared files, and rewrites one.
    fn begin(ahead: bool) -> Self {
        let mut run = SealingRun {
            dir: tempdir(),
            disk: FaultDisk::default(),
            model: Model::default(),
            ids: Vec::new(),
            ahead,
        };
        let store = run.open().unwrap();
        let AnyStore::File(file) = &store else { panic!("a file store") };
        for n in 0..8_u8 {
            let id = store.next_id();
            let event = created(&format!("s/{n}"), "");
            commit(&store, &mut run.model, id, StreamEvent::Created(Box::new(event)));
            run.ids.push(id);
            let small = appended(&[n; 100]);
            commit(&store, &mut run.model, id, StreamEvent::Appended(small));
        }
        file.checkpoint().unwrap();
        assert_eq!(file.seal().unwrap(), 800);
        for id in run.ids.drain(2..) {
            commit(&store, &mut run.model, id, StreamEvent::Deleted { at: at(9) });
        }
        for n in 0..20 {
            let large = appended(&[n; 100]);
            commit(&store, &mut run.model, run.ids[0], StreamEvent::Appended(large));
        }
        for n in 10..13_u8 {
            let id = store.next_id();
            let event = created(&format!("s/{n}"), "small");
            commit(&store, &mut run.model, id, StreamEvent::Created(Box::new(event)));
        }
        if !ahead {
            file.checkpoint().unwrap();
            wait(store.close());
        }
        drop(store);
        run.disk = run.disk.copy();
        run
    }

    fn options(&self) -> FileStoreOptions {
        let segments = SegmentOptions {
            min: 500,
            keep: 150,
            size: 900,
            idle: Duration::ZERO,
            share: 1,
            ahead: if self.ahead { 600 } else { u64::MAX },
            arrays_from: 1,
            ..SegmentOptions::DEFAULT
        };
        FileStoreOptions {
            wal_segment: 4096,
            cache: 0,
            segments: Some(segments),
            ..options(self.dir.path())
        }
    }

    fn open(&self) -> Result<AnyStore, durable_streams_engine::store::StoreError> {
        FileStore::open_on(Arc::new(self.disk.clone()), self.options()).map(AnyStore::File)
    }

    /// Everything is there, in as many files as the index references.
    fn check(&self, what: &str) {
        let store = self.open().unwrap_or_else(|error| panic!("{what}: {error}"));
        self.model.check(&store).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        let AnyStore::File(file) = &store else { panic!("a file store") };
        assert_eq!(file.scrub(), 0, "{what}");
        let there = self.disk.paths(&self.dir.path().join("segments")).len() as u64;
        assert_eq!(there, file.file_stats().segment_files, "{what}: orphans");
        // And what is left to be sealed is sealed now.
        file.checkpoint().unwrap_or_else(|error| panic!("{what}: {error}"));
        file.maintain();
        file.seal().unwrap_or_else(|error| panic!("{what}: {error}"));
        self.model.check(&store).unwrap_or_else(|wrong| panic!("{what}, sealed: {wrong}"));
        assert_eq!(file.scrub(), 0, "{what}, sealed");
        let stats = file.file_stats();
        assert!(stats.segment_files >= 3, "{what}: {stats:?}");
        let there = self.disk.paths(&self.dir.path().join("segments")).len() as u64;
        assert_eq!(there, stats.segment_files, "{what}, sealed: orphans");
    }
}

/// Makes a checkpoint, if the events are in the log only; purges, seals and rewrites. All on a disk with faults; returns whether
/// all went well.
fn round(run: &SealingRun, faults: Faults) -> bool {
    let store = run.open().unwrap();
    let AnyStore::File(file) = &store else { panic!("a file store") };
    run.disk.set_faults(faults);
    let folded = !run.ahead || file.checkpoint().is_ok();
    if run.ahead && folded && faults.operation == 0 && !run.disk.is_stopped() {
        assert_eq!(file.file_stats().sealed_files, 2, "ahead of the commit");
    }
    file.maintain();
    let sealed = file.seal().is_ok() && folded;
    if !run.disk.is_stopped() {
        run.disk.set_faults(Faults::default());
        run.model.check(&store).unwrap_or_else(|wrong| panic!("{faults:?}: {wrong}"));
    }
    sealed
}

#[test]
fn a_crash_at_any_operation_loses_nothing_and_leaves_nothing() {
    crash_at_each_operation(false);
}

#[test]
fn nor_does_one_while_a_checkpoint_seals() {
    crash_at_each_operation(true);
}

fn crash_at_each_operation(ahead: bool) {
    for stop in 1.. {
        let mut whole = true;
        for cut in 0..4 {
            let mut run = SealingRun::begin(ahead);
            whole &= round(&run, Faults { stop_at: stop, ..Faults::default() });
            let mut rng = Rng(stop * 7 + cut);
            run.disk = match cut {
                0 => run.disk.after_kill(&mut rng),
                1 => run.disk.without_unsynced(),
                _ => run.disk.after_power_cut(&mut rng),
            };
            run.check(&format!("stopped at {stop}, {cut}"));
        }
        if whole {
            println!("{stop} operations");
            assert!(stop > 25, "the crashes were during sealing");
            return;
        }
    }
}

#[test]
fn a_disk_that_is_nearly_full_is_left_alone() {
    let run = SealingRun::begin(false);
    let store = run.open().unwrap();
    let AnyStore::File(file) = &store else { panic!("a file store") };
    let before = file.file_stats().segment_bytes;
    run.disk.set_capacity(1);
    assert_eq!(file.seal().unwrap(), 0);
    assert_eq!(file.file_stats().segment_bytes, before);
    run.disk.set_capacity(1 << 30);
    assert!(file.seal().unwrap() > 1000);
}

#[test]
fn a_commit_that_fails_leaves_no_segment_that_was_sealed_for_it() {
    let run = SealingRun::begin(true);
    let store = run.open().unwrap();
    let AnyStore::File(file) = &store else { panic!("a file store") };
    let there = || run.disk.paths(&run.dir.path().join("segments")).len() as u64;
    let before = there();
    run.disk.set_faults(Faults { no_index_commits: true, ..Faults::default() });
    file.checkpoint().unwrap_err();
    assert_eq!(there(), before);
    run.model.check(&store).unwrap();
    run.disk.set_faults(Faults::default());
    file.checkpoint().unwrap();
    assert_eq!((there(), file.file_stats().segment_files), (before + 2, before + 2));
    run.model.check(&store).unwrap();
}

#[test]
fn a_checkpoint_on_a_disk_that_is_nearly_full_seals_nothing() {
    let run = SealingRun::begin(true);
    let store = run.open().unwrap();
    let AnyStore::File(file) = &store else { panic!("a file store") };
    let before = file.file_stats().segment_bytes;
    // Four segments of 900 bytes do not fit.
    run.disk.set_capacity(3_599);
    file.checkpoint().unwrap();
    assert_eq!(file.file_stats().segment_bytes, before);
    run.model.check(&store).unwrap();
}

#[test]
fn a_failure_of_any_operation_loses_nothing_and_is_made_good() {
    fail_each_operation(false);
}

#[test]
fn nor_does_one_while_a_checkpoint_seals_lose_anything() {
    fail_each_operation(true);
}

fn fail_each_operation(ahead: bool) {
    let mut kinds = std::collections::BTreeMap::new();
    for fails in 1.. {
        let mut failed = None;
        for (full, end) in [(false, "kill"), (true, "power cut"), (false, "worst power cut")] {
            let mut run = SealingRun::begin(ahead);
            round(&run, Faults { operation: fails, full, ..Faults::default() });
            failed = run.disk.failed();
            let mut rng = Rng(fails);
            run.disk = match end {
                "kill" => run.disk.after_kill(&mut rng),
                "power cut" => run.disk.after_power_cut(&mut rng),
                _ => run.disk.without_unsynced(),
            };
            run.check(&format!("operation {fails} failed ({failed:?}), then a {end}"));
        }
        let Some(kind) = failed else { break };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    println!("{kinds:?}");
    assert!(kinds.len() > 8, "{kinds:?}");
}
