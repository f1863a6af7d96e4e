//! Kills, power cuts and full disks at every operation, while the object store fails, too.
//!
//! A life of the server ends by a crash; its disk is a simulated one, its uploader and object store's client are the real
//! ones, and the bucket outlives it. Streams are written, sealed into tiny segments, moved, rewritten, trimmed and deleted.
//! Whatever was acknowledged is read whole, also while the object store fails, or the read is refused. At the end the
//! bucket has an object for each segment of the index, and no other one, and the disk no file that nothing needs.
//! In most runs the index is copied into the bucket meanwhile, beside rounds of uploads and beside writers. After each crash
//! directories are built from the bucket, as if the disk was lost: each has what its copy promises, the newest that whole one
//! that was made last.
//!
//! One file because what a server does, how it crashes and what is there at the end are one test.
//!
//! `TIER_CRASH_SEEDS=10000` runs that many; `TIER_CRASH_SEEDS=77..78` one.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "these files are the engine's tests', which use all of them"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use durable_streams_engine::store::file::segments::format::number_of;
use durable_streams_engine::store::file::segments::objects::SegmentPlace;
use durable_streams_engine::store::{AnyStore, FileStore, Store as _, StoreError};
use tokio::runtime::{Builder, Runtime};

use self::copies::Promises;
use self::fault_disk::Faults;
use self::lives::Lives;

use super::faults::{FaultRates, FaultyStore};
use super::store::NOW;
use super::{cold_store, options};
use crate::tier::claim::claim;
use crate::tier::index_copies::IndexCopier;
use crate::tier::object_cold_store::ObjectColdStore;
use crate::tier::{SegmentOwner, SegmentUploader, Tier, TierOptions};

mod copies;
#[path = "../../../crates/engine/tests/store/fault_disk.rs"]
mod fault_disk;
#[path = "../../../crates/engine/tests/store/harness.rs"]
mod harness;
#[path = "../../../crates/engine/tests/store/lives.rs"]
mod lives;
#[path = "../../../crates/engine/tests/store/workload.rs"]
mod workload;

/// Waiting for a store whose reads need a runtime: the one of this thread, on a clock that goes on when nothing else does.
mod wait {
    use std::cell::RefCell;

    use tokio::runtime::Runtime;

    thread_local! {
        pub(super) static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }

    pub fn wait<T>(future: impl Future<Output = T>) -> T {
        RUNTIME.with_borrow(|runtime| runtime.as_ref().unwrap().block_on(future))
    }
}

use self::wait::wait;

/// A pause that no run lasts for.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The store, shared with its uploader.
struct SharedStore(AnyStore);

impl SegmentOwner for SharedStore {
    fn file_store(&self) -> Option<&FileStore> {
        match &self.0 {
            AnyStore::File(store) => Some(store),
            AnyStore::Memory(_) => None,
        }
    }
}

/// What all runs have come to.
struct Tally {
    power_cuts: AtomicU64,
    crashed_rounds: AtomicU64,
    refused_reads: AtomicU64,
    cold_reads: AtomicU64,
    objects: AtomicU64,
    places: [AtomicU64; 3],
    copies: AtomicU64,
    cut_copies: AtomicU64,
    restores: AtomicU64,
}

static TALLY: Tally = Tally {
    power_cuts: AtomicU64::new(0),
    crashed_rounds: AtomicU64::new(0),
    refused_reads: AtomicU64::new(0),
    cold_reads: AtomicU64::new(0),
    objects: AtomicU64::new(0),
    places: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)],
    copies: AtomicU64::new(0),
    cut_copies: AtomicU64::new(0),
    restores: AtomicU64::new(0),
};

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A server, and the bucket that outlives it.
struct TierRun {
    lives: Lives,
    bucket: Arc<FaultyStore>,
    cold: Arc<ObjectColdStore>,
    promises: Promises,
    /// Nothing but one crash happens to the disk in this life.
    long: bool,
}

/// A server while it lives.
struct TierLife {
    store: Arc<SharedStore>,
    tier: Tier,
    uploader: SegmentUploader,
    copier: IndexCopier,
}

impl TierLife {
    /// Waits until nothing of it runs any more: the next life opens the same index.
    fn end(self) {
        drop((self.uploader, self.copier));
        while Arc::strong_count(&self.store) > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn file(&self) -> &FileStore {
        self.store.file_store().unwrap()
    }
}

impl TierRun {
    fn new(seed: u64) -> Self {
        let mut lives = Lives::new(seed, 0);
        let bucket = Arc::new(FaultyStore::new(seed, FaultRates::default()));
        let local = [None, Some(0), Some(0), Some(0), Some(2000)][lives.rng.below(5) as usize];
        let cache = [0, 1 << 20][lives.rng.below(2) as usize];
        let copied = lives.rng.below(4) > 0;
        let index_interval = if copied { DAY } else { Duration::ZERO };
        let options = TierOptions { local, cache, index_interval, ..options() };
        let cold = cold_store(bucket.clone(), options);
        TierRun { lives, bucket, cold, promises: Promises::default(), long: false }
    }

    /// How the object store fails for some time.
    fn weather(&mut self) -> FaultRates {
        self.bucket.set_delay(Duration::from_millis(self.lives.rng.below(4)));
        match self.lives.rng.below(if self.long { 24 } else { 8 }) {
            8.. | 0..3 => FaultRates::default(),
            3 => FaultRates { failed: 1000, ..FaultRates::default() },
            4 => FaultRates { forbidden: 1000, ..FaultRates::default() },
            5 => FaultRates { late_put: 300, late_delete: 500, ..FaultRates::PASSING },
            6 => FaultRates { stored_wrong: 300, late_delete: 300, ..FaultRates::PASSING },
            _ => FaultRates { forbidden: 20, stored_wrong: 50, ..FaultRates::PASSING },
        }
    }

    fn open(&self) -> Result<TierLife, StoreError> {
        let store = Arc::new(SharedStore(self.lives.open()?));
        let (tier, uploader) = wait(async {
            let claim = claim(&self.cold, self.lives.dir.path(), NOW, false).await.unwrap();
            let tier = Tier::of(self.cold.clone(), claim, tokio::runtime::Handle::current());
            (tier.clone(), SegmentUploader::new(tier, store.clone()))
        });
        store.file_store().unwrap().read_objects_from(tier.cold_place());
        let copier = wait(async { uploader.copier() });
        Ok(TierLife { store, tier, uploader, copier })
    }

    fn copies_index(&self) -> bool {
        !self.cold.options().index_interval.is_zero()
    }

    /// One life of the server, up to a crash.
    fn life(&mut self) -> Result<(), String> {
        // Long enough for objects that wait for two copies.
        self.long = self.copies_index() && self.lives.rng.below(10) == 0;
        let operations = match self.lives.rng.below(3) {
            _ if self.long => 1000 + self.lives.rng.below(1000),
            0 => self.lives.rng.below(12),
            _ => self.lives.rng.below(150),
        };
        let faults = Faults { stop_at: 1 + operations, ..Faults::default() };
        self.lives.disk.set_faults(if self.long {
            faults
        } else {
            Faults {
                write: self.lives.rng.below(80),
                sync: if self.lives.rng.below(6) == 0 { self.lives.rng.below(60) } else { 0 },
                ..faults
            }
        });
        if !self.long && self.lives.rng.below(4) == 0 {
            self.lives.disk.set_capacity(4096 * (3 + self.lives.rng.below(8) as usize));
        }
        self.bucket.set_rates(FaultRates::default());
        // It may have stopped in what an opening does not depend on.
        if let Ok(mut life) = self.open()
            && !self.lives.disk.is_stopped()
        {
            self.lives.settle(&life.store.0)?;
            self.lives.maybe.clear();
            for at in 0..if self.long { 50 } else { 16 } {
                let killed = self.act(&mut life)?;
                if killed || self.lives.disk.is_stopped() {
                    break;
                }
                self.bucket.set_rates(FaultRates::default());
                if !self.long || at % 8 == 0 {
                    self.lives.acked.check(&life.store.0)?;
                }
            }
            life.end();
        }
        if self.lives.crash() {
            count(&TALLY.power_cuts);
        }
        self.bucket.set_rates(FaultRates::default());
        self.check_promises()
    }

    /// Something that a server does, in any weather. Returns whether it was killed.
    fn act(&mut self, life: &mut TierLife) -> Result<bool, String> {
        let weather = self.weather();
        self.bucket.set_rates(weather);
        let copies = if self.copies_index() { 2 } else { 0 };
        match self.lives.rng.below(8 + copies) {
            0 | 1 => drop(self.lives.batch(&life.store.0)),
            2 => {
                let _ = self.lives.batch(&life.store.0);
                if life.file().checkpoint().is_ok() {
                    life.file().maintain();
                    let _ = life.file().seal();
                }
            }
            3 | 4 => self.read(life, weather.wrong > 0)?,
            5 => {
                // A kill that comes while the uploader waits for the object store.
                let end = Duration::from_millis(self.lives.rng.below(50));
                let _ = wait(async { tokio::time::timeout(end, life.uploader.round()).await });
            }
            8 | 9 => {
                if !self.long && self.lives.rng.below(4) == 0 {
                    let stop_at = 1 + self.lives.rng.below(12);
                    self.lives.disk.set_faults(Faults { stop_at, ..Faults::default() });
                }
                return Ok(self.copy(life));
            }
            _ => {
                if !self.long && self.lives.rng.below(4) == 0 {
                    let stop_at = 1 + self.lives.rng.below(8);
                    self.lives.disk.set_faults(Faults { stop_at, ..Faults::default() });
                }
                let _ = wait(life.uploader.round());
                if self.lives.rng.below(3) == 0 {
                    let _ = wait(life.uploader.search_now());
                }
                if self.lives.disk.is_stopped() {
                    count(&TALLY.crashed_rounds);
                }
            }
        }
        Ok(false)
    }

    /// Reads of any range while the object store fails: right, or refused.
    fn read(&mut self, life: &TierLife, wrong: bool) -> Result<(), String> {
        for (id, (state, bytes)) in &self.lives.acked.streams {
            let (first, tail) = (state.first_kept().position(), state.tail.position());
            if first == tail {
                continue;
            }
            let from = state.first_kept().advance(self.lives.rng.below(tail - first));
            let at = (from.position() - state.core.own_start().position()) as usize;
            match wait(life.store.0.read(*id, from, state.tail, 2000)).map(|found| found.concat()) {
                Ok(found) => {
                    count(&TALLY.cold_reads);
                    if found.is_empty() || found != bytes[at..at + found.len()] {
                        return Err(format!("{} has other bytes from {from} on", state.core.path));
                    }
                }
                Err(StoreError::Cold { .. }) => count(&TALLY.refused_reads),
                // The object store returned wrong bytes again and again.
                Err(StoreError::Corrupt { .. }) if wrong => count(&TALLY.refused_reads),
                Err(_) if self.lives.disk.is_stopped() => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// The object store is well, and so is the disk: everything is read, and nothing lies about.
    fn end(&mut self) -> Result<(), String> {
        self.lives.disk.set_faults(Faults::default());
        self.bucket.set_rates(FaultRates::default());
        // What was to take effect late has done so.
        wait(async { tokio::time::sleep(Duration::from_secs(3600)).await });
        let mut life = self.open().map_err(|error| error.to_string())?;
        let wrong = |error: &dyn std::fmt::Display| error.to_string();
        self.lives.settle(&life.store.0)?;
        life.file().checkpoint().map_err(|error| wrong(&error))?;
        for _ in 0..2 {
            life.file().maintain();
            life.file().seal().map_err(|error| wrong(&error))?;
        }
        // A segment whose name has other bytes is uploaded under another one in the next round.
        for _ in 0..3 {
            let _ = wait(life.uploader.round());
        }
        wait(life.uploader.round()).map_err(|error| wrong(&error))?;
        for _ in 0..2 {
            wait(life.uploader.search_now()).map_err(|error| wrong(&error))?;
        }
        self.end_copies(&mut life)?;
        self.lives.acked.check(&life.store.0)?;
        if life.file().scrub() > 0 {
            return Err("the scrub finds damage".into());
        }
        self.compare(&life)
    }

    /// Every object and every local file is one of a segment, and every segment has its own.
    fn compare(&self, life: &TierLife) -> Result<(), String> {
        let segments = life.file().segments_after(None, usize::MAX).map_err(|e| e.to_string())?;
        let all: BTreeMap<u64, SegmentPlace> =
            segments.iter().map(|segment| (segment.number, segment.place)).collect();
        let with = |keep: fn(SegmentPlace) -> bool| -> BTreeSet<u64> {
            all.iter().filter(|(_, place)| keep(**place)).map(|(number, _)| *number).collect()
        };
        let number = |name: &str| number_of(name.rsplit('/').next()?);
        let names = wait(self.bucket.names("segments/"));
        let objects: BTreeSet<u64> = names.iter().filter_map(|name| number(name)).collect();
        let folder = self.lives.dir.path().join("segments");
        let files = self.lives.disk.paths(&folder);
        let files: BTreeSet<u64> =
            files.iter().filter_map(|path| number(path.file_name()?.to_str()?)).collect();
        for place in all.values() {
            count(&TALLY.places[*place as usize]);
        }
        TALLY.objects.fetch_add(objects.len() as u64, Ordering::Relaxed);
        if objects != with(|_| true) || objects.len() != names.len() {
            return Err(format!("the bucket has {names:?}, and the index {all:?}"));
        }
        if files != with(SegmentPlace::is_local) {
            return Err(format!("the disk has {files:?}, and the index {all:?}"));
        }
        Ok(())
    }
}

/// Names the seed of a run that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("TIER_CRASH_SEEDS={}..{} shows it again", self.0, self.0 + 1);
        }
    }
}

fn run(seed: u64) {
    let _seed = Seed(seed);
    let mut run = TierRun::new(seed);
    for _ in 0..6 {
        run.life().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
    run.end().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
}

/// A runtime whose clock goes on at once when there is nothing to do.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn crashes_and_a_failing_object_store_lose_nothing_and_leave_nothing() {
    let seeds = harness::seeds("TIER_CRASH_SEEDS", 40);
    let (next, end) = (AtomicU64::new(seeds.start), seeds.end);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    wait::RUNTIME.set(Some(runtime()));
                    run(seed);
                    drop(wait::RUNTIME.take());
                }
            });
        }
    });
    let [local, both, object] =
        [0, 1, 2].map(|place: usize| TALLY.places[place].load(Ordering::Relaxed));
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} seeds, {} power cuts, {} crashes of the uploader, {} reads and {} refused ones in bad weather, {} objects; \
         {} copies of the index, {} that failed or were cut off, {} directories built from one; at the end {local} segments local, {both} in both places, {object} in the object store",
        end - seeds.start,
        of(&TALLY.power_cuts),
        of(&TALLY.crashed_rounds),
        of(&TALLY.cold_reads),
        of(&TALLY.refused_reads),
        of(&TALLY.objects),
        of(&TALLY.copies),
        of(&TALLY.cut_copies),
        of(&TALLY.restores),
    );
    if end - seeds.start >= 40 {
        assert!(both > 0 && object > 0 && local == 0, "{local} {both} {object}");
        assert!(of(&TALLY.crashed_rounds) > 0 && of(&TALLY.refused_reads) > 0);
        assert!(of(&TALLY.cut_copies) > 0 && of(&TALLY.restores) > of(&TALLY.copies) / 2);
    }
}
