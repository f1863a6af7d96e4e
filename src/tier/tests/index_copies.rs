//! Copies of the index: whatever is interrupted, the last ones are whole, and objects go once no copy needs them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::store::file::Destination;
use durable_streams_engine::store::file::segments::cold::ColdStore as _;
use durable_streams_engine::store::{LoadFor, Store as _};
use durable_streams_protocol::Timestamp;

use super::claims::in_memory;
use super::faults::{FaultRates, FaultyStore};
use super::restores::{copies, faulty, restore, restored, with_copies};
use super::store::{World, bytes, path};
use super::{cold_store, options};
use crate::tier::object_cold_store::ObjectColdStore;
use crate::tier::{CopyError, TierCopies, TierOperation};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const MAP: usize = 1 << 30;

/// A crash, or an object store that goes down, after each single change.
#[tokio::test(start_paused = true)]
async fn whatever_step_is_interrupted_a_whole_copy_is_there() {
    let mut whole = false;
    for changes in 0.. {
        assert!(changes < 100, "it never ends");
        let faulty = faulty();
        let store = with_copies(faulty.clone());
        let mut world = World::new(store.clone()).await;
        world.write(0, &bytes(0, 250_000)).await;
        world.seal();
        world.copier.copy_now().await.unwrap();
        world.write(1, &bytes(1, 120_000)).await;
        world.copier.copy_now().await.unwrap();
        world.engine.delete(&path(1)).await.unwrap();
        world.write(2, &bytes(2, 120_000)).await;
        world.seal();
        faulty.down_after(Some(changes));
        let copied = world.copier.copy_now().await;
        let uploaded = world.uploader.round().await;
        faulty.down_after(None);
        let again = restored(&store).await;
        let names = again.store().list(None, 10).await.unwrap();
        assert!(again.read(0, 0, 250_000).await.unwrap() == bytes(0, 250_000));
        assert_eq!(names.len(), 2, "{changes}: {names:?}");
        if names.contains(&path(2)) {
            assert!(again.read(2, 0, 120_000).await.unwrap() == bytes(2, 120_000), "{changes}");
            whole = true;
        } else {
            assert!(copied.is_err(), "{changes}: a copy that was made is not used");
            assert!(again.read(1, 0, 120_000).await.unwrap() == bytes(1, 120_000), "{changes}");
        }
        if copied.is_ok() && uploaded.is_ok() {
            break;
        }
    }
    assert!(whole);
}

#[tokio::test]
async fn an_object_stays_while_a_kept_copy_may_reference_it() {
    let store = with_copies(faulty());
    let mut world = World::new(store.clone()).await;
    for number in 0..2 {
        world.write(number, &bytes(number, 150_000)).await;
    }
    world.seal();
    world.copier.copy_now().await.unwrap();
    let objects = world.objects().await;
    world.engine.delete(&path(0)).await.unwrap();
    world.store().checkpoint().unwrap();
    world.store().maintain();
    for later in 0..2 {
        world.uploader.round().await.unwrap();
        for _ in 0..2 {
            world.uploader.search_now().await.unwrap();
        }
        assert_eq!(world.objects().await, objects, "after {later} copies");
        world.copier.copy_now().await.unwrap();
    }
    assert_eq!(copies(&store).await.len(), 2, "the others are deleted");
    world.uploader.round().await.unwrap();
    assert!(world.objects().await < objects);
    let again = restored(&store).await;
    assert!(again.read(1, 0, 150_000).await.unwrap() == bytes(1, 150_000));
    // A start finds the copies that are there, and what an interrupted one has left.
    let interrupted = format!("index/{:020}-{:020}/0000000000.mdb", again.tier.claim().epoch, 9);
    store.create(&interrupted, vec![Bytes::from_static(b"half")]).await.unwrap();
    let World { engine, dir, tier, uploader, copier } = again;
    engine.close().await;
    drop((engine, tier, uploader, copier));
    let mut again = World::on(store.clone(), dir).await;
    again.uploader.round().await.unwrap();
    again.copier.copy_now().await.unwrap();
    assert_eq!(copies(&store).await.len(), 2);
    assert_eq!(store.list("index/", None).await.unwrap().len(), 4, "two parts and manifests");
}

#[tokio::test(start_paused = true)]
async fn while_nothing_happens_there_is_no_copy_unless_the_last_one_is_gone() {
    let store = with_copies(faulty());
    let mut world = World::new(store.clone()).await;
    world.write(0, b"something").await;
    let age = |world: &World| world.tier.counters().index_age.get();
    tokio::time::advance(Duration::from_secs(100)).await;
    assert!(age(&world) >= Duration::from_secs(100), "since the start");
    world.copier.copy_unless_idle().await.unwrap();
    let first = copies(&store).await;
    tokio::time::advance(Duration::from_secs(100)).await;
    world.copier.copy_unless_idle().await.unwrap();
    assert_eq!((copies(&store).await, first.len()), (first.clone(), 1));
    assert!(age(&world) < Duration::from_secs(50), "a restore would lack nothing");
    store.delete(&format!("index/{}.json", first[0])).await.unwrap();
    world.copier.copy_unless_idle().await.unwrap();
    let second = copies(&store).await;
    assert!(second.len() == 1 && second != first, "{second:?}");
    world.write(1, b"more").await;
    world.copier.copy_unless_idle().await.unwrap();
    assert_eq!(copies(&store).await.len(), 2);
}

#[tokio::test]
async fn without_copies_those_that_are_there_go() {
    let faulty = faulty();
    let store = with_copies(faulty.clone());
    let mut world = World::new(store.clone()).await;
    world.write(0, b"something").await;
    for _ in 0..3 {
        world.copier.copy_now().await.unwrap();
    }
    assert_eq!(copies(&store).await.len(), 2);
    let World { engine, dir, tier, uploader, copier } = world;
    engine.close().await;
    drop((engine, tier, uploader, copier));
    let off = cold_store(faulty.clone(), options());
    let mut world = World::on(off, dir).await;
    world.copier.copy_if_due(NOW).await.unwrap();
    assert_eq!(store.list("index/", None).await.unwrap(), []);
    let dir = in_memory();
    assert!(matches!(restore(&store, dir.path()).await, Err(CopyError::Gone)));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}

#[tokio::test]
async fn a_copy_is_sent_in_parts_and_costs_what_the_bill_says() {
    let faulty = faulty();
    let store = with_copies(faulty.clone());
    let mut world = World::new(store.clone()).await;
    world.copier.copy_in_parts_of(8 << 10);
    let requests = |world: &World| {
        let counters = world.tier.counters();
        TierOperation::ALL.map(|operation| -> u64 {
            counters.requests(operation).by_outcome().map(|(_, count)| count).sum()
        })
    };
    let mut parts = Vec::new();
    for round in 0..3 {
        world.write(round, &bytes(round, 100 + 90_000 * round)).await;
        world.uploader.round().await.unwrap();
        let before = requests(&world);
        world.copier.copy_now().await.unwrap();
        let after = requests(&world);
        let copy = TierCopies::of(store.clone()).manifest(copies(&store).await[0]).await.unwrap();
        let made = copy.bytes.div_ceil(8 << 10);
        assert!(made > 1, "{copy:?}");
        let gone = parts.len().checked_sub(2).map(|at| -> u64 { parts[at] });
        parts.push(made);
        let grown: Vec<u64> = before.iter().zip(after).map(|(from, to)| to - from).collect();
        // The manifest is read back, and the claim looked at twice. The first copy looks for others.
        let lists = if round == 0 { 1 } else { gone.map_or(0, |_| 2) };
        assert_eq!(grown, [made + 3, made, made + 1, lists, gone.map_or(0, |parts| parts + 1)]);
    }
    assert_eq!(faulty.largest_part(), 8 << 10, "no more is in memory");
    let mut again = restored(&store).await;
    assert!(again.read(2, 0, 180_100).await.unwrap() == bytes(2, 180_100));
    again.uploader.round().await.unwrap();
}

/// Every copy that is there has all of its segments, of the newest `most`.
async fn all_are_whole(store: &Arc<ObjectColdStore>, seed: u64, most: usize) -> usize {
    let (copies, mut whole) = (TierCopies::of(store.clone()), 0);
    for name in copies.newest_first().await.unwrap().into_iter().take(most) {
        let copy = copies.manifest(name).await.unwrap();
        let dir = in_memory();
        let to = Destination::prepare(dir.path()).unwrap();
        let file = to.index_file().unwrap();
        match copies.fetch(&copy, &file, &mut |_| {}).await {
            // Its deletion was interrupted, or its manifest came late.
            Err(CopyError::Gone) => continue,
            fetched => fetched.unwrap(),
        }
        let index = to.open_index(MAP).unwrap();
        let segments = index.segments_after(None, usize::MAX).unwrap();
        let missing = copies.missing(&copy, &segments).await.unwrap();
        assert!(missing.is_empty(), "seed {seed}: {name} lacks {missing:?}");
        whole += 1;
    }
    whole
}

/// Streams that are written, sealed, trimmed and deleted, and segments that are rewritten, between copies that are made,
/// fail or are cut off by the end of the server: an object goes only once no copy needs it, and then it goes.
async fn run(seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let faulty = Arc::new(FaultyStore::new(seed, FaultRates::default()));
    let store = with_copies(faulty.clone());
    let mut world = World::new(store.clone()).await;
    let mut streams: Vec<Option<Vec<u8>>> = Vec::new();
    let (mut checked, mut most) = (0, usize::MAX);
    for _ in 0..14 {
        match random.u8(0..12) {
            0..3 => {
                let data = bytes(seed as usize + streams.len(), random.usize(1..200_000));
                world.write(streams.len(), &data).await;
                streams.push(Some(data));
            }
            3 => {
                let at = random.usize(0..streams.len().max(1));
                if streams.get_mut(at).and_then(Option::take).is_some() {
                    world.engine.delete(&path(at)).await.unwrap();
                    world.store().checkpoint().unwrap();
                    world.store().maintain();
                }
            }
            4 => world.seal(),
            5 => {
                let _ = world.uploader.round().await;
                let _ = world.uploader.search_now().await;
            }
            6 => {
                faulty.down_after(Some(random.u32(0..8)));
                let _ = world.copier.copy_now().await;
                let _ = world.uploader.round().await;
                faulty.down_after(None);
            }
            8 => {
                // Requests that are not answered take effect later; so a copy that was deleted may come back.
                most = 2;
                let late = FaultRates { late_put: 150, late_delete: 150, ..FaultRates::PASSING };
                faulty.set_rates(late);
                let _ = world.copier.copy_now().await;
                let _ = world.uploader.round().await;
                faulty.set_rates(FaultRates::default());
            }
            9 => tokio::time::sleep(Duration::from_secs(60)).await,
            7 => {
                // Ends in the midst of it.
                faulty.set_delay(Duration::from_millis(10));
                let time = Duration::from_millis(random.u64(0..150));
                let _ = tokio::time::timeout(time, world.copier.copy_now()).await;
                faulty.set_delay(Duration::ZERO);
                let World { engine, dir, tier, uploader, copier } = world;
                engine.close().await;
                drop((tier, uploader, copier));
                while Arc::strong_count(&engine) > 1 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                drop(engine);
                world = World::on(store.clone(), dir).await;
            }
            _ => {
                world.copier.copy_now().await.unwrap();
                world.uploader.round().await.unwrap();
            }
        }
        checked += all_are_whole(&store, seed, most).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.seal();
    // What no stream has leaves the object store: two searches find what ends of the server have left.
    for _ in 0..4 {
        world.uploader.round().await.unwrap();
        world.uploader.search_now().await.unwrap();
        world.copier.copy_now().await.unwrap();
    }
    world.uploader.round().await.unwrap();
    assert_eq!(world.objects().await, world.places().len(), "seed {seed}");
    assert_eq!(all_are_whole(&store, seed, 2).await, 2);
    let again = restored(&store).await;
    for (at, data) in streams.iter().enumerate() {
        let loaded = again.store().load(&path(at), LoadFor::State).await.unwrap();
        assert_eq!(loaded.is_some(), data.is_some(), "seed {seed}: stream {at}");
        if let Some(data) = data {
            let found = again.read(at, 0, data.len()).await;
            assert!(found.as_ref().ok() == Some(data), "seed {seed}: {:?}", found.err());
        }
    }
    checked
}

#[tokio::test(start_paused = true)]
async fn an_object_goes_only_once_no_copy_needs_it_whatever_is_interrupted() {
    let mut checked = 0;
    for seed in 0..20 {
        checked += run(seed).await;
    }
    assert!(checked > 100, "{checked}");
}
