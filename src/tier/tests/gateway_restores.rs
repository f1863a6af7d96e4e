//! A lost data directory, built again from a real S3 server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::gateway::Gateway;
use super::restores::restore;
use super::store::{World, append, bytes, path};
use crate::tier::TierOptions;
use crate::tier::connect::connect;
use crate::tier::counters::TierCounters;
use crate::tier::object_cold_store::ObjectColdStore;

/// Written, sealed, uploaded and copied; the directory is lost and built again from the bucket, goes on, and is lost again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_directory_is_built_again_from_an_s3_server() {
    let Some(gateway) = Gateway::start() else { return };
    let day = Duration::from_secs(24 * 3600);
    let options = TierOptions {
        index_interval: day,
        local: Some(0),
        read_timeout: Duration::from_secs(20),
        ..gateway.options("s3://bucket/lost")
    };
    let client = connect(&options).unwrap();
    let store = Arc::new(ObjectColdStore::new(client, options, Arc::new(TierCounters::default())));
    let mut world = World::new(store.clone()).await;
    for round in 0..3 {
        world.copier.copy_in_parts_of(32 << 10);
        // Sealed and an object, sealed and copied before it is one, and in the index only.
        world.write(10 * round, &bytes(10 * round, 250_000)).await;
        world.seal();
        world.uploader.round().await.unwrap();
        world.write(10 * round + 1, &bytes(10 * round + 1, 120_000)).await;
        world.seal();
        world.write(10 * round + 2, &bytes(10 * round + 2, 70)).await;
        world.copier.copy_now().await.unwrap();
        world.write(900 + round, b"after the copy").await;
        drop(world);
        let dir = tempfile::tempdir().unwrap();
        let (_, missing) = restore(&store, dir.path()).await.unwrap();
        assert!(missing.is_empty(), "{missing:?}");
        world = World::on(store.clone(), dir).await;
        for stream in (0..=round).map(|round| 10 * round) {
            for (number, len) in [(stream, 250_000), (stream + 1, 120_000), (stream + 2, 70)] {
                let found = world.read(number, 0, len).await.unwrap();
                assert!(found == bytes(number, len), "stream {number} after {round}");
            }
        }
        // A stream of before is written on.
        let more = Bytes::from_static(b"more");
        world.engine.append(&path(10 * round), &append(), more).await.unwrap();
        assert!(world.read(10 * round, 250_000, 250_004).await.unwrap() == b"more");
    }
}
