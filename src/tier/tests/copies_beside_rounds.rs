//! Copies of the index beside rounds of uploads and deletions: neither waits for the other, and no copy lacks anything.

use std::sync::Arc;
use std::time::Duration;

use durable_streams_engine::Clock;
use durable_streams_engine::store::file::segments::cold::ColdStore as _;
use tokio::time::{Instant, sleep};

use super::claims::in_memory;
use super::faults::FaultyStore;
use super::restores::{copies, faulty, restore, restored, with_copies};
use super::store::{NOW, World, bytes, path};
use super::{cold_store, options};
use crate::tier::claim::claim;
use crate::tier::object_cold_store::ObjectColdStore;
use crate::tier::{SegmentUploader, TierOptions, UploadError};

/// Goes on once `done`, on a clock that is paused; panics after `most`.
async fn within(most: Duration, what: &str, done: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !done().await {
        assert!(began.elapsed() < most, "{what}: not within {most:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// A store whose copies are made each minute.
fn each_minute(faulty: &Arc<FaultyStore>) -> Arc<ObjectColdStore> {
    let options = TierOptions {
        index_interval: Duration::from_secs(60),
        interval: Duration::from_secs(1),
        local: Some(0),
        ..options()
    };
    cold_store(faulty.clone(), options)
}

/// The work of a server, which has begun a copy that waits for the object store.
async fn with_a_copy_that_waits(
    faulty: &Arc<FaultyStore>,
    store: &Arc<ObjectColdStore>,
) -> (World, tokio::task::JoinHandle<()>) {
    let world = World::new(store.clone()).await;
    world.write(0, &bytes(0, 150_000)).await;
    world.seal();
    let worker = SegmentUploader::new(world.tier.clone(), world.engine.clone());
    let working = tokio::spawn(worker.run(Clock::System));
    let first = async || copies(store).await.len() == 1;
    within(Duration::from_secs(70), "the first copy", first).await;
    faulty.hold_parts(true);
    world.write(1, &bytes(1, 1000)).await;
    within(Duration::from_secs(70), "the second copy", async || faulty.holds_part()).await;
    (world, working)
}

#[tokio::test(start_paused = true)]
async fn segments_are_uploaded_while_a_copy_waits_for_the_object_store() {
    let faulty = faulty();
    let store = each_minute(&faulty);
    let (world, working) = with_a_copy_that_waits(&faulty, &store).await;
    let before = world.objects().await;
    world.write(2, &bytes(2, 150_000)).await;
    world.seal();
    let uploaded = async || world.objects().await > before && world.local_files() == 0;
    within(Duration::from_secs(5), "the upload of a segment", uploaded).await;
    assert_eq!(copies(&store).await.len(), 1);
    // Where this machine is slow, the copy has waited for too long, and another one begins.
    within(Duration::from_secs(70), "a copy that waits", async || faulty.holds_part()).await;
    // The server stops now: the copy ends with it, and the one before is whole.
    working.abort();
    assert!(working.await.unwrap_err().is_cancelled());
    assert!(!faulty.holds_part());
    faulty.hold_parts(false);
    let again = restored(&store).await;
    assert!(again.read(0, 0, 150_000).await.unwrap() == bytes(0, 150_000));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_waits_goes_on_when_the_object_store_does() {
    let faulty = faulty();
    let store = each_minute(&faulty);
    let (world, working) = with_a_copy_that_waits(&faulty, &store).await;
    faulty.hold_parts(false);
    within(Duration::from_secs(1), "the copy", async || copies(&store).await.len() == 2).await;
    // Longer than all attempts at a part: the copy fails, and others follow.
    world.write(2, b"more").await;
    faulty.hold_parts(true);
    within(Duration::from_secs(70), "a copy", async || faulty.holds_part()).await;
    within(Duration::from_secs(600), "its end", async || !faulty.holds_part()).await;
    assert!(world.tier.counters().index_copy_failures.get() > 0);
    faulty.hold_parts(false);
    let third = async || world.tier.counters().index_copies.get() == 3;
    within(Duration::from_secs(200), "a copy after the failure", third).await;
    working.abort();
    let again = restored(&store).await;
    assert!(again.read(2, 0, 4).await.unwrap() == b"more");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_lost_ends_a_copy_that_waits_without_a_manifest() {
    let faulty = faulty();
    let store = each_minute(&faulty);
    let (_world, working) = with_a_copy_that_waits(&faulty, &store).await;
    let before = copies(&store).await;
    claim(&store, in_memory().path(), NOW, true).await.unwrap();
    // The rounds look each minute; the attempts at a part last longer.
    within(Duration::from_secs(62), "the end", async || working.is_finished()).await;
    assert!(!faulty.holds_part());
    assert_eq!(copies(&store).await, before);
}

/// While the parts of a copy wait: a backup, deletions of what earlier copies have freed, and new segments; then bytes that
/// the copy has are deleted.
#[tokio::test]
async fn rounds_delete_and_upload_beside_a_copy_and_leave_what_it_references() {
    let faulty = faulty();
    let store = with_copies(faulty.clone());
    let mut world = World::new(store.clone()).await;
    for number in 0..3 {
        world.write(number, &bytes(number, 150_000)).await;
        world.seal();
    }
    world.uploader.round().await.unwrap();
    let delete = async |world: &World, number| {
        world.engine.delete(&path(number)).await.unwrap();
        world.store().checkpoint().unwrap();
        world.store().maintain();
    };
    delete(&world, 0).await;
    world.uploader.round().await.unwrap();
    for _ in 0..2 {
        world.copier.copy_now().await.unwrap();
    }
    let all = world.objects().await;
    // The copy uploads this one.
    world.write(3, &bytes(3, 150_000)).await;
    world.seal();
    faulty.hold_parts(true);
    let mut copier = world.uploader.copier();
    let rounds = async {
        while !faulty.holds_part() {
            sleep(Duration::from_millis(1)).await;
        }
        let copied = world.objects().await;
        assert!(copied > all, "the segments of the copy come before its parts");
        world.write(4, &bytes(4, 150_000)).await;
        world.seal();
        let backup = world.store().hold_segments();
        world.uploader.round().await.unwrap();
        let uploaded = world.objects().await;
        assert!(uploaded > copied && world.local_files() > 0, "the backup holds what is there");
        drop(backup);
        assert_eq!(world.local_files(), 0, "the copy holds no file");
        world.uploader.round().await.unwrap();
        let left = world.objects().await;
        assert!(left < uploaded, "what no copy references goes");
        delete(&world, 1).await;
        delete(&world, 3).await;
        for _ in 0..2 {
            world.uploader.round().await.unwrap();
            world.uploader.search_now().await.unwrap();
        }
        assert_eq!(world.objects().await, left, "the copy references them");
        faulty.hold_parts(false);
    };
    let (copied, ()) = tokio::join!(copier.copy_now(), rounds);
    copied.unwrap();
    world.uploader.round().await.unwrap();
    let again = restored(&store).await;
    for number in [1, 2, 3] {
        let found = again.read(number, 0, 150_000).await.unwrap();
        assert!(found == bytes(number, 150_000), "stream {number}");
    }
}

/// The index names an object that is not there, as after the restore of a backup. A copy that takes it for there does not
/// become whole once a round has found that out.
#[tokio::test]
async fn a_copy_is_given_up_when_a_round_finds_an_object_missing() {
    let faulty = faulty();
    let day = Duration::from_secs(24 * 3600);
    let local = TierOptions { index_interval: day, local: None, ..options() };
    let mut world = World::new(cold_store(faulty.clone(), local)).await;
    world.write(0, &bytes(0, 150_000)).await;
    world.seal();
    world.uploader.round().await.unwrap();
    let World { engine, dir, tier, uploader, copier } = world;
    engine.close().await;
    drop((engine, uploader, copier));
    for name in faulty.names("segments/").await {
        tier.store().delete(&name).await.unwrap();
    }
    let store = with_copies(faulty.clone());
    let mut world = World::on(store.clone(), dir).await;
    faulty.hold_parts(true);
    let mut copier = world.uploader.copier();
    let rounds = async {
        while !faulty.holds_part() {
            sleep(Duration::from_millis(1)).await;
        }
        world.uploader.round().await.unwrap();
        faulty.hold_parts(false);
    };
    let (copied, ()) = tokio::join!(copier.copy_now(), rounds);
    assert!(matches!(copied, Err(UploadError::LostObject)), "{copied:?}");
    assert_eq!(copies(&store).await, []);
    copier.copy_now().await.unwrap();
    let (_, missing) = restore(&store, in_memory().path()).await.unwrap();
    assert!(missing.is_empty(), "{missing:?}");
}
