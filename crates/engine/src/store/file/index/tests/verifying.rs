//! Checks of the whole index: each kind of damage is said.

use heed::RwTxn;

use super::*;
use crate::store::file::index::{env::IndexEnvironment, handle::WriteError};

mod sealed;

pub(super) const THREE: StreamId = StreamId(3);
pub(super) const FOUR: StreamId = StreamId(4);

/// `/a` with 200 small appends, a producer, a deadline and two chunks; a fork of it; messages; a stream that was trimmed;
/// and one that was deleted. What the last two have left is there.
pub(super) fn filled() -> TestIndex {
    let mut index = TestIndex::new();
    index.fold([(ONE, expiring("/a", 5000)), (ONE, produced(bytes(0, 10), "p", 0))]);
    index.fold((0..200).map(|n| (ONE, appended(bytes(10 + n, 1)))));
    index.fold([(ONE, appended(bytes(210, 20_000)))]);
    index.fold([(ONE, appended(bytes(20_210, 90)))]);
    let source = index.state(ONE).unwrap();
    index.fold([(TWO, fork("/b", &source, 50, bytes(0, 7))), (THREE, json("/c"))]);
    index.fold([(THREE, appended(Bytes::from_static(b"1\x1e22\x1e333\x1e")))]);
    index.fold([(FOUR, created("/d", bytes(0, 40_000)))]);
    index.fold([(FOUR, appended(bytes(40_000, 5)))]);
    index.fold([(FOUR, trimmed(40_000))]);
    let gone = StreamId(5);
    index.fold([(gone, created("/e", bytes(0, 9))), (gone, produced(bytes(9, 1), "p", 0))]);
    index.fold((0..200).map(|n| (gone, appended(bytes(10 + n, 1)))));
    index.fold([(gone, deleted())]);
    index
}

pub(super) fn problems(index: &TestIndex) -> Vec<String> {
    let mut found = Vec::new();
    let reading = index.index.read().unwrap();
    let mut problem = |error| match error {
        StoreError::Corrupt { found: what, .. } => found.push(what.to_string()),
        other => panic!("{other}"),
    };
    reading.verify(&mut |_| {}, &mut problem).unwrap();
    found
}

/// Changes records behind the index's back; the number of records in the meta record follows if `counted` is set.
pub(super) fn tamper(
    index: &TestIndex,
    counted: bool,
    change: impl Fn(&IndexEnvironment, &mut RwTxn<'_>) -> Result<(), WriteError>,
) {
    let done = index.index.write(&|| Ok(()), |index, txn| {
        change(index, txn)?;
        if counted {
            let mut meta = index.meta(txn)?;
            index.put_meta(txn, &mut meta)?;
        }
        Ok(())
    });
    done.unwrap();
}

pub(super) fn sealed(key: &[u8], contents: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    keys::seal(key, contents, &mut value);
    value
}

pub(super) fn name_of(path: &str) -> Vec<u8> {
    [&[0; 8][..], path.as_bytes()].concat()
}

#[test]
fn a_whole_index_is_counted_and_nothing_is_said() {
    let index = filled();
    let reading = index.index.read().unwrap();
    let mut progress = Vec::new();
    let totals =
        reading.verify(&mut |done| progress.push(done), &mut |error| panic!("{error}")).unwrap();
    assert_eq!((totals.streams, totals.chunks), (4, 1 + 2 + 1 + 2));
    assert_eq!(totals.bytes, 20_300 + 7 + 9 + 5);
    assert!(progress.is_empty(), "there are fewer than 256 records");
    drop(reading);
    let mut many = TestIndex::new();
    many.fold((1..=300).map(|id| (StreamId(id), created(&format!("/{id}"), Bytes::new()))));
    let reading = many.index.read().unwrap();
    reading.verify(&mut |done| progress.push(done), &mut |error| panic!("{error}")).unwrap();
    assert_eq!(progress, [256, 512], "300 states and 300 names");
    drop(reading);
    many.fold([(ONE, appended(bytes(0, 70_000)))]);
    assert_eq!(many.records("chunks", ONE), [(0, 65_536), (65_536, 4464)], "as long as one may be");
    assert_eq!(problems(&many), [""; 0]);
}

#[test]
fn every_record_that_is_missing_or_damaged_is_said() {
    type Change = dyn Fn(&IndexEnvironment, &mut RwTxn<'_>) -> Result<(), WriteError>;
    let producer = || keys::producer(ONE, &ProducerId::new("p").unwrap());
    let second = || keys::chunk(ONE, Offset::new(20_210));
    let cases: Vec<(Box<Change>, &[&str])> = vec![
        (
            Box::new(|index, txn| {
                index.deadlines.delete(txn, &keys::deadline(at(5000), ONE))?;
                Ok(())
            }),
            &[
                "the deadline of stream 1 (/a) is missing",
                "`deadlines` has 0 records and should have 1",
            ],
        ),
        (
            Box::new(|index, txn| {
                Ok(index.deadlines.put(txn, &keys::deadline(at(1), TWO), &[])?)
            }),
            &["`deadlines` has 2 records and should have 1"],
        ),
        (
            Box::new(|index, txn| {
                index.forks.delete(txn, &keys::fork(ONE, TWO))?;
                Ok(())
            }),
            &[
                "stream 2 (/b) is missing among the forks of its source",
                "`forks` has 0 records and should have 1",
            ],
        ),
        (
            Box::new(move |index, txn| {
                index.producers.delete(txn, &producer())?;
                Ok(())
            }),
            &["stream 1 (/a) has 0 producers and should have 1"],
        ),
        (
            Box::new(move |index, txn| Ok(index.producers.put(txn, &producer(), b"another")?)),
            &["a producer of stream 1 does not match its checksum"],
        ),
        (
            Box::new(|index, txn| {
                let known = ProducerState { epoch: 0, last_seq: 0 };
                let key = keys::producer(StreamId(9), &ProducerId::new("p").unwrap());
                let value = sealed(&key, &known.encode());
                Ok(index.producers.put(txn, &key, &value)?)
            }),
            &["a producer belongs to stream 9, which is not there"],
        ),
        (
            Box::new(|index, txn| {
                index.paths.delete(txn, &name_of("/b"))?;
                Ok(())
            }),
            &["the path of stream 2 (/b) does not lead to it", "there are 3 paths for 4 streams"],
        ),
        (
            Box::new(|index, txn| {
                let name = name_of("/b");
                Ok(index.paths.put(txn, &name, &sealed(&name, &3_u64.to_be_bytes()))?)
            }),
            &[
                "the path of stream 2 (/b) does not lead to it",
                "the path \"/b\" names stream 3, which does not have it",
            ],
        ),
        (
            Box::new(move |index, txn| Ok(index.chunks.put(txn, &second(), &[7; 94])?)),
            &["the bytes of stream 1 (/a) at position 20210 do not match their checksum"],
        ),
        (
            Box::new(move |index, txn| {
                index.chunks.delete(txn, &second())?;
                Ok(())
            }),
            &[
                "the bytes of stream 1 (/a) end at 20210 and should end at 20300",
                "4 streams with 20231 bytes are there, and 4 with 20321 should be",
            ],
        ),
        (
            Box::new(|index, txn| {
                index.chunks.delete(txn, &keys::chunk(ONE, Offset::ZERO))?;
                Ok(())
            }),
            &["the bytes of stream 1 (/a) from position 0 on are missing"],
        ),
        (
            Box::new(|index, txn| {
                let key = keys::chunk(THREE, Offset::ZERO);
                let long = vec![b'1'; crate::store::file::index::records::CHUNK + 1];
                Ok(index.chunks.put(txn, &key, &sealed(&key, &long))?)
            }),
            &[
                "the bytes of stream 3 (/c) at position 0 do not match their checksum",
                "the bytes of stream 3 (/c) end at 65537 and should end at 9",
                "4 streams with 85849 bytes are there, and 4 with 20321 should be",
            ],
        ),
        (
            Box::new(|index, txn| {
                index.appends.put(txn, &keys::chunk(ONE, Offset::ZERO), b"damage")?;
                Ok(())
            }),
            &[
                "the ends of the appends of stream 1 (/a) from position 0 on are missing or damaged",
                "the ends of the appends of stream 1 (/a) do not reach to its tail",
            ],
        ),
        (
            Box::new(|index, txn| {
                index.appends.delete(txn, &keys::chunk(ONE, Offset::ZERO))?;
                Ok(())
            }),
            &["the ends of the appends of stream 1 (/a) do not reach to its tail"],
        ),
        (
            Box::new(|index, txn| {
                index.appends.delete(txn, &keys::chunk(ONE, Offset::ZERO))?;
                let key = keys::chunk(ONE, Offset::new(300));
                Ok(index.appends.put(txn, &key, &sealed(&key, &[1]))?)
            }),
            &[
                "the ends of the appends of stream 1 (/a) from position 0 on are missing or damaged",
                "the ends of the appends of stream 1 (/a) do not reach to its tail",
            ],
        ),
        (
            Box::new(|index, txn| {
                // Before the bytes of the fork begin, which was not trimmed.
                let key = keys::chunk(TWO, Offset::new(40));
                Ok(index.chunks.put(txn, &key, &sealed(&key, &[7; 10]))?)
            }),
            &["the bytes of stream 2 (/b) from position 50 on are missing"],
        ),
        (
            Box::new(|index, txn| {
                // Behind a gap: those before it end at 210.
                let key = keys::chunk(ONE, Offset::new(300));
                Ok(index.appends.put(txn, &key, &sealed(&key, &[1]))?)
            }),
            &[
                "the ends of the appends of stream 1 (/a) from position 210 on are missing or damaged",
            ],
        ),
        (
            Box::new(|index, txn| Ok(index.purge.put(txn, &keys::id(TWO), &[])?)),
            &["stream 2 is there, and deleted as well", "`chunks` has 7 records and should have 8"],
        ),
        (
            Box::new(|index, txn| {
                let key = keys::chunk(StreamId(9), Offset::ZERO);
                Ok(index.dropped.put(txn, &key, &sealed(&key, &5_u64.to_be_bytes()))?)
            }),
            &["a dropped range belongs to stream 9, which is not there"],
        ),
        (
            Box::new(|index, txn| {
                let key = keys::chunk(StreamId(9), Offset::ZERO);
                Ok(index.chunks.put(txn, &key, &sealed(&key, b"x"))?)
            }),
            &["`chunks` has 8 records and should have 7"],
        ),
        (
            Box::new(|index, txn| Ok(index.segment_files.put(txn, &[0; 8], b"damage")?)),
            &["the record of segment 0 does not match its checksum"],
        ),
        (
            Box::new(|index, txn| Ok(index.streams.put(txn, &keys::id(TWO), b"damage")?)),
            &[
                "the state of stream 2 does not match its checksum",
                "the path \"/b\" names stream 2, which does not have it",
                "4 streams with 20314 bytes are there, and 4 with 20321 should be",
                "`chunks` has 7 records and should have 6",
                "`forks` has 1 records and should have 0",
            ],
        ),
    ];
    for (at, (change, expected)) in cases.into_iter().enumerate() {
        let index = filled();
        tamper(&index, true, change);
        assert_eq!(problems(&index), expected, "case {at}");
    }
}

#[test]
fn totals_and_counts_are_compared_with_what_is_there() {
    let index = filled();
    tamper(&index, false, |index, txn| {
        let mut meta = index.meta(txn)?;
        (meta.streams, meta.bytes) = (meta.streams + 1, meta.bytes - 1);
        Ok(index.put_meta(txn, &mut meta)?)
    });
    let expected = [
        "there are 4 paths for 4 streams",
        "4 streams with 20321 bytes are there, and 5 with 20320 should be",
    ];
    assert_eq!(problems(&index), expected);
    let index = filled();
    tamper(&index, false, |index, txn| {
        index
            .producers
            .delete(txn, &keys::producer(StreamId(5), &ProducerId::new("p").unwrap()))?;
        Ok(())
    });
    assert_eq!(problems(&index), ["`producers` has 1 records and should have 2"]);
    let index = filled();
    tamper(&index, false, |index, txn| {
        let mut meta = index.meta(txn)?;
        meta.next_id = 4;
        Ok(index.put_meta(txn, &mut meta)?)
    });
    assert_eq!(problems(&index), ["stream 4 (/d) has an id that was not given out yet"]);
}

/// LMDB refuses to go on with a transaction that met damage.
#[test]
fn what_is_left_behind_damage_is_said_to_be_unchecked() {
    let TestIndex { index, _dir: dir, .. } = filled();
    let file = index.path().to_owned();
    drop(index);
    let mut bytes = std::fs::read(&file).unwrap();
    // The first chunk is on a page that is not there. Before its number are flags, the length of the key, and the key.
    let node = [&[1, 0, 16, 0][..], &keys::chunk(ONE, Offset::ZERO)].concat();
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, &node).collect();
    places.iter().for_each(|at| bytes[at + node.len() + 4] ^= 1);
    std::fs::write(&file, bytes).unwrap();
    let index = IndexHandle::open_damaged(dir.path(), 8 << 20).unwrap();
    let (reading, mut found) = (index.read().unwrap(), Vec::new());
    reading.verify(&mut |_| {}, &mut |error| found.push(error.to_string())).unwrap();
    assert!(found[0].contains("`chunks` cannot be read to its end"), "{found:?}");
    let last = found.last().unwrap();
    assert!(last.contains("what is left cannot be checked"), "{found:?}");
}
