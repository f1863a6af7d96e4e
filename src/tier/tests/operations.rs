//! What an operator sees and pays: what is counted, and what leaves the object store.

use std::sync::Arc;
use std::time::Duration;

use durable_streams_engine::store::file::segments::objects::SegmentPlace;

use super::faults::{FaultRates, FaultyStore};
use super::store::{World, bytes, path, well};
use super::{cold_store, options};
use crate::tier::{BacklogTotals, TierOperation, TierOptions};

#[tokio::test]
async fn what_waits_for_its_upload_is_counted_also_while_the_object_store_is_down() {
    let store = Arc::new(FaultyStore::new(0, FaultRates::default()));
    let mut world = World::new(cold_store(store.clone(), options())).await;
    world.write(0, &bytes(1, 500_000)).await;
    world.seal();
    let (files, counters) = (world.local_files() as u64, world.tier.clone());
    let counters = counters.counters();
    store.set_rates(FaultRates { failed: 1000, ..FaultRates::default() });
    world.uploader.round().await.unwrap_err();
    let totals = counters.backlog.totals();
    assert_eq!(totals.segments, files);
    assert!(totals.bytes >= 500_000, "{totals:?}");
    let failed: u64 = TierOperation::ALL
        .iter()
        .flat_map(|operation| counters.requests(*operation).by_outcome())
        .filter_map(|(result, count)| (result == "unavailable").then_some(count))
        .sum();
    assert!(failed > 0);
    store.set_rates(FaultRates::default());
    world.uploader.round().await.unwrap();
    assert_eq!(counters.backlog.totals(), BacklogTotals::default());
    assert_eq!(counters.uploads.get(), files);
    // Reads of what is local make no request.
    assert!(world.read(0, 0, 500_000).await.is_ok());
    assert_eq!(counters.reads.by_outcome().map(|(_, count)| count).sum::<u64>(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_no_stream_needs_leaves_objects_though_others_share_them() {
    let mut world = World::new(well()).await;
    for number in 0..4 {
        world.write(number, &bytes(number, 10_000)).await;
    }
    world.seal();
    world.uploader.round().await.unwrap();
    assert_eq!((world.objects().await, world.local_files()), (1, 0));
    let before = world.store().segments_after(None, 10).unwrap()[0];
    for number in 0..3 {
        world.engine.delete(&path(number)).await.unwrap();
    }
    world.store().checkpoint().unwrap();
    world.store().maintain();
    // Fetched, rewritten, and its object deleted; what is left is uploaded and leaves the disk again.
    world.uploader.round().await.unwrap();
    assert_eq!(world.places(), [SegmentPlace::Object], "not more often than each minute");
    tokio::time::advance(Duration::from_secs(60)).await;
    world.uploader.round().await.unwrap();
    assert_eq!(world.places(), [SegmentPlace::Both]);
    world.uploader.round().await.unwrap();
    assert_eq!(world.places(), [SegmentPlace::Both], "it stays until it is rewritten");
    world.store().seal().unwrap();
    world.uploader.round().await.unwrap();
    let [after] = world.store().segments_after(None, 10).unwrap()[..] else { panic!("one") };
    assert_eq!((after.place, after.live, after.data), (SegmentPlace::Object, 10_000, 10_000));
    assert!(after.number > before.number, "{after:?}");
    assert_eq!((world.objects().await, world.local_files()), (1, 0));
    assert!(world.read(3, 0, 10_000).await.unwrap() == bytes(3, 10_000));
}

/// docs/operations.md, "The bill".
#[tokio::test]
async fn an_upload_and_a_replay_make_as_many_requests_as_the_bill_says() {
    let store = Arc::new(FaultyStore::new(0, FaultRates::default()));
    let options = TierOptions { local: Some(0), ..options() };
    let mut world = World::new(cold_store(store, options.clone())).await;
    let data = bytes(1, 500_000);
    world.write(0, &data).await;
    world.seal();
    let requests = |world: &World, operation| -> u64 {
        let counters = world.tier.counters().requests(operation);
        counters.by_outcome().map(|(_, count)| count).sum()
    };
    let of_all = |world: &World| TierOperation::ALL.map(|operation| requests(world, operation));
    let before = of_all(&world);
    world.uploader.round().await.unwrap();
    let uploaded = of_all(&world);
    let segments = world.store().segments_after(None, 1000).unwrap();
    let objects = segments.len() as u64;
    // An object of less than 8 MiB is read back by one request, and looked for by one before its file is removed. One more
    // looks at the claim.
    let grown = |from: &[u64; 5], to: &[u64; 5]| -> Vec<u64> {
        from.iter().zip(to).map(|(from, to)| to - from).collect()
    };
    assert_eq!(grown(&before, &uploaded), [2 * objects + 1, objects, objects, 0, 0]);
    assert!(world.read(0, 0, data.len()).await.unwrap() == data);
    let blocks: u64 =
        segments.iter().map(|segment| segment.data.div_ceil(options.cache_block as u64)).sum();
    let replayed = of_all(&world);
    let made = grown(&uploaded, &replayed);
    let gets = made[0];
    // Blocks that are beside each other come in one.
    assert!(gets > objects && gets <= objects + blocks, "{gets} of {objects} and {blocks}");
    assert_eq!(made[1..], [0; 4]);
    assert!(world.read(0, 0, data.len()).await.unwrap() == data);
    assert_eq!(of_all(&world), replayed, "it is in memory now");
}
