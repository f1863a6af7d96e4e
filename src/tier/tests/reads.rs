//! How segments are read: few requests, in time, verified.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::store::MessageForm;
use durable_streams_engine::store::file::segments::cold::{
    ColdError, ColdSegments as _, SealedFile,
};
use durable_streams_engine::store::file::segments::format::{HEADER, SegmentWriter};
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::faults::{FaultRates, FaultyStore};
use super::{cold_store, options, sealed_file};
use crate::tier::{SegmentReader, TierOptions};

const NAME: &str = "segments/a/00000000000000000001.seg";

const BLOCK: u64 = 64 << 10;

/// The file of a segment of so many bytes of data.
fn segment(len: usize) -> (Vec<u8>, Vec<u8>) {
    let data: Vec<u8> = (0..len).map(|at| (at / 3) as u8 ^ (at >> 11) as u8).collect();
    let file = SegmentWriter::file(1, &[(1, 0, &[], &data)]);
    (file, data)
}

/// A reader of one segment.
struct OneSegment {
    reader: SegmentReader,
    file: SealedFile,
}

impl std::ops::Deref for OneSegment {
    type Target = SegmentReader;

    fn deref(&self) -> &SegmentReader {
        &self.reader
    }
}

/// A segment of so many bytes of data, and a reader of it.
async fn stored(len: usize, options: TierOptions) -> (Arc<FaultyStore>, OneSegment, Vec<u8>) {
    let (file, data) = segment(len);
    let sealed = sealed_file(1, &file);
    let faulty = Arc::new(FaultyStore::new(0, FaultRates::default()));
    let store = cold_store(faulty.clone(), options);
    store.create(NAME, vec![Bytes::from(file)]).await.unwrap();
    let reader = SegmentReader::new(store, Handle::current());
    (faulty, OneSegment { reader, file: sealed }, data)
}

async fn read(one: &OneSegment, from: u64, len: u64) -> Result<Bytes, ColdError> {
    let from = HEADER as u64 + from;
    one.get_segment(NAME, one.file, from..from + len).await
}

#[tokio::test]
async fn many_readers_of_one_range_make_one_request_for_its_blocks() {
    let (faulty, reader, data) = stored(300_000, options()).await;
    let before = faulty.gets();
    let all = join_all((0..50).map(|_| read(&reader, 100_000, 50_000))).await;
    assert!(all.iter().all(|found| found.as_ref().unwrap() == &data[100_000..150_000]));
    // The footer, and two blocks at once.
    assert_eq!(faulty.gets() - before, 2);
    let hits = reader.counters().cache_hits.get();
    read(&reader, 66_000, 80_000).await.unwrap();
    assert_eq!(faulty.gets() - before, 2);
    assert_eq!(reader.counters().cache_hits.get() - hits, 2);
    // A request for what is not there yet, on both sides of what is.
    assert!(read(&reader, 0, 300_000).await.unwrap() == data[..]);
    assert_eq!(faulty.gets() - before, 4);
}

/// The data of the object has commas between messages; blocks are kept as they were sealed, and the footer has its size.
#[tokio::test]
async fn messages_get_their_terminators_back() {
    let messages: Vec<String> = (0..9_000).map(|n| format!("[{n},\"{n:020}\"]\u{1e}")).collect();
    let data = messages.concat().into_bytes();
    let file = SegmentWriter::file_as(1, MessageForm::Array, &[(1, 0, &[], &data)]);
    assert!(!file[HEADER..][..data.len()].contains(&0x1e));
    let sealed = sealed_file(1, &file);
    let faulty = Arc::new(FaultyStore::new(0, FaultRates::default()));
    let store = cold_store(faulty, TierOptions { cache: 8 << 20, ..options() });
    store.create(NAME, vec![Bytes::from(file)]).await.unwrap();
    let one = OneSegment { reader: SegmentReader::new(store, Handle::current()), file: sealed };
    for turn in ["first", "kept"] {
        for (from, len) in [(0, 10), (65_530, 20), (70_000, 1), (0, data.len()), (100_001, 131_072)]
        {
            let found = read(&one, from as u64, len as u64).await.unwrap();
            assert!(found == data[from..from + len], "{turn}: {len} from {from}");
        }
    }
    let kept = one.cached_bytes();
    assert!(kept > data.len() + 2 * messages.len(), "{kept} bytes, with where messages end");
}

/// A bucket may be 50 ms away.
#[tokio::test(start_paused = true)]
async fn a_first_read_waits_for_one_answer_though_it_needs_two() {
    let (faulty, reader, data) = stored(300_000, TierOptions { cache: 8 << 20, ..options() }).await;
    let before = faulty.gets();
    faulty.set_delay(Duration::from_secs(1));
    for (from, len) in [(10, 100), (100_000, 150_000)] {
        let began = Instant::now();
        let found = read(&reader, from as u64, len as u64).await.unwrap();
        assert!(found == data[from..from + len]);
        assert_eq!(began.elapsed().as_millis() / 100, 10, "{:?}", began.elapsed());
    }
    assert_eq!(faulty.gets() - before, 3, "the footer with one block, and three blocks");
}

/// The index knows neither size nor checksum of an object whose record `repair` has written again.
#[tokio::test]
async fn a_segment_of_an_unknown_size_is_searched_for_its_footer_first() {
    let (faulty, mut reader, data) = stored(300_000, options()).await;
    reader.file = SealedFile { len: 0, data: 0, footer_crc: 0, ..reader.file };
    let before = faulty.gets();
    assert!(read(&reader, 1000, 70_000).await.unwrap() == data[1000..71_000]);
    assert!(read(&reader, 299_999, 2).await.is_err(), "behind the data");
    assert_eq!(faulty.gets() - before, 4, "its size, trailer and footer, then two blocks at once");
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_read_ahead_of_and_a_jump_is_not() {
    let options = TierOptions { cache: 8 << 20, ..options() };
    let (faulty, reader, data) = stored(40 * BLOCK as usize, options).await;
    let before = faulty.gets();
    read(&reader, 0, BLOCK).await.unwrap();
    // The footer, one block.
    assert_eq!(faulty.gets() - before, 2);
    read(&reader, 20 * BLOCK, 10).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(faulty.gets() - before, 3);
    let mut misses = reader.counters().cache_misses.get();
    let mut found = Vec::new();
    for block in 1..20 {
        found.extend_from_slice(&read(&reader, block * BLOCK, BLOCK).await.unwrap());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(found == data[BLOCK as usize..20 * BLOCK as usize]);
    misses = reader.counters().cache_misses.get() - misses;
    assert_eq!(misses, 1, "behind the first block everything is there before it is needed");
    // The block itself, then one, two, three, five and at last eight ahead in a request, as long as no more than 32 are.
    assert_eq!(faulty.gets() - before, 3 + 9);
}

/// docs/operations.md, "The bill": as many blocks as a segment has by the defaults.
#[tokio::test(start_paused = true)]
async fn a_replay_of_a_whole_segment_makes_few_requests() {
    let (faulty, reader, data) = stored(256 * BLOCK as usize, options()).await;
    for piece in [BLOCK / 4, BLOCK, 2 * BLOCK] {
        let other = OneSegment {
            reader: SegmentReader::new(
                cold_store(faulty.clone(), TierOptions { cache: 8 << 20, ..super::options() }),
                Handle::current(),
            ),
            file: reader.file,
        };
        let before = faulty.gets();
        for at in (0..256 * BLOCK).step_by(piece as usize) {
            let found = read(&other, at, piece).await.unwrap();
            assert!(found == data[at as usize..(at + piece) as usize], "{piece} at {at}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let requests = faulty.gets() - before;
        assert!((32..=38).contains(&requests), "{requests} requests for pieces of {piece}");
    }
}

/// A block of a run that arrives damaged is read again by itself, and the others are of use.
#[tokio::test(start_paused = true)]
async fn a_damaged_block_of_several_is_read_again_alone() {
    let options = TierOptions { cache: 8 << 20, ..options() };
    let (faulty, reader, data) = stored(8 * BLOCK as usize, options).await;
    // The footer is read before.
    read(&reader, 0, 1).await.unwrap();
    let before = faulty.gets();
    faulty.set_delay(Duration::from_secs(1));
    faulty.set_rates(FaultRates { wrong: 1000, ..FaultRates::default() });
    let mends = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        faulty.set_rates(FaultRates::default());
    };
    let (found, ()) = tokio::join!(read(&reader, BLOCK, 7 * BLOCK), mends);
    assert!(found.unwrap() == data[BLOCK as usize..]);
    assert_eq!(reader.counters().damaged_blocks.get(), 1);
    assert_eq!(faulty.gets() - before, 2);
    assert!(read(&reader, 0, 8 * BLOCK).await.unwrap() == data[..]);
    assert_eq!(faulty.gets() - before, 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_waited_for_so_long_and_no_longer() {
    let options = TierOptions { read_timeout: Duration::from_secs(3), ..options() };
    let (faulty, reader, data) = stored(1000, options).await;
    faulty.set_delay(Duration::from_secs(60));
    let began = Instant::now();
    let all = join_all((0..40).map(|_| read(&reader, 0, 1000))).await;
    assert!(all.iter().all(|read| matches!(read, Err(ColdError::Unavailable { .. }))));
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    // One that comes while the reads of the others still run begins its own.
    faulty.set_delay(Duration::from_millis(100));
    assert_eq!(read(&reader, 0, 1000).await.unwrap(), data[..]);
    // What is in memory does not need the store.
    faulty.set_delay(Duration::from_secs(60));
    assert_eq!(read(&reader, 10, 90).await.unwrap(), data[10..100]);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_does_not_answer_few_reads_wait_for_it() {
    let options = TierOptions { read_timeout: Duration::from_secs(3), ..options() };
    let (faulty, reader, data) = stored(1000, options).await;
    let waits = async || {
        let began = Instant::now();
        let all = join_all((0..200).map(|_| async {
            let read = read(&reader, 0, 1000).await;
            (read.is_ok(), began.elapsed() >= Duration::from_secs(3))
        }));
        let all = all.await;
        (all.iter().filter(|read| read.0).count(), all.iter().filter(|read| read.1).count())
    };
    faulty.set_delay(Duration::from_secs(60));
    assert_eq!(waits().await, (0, 200), "nothing tells yet that it is down");
    assert_eq!(waits().await, (0, 64));
    // The end of an outage: those that may wait find out, and the next ones are all served.
    faulty.set_delay(Duration::ZERO);
    let (served, late) = waits().await;
    assert!(served >= 64 && late == 0, "{served}, {late}");
    assert_eq!(waits().await, (200, 0));
    // What is in memory does not need the store, however many wait.
    faulty.set_delay(Duration::from_secs(60));
    let second = "segments/a/00000000000000000002.seg";
    let file = SealedFile { number: 2, ..reader.file };
    let missing = || reader.get_segment(second, file, 32..33);
    assert!(missing().await.is_err());
    let memory = async || read(&reader, 0, 1000).await.unwrap() == data[..];
    let (_, found) = tokio::join!(join_all((0..100).map(|_| missing())), memory());
    assert!(found);
}

#[tokio::test]
async fn a_range_outside_of_the_data_and_a_missing_object_are_errors() {
    let (_, reader, data) = stored(1000, options()).await;
    let before = reader.get_segment(NAME, reader.file, 0..10).await;
    assert!(matches!(before, Err(ColdError::Damaged(_))));
    assert!(matches!(read(&reader, 0, 1001).await, Err(ColdError::Damaged(_))));
    assert_eq!(read(&reader, 0, 1000).await.unwrap(), data[..]);
    let file = SealedFile { number: 2, ..reader.file };
    let missing = reader.get_segment("segments/a/00000000000000000002.seg", file, 32..33).await;
    assert_eq!(missing, Err(ColdError::NotFound));
}

#[tokio::test]
async fn another_segment_under_the_same_name_is_refused() {
    let (_, reader, data) = stored(100_000, options()).await;
    assert_eq!(read(&reader, 0, 100_000).await.unwrap(), data[..]);
    // The index of another copy of the directory: the same number, other bytes; of one of them the sizes are the same.
    let mut same_size = data.clone();
    same_size[70_000] ^= 1;
    for other in [same_size, data[..99_000].to_vec(), [&data[..], b"more"].concat()] {
        let file = SegmentWriter::file(1, &[(1, 0, &[], &other)]);
        let other = OneSegment { reader: reader.reader.clone(), file: sealed_file(1, &file) };
        // Not from what is cached of it, either.
        for (from, len) in [(0, 10), (0, 99_000), (98_990, 10)] {
            let found = read(&other, from, len).await;
            assert!(matches!(found, Err(ColdError::Damaged(_))), "{from}: {found:?}");
        }
    }
    assert_eq!(read(&reader, 0, 100_000).await.unwrap(), data[..]);
}

#[tokio::test]
async fn blocks_stay_within_the_budget() {
    let options = TierOptions { cache: 300 << 10, ..options() };
    let (_, reader, data) = stored(2 << 20, options).await;
    for from in (0..(2 << 20) - 100_000).step_by(90_000) {
        let found = read(&reader, from, 100_000).await.unwrap();
        assert!(found == data[from as usize..from as usize + 100_000]);
        assert!(reader.cached_bytes() <= 300 << 10);
    }
    assert!(reader.cached_bytes() > 100 << 10);
}

#[tokio::test]
async fn pages_of_a_list_hold_every_name_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let local = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let client = crate::tier::connect::ObjectClient { store: Arc::new(local), sorted: false };
    for n in 0..25_u64 {
        std::fs::create_dir_all(dir.path().join("segments/a")).unwrap();
        std::fs::write(
            dir.path().join(format!("segments/a/{:020}.seg", n * 7 % 25)),
            vec![0; n as usize],
        )
        .unwrap();
    }
    std::fs::write(dir.path().join("segments/b"), "x").unwrap();
    let (mut names, mut after) = (Vec::new(), None::<String>);
    loop {
        let page =
            crate::tier::listing::page(&client, "segments/a/", after.as_deref(), 10).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        assert!(page.len() <= 10);
        after = Some(last.clone());
        names.extend(page.into_iter().map(|(name, _)| name));
    }
    let expected: Vec<String> = (0..25).map(|n| format!("segments/a/{n:020}.seg")).collect();
    assert_eq!(names, expected);
    let part = crate::tier::listing::page(&client, "segments/a/0000000000000000001", None, 100)
        .await
        .unwrap();
    assert_eq!(part.len(), 10);
}
