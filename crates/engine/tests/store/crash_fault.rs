//! Crashes at every kind of moment, on a disk that drops, tears and reorders what was not synced.
//!
//! A life of the store ends by a power cut, or by a kill, which leaves the page cache as it is; the next life begins at
//! once, and may end within its first operations. What was acknowledged, or was found by an opening, is there after
//! recovery, whole and in order. What was under way is there or not, a whole event at a time, and none without those
//! before it. Nothing else is there.
//!
//! `STORE_CRASH_SEEDS=10000` runs that many; `STORE_CRASH_SEEDS=77..78` one.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use durable_streams_engine::store::{AnyStore, Store, StoreError};

use crate::{fault_disk::Faults, harness::*, lives::Lives};

/// Power cuts of all runs, and those among them that were a second accident in the first moments of a start.
static POWER_CUTS: AtomicU64 = AtomicU64::new(0);
static SECOND_ACCIDENTS: AtomicU64 = AtomicU64::new(0);
/// Segment files at the end of all runs.
static SEGMENTS: AtomicU64 = AtomicU64::new(0);

/// One life of the store, up to a crash.
fn life(run: &mut Lives, second: bool) -> Result<(), String> {
    let soon = run.rng.below(3) == 0;
    let operations = if soon { run.rng.below(12) } else { run.rng.below(60) };
    run.disk.set_faults(Faults {
        stop_at: 1 + operations,
        write: run.rng.below(40),
        sync: if run.rng.below(4) == 0 { run.rng.below(40) } else { 0 },
        ..Faults::default()
    });
    if run.rng.below(4) == 0 {
        run.disk.set_capacity(4096 * (3 + run.rng.below(8) as usize));
    }
    // It may have stopped in what an opening does not depend on.
    if let Ok(store) = run.open()
        && !run.disk.is_stopped()
    {
        run.settle(&store)?;
        run.maybe.clear();
        for _ in 0..20 {
            if run.rng.below(4) == 0 {
                let AnyStore::File(file) = &store else { panic!("a file store") };
                if file.checkpoint().is_ok() {
                    file.maintain();
                    let _ = file.seal();
                }
            }
            run.batch(&store);
            if run.disk.is_stopped() {
                break;
            }
            run.acked.check(&store)?;
        }
        if run.rng.below(4) == 0 {
            wait(store.close());
        }
    }
    if run.crash() {
        POWER_CUTS.fetch_add(1, Ordering::Relaxed);
        SECOND_ACCIDENTS.fetch_add(u64::from(second && soon), Ordering::Relaxed);
    }
    Ok(())
}

fn run(seed: u64) {
    let mut run = Lives::new(seed, 8192);
    let failed = |wrong: String| -> ! {
        panic!("STORE_CRASH_SEEDS={seed}..{} shows it again: {wrong}", seed + 1)
    };
    for life in 0..8 {
        self::life(&mut run, life > 0).unwrap_or_else(|wrong| failed(wrong));
    }
    run.disk.set_faults(Faults::default());
    match run.open() {
        Ok(store) => {
            run.settle(&store).unwrap_or_else(|wrong| failed(wrong));
            let AnyStore::File(file) = &store else { panic!("a file store") };
            if file.scrub() > 0 {
                failed("the scrub finds damage".into());
            }
            SEGMENTS.fetch_add(file.file_stats().segment_files, Ordering::Relaxed);
        }
        Err(error) => failed(error.to_string()),
    }
}

#[test]
fn what_was_acknowledged_survives_any_crash() {
    let seeds = seeds("STORE_CRASH_SEEDS", 120);
    let (next, end) = (AtomicU64::new(seeds.start), seeds.end);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    run(seed);
                }
            });
        }
    });
    println!(
        "{} seeds, {} power cuts, {} of them within 12 operations of a start after another accident, {} segment files",
        end - seeds.start,
        POWER_CUTS.load(Ordering::Relaxed),
        SECOND_ACCIDENTS.load(Ordering::Relaxed),
        SEGMENTS.load(Ordering::Relaxed)
    );
}

/// What a store does in its first moments: batches, checkpoints, maintenance, and at last a clean stop.
fn first_moments(run: &mut Lives, batches: u64, faults: Faults) -> Result<(), String> {
    let disk = run.disk.clone();
    disk.set_faults(faults);
    if let Ok(store) = run.open() {
        disk.watch(|| run.settle(&store))?;
        run.maybe.clear();
        for round in 0..batches {
            run.batch(&store);
            if round % 4 == 3 {
                let AnyStore::File(file) = &store else { panic!("a file store") };
                let _ = file.checkpoint();
                file.maintain();
                let _ = file.seal();
            }
            disk.watch(|| run.acked.check(&store))?;
        }
        goes_on(run, &store)?;
        wait(store.close());
    }
    Ok(())
}

/// Something that failed once is no reason to refuse what comes later, unless it was a sync.
fn goes_on(run: &mut Lives, store: &AnyStore) -> Result<(), String> {
    run.disk.set_faults(Faults::default());
    let AnyStore::File(file) = store else { panic!("a file store") };
    let checkpoint = file.checkpoint();
    file.maintain();
    match (store.writable(), run.disk.failed()) {
        (Err(StoreError::Poisoned { .. }), None | Some("sync" | "sync a directory")) => {
            return Ok(());
        }
        (Err(error), failed) => {
            return Err(format!("{failed:?} failed, and nothing is accepted: {error}"));
        }
        (Ok(()), _) => checkpoint.map_err(|error| format!("no checkpoint any more: {error}"))?,
    }
    run.batch(store);
    if run.maybe.is_empty() { Ok(()) } else { Err("no batch succeeds any more".into()) }
}

/// A store whose first moments went well; then one thing fails, and the process is killed, or the power goes. Returns
/// which operation failed.
fn one_failure(fails: u64, faults: Faults, kill: bool) -> Result<Option<&'static str>, String> {
    let mut run = Lives::new(fails, 8192);
    first_moments(&mut run, 8, Faults::default())?;
    first_moments(&mut run, 10 + fails / 7, faults)?;
    let failed = run.disk.failed();
    run.disk = if kill {
        run.disk.after_kill(&mut run.rng)
    } else {
        run.disk.after_power_cut(&mut run.rng)
    };
    let opened = run.open().map_err(|error| format!("after that: {error}"))?;
    run.settle(&opened)?;
    drop(opened);
    run.maybe.clear();
    first_moments(&mut run, 8, Faults::default())?;
    if run.maybe.is_empty() { Ok(failed) } else { Err("after that, a batch fails".into()) }
}

/// Each of the first operations after a start fails in turn: opening, creating, reading, listing, renaming and removing a
/// file, allocating, writing, syncing, also of directories, and committing the index. Likewise each of the first writes
/// and of the first syncs.
#[test]
fn one_failure_at_each_of_the_first_operations_loses_nothing() {
    let count = seeds("STORE_FAIL_OPERATIONS", 30).end;
    let mut kinds = BTreeMap::new();
    for fails in 1..=count {
        let faults = [
            Faults { write: fails, ..Faults::default() },
            Faults { sync: fails, ..Faults::default() },
            Faults { operation: fails, ..Faults::default() },
            Faults { operation: fails, full: true, ..Faults::default() },
        ];
        for faults in faults {
            for kill in [false, true] {
                let what = format!("{faults:?}, kill: {kill}");
                match one_failure(fails, faults, kill) {
                    Ok(Some(kind)) => *kinds.entry(kind).or_insert(0) += 1,
                    Ok(None) => {}
                    Err(wrong) => panic!("{what}: {wrong}"),
                }
            }
        }
    }
    println!(
        "{count} operations, each with a failed write, a failed sync and any kind of failure: {kinds:?}"
    );
    assert!(kinds.len() > 8, "{kinds:?}");
}
