//! Checks of an index that is in use, a slice at a time.

use heed::RwTxn;

use super::{
    verifying::{FOUR, THREE, filled, name_of, sealed, tamper},
    *,
};
use crate::store::file::index::{env::IndexEnvironment, handle::WriteError, scrub::ScrubRound};

mod damaged_pages;

/// A round in slices of so many bytes: what it has found, and the number of slices.
fn scrub(index: &TestIndex, mut round: ScrubRound, most: u64) -> (ScrubRound, Vec<String>, u64) {
    let (mut found, mut slices) = (Vec::new(), 1);
    let mut report = |error| match error {
        StoreError::Corrupt { found: what, .. } => found.push(what.to_string()),
        other => panic!("{other}"),
    };
    while index.index.scrub_slice(&mut round, most, &mut report).unwrap() {
        slices += 1;
        assert!(slices < 100_000);
    }
    (round, found, slices)
}

fn problems(index: &TestIndex) -> Vec<String> {
    let (round, found, _) = scrub(index, ScrubRound::default(), u64::MAX);
    assert_eq!((round.damaged(), round.pages()), (found.len() as u64, 0));
    let (_, in_slices, _) = scrub(index, ScrubRound::default(), 100);
    assert_eq!(in_slices, found, "however long a slice is");
    found
}

/// Keys and values of all records, with eight bytes for each.
fn size(index: &TestIndex) -> u64 {
    let reading = index.index.read().unwrap();
    let mut size = 0;
    for table in reading.index().tables() {
        for record in table.iter(&reading.txn).unwrap() {
            let (key, value) = record.unwrap();
            size += (key.len() + 8 + value.len()) as u64;
        }
    }
    size
}

#[test]
fn a_round_reads_every_record_once_in_slices_of_any_size() {
    let mut index = filled();
    index.fold((100..400).map(|id| (StreamId(id), expiring(&format!("/{id}"), id))));
    // A chunk that is as long as one may be.
    index.fold([(StreamId(100), appended(bytes(0, 70_000)))]);
    let (records, size) = (index.count(), size(&index));
    for (most, least) in [(1, records), (1000, 40), (u64::MAX, 1)] {
        let (round, found, slices) = scrub(&index, ScrubRound::default(), most);
        assert_eq!((found.len(), round.damaged(), round.pages()), (0, 0, 0));
        assert_eq!(round.bytes(), size, "in slices of {most}");
        assert!(slices >= least && (most < u64::MAX || slices == 1), "{slices} of {most}");
    }
    let (round, found, _) = scrub(&index, ScrubRound::of_pages(), u64::MAX);
    assert_eq!((found.len(), round.pages()), (0, 0));
    assert!(round.bytes() < size, "it looks at no value");
    // A commit in between.
    let mut round = ScrubRound::default();
    let mut report = |error| panic!("{error}");
    let mut commits = 0;
    while index.index.scrub_slice(&mut round, 3000, &mut report).unwrap() {
        index.fold([(FOUR, appended(bytes(0, 1)))]);
        commits += 1;
    }
    assert!(commits > 5, "{commits} commits");
    assert!(!index.index.health().names_may_miss());
}

#[test]
fn every_record_that_is_damaged_or_calls_for_another_is_reported() {
    type Change = fn(&IndexEnvironment, &mut RwTxn<'_>) -> Result<(), WriteError>;
    let cases: [(Change, &[&str]); 22] = [
        (
            |index, txn| {
                index.deadlines.delete(txn, &keys::deadline(at(5000), ONE))?;
                Ok(())
            },
            &["the deadline of stream 1 (/a) is missing"],
        ),
        (
            |index, txn| Ok(index.deadlines.put(txn, &keys::deadline(at(1), TWO), &[])?),
            &["a deadline is noted of stream 2, which has none such"],
        ),
        (
            |index, txn| Ok(index.deadlines.put(txn, &keys::deadline(at(1), ONE), &[])?),
            &["a deadline is noted of stream 1, which has none such"],
        ),
        (
            |index, txn| {
                index.forks.delete(txn, &keys::fork(ONE, TWO))?;
                Ok(())
            },
            &["stream 2 (/b) is missing among the forks of its source"],
        ),
        (
            |index, txn| Ok(index.forks.put(txn, &keys::fork(ONE, THREE), &[])?),
            &["a fork is noted of stream 3, which has none such"],
        ),
        (
            |index, txn| Ok(index.forks.put(txn, &keys::fork(THREE, TWO), &[])?),
            &["a fork is noted of stream 2, which has none such"],
        ),
        (
            |index, txn| {
                index
                    .producers
                    .delete(txn, &keys::producer(ONE, &ProducerId::new("p").unwrap()))?;
                Ok(())
            },
            &["stream 1 (/a) has 0 producers and should have 1"],
        ),
        (
            |index, txn| {
                let key = keys::producer(ONE, &ProducerId::new("p").unwrap());
                Ok(index.producers.put(txn, &key, b"another")?)
            },
            &["a producer of stream 1 does not match its checksum"],
        ),
        (
            |index, txn| {
                let known = ProducerState { epoch: 0, last_seq: 0 };
                let key = keys::producer(StreamId(9), &ProducerId::new("p").unwrap());
                let value = sealed(&key, &known.encode());
                Ok(index.producers.put(txn, &key, &value)?)
            },
            &["a producer belongs to stream 9, which is not there"],
        ),
        (
            |index, txn| {
                Ok(index.chunks.put(txn, &keys::chunk(ONE, Offset::new(20_210)), &[7; 94])?)
            },
            &["the bytes of stream 1 at position 20210 do not match their checksum"],
        ),
        (
            |index, txn| {
                index.chunks.delete(txn, &keys::chunk(ONE, Offset::new(20_210)))?;
                Ok(())
            },
            &["the bytes of stream 1 from position 20210 to 20300 are missing"],
        ),
        (
            |index, txn| {
                index.chunks.delete(txn, &keys::chunk(ONE, Offset::ZERO))?;
                Ok(())
            },
            &["the first bytes of stream 1 (/a) are missing"],
        ),
        (
            |index, txn| {
                index.chunks.delete(txn, &keys::chunk(FOUR, Offset::new(40_000)))?;
                Ok(())
            },
            &["the first bytes of stream 4 (/d) are missing"],
        ),
        (
            |index, txn| {
                let key = keys::chunk(THREE, Offset::ZERO);
                let long = vec![b'1'; crate::store::file::index::records::CHUNK + 1];
                Ok(index.chunks.put(txn, &key, &sealed(&key, &long))?)
            },
            &["the bytes of stream 3 at position 0 do not match their checksum"],
        ),
        (
            |index, txn| {
                let key = keys::chunk(StreamId(9), Offset::ZERO);
                Ok(index.chunks.put(txn, &key, &sealed(&key, b"x"))?)
            },
            &["bytes belong to stream 9, which is not there"],
        ),
        (
            |index, txn| {
                index.appends.put(txn, &keys::chunk(ONE, Offset::ZERO), b"damage")?;
                Ok(())
            },
            &["a record of `appends` of stream 1 does not match its checksum"],
        ),
        (
            |index, txn| {
                let key = keys::chunk(StreamId(9), Offset::ZERO);
                Ok(index.dropped.put(txn, &key, &sealed(&key, &5_u64.to_be_bytes()))?)
            },
            &["a record of `dropped` belongs to stream 9, which is not there"],
        ),
        (
            |index, txn| Ok(index.purge.put(txn, &keys::id(TWO), &[])?),
            &["stream 2 is there, and deleted as well"],
        ),
        (
            |index, txn| Ok(index.purge.put(txn, &keys::id(StreamId(5)), b"x")?),
            &["stream 5 is there, and deleted as well"],
        ),
        (
            |index, txn| {
                let meta = index.meta(txn)?.encode();
                Ok(index.meta.put(txn, b"other", &sealed(b"other", &meta))?)
            },
            &["the meta record does not match its checksum"],
        ),
        (
            |index, txn| Ok(index.segment_files.put(txn, &[0; 8], b"damage")?),
            &["the record of segment 0 does not match its checksum"],
        ),
        (
            |index, txn| Ok(index.streams.put(txn, &keys::id(TWO), b"damage")?),
            &["the state of stream 2 does not match its checksum"],
        ),
    ];
    for (at, (change, expected)) in cases.into_iter().enumerate() {
        let index = filled();
        tamper(&index, true, change);
        assert_eq!(problems(&index), expected, "case {at}");
        assert!(!index.index.health().names_may_miss(), "case {at}");
    }
}

/// From then on a path that is not found may exist.
#[test]
fn damaged_names_are_remembered() {
    type Change = fn(&IndexEnvironment, &mut RwTxn<'_>) -> Result<(), WriteError>;
    let cases: [(bool, Change, &[&str]); 4] = [
        (
            true,
            |index, txn| {
                let name = name_of("/b");
                Ok(index.paths.put(txn, &name, &sealed(&name, &3_u64.to_be_bytes()))?)
            },
            &[
                "the name \"/b\" leads to stream 3, which has another",
                "the path of stream 2 (/b) does not lead to it",
            ],
        ),
        (
            true,
            |index, txn| Ok(index.paths.put(txn, &name_of("/b"), b"damage")?),
            &[
                "the name \"/b\" does not match its checksum",
                "the path of stream 2 (/b) does not lead to it",
            ],
        ),
        (
            true,
            |index, txn| {
                index.paths.delete(txn, &name_of("/b"))?;
                Ok(())
            },
            &["the path of stream 2 (/b) does not lead to it"],
        ),
        (
            false,
            |index, txn| {
                index.paths.delete(txn, &name_of("/b"))?;
                Ok(())
            },
            &[
                "the path of stream 2 (/b) does not lead to it",
                "the number of records in `paths` (3 instead of 4) is damaged",
                "`paths`, which has 3 records and should have 4, is damaged",
            ],
        ),
    ];
    for (at, (counted, change, expected)) in cases.into_iter().enumerate() {
        let index = filled();
        tamper(&index, counted, change);
        assert_eq!(problems(&index), expected, "case {at}");
        assert!(index.index.health().names_may_miss(), "case {at}");
    }
}

#[test]
fn the_numbers_of_records_are_compared_when_the_index_is_opened() {
    for (producer, names) in [(true, false), (false, true)] {
        let index = filled();
        let mut found = Vec::new();
        let mut check = |index: &TestIndex| {
            let mut report = |error: StoreError| found.push(error.to_string());
            index.index.check_counts(&mut report).unwrap();
        };
        check(&index);
        tamper(&index, false, |index, txn| {
            if producer {
                let key = keys::producer(StreamId(5), &ProducerId::new("p").unwrap());
                index.producers.delete(txn, &key)?;
            } else {
                index.paths.delete(txn, &name_of("/b"))?;
            }
            Ok(())
        });
        check(&index);
        assert_eq!(found.len(), 1);
        let expected =
            if producer { "`producers` (1 instead of 2)" } else { "`paths` (3 instead of 4)" };
        assert!(found[0].contains(expected), "{}", found[0]);
        assert_eq!(index.index.health().names_may_miss(), names);
    }
}

/// The data of a segment begins behind its header of 32 bytes.
#[test]
fn an_extent_has_room_in_its_file_to_the_byte() {
    const FILE: u64 = 7;
    for (offset, data, missing, fits) in [
        (32, 20_000, false, true),
        (31, 20_000, false, false),
        (33, 20_000, false, false),
        (33, 20_001, false, true),
        (32, 20_000, true, false),
    ] {
        let mut index = TestIndex::new();
        index.fold([(ONE, created("/a", bytes(0, 20_000)))]);
        let extent = ExtentRecord { start: 0, end: 20_000, file: FILE, offset, crc: Some(1) };
        let record = SegmentRecord {
            file_len: 30_000,
            data,
            live: 0,
            footer_crc: 1,
            place: SegmentPlace::Local,
            sealed_at: None,
        };
        let extents = vec![NewExtent { id: ONE, extent, replaces: None }];
        let segment = NewSegment { number: FILE, record, extents };
        assert_eq!(index.index.hand_over(&|| Ok(()), &segment).unwrap().live, 20_000);
        if missing {
            tamper(&index, true, |index, txn| {
                index.segment_files.delete(txn, &FILE.to_be_bytes())?;
                Ok(())
            });
        }
        let expected = ["segment 7 does not hold the bytes of stream 1"];
        assert_eq!(problems(&index), expected[..usize::from(!fits)], "{offset} of {data}");
        let mut verified = super::verifying::problems(&index);
        if missing {
            verified.retain(|problem| !problem.starts_with("extents have 20000 bytes"));
        }
        let expected = ["segment 7 does not hold the bytes of stream 1 (/a)"];
        assert_eq!(verified, expected[..usize::from(!fits)], "{offset} of {data}");
    }
}
