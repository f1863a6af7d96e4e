//! Thousands of runs with faults: no wrong byte is ever served, and no read is ever short.

use std::sync::Arc;

use bytes::Bytes;
use durable_streams_engine::store::file::segments::cold::{ColdError, ColdSegments as _};
use durable_streams_engine::store::file::segments::format::{HEADER, SegmentWriter, number_of};
use tokio::runtime::Handle;

use super::faults::{FaultRates, FaultyStore};
use super::{cold_store, options, sealed_file};
use crate::tier::SegmentReader;

const SEEDS: u64 = 4000;

/// What a run has come to.
#[derive(Debug, Default)]
struct Tally {
    uploaded: u32,
    upload_failed: u32,
    read: u32,
    read_failed: u32,
}

/// A segment of random length: within a block, at its edges, or several.
fn segment(random: &mut fastrand::Rng, number: u64) -> Vec<u8> {
    let len = match random.u8(0..4) {
        0 => random.usize(1..200),
        1 => (64 << 10) - 1 + random.usize(0..3),
        2 => random.usize(1..100 << 10),
        _ => random.usize(100 << 10..300 << 10),
    };
    let data: Vec<u8> =
        (0..len).map(|at| (at / 7) as u8 ^ number as u8 ^ (at >> 9) as u8).collect();
    SegmentWriter::file(number, &[(1, 0, &[], &data)])
}

async fn run(seed: u64, tally: &mut Tally) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rates = FaultRates::PASSING;
    if seed.is_multiple_of(3) {
        rates.forbidden = 30;
    }
    if seed.is_multiple_of(5) {
        rates.stored_wrong = 100;
    }
    let faulty = Arc::new(FaultyStore::new(seed, rates));
    let mut options = options();
    // Room for nothing, for a part, for all.
    options.cache = [0, 150 << 10, 4 << 20][random.usize(0..3)];
    options.cache_block = [64 << 10, 128 << 10][random.usize(0..2)];
    let store = cold_store(faulty.clone(), options);
    let reader = SegmentReader::new(store.clone(), Handle::current());
    let mut uploaded = Vec::new();
    for number in 1..=random.u64(1..3) {
        let (name, bytes) = (format!("segments/a/{number:020}.seg"), segment(&mut random, number));
        match store.create(&name, vec![Bytes::from(bytes.clone())]).await {
            Ok(()) => {
                tally.uploaded += 1;
                assert_eq!(
                    faulty.whole(&name).await.as_deref(),
                    Some(&bytes[..]),
                    "seed {seed}: verified"
                );
                uploaded.push((name, bytes));
            }
            Err(error) => {
                tally.upload_failed += 1;
                assert_ne!(error, ColdError::NotFound, "seed {seed}");
            }
        }
    }
    if uploaded.is_empty() {
        return;
    }
    for _ in 0..8 {
        let (name, bytes) = &uploaded[random.usize(0..uploaded.len())];
        let number = number_of(name.rsplit('/').next().unwrap()).unwrap();
        let file = sealed_file(number, bytes);
        let end = HEADER as u64 + file.data;
        let from = random.u64(HEADER as u64..end);
        let range = from..random.u64(from..end) + 1;
        let wanted = &bytes[range.start as usize..range.end as usize];
        match reader.get_segment(name, file, range.clone()).await {
            Ok(found) => {
                tally.read += 1;
                assert!(found == wanted, "seed {seed}: other bytes at {range:?}");
            }
            Err(error) => {
                tally.read_failed += 1;
                assert_ne!(error, ColdError::NotFound, "seed {seed}: reported as lost");
            }
        }
    }
    // When the store has recovered, everything is there.
    faulty.set_rates(FaultRates::default());
    for (name, bytes) in &uploaded {
        let number = number_of(name.rsplit('/').next().unwrap()).unwrap();
        let first = HEADER as u64..HEADER as u64 + 1;
        let found = reader.get_segment(name, sealed_file(number, bytes), first).await;
        assert_eq!(found.as_deref(), Ok(&bytes[HEADER..=HEADER]), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_wrong_byte_and_no_short_read_whatever_the_store_does() {
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        run(seed, &mut tally).await;
    }
    // Faults happened, and most were overcome.
    assert!(tally.uploaded > tally.upload_failed && tally.upload_failed > 50, "{tally:?}");
    assert!(tally.read > 10 * tally.read_failed && tally.read_failed > 50, "{tally:?}");
}

#[tokio::test]
async fn every_flipped_bit_of_an_object_is_found() {
    let data: Vec<u8> = (0..70_000_u32).map(|at| (at % 251) as u8).collect();
    let file =
        SegmentWriter::file(9, &[(1, 0, &[], &data[..60_000]), (2, 5, &[3], &data[60_000..])]);
    let name = "segments/a/00000000000000000009.seg";
    let data_range = HEADER as u64..HEADER as u64 + data.len() as u64;
    let mut random = fastrand::Rng::with_seed(7);
    // Every byte of the footer and the trailer, and some of the data; the header is not read.
    let mut places: Vec<usize> = (HEADER + data.len()..file.len()).collect();
    places.extend((0..40).map(|_| random.usize(HEADER..data.len())));
    for at in places {
        let mut changed = file.clone();
        changed[at] ^= 1 << random.u8(0..8);
        let store = cold_store(Arc::new(FaultyStore::new(0, FaultRates::default())), options());
        store.create(name, vec![changed.into()]).await.unwrap();
        let reader = SegmentReader::new(store, Handle::current());
        let read = reader.get_segment(name, sealed_file(9, &file), data_range.clone()).await;
        assert!(
            matches!(read, Err(ColdError::Damaged(_))),
            "byte {at}: {:?}",
            read.map(|b| b.len())
        );
    }
}
