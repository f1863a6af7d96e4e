//! The whole of it: streams whose segments are objects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::store::file::segments::objects::SegmentPlace;
use durable_streams_engine::store::file::{Durability, SegmentOptions};
use durable_streams_engine::store::{
    AnyStore, FileStore, FileStoreOptions, LoadFor, Store as _, StoreError,
};
use durable_streams_engine::{Clock, Engine, EngineLimits};
use durable_streams_protocol::{
    Append, ContentType, Create, Offset, StreamId, StreamPath, Timestamp,
};
use tokio::runtime::Handle;

use super::claims::in_memory;
use super::faults::{FaultRates, FaultyStore};
use super::{cold_store, options, reopened};
use crate::tier::claim::claim;
use crate::tier::index_copies::IndexCopier;
use crate::tier::object_cold_store::ObjectColdStore;
use crate::tier::{SegmentOwner as _, SegmentUploader, Tier, TierOptions, UploadError};

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A server's store and its tier, without the server.
pub(super) struct World {
    pub(super) engine: Arc<Engine>,
    pub(super) tier: Tier,
    pub(super) uploader: SegmentUploader,
    pub(super) copier: IndexCopier,
    pub(super) dir: tempfile::TempDir,
}

pub(super) fn path(number: usize) -> StreamPath {
    StreamPath::new(&format!("s{number}")).unwrap()
}

pub(super) fn store_options(dir: &Path) -> FileStoreOptions {
    let segments = SegmentOptions {
        min: 100_000,
        keep: 0,
        size: 200_000,
        idle: Duration::ZERO,
        share: 1,
        arrays_from: 1,
        // Only when a test says so.
        interval: Duration::from_secs(1 << 20),
        ..SegmentOptions::DEFAULT
    };
    FileStoreOptions {
        durability: Durability::Os,
        segments: Some(segments),
        scrub_interval: None,
        cache: 0,
        ..FileStoreOptions::new(dir)
    }
}

fn engine(dir: &Path) -> Arc<Engine> {
    let store = AnyStore::File(reopened(|| FileStore::open(store_options(dir))).unwrap());
    Arc::new(Engine::new(store, Clock::System, EngineLimits::default()))
}

impl World {
    pub(super) async fn new(store: Arc<ObjectColdStore>) -> Self {
        let dir = in_memory();
        Self::on(store, dir).await
    }

    pub(super) async fn on(store: Arc<ObjectColdStore>, dir: tempfile::TempDir) -> Self {
        let engine = engine(dir.path());
        let claim = claim(&store, dir.path(), NOW, false).await.unwrap();
        let tier = Tier::of(store, claim, Handle::current());
        let file_store = engine.file_store().unwrap();
        file_store.read_objects_from(tier.cold_place());
        file_store.number_segments_from(tier.claim().first_segment());
        let uploader = SegmentUploader::new(tier.clone(), engine.clone());
        World { engine, tier, copier: uploader.copier(), uploader, dir }
    }

    pub(super) fn store(&self) -> &FileStore {
        self.engine.file_store().unwrap()
    }

    pub(super) async fn write(&self, number: usize, bytes: &[u8]) {
        self.engine.create(&path(number), &Create::default(), Bytes::new()).await.unwrap();
        for part in bytes.chunks(10_000) {
            let part = Bytes::copy_from_slice(part);
            self.engine.append(&path(number), &append(), part).await.unwrap();
        }
    }

    pub(super) fn seal(&self) {
        self.store().checkpoint().unwrap();
        self.store().seal().unwrap();
    }

    pub(super) fn places(&self) -> Vec<SegmentPlace> {
        let all = self.store().segments_after(None, 1000).unwrap();
        all.into_iter().map(|segment| segment.place).collect()
    }

    pub(super) fn local_files(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("segments")).map_or(0, Iterator::count)
    }

    pub(super) async fn id(&self, number: usize) -> StreamId {
        let loaded = self.store().load(&path(number), LoadFor::State).await.unwrap().unwrap();
        loaded.state.core.id
    }

    /// All bytes of a stream from `from` on, or the first error.
    pub(super) async fn read(
        &self,
        number: usize,
        from: usize,
        to: usize,
    ) -> Result<Vec<u8>, StoreError> {
        let (id, mut found) = (self.id(number).await, Vec::new());
        while from + found.len() < to {
            let (at, end) = ((from + found.len()) as u64, Offset::new(to as u64));
            let more = self.store().read(id, Offset::new(at), end, 70_000).await?;
            assert!(more.iter().any(|bytes| !bytes.is_empty()), "a read that is short");
            found.extend(more.concat());
        }
        Ok(found)
    }

    pub(super) async fn objects(&self) -> usize {
        use durable_streams_engine::store::file::segments::cold::ColdStore as _;
        self.tier.cold_store().list(&self.tier.segment_prefix(), None).await.unwrap().len()
    }
}

pub(super) fn append() -> Append {
    let content_type = Some(Ok(ContentType::parse("application/octet-stream").unwrap()));
    Append { content_type, ..Append::default() }
}

pub(super) fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251 + seed * 13) as u8).collect()
}

pub(super) fn well() -> Arc<ObjectColdStore> {
    all_cold(Arc::new(FaultyStore::new(0, FaultRates::default())))
}

/// Nothing stays on the disk.
fn all_cold(store: Arc<FaultyStore>) -> Arc<ObjectColdStore> {
    cold_store(store, TierOptions { local: Some(0), cache: 256 << 10, ..options() })
}

#[tokio::test]
async fn streams_are_read_whole_when_every_segment_is_an_object() {
    let mut world = World::new(well()).await;
    let all: Vec<Vec<u8>> = [500_000, 3, 40_000, 130_000]
        .into_iter()
        .enumerate()
        .map(|(n, len)| bytes(n, len))
        .collect();
    for (number, bytes) in all.iter().enumerate() {
        world.write(number, bytes).await;
    }
    world.seal();
    let files = world.local_files();
    assert!(files >= 3 && world.places().iter().all(|place| *place == SegmentPlace::Local));
    world.uploader.round().await.unwrap();
    assert_eq!((world.local_files(), world.objects().await), (0, files));
    assert!(world.places().iter().all(|place| *place == SegmentPlace::Object));
    for (number, bytes) in all.iter().enumerate() {
        assert!(world.read(number, 0, bytes.len()).await.unwrap() == *bytes, "stream {number}");
    }
    assert!(world.read(0, 123_456, 234_567).await.unwrap() == all[0][123_456..234_567]);
    // And after a restart.
    let World { engine, dir, tier, uploader, copier } = world;
    engine.close().await;
    drop((engine, uploader, copier));
    let world = World::on(tier.store().clone(), dir).await;
    assert!(world.read(3, 0, 130_000).await.unwrap() == all[3]);
    assert_eq!(world.tier.claim().epoch, 2);
}

#[tokio::test]
async fn local_files_go_within_a_budget_and_only_when_their_objects_are_there() {
    let store = Arc::new(FaultyStore::new(0, FaultRates::default()));
    let options = TierOptions { local: Some(450_000), ..options() };
    let mut world = World::new(cold_store(store.clone(), options)).await;
    let data = bytes(1, 800_000);
    world.write(0, &data).await;
    world.seal();
    let files = world.local_files();
    store.set_rates(FaultRates { failed: 1000, ..FaultRates::default() });
    world.uploader.round().await.unwrap_err();
    assert_eq!(world.local_files(), files);
    store.set_rates(FaultRates::default());
    world.uploader.round().await.unwrap();
    let local = world.local_files();
    assert!(local > 0 && local < files, "{local} of {files}");
    assert!(world.read(0, 0, data.len()).await.unwrap() == data);
    let places = world.places();
    assert!(
        places.iter().skip(files - local).all(|place| *place == SegmentPlace::Both),
        "the oldest go: {places:?}"
    );
}

#[tokio::test]
async fn objects_go_with_their_streams_and_what_a_crash_has_left_goes_too() {
    let mut world = World::new(well()).await;
    for number in 0..3 {
        world.write(number, &bytes(number, 150_000)).await;
    }
    world.seal();
    world.uploader.round().await.unwrap();
    let before = world.objects().await;
    world.engine.delete(&path(1)).await.unwrap();
    world.store().checkpoint().unwrap();
    world.store().maintain();
    world.uploader.round().await.unwrap();
    let after = world.objects().await;
    assert!(after < before, "{after} of {before}");
    // Uploaded, and then the server was killed before the index had it; and its segment is gone.
    let stray = world.tier.segment_name(900);
    world.tier.store().create(&stray, vec!["x".into()]).await.unwrap();
    let foreign = "segments/another-server/00000000000000000001.seg";
    world.tier.store().create(foreign, vec!["x".into()]).await.unwrap();
    world.uploader.search_now().await.unwrap();
    assert_eq!(world.objects().await, after + 1, "one search is not enough");
    world.uploader.search_now().await.unwrap();
    assert_eq!(world.objects().await, after);
    assert!(world.tier.store().small(foreign).await.unwrap().is_some());
    assert!(world.read(0, 0, 150_000).await.unwrap() == bytes(0, 150_000));
}

#[tokio::test]
async fn a_server_whose_claim_is_taken_over_leaves_all_objects_alone() {
    let mut world = World::new(well()).await;
    world.write(0, &bytes(0, 150_000)).await;
    world.seal();
    let other = tempfile::tempdir().unwrap();
    claim(world.tier.store(), other.path(), NOW, true).await.unwrap();
    assert!(matches!(world.uploader.round().await, Err(UploadError::Superseded)));
    assert_eq!(world.objects().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_refuses_cold_reads_in_time_and_nothing_else() {
    let faulty = Arc::new(FaultyStore::new(0, FaultRates::default()));
    let mut world = World::new(all_cold(faulty.clone())).await;
    let data = bytes(0, 150_000);
    world.write(0, &data).await;
    world.seal();
    world.uploader.round().await.unwrap();
    let rates = [
        FaultRates { failed: 1000, ..FaultRates::default() },
        FaultRates { forbidden: 1000, ..FaultRates::default() },
        FaultRates { silent: 1000, ..FaultRates::default() },
    ];
    for rates in rates {
        faulty.set_rates(rates);
        let began = tokio::time::Instant::now();
        let read = world.read(0, 0, data.len()).await;
        assert!(matches!(read, Err(StoreError::Cold { .. })), "{rates:?}: {read:?}");
        assert!(began.elapsed() <= TierOptions::READ_TIMEOUT, "{rates:?}");
        world.write(1, b"hot").await;
        assert_eq!(world.read(1, 0, 3).await.unwrap(), b"hot");
        world.engine.delete(&path(1)).await.unwrap();
    }
    faulty.set_rates(FaultRates::default());
    assert!(world.read(0, 0, data.len()).await.unwrap() == data);
}

#[tokio::test]
async fn an_emptied_bucket_is_no_lost_segment() {
    let bucket = tempfile::tempdir().unwrap();
    let location = url::Url::from_file_path(bucket.path().canonicalize().unwrap()).unwrap();
    let options = TierOptions {
        location: location.to_string().parse().unwrap(),
        local: Some(0),
        cache: 0,
        ..options()
    };
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let tier = Tier::open(options, dir.path(), NOW, false, Handle::current()).await.unwrap();
    engine.file_store().unwrap().read_objects_from(tier.cold_place());
    let uploader = SegmentUploader::new(tier.clone(), engine.clone());
    let mut world = World { engine, tier, copier: uploader.copier(), uploader, dir };
    let data = bytes(0, 150_000);
    world.write(0, &data).await;
    world.seal();
    world.uploader.round().await.unwrap();
    let away = bucket.path().with_extension("away");
    std::fs::rename(bucket.path(), &away).unwrap();
    assert!(matches!(world.read(0, 0, 10).await, Err(StoreError::Cold { .. })));
    std::fs::rename(&away, bucket.path()).unwrap();
    assert!(world.read(0, 0, data.len()).await.unwrap() == data);
    std::fs::remove_dir_all(bucket.path().join("segments")).unwrap();
    assert!(matches!(world.read(0, 0, 10).await, Err(StoreError::Corrupt { .. })));
}

/// Streams that are written, sealed, moved and deleted while the object store fails.
async fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let rates = FaultRates { stored_wrong: 50, forbidden: 20, ..FaultRates::PASSING };
    let faulty = Arc::new(FaultyStore::new(seed, FaultRates::default()));
    let mut world = World::new(all_cold(faulty.clone())).await;
    faulty.set_rates(rates);
    let mut streams: Vec<Vec<u8>> = Vec::new();
    let mut deleted = Vec::new();
    for _ in 0..random.usize(2..5) {
        let data = bytes(seed as usize + streams.len(), random.usize(1..250_000));
        world.write(streams.len(), &data).await;
        streams.push(data);
        world.seal();
        let _ = world.uploader.round().await;
        let at = random.usize(0..streams.len());
        if !deleted.contains(&at) {
            let data = &streams[at];
            let from = random.usize(0..data.len());
            if let Ok(found) = world.read(at, from, data.len()).await {
                assert!(found == data[from..], "seed {seed}: other bytes");
            }
            if random.u8(0..4) == 0 {
                world.engine.delete(&path(at)).await.unwrap();
                deleted.push(at);
            }
        }
    }
    faulty.set_rates(FaultRates::default());
    world.store().checkpoint().unwrap();
    world.store().maintain();
    // One that was left wrong is deleted and done again.
    for _ in 0..3 {
        let _ = world.uploader.round().await;
    }
    world.uploader.round().await.unwrap();
    for _ in 0..2 {
        world.uploader.search_now().await.unwrap();
    }
    for (at, data) in streams.iter().enumerate().filter(|(at, _)| !deleted.contains(at)) {
        let found = world.read(at, 0, data.len()).await;
        assert!(found.as_ref().ok() == Some(data), "seed {seed}: {:?}", found.err());
    }
    let segments = world.places();
    assert!(
        segments.iter().all(|place| *place == SegmentPlace::Object),
        "seed {seed}: {segments:?}"
    );
    assert_eq!(world.objects().await, segments.len(), "seed {seed}");
    world.engine.close().await;
}

#[tokio::test(start_paused = true)]
async fn no_byte_is_lost_or_changed_whatever_the_store_does() {
    for seed in 0..60 {
        run(seed).await;
    }
}
