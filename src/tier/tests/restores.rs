//! A lost data directory is built again, whole, up to the last copy of the index.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::store::Store as _;
use durable_streams_engine::store::file::Destination;
use durable_streams_engine::store::file::segments::cold::ColdStore as _;
use durable_streams_engine::store::file::segments::objects::SegmentPlace;
use durable_streams_protocol::Timestamp;

use super::claims::in_memory;
use super::faults::{FaultRates, FaultyStore};
use super::store::{World, append, bytes, path};
use super::{cold_store, options};
use crate::tier::claim::ClaimError;
use crate::tier::object_cold_store::ObjectColdStore;
use crate::tier::{CopyError, CopyName, TierCopies, TierOptions, UploadError};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const MAP: usize = 1 << 30;

/// An object store with copies of the index, each when a test says so.
pub(super) fn with_copies(store: Arc<FaultyStore>) -> Arc<ObjectColdStore> {
    let day = Duration::from_secs(24 * 3600);
    cold_store(store, TierOptions { index_interval: day, local: Some(0), ..options() })
}

pub(super) fn faulty() -> Arc<FaultyStore> {
    Arc::new(FaultyStore::new(0, FaultRates::default()))
}

/// What `restore --from-tier --take-over` does. Returns the copy that was used, and the numbers of segments whose objects are
/// missing.
pub(super) async fn restore(
    store: &Arc<ObjectColdStore>,
    dir: &Path,
) -> Result<(CopyName, BTreeSet<u64>), CopyError> {
    let copies = TierCopies::of(store.clone());
    let seen = copies.owner().await?.map_or(0, |(epoch, _)| epoch);
    restore_after(store, dir, seen).await
}

/// The same, if the claim with this number is still the newest.
async fn restore_after(
    store: &Arc<ObjectColdStore>,
    dir: &Path,
    seen: u64,
) -> Result<(CopyName, BTreeSet<u64>), CopyError> {
    let copies = TierCopies::of(store.clone());
    let to = Destination::prepare(dir).unwrap();
    let file = to.index_file().unwrap();
    for name in copies.newest_first().await? {
        let copy = match copies.manifest(name).await {
            Err(CopyError::Manifest) => continue,
            copy => copy?,
        };
        match copies.fetch(&copy, &file, &mut |_| {}).await {
            Err(CopyError::Damaged | CopyError::Gone) => continue,
            fetched => fetched?,
        }
        let index = to.open_index(MAP).unwrap();
        let report = index.check(&mut |_| {}).unwrap();
        assert_eq!(report.count, 0, "{:?}", report.problems);
        let segments = index.segments_after(None, usize::MAX).unwrap();
        assert!(segments.iter().all(|segment| segment.place == SegmentPlace::Object));
        copy.adopt(dir)?;
        copies.take_over(dir, seen, NOW).await?;
        let missing = copies.missing(&copy, &segments).await?;
        copies.is_there(&copy).await?;
        let mut ranges = BTreeSet::new();
        index.ranges_in(&missing, &mut |range| ranges.extend([range.segment])).unwrap();
        assert_eq!(ranges, missing, "each is said with a stream");
        index.finish().unwrap();
        return Ok((name, missing));
    }
    Err(CopyError::Gone)
}

/// A server on a restored directory.
pub(super) async fn restored(store: &Arc<ObjectColdStore>) -> World {
    let dir = in_memory();
    let (_, missing) = restore(store, dir.path()).await.unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    World::on(store.clone(), dir).await
}

pub(super) async fn copies(store: &Arc<ObjectColdStore>) -> Vec<CopyName> {
    TierCopies::of(store.clone()).newest_first().await.unwrap()
}

#[tokio::test]
async fn a_lost_directory_is_built_again_up_to_the_last_copy() {
    let store = with_copies(faulty());
    let mut world = World::new(store.clone()).await;
    // Streams that are objects, one whose segment is only local, and one that is in the index.
    let all: Vec<_> = [500_000, 130_000, 40_000, 7].into_iter().enumerate().collect();
    for (number, len) in &all[..2] {
        world.write(*number, &bytes(*number, *len)).await;
    }
    world.seal();
    world.uploader.round().await.unwrap();
    world.write(2, &bytes(2, 40_000)).await;
    world.seal();
    world.write(3, &bytes(3, 7)).await;
    world.copier.copy_now().await.unwrap();
    assert_eq!(copies(&store).await.len(), 1);
    // What comes after the copy is lost.
    world.engine.append(&path(3), &append(), Bytes::from_static(b"lost")).await.unwrap();
    world.write(4, b"lost").await;
    let before = world.store().segments_after(None, 100).unwrap();
    let copied = before.iter().map(|segment| segment.number).max().unwrap();

    let mut again = restored(&store).await;
    for (number, len) in &all {
        let found = again.read(*number, 0, *len).await.unwrap();
        assert!(found == bytes(*number, *len), "stream {number}");
        let id = again.id(*number).await;
        let state = again.store().state_of(id).await.unwrap().unwrap();
        assert_eq!(state.tail.position(), *len as u64, "stream {number}");
    }
    let loaded = again.store().list(None, 10).await.unwrap();
    assert_eq!(loaded.len(), all.len(), "{loaded:?}");
    // What it seals before it has a claim of its own has no name that the lost server may have used.
    again.seal();
    let numbers = |world: &World| -> BTreeSet<u64> {
        let all = world.store().segments_after(None, 100).unwrap();
        all.iter().map(|segment| segment.number).filter(|number| *number > copied).collect()
    };
    let new = numbers(&again);
    let unused = copied + (1 << 31);
    assert!(!new.is_empty() && new.iter().all(|number| *number >= unused), "{new:?}");
    // It goes on: the segments that it makes have other names.
    again.write(5, &bytes(5, 150_000)).await;
    let lost = world.id(4).await;
    assert!(again.id(5).await.0 > lost.0 + (1 << 31), "no client knows it as a lost stream");
    again.seal();
    again.uploader.round().await.unwrap();
    again.copier.copy_now().await.unwrap();
    assert!(again.read(5, 0, 150_000).await.unwrap() == bytes(5, 150_000));
    let newest = copies(&store).await[0];
    assert_eq!(newest.to_string(), format!("{:020}-{:020}", again.tier.claim().epoch, 1));
    let (all, first) = (numbers(&again), again.tier.claim().first_segment());
    assert!(all.difference(&new).all(|number| *number >= first), "{all:?} from {first}");
    assert!(all.len() > new.len());
    // The lost server, should it live, does nothing any more.
    assert!(matches!(world.copier.copy_now().await, Err(UploadError::Superseded)));
}

#[tokio::test]
async fn a_restored_server_is_lost_and_restored_again() {
    let store = with_copies(faulty());
    let mut world = World::new(store.clone()).await;
    for round in 0..4 {
        world.write(round, &bytes(round, 120_000)).await;
        world.seal();
        world.uploader.round().await.unwrap();
        world.copier.copy_now().await.unwrap();
        world.write(100 + round, b"lost").await;
        world = restored(&store).await;
        for number in 0..=round {
            let found = world.read(number, 0, 120_000).await.unwrap();
            assert!(found == bytes(number, 120_000), "stream {number} after {round}");
        }
        assert_eq!(world.store().list(None, 100).await.unwrap().len(), round + 1);
    }
}

#[tokio::test]
async fn a_damaged_copy_is_passed_over_and_a_missing_object_is_said() {
    let faulty = faulty();
    let store = with_copies(faulty.clone());
    let mut world = World::new(store.clone()).await;
    world.write(0, &bytes(0, 150_000)).await;
    world.seal();
    world.copier.copy_now().await.unwrap();
    world.write(1, b"newer").await;
    world.copier.copy_now().await.unwrap();
    let [newer, older] = copies(&store).await[..] else { panic!("two copies") };
    let part = format!("index/{newer}/0000000000.mdb");
    let whole = faulty.whole(&part).await.unwrap();
    let mut flipped = whole.to_vec();
    flipped[whole.len() / 2] ^= 1;
    faulty.replace(&part, flipped.into()).await;
    let dir = in_memory();
    assert_eq!(restore(&store, dir.path()).await.unwrap().0, older);
    faulty.replace(&part, whole).await;
    let dir = in_memory();
    assert_eq!(restore(&store, dir.path()).await.unwrap().0, newer);
    let manifest = format!("index/{newer}.json");
    faulty.replace(&manifest, Bytes::from_static(b"{}")).await;
    let dir = in_memory();
    assert_eq!(restore(&store, dir.path()).await.unwrap().0, older);

    let segments = store.list("segments/", None).await.unwrap();
    store.delete(&segments[0].0).await.unwrap();
    let dir = in_memory();
    let (_, missing) = restore(&store, dir.path()).await.unwrap();
    assert_eq!(missing.len(), 1);
    let again = World::on(store.clone(), dir).await;
    let read = again.read(0, 0, 150_000).await;
    assert!(read.is_err(), "an error, and no short stream");
}

/// Copies and restores while the object store fails in every way that a later attempt may mend.
#[tokio::test(start_paused = true)]
async fn no_restored_byte_is_wrong_or_missing_whatever_the_store_does() {
    let mut copied = 0;
    for seed in 0..40 {
        let rates = FaultRates { stored_wrong: 20, forbidden: 5, ..FaultRates::PASSING };
        let faulty = Arc::new(FaultyStore::new(seed, FaultRates::default()));
        let store = with_copies(faulty.clone());
        let mut world = World::new(store.clone()).await;
        let mut states = Vec::new();
        faulty.set_rates(rates);
        for number in 0..4 {
            world.write(number, &bytes(number, 60_000 + 30_000 * number)).await;
            if number % 2 == 0 {
                world.seal();
            }
            let _ = world.uploader.round().await;
            if world.copier.copy_now().await.is_ok() {
                states.push(number);
                copied += 1;
            }
        }
        faulty.set_rates(FaultRates::default());
        let Some(last) = states.last() else { continue };
        let again = restored(&store).await;
        let names = again.store().list(None, 10).await.unwrap();
        // A copy whose answer was lost may be there.
        assert!(names.len() > *last, "seed {seed}: {names:?} after {states:?}");
        for number in 0..names.len() {
            let data = bytes(number, 60_000 + 30_000 * number);
            let found = again.read(number, 0, data.len()).await;
            assert!(found.as_ref().ok() == Some(&data), "seed {seed}: {:?}", found.err());
        }
    }
    assert!(copied > 40, "{copied}");
}

#[tokio::test(start_paused = true)]
async fn of_two_restores_that_take_the_prefix_over_at_once_one_wins() {
    let faulty = faulty();
    let store = with_copies(faulty.clone());
    let mut world = World::new(store.clone()).await;
    world.write(0, b"something").await;
    world.copier.copy_now().await.unwrap();
    let dirs = [in_memory(), in_memory()];
    faulty.set_delay(Duration::from_millis(10));
    let [one, two] = [restore(&store, dirs[0].path()), restore(&store, dirs[1].path())];
    let (one, two) = tokio::join!(one, two);
    let refused = |result: &Result<_, CopyError>| {
        matches!(
            result,
            Err(CopyError::Claim(ClaimError::Meanwhile { .. } | ClaimError::Copy { .. }))
        )
    };
    assert!(refused(&one) != refused(&two), "{one:?} {two:?}");
    let [won, lost] = if one.is_ok() {
        dirs
    } else {
        dirs.into_iter().rev().collect::<Vec<_>>().try_into().unwrap()
    };
    assert_eq!(std::fs::read_dir(lost.path()).unwrap().count(), 0, "nothing is left");
    let again = World::on(store.clone(), won).await;
    assert_eq!(again.tier.claim().epoch, 3);
    assert!(again.read(0, 0, 9).await.unwrap() == b"something");
    // One that began before another claim was made, and comes to its own later.
    let late = restore_after(&store, in_memory().path(), 2).await;
    assert!(refused(&late), "{late:?}");
    assert!(again.tier.holds_claim().await.unwrap());
}

#[tokio::test]
async fn a_segment_that_is_damaged_on_the_disk_keeps_no_copy_from_being_made_and_is_said() {
    let store = with_copies(faulty());
    let mut world = World::new(store.clone()).await;
    world.write(0, &bytes(0, 150_000)).await;
    world.write(1, &bytes(1, 150_000)).await;
    world.seal();
    let segments = world.store().segments_after(None, 10).unwrap();
    let path = world.store().segment_path(segments[0].number);
    let mut file = std::fs::read(&path).unwrap();
    file[1000] ^= 1;
    std::fs::write(&path, file).unwrap();
    world.copier.copy_now().await.unwrap();
    let copy = TierCopies::of(store.clone()).manifest(copies(&store).await[0]).await.unwrap();
    assert_eq!((copy.segments, copy.damaged), (segments.len() as u64, 1));
    let dir = in_memory();
    let (_, missing) = restore(&store, dir.path()).await.unwrap();
    assert_eq!(missing, BTreeSet::from([segments[0].number]));
    let again = World::on(store.clone(), dir).await;
    assert!(again.read(0, 0, 150_000).await.is_err());
    assert!(again.read(1, 0, 150_000).await.unwrap() == bytes(1, 150_000));
}
