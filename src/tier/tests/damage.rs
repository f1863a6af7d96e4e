//! Segments whose local files or records are damaged: what an object has is neither lost nor replaced by damage.

use std::path::PathBuf;
use std::sync::Arc;

use durable_streams_engine::store::StoreError;
use durable_streams_engine::store::file::offline;
use durable_streams_engine::store::file::segments::objects::SegmentPlace;
use durable_streams_protocol::Timestamp;

use super::faults::{FaultRates, FaultyStore};
use super::store::{World, bytes, store_options, well};
use super::{cold_store, options};
use crate::tier::object_cold_store::ObjectColdStore;
use crate::tier::{Tier, TierLocation, TierOptions};

/// Everything stays on the disk, too.
fn both() -> Arc<ObjectColdStore> {
    cold_store(Arc::new(FaultyStore::new(0, FaultRates::default())), options())
}

/// Changes a byte of a segment's data.
fn damage(world: &World, number: u64) -> PathBuf {
    let path = world.store().segment_path(number);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    path
}

fn numbers(world: &World) -> Vec<u64> {
    let all = world.store().segments_after(None, 1000).unwrap();
    all.into_iter().map(|segment| segment.number).collect()
}

/// A store whose server has stopped, opened again.
async fn again(world: World, between: impl FnOnce(&std::path::Path)) -> World {
    let World { engine, dir, tier, uploader, copier } = world;
    engine.close().await;
    drop((engine, uploader, copier));
    between(dir.path());
    World::on(tier.store().clone(), dir).await
}

#[tokio::test]
async fn a_local_file_that_is_damaged_or_missing_is_read_from_its_object() {
    let mut world = World::new(both()).await;
    let data = bytes(1, 500_000);
    world.write(0, &data).await;
    world.seal();
    world.uploader.round().await.unwrap();
    assert!(world.places().iter().all(|place| *place == SegmentPlace::Both));
    let [first, second, ..] = numbers(&world)[..] else { panic!("two segments") };
    damage(&world, first);
    std::fs::remove_file(world.store().segment_path(second)).unwrap();
    assert!(world.read(0, 0, data.len()).await.unwrap() == data);
    // What is damaged is left to the object store, and nothing is dropped.
    let world = again(world, |dir| {
        let found = offline::repair_index(&store_options(dir), true, &mut |_| {}).unwrap().unwrap();
        assert_eq!((found.lost, found.rewritten), (Vec::new(), vec!["segment_files"]));
        let report = offline::verify(&store_options(dir), &mut |_| {}).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    })
    .await;
    assert_eq!(world.places()[..2], [SegmentPlace::Object; 2]);
    assert!(world.places()[2..].iter().all(|place| *place == SegmentPlace::Both));
    assert!(!world.store().segment_path(first).exists(), "the start removes it");
    assert!(world.read(0, 0, data.len()).await.unwrap() == data);
}

#[tokio::test]
async fn a_damaged_segment_is_not_uploaded_and_the_others_are() {
    let mut world = World::new(well()).await;
    let data = bytes(1, 500_000);
    world.write(0, &data).await;
    world.seal();
    let numbers = numbers(&world);
    let path = damage(&world, numbers[0]);
    for _ in 0..2 {
        world.uploader.round().await.unwrap();
        assert_eq!(world.objects().await, numbers.len() - 1);
        assert_eq!(world.places()[0], SegmentPlace::Local);
    }
    assert!(path.exists());
    assert!(matches!(world.read(0, 0, data.len()).await, Err(StoreError::Corrupt { .. })));
    let last = data.len() - 100_000;
    assert!(world.read(0, last, data.len()).await.unwrap() == data[last..]);
}

/// A damaged key hides the record of a segment that is an object only.
#[tokio::test]
async fn an_object_whose_record_is_hidden_stays_and_repair_writes_the_record_again() {
    let mut world = World::new(well()).await;
    let data = bytes(1, 500_000);
    world.write(0, &data).await;
    world.seal();
    world.uploader.round().await.unwrap();
    let (hidden, objects) = (numbers(&world)[1], world.objects().await);
    let mut world = again(world, |dir| {
        let index = dir.join("store/data.mdb");
        let mut bytes = std::fs::read(&index).unwrap();
        // The size of the value, 33 bytes, and of the key.
        let node = [&[33, 0, 0, 0, 0, 0, 8, 0][..], &hidden.to_be_bytes()].concat();
        let places: Vec<_> =
            (0..bytes.len() - node.len()).filter(|at| bytes[*at..].starts_with(&node)).collect();
        assert!(!places.is_empty());
        places.iter().for_each(|at| bytes[at + 15] |= 0x80);
        std::fs::write(&index, bytes).unwrap();
    })
    .await;
    for _ in 0..3 {
        world.uploader.search_now().await.unwrap();
    }
    assert_eq!(world.objects().await, objects, "nothing is deleted");
    assert!(matches!(world.read(0, 0, data.len()).await, Err(StoreError::Corrupt { .. })));
    let world = again(world, |dir| {
        let found = offline::repair_index(&store_options(dir), true, &mut |_| {}).unwrap().unwrap();
        assert_eq!((found.lost, found.rewritten), (Vec::new(), vec!["segment_files"]));
    })
    .await;
    assert!(world.read(0, 0, data.len()).await.unwrap() == data);
}

#[tokio::test]
async fn what_an_interrupted_write_has_left_in_a_directory_goes() {
    let (bucket, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let location = url::Url::from_file_path(bucket.path().canonicalize().unwrap()).unwrap();
    let location: TierLocation = location.to_string().parse().unwrap();
    let start = async || {
        let options = TierOptions { location: location.clone(), ..options() };
        let runtime = tokio::runtime::Handle::current();
        let now = Timestamp::from_millis(1_800_000_000_000);
        Tier::open(options, dir.path(), now, false, runtime).await.unwrap()
    };
    let identity = start().await.claim().identity.clone();
    let own = format!("segments/{identity}");
    for folder in [&own, "segments/other"] {
        std::fs::create_dir_all(bucket.path().join(folder)).unwrap();
    }
    let files = [
        format!("{own}/00000000000000000001.seg#1"),
        format!("{own}/00000000000000000001.seg"),
        format!("{own}/a#b"),
        "segments/other/00000000000000000001.seg#1".to_owned(),
        "claim/00000000000000000009#2".to_owned(),
    ];
    files.iter().for_each(|file| std::fs::write(bucket.path().join(file), "x").unwrap());
    start().await;
    let there = files.map(|file| bucket.path().join(file).exists());
    assert_eq!(there, [false, true, true, true, true]);
}
