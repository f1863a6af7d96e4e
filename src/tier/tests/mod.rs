//! Tests of the room as a whole: faults, races, a real S3 server.

mod claims;
mod copies_beside_rounds;
mod crashes;
mod damage;
mod faults;
mod gateway;
mod gateway_restores;
mod index_copies;
mod operations;
mod probes;
mod reads;
mod restores;
mod seeded;
#[path = "../../../tests/support/skips.rs"]
mod skips;
mod store;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use durable_streams_engine::store::file::segments::cold::SealedFile;
use durable_streams_engine::store::file::segments::format::{HEADER, SegmentFooter};
use durable_streams_engine::store::{FileStore, StoreError};
use object_store::ObjectStore;

use super::connect::ObjectClient;
use super::counters::TierCounters;
use super::object_cold_store::ObjectColdStore;
use super::{RetryOptions, TierEnvironment, TierOptions};

/// Options with short pauses and small blocks.
fn options() -> TierOptions {
    TierOptions {
        environment: TierEnvironment::default(),
        cache: 1 << 20,
        index_interval: Duration::ZERO,
        cache_block: 64 << 10,
        retry: RetryOptions { first_pause: Duration::from_millis(10), ..RetryOptions::default() },
        ..TierOptions::new("file:///unused".parse().unwrap())
    }
}

/// What the index knows of a segment's file.
fn sealed_file(number: u64, file: &[u8]) -> SealedFile {
    let footer = SegmentFooter::of_file(number, file).unwrap();
    let data = footer.data_end() - HEADER as u64;
    SealedFile { number, len: file.len() as u64, data, footer_crc: footer.trailer.footer_crc }
}

fn cold_store(store: Arc<dyn ObjectStore>, options: TierOptions) -> Arc<ObjectColdStore> {
    let client = ObjectClient { store, sorted: true };
    Arc::new(ObjectColdStore::new(client, options, Arc::new(TierCounters::default())))
}

/// Opens a directory that was closed just now. A process that another test begins holds its lock, too, until it runs: `fork`
/// copies descriptors.
fn reopened(open: impl Fn() -> Result<FileStore, StoreError>) -> Result<FileStore, StoreError> {
    for _ in 0..500 {
        match open() {
            Err(StoreError::Locked { .. }) => std::thread::sleep(Duration::from_millis(10)),
            opened => return opened,
        }
    }
    open()
}
