//! What the uploader does in the moments that matter: another server's claim, a name that is taken, a step of the clock,
//! damage in the index.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use durable_streams_engine::store::file::segments::cold::{ColdError, ColdStore as _};
use durable_streams_engine::store::file::segments::objects::SegmentPlace;

use super::faults::{FaultRates, FaultyStore};
use super::store::{NOW, World, bytes, path, well};
use super::{cold_store, options};
use crate::tier::claim::claim;
use crate::tier::{TierOptions, UploadError};

fn numbers(world: &World) -> Vec<u64> {
    let all = world.store().segments_after(None, 1000).unwrap();
    all.into_iter().map(|segment| segment.number).collect()
}

/// Deletes a stream, and its bytes from the index and the disk.
async fn remove(world: &World, number: usize) {
    world.engine.delete(&path(number)).await.unwrap();
    world.store().checkpoint().unwrap();
    world.store().maintain();
}

/// A copy of the data directory, which has the same names, takes the prefix over while the first server runs.
#[tokio::test(start_paused = true)]
async fn a_claim_is_looked_at_again_before_an_object_is_deleted() {
    let mut world = World::new(well()).await;
    world.write(0, &bytes(0, 150_000)).await;
    world.seal();
    world.uploader.round().await.unwrap();
    let objects = world.objects().await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("keys")).unwrap();
    let file = Path::new("keys/tier.json");
    std::fs::copy(world.dir.path().join(file), copy.path().join(file)).unwrap();
    let taken = claim(world.tier.store(), copy.path(), NOW, true).await.unwrap();
    assert_eq!(taken.identity, world.tier.claim().identity);
    remove(&world, 0).await;
    // Less than the time for which a claim that was looked at is relied on otherwise.
    tokio::time::advance(Duration::from_secs(6)).await;
    assert!(matches!(world.uploader.round().await, Err(UploadError::Superseded)));
    assert_eq!(world.objects().await, objects);
}

/// A deletion that takes effect late must not meet an object that was made again under its name.
#[tokio::test]
async fn a_name_that_has_other_bytes_is_given_up() {
    let mut world = World::new(well()).await;
    let data = bytes(0, 150_000);
    world.write(0, &data).await;
    world.seal();
    let before = numbers(&world);
    let name = world.tier.segment_name(before[0]);
    world.tier.store().create(&name, vec!["other bytes".into()]).await.unwrap();
    let first = world.uploader.round().await;
    assert!(matches!(first, Err(UploadError::Cold(ColdError::Damaged(_)))), "{first:?}");
    world.uploader.round().await.unwrap();
    assert!(!numbers(&world).contains(&before[0]));
    assert_eq!(numbers(&world).len(), before.len());
    assert!(world.places().iter().all(|place| *place == SegmentPlace::Object));
    assert!(world.tier.store().small(&name).await.unwrap().is_none());
    assert_eq!((world.objects().await, world.local_files()), (before.len(), 0));
    assert!(world.read(0, 0, data.len()).await.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_clock_puts_no_upload_off() {
    let faulty = Arc::new(FaultyStore::new(0, FaultRates::default()));
    let hour = Duration::from_secs(3600);
    let options = TierOptions { after: hour, ..options() };
    let mut world = World::new(cold_store(faulty, options)).await;
    world.write(0, &bytes(0, 150_000)).await;
    world.seal();
    let file = std::fs::File::open(world.store().segment_path(numbers(&world)[0])).unwrap();
    let written = file.metadata().unwrap().modified().unwrap();
    // The clock was a year ahead when it was written.
    file.set_modified(written + 9000 * hour).unwrap();
    world.uploader.round().await.unwrap();
    tokio::time::advance(hour - Duration::from_secs(30)).await;
    world.uploader.round().await.unwrap();
    assert_eq!(world.objects().await, 0);
    tokio::time::advance(Duration::from_secs(60)).await;
    world.uploader.round().await.unwrap();
    assert_eq!(world.objects().await, world.places().len());
    // Of a file that was there before the start its own time counts.
    world.write(1, &bytes(1, 150_000)).await;
    world.seal();
    let newest = *numbers(&world).last().unwrap();
    let file = std::fs::File::open(world.store().segment_path(newest)).unwrap();
    file.set_modified(written - 2 * hour).unwrap();
    world.uploader.round().await.unwrap();
    assert_eq!(world.places().last(), Some(&SegmentPlace::Both));
}

#[tokio::test]
async fn a_damaged_record_of_the_index_costs_no_object() {
    let mut world = World::new(well()).await;
    let data = bytes(0, 150_000);
    world.write(0, &data).await;
    world.seal();
    world.uploader.round().await.unwrap();
    let objects = world.objects().await;
    let segment = world.store().segments_after(None, 1).unwrap()[0];
    let World { engine, dir, tier, uploader, copier } = world;
    engine.close().await;
    drop((engine, uploader, copier));
    let index = dir.path().join("store/data.mdb");
    let mut pages = std::fs::read(&index).unwrap();
    let record = [segment.file_len.to_le_bytes(), segment.data.to_le_bytes()].concat();
    let places: Vec<usize> =
        (0..pages.len() - 16).filter(|at| pages[*at..*at + 16] == record[..]).collect();
    assert!(!places.is_empty());
    for at in places {
        pages[at + 16] ^= 1;
    }
    std::fs::write(&index, pages).unwrap();
    let mut world = World::on(tier.store().clone(), dir).await;
    assert!(numbers(&world).is_empty() || numbers(&world)[0] != segment.number);
    for _ in 0..3 {
        world.uploader.search_now().await.unwrap();
    }
    assert_eq!(world.objects().await, objects);
}

#[tokio::test]
async fn a_local_file_stays_when_its_object_is_gone_and_is_uploaded_again() {
    let faulty = Arc::new(FaultyStore::new(0, FaultRates::default()));
    let store = cold_store(faulty.clone(), TierOptions { local: None, ..options() });
    let mut world = World::new(store).await;
    let data = bytes(1, 150_000);
    world.write(0, &data).await;
    world.seal();
    world.uploader.round().await.unwrap();
    let names = faulty.names("segments/").await;
    assert!(!names.is_empty() && world.places().iter().all(|place| *place == SegmentPlace::Both));
    // As after a backup of then is restored: its segments were rewritten and deleted since.
    let World { engine, dir, tier, uploader, copier } = world;
    engine.close().await;
    drop((engine, uploader, copier));
    for name in &names {
        tier.store().delete(name).await.unwrap();
    }
    let store = cold_store(faulty.clone(), TierOptions { local: Some(0), ..options() });
    let mut world = World::on(store, dir).await;
    world.uploader.round().await.unwrap();
    assert!(world.places().iter().all(|place| *place == SegmentPlace::Local), "nothing is lost");
    world.uploader.round().await.unwrap();
    assert!(world.places().iter().all(|place| *place == SegmentPlace::Object));
    assert_eq!(faulty.names("segments/").await, names);
    assert!(world.read(0, 0, data.len()).await.unwrap() == data);
}
