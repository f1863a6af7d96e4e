//! What copies of the index promise, and whether a directory that is built from the newest one keeps it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use durable_streams_engine::store::file::Destination;
use durable_streams_engine::store::file::disk::RealDisk;
use durable_streams_engine::store::{AnyStore, FileStore, Store as _};
use tokio::runtime::Handle;

use super::harness::{Model, sealing, tempdir};
use super::lives::{Events, Lives};
use super::wait::wait;
use super::{DAY, TALLY, TierLife, TierRun, count};
use crate::tier::object_cold_store::ObjectColdStore;
use crate::tier::tests::reopened;
use crate::tier::{CopyError, CopyName, Tier, TierClaim, TierCopies};

/// What may be in a copy.
struct Promise {
    /// An event that was durable when the copy began.
    event: u64,
    /// Everything that was acknowledged then, and that with what came after it.
    any_of: Vec<Model>,
}

/// What the copies that were begun promise.
#[derive(Default)]
pub(super) struct Promises {
    made: BTreeMap<CopyName, Promise>,
    /// The last copy that its maker knows to be whole.
    whole: Option<CopyName>,
}

impl Promises {
    /// Notes what a copy must have that begins now.
    pub(super) fn begin(&mut self, name: CopyName, lives: &Lives, event: u64) {
        let mut promise = Promise { event, any_of: vec![lives.acked.clone()] };
        lives.maybe.iter().for_each(|batch| promise.follow(&lives.acked, batch));
        self.made.insert(name, promise);
    }

    /// Notes a batch that was committed, or may be, while the copy was made; `before`: what was acknowledged before.
    pub(super) fn follow(&mut self, name: CopyName, before: &Model, batch: &Events) {
        if let Some(promise) = self.made.get_mut(&name) {
            promise.follow(before, batch);
        }
    }

    pub(super) fn is_whole(&mut self, name: CopyName) {
        self.whole = Some(name);
    }

    /// Builds directories from the bucket, as if the disk was lost now, of each of the two copies that are kept. Returns how
    /// many there were.
    pub(super) fn check(&self, bucket: &Arc<ObjectColdStore>) -> Result<u64, String> {
        let (copies, mut found) = (TierCopies::of(bucket.clone()), Vec::new());
        for name in wait(copies.newest_first()).map_err(|error| error.to_string())? {
            found.extend(self.restore(bucket, name)?);
            if found.len() == 2 {
                break;
            }
        }
        if found.first().copied() < self.whole {
            return Err(format!("there are the copies {found:?}, and {:?} was whole", self.whole));
        }
        Ok(found.len() as u64)
    }

    /// Builds a directory from a copy; returns its name unless only a part of it is there.
    fn restore(
        &self,
        bucket: &Arc<ObjectColdStore>,
        name: CopyName,
    ) -> Result<Option<CopyName>, String> {
        let (copies, dir) = (TierCopies::of(bucket.clone()), tempdir());
        let to = Destination::prepare(dir.path()).unwrap();
        let file = to.index_file().unwrap();
        let fetched = wait(async {
            let copy = copies.manifest(name).await?;
            copies.fetch(&copy, &file, &mut |_| {}).await?;
            Ok(copy)
        });
        let of = |wrong: &dyn std::fmt::Display| format!("the copy {name}: {wrong}");
        let copy = match fetched {
            // What is left of a copy that was given up.
            Err(CopyError::Manifest | CopyError::Damaged | CopyError::Gone) => return Ok(None),
            fetched => fetched.map_err(|error| of(&error))?,
        };
        let promise = self.made.get(&name).ok_or("a copy that nobody has begun")?;
        if copy.event < promise.event {
            return Err(of(&format!("event {} instead of {}", copy.event, promise.event)));
        }
        let index = to.open_index(64 << 20).unwrap();
        let report = index.check(&mut |_| {}).unwrap();
        let segments = index.segments_after(None, usize::MAX).unwrap();
        let missing = wait(copies.missing(&copy, &segments)).map_err(|error| of(&error))?;
        if report.count > 0 || !missing.is_empty() {
            return Err(of(&format!("{:?}; it lacks {missing:?}", report.problems)));
        }
        index.finish().unwrap();
        let store = reopened(|| FileStore::open_on(Arc::new(RealDisk), sealing(dir.path())));
        let store = store.map_err(|error| of(&error))?;
        let claim = TierClaim { identity: copy.identity, epoch: 0, replaced: None };
        let tier = wait(async { Tier::of(bucket.clone(), claim, Handle::current()) });
        store.read_objects_from(tier.cold_place());
        let store = AnyStore::File(store);
        promise.check(&store).map_err(|wrong| of(&wrong))?;
        wait(store.close());
        Ok(Some(name))
    }
}

impl Promise {
    fn follow(&mut self, before: &Model, batch: &Events) {
        let mut model = before.clone();
        for (id, event) in batch {
            model.apply(*id, event);
            self.any_of.push(model.clone());
        }
    }

    fn check(&self, store: &AnyStore) -> Result<(), String> {
        let mut wrong = String::new();
        for model in &self.any_of {
            match model.check(store) {
                Ok(()) => return Ok(()),
                Err(also) => wrong = format!("{wrong}\n  or: {also}"),
            }
        }
        Err(wrong)
    }
}

impl TierRun {
    /// The disk is lost now.
    pub(super) fn check_promises(&self) -> Result<(), String> {
        TALLY.restores.fetch_add(self.promises.check(&self.cold)?, Ordering::Relaxed);
        Ok(())
    }

    /// Notes what a copy promises that begins now; returns its name.
    fn promise(&mut self, life: &TierLife) -> CopyName {
        let (epoch, number) = (life.tier.claim().epoch, life.copier.begun() + 1);
        let name = format!("{epoch:020}-{number:020}").parse().unwrap();
        self.promises.begin(name, &self.lives, life.file().last_event());
        name
    }

    /// Copies the index, while a round goes on and a batch is committed. Returns whether the server was killed on the way.
    pub(super) fn copy(&mut self, life: &mut TierLife) -> bool {
        let name = self.promise(life);
        let TierRun { lives, promises, long, .. } = self;
        let beside = lives.rng.below(4);
        let pause = Duration::from_millis(lives.rng.below(30));
        let end = match lives.rng.below(3) {
            0 if !*long => Duration::from_millis(lives.rng.below(80)),
            _ => DAY,
        };
        let TierLife { store, uploader, copier, .. } = life;
        let others = async {
            tokio::time::sleep(pause).await;
            if beside & 1 > 0 {
                let before = lives.acked.clone();
                let batch = lives.batch(&store.0);
                promises.follow(name, &before, &batch);
            }
            if beside & 2 > 0 {
                let _ = uploader.round().await;
            }
        };
        let both = async { tokio::join!(copier.copy_now(), others).0 };
        let done = wait(async { tokio::time::timeout(end, both).await });
        if let Ok(Ok(())) = done {
            promises.is_whole(name);
            count(&TALLY.copies);
        } else {
            count(&TALLY.cut_copies);
        }
        done.is_err()
    }

    /// The object store is well: two copies, and nothing is there of others. What was freed goes then.
    pub(super) fn end_copies(&mut self, life: &mut TierLife) -> Result<(), String> {
        if !self.copies_index() {
            return Ok(());
        }
        for _ in 0..2 {
            let name = self.promise(life);
            wait(life.copier.copy_now()).map_err(|error| error.to_string())?;
            self.promises.is_whole(name);
            self.check_promises()?;
        }
        wait(life.uploader.round()).map_err(|error| error.to_string())?;
        let names = wait(self.bucket.names("index/"));
        let manifests = names.iter().filter(|name| name.ends_with(".json")).count();
        if (manifests, names.len()) == (2, 4) {
            Ok(())
        } else {
            Err(format!("the bucket has {names:?}"))
        }
    }
}
