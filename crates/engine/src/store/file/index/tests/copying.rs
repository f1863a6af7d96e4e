//! What is copied out of a damaged index, and copies without some streams.

use super::{
    verifying::{FOUR, THREE, filled, name_of, problems, sealed, tamper},
    *,
};
use crate::store::file::index::env::NAMES;

/// The records of each database.
fn records(index: &TestIndex) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let reading = index.index.read().unwrap();
    let of = |table: crate::store::file::index::env::IndexTable| {
        let records = table.iter(&reading.txn).unwrap().map(|record| record.unwrap());
        records.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    };
    reading.index().tables().map(of).into()
}

/// With a segment.
fn with_segment() -> TestIndex {
    let mut index = filled();
    let id = StreamId(6);
    index.fold([(id, created("/f", bytes(0, 20_000)))]);
    let extent = ExtentRecord { start: 0, end: 20_000, file: 7, offset: 32, crc: Some(1) };
    let record = SegmentRecord {
        file_len: 30_000,
        data: 20_000,
        live: 0,
        footer_crc: 1,
        place: SegmentPlace::Local,
        sealed_at: None,
    };
    let extents = vec![NewExtent { id, extent, replaces: None }];
    let segment = NewSegment { number: 7, record, extents };
    assert_eq!(index.index.hand_over(&|| Ok(()), &segment).unwrap().live, 20_000);
    index
}

#[test]
fn whole_records_are_copied_and_all_others_are_left_out() {
    for damaged in [false, true] {
        let index = with_segment();
        let mut expected = records(&index);
        if damaged {
            tamper(&index, true, |index, txn| {
                let id = keys::id(StreamId(99));
                let place = keys::chunk(StreamId(99), Offset::new(3));
                let producer = keys::producer(StreamId(99), &ProducerId::new("p").unwrap());
                let nobody = keys::id(StreamId(98)).to_vec();
                let known = ProducerState { epoch: 0, last_seq: 0 }.encode();
                for (table, key) in [
                    (index.paths, &name_of("/x")[..]),
                    (index.streams, &id),
                    (index.chunks, &place),
                    (index.appends, &place),
                    (index.producers, &producer),
                    (index.dropped, &place),
                    (index.extents, &place),
                    (index.segment_files, &id),
                ] {
                    table.put(txn, key, b"damage")?;
                }
                // Whole, and not what belongs there.
                for (table, key) in [
                    (index.streams, &keys::id(StreamId(97))[..]),
                    (
                        index.producers,
                        &keys::producer(StreamId(97), &ProducerId::new("q").unwrap()),
                    ),
                    (index.extents, &keys::chunk(StreamId(97), Offset::ZERO)),
                    (index.segment_files, &keys::id(StreamId(97))),
                    (index.chunks, b"a key"),
                ] {
                    table.put(txn, key, &sealed(key, b"something else"))?;
                }
                index.producers.put(txn, &nobody, &sealed(&nobody, &known))?;
                index.purge.put(txn, b"short", &[])?;
                // Of a stream that was not deleted.
                Ok(index.purge.put(txn, &keys::id(ONE), &[])?)
            });
        }
        let read: u64 = {
            let all = records(&index);
            let copied = all.iter().zip(NAMES);
            let copied =
                copied.filter(|(_, name)| !matches!(*name, "meta" | "deadlines" | "forks"));
            copied.map(|(records, _)| records.len() as u64).sum()
        };
        let to = TestIndex::new();
        let mut progress = Vec::new();
        index.index.salvage(&to.index, &mut |done| progress.push(done)).unwrap();
        assert_eq!(progress.last(), Some(&read));
        assert!(progress.is_sorted());
        let mut copied = records(&to);
        for (at, name) in NAMES.into_iter().enumerate() {
            if matches!(name, "meta" | "deadlines" | "forks") {
                assert_eq!(copied[at].len(), usize::from(name == "meta"), "they are derived");
                copied[at].clear();
                expected[at].clear();
            }
            assert_eq!(copied[at], expected[at], "`{name}`, damaged: {damaged}");
        }
        let meta = |index: &TestIndex| {
            let meta = index.index.read().unwrap().meta().unwrap();
            (meta.lsn, meta.next_id, meta.next_node, meta.streams, meta.bytes, meta.next_segment)
        };
        assert_eq!(meta(&to), meta(&index));
    }
}

#[test]
fn a_stream_is_left_out_with_all_of_its_records() {
    let left_out = |index: &TestIndex, names: &[&str]| {
        let paths: Vec<StreamPath> = names.iter().map(|name| path(name)).collect();
        let done = index.index.leave_out(&paths).map_err(|error| error.to_string())?;
        Ok::<_, String>(done.iter().map(|one| (one.id, one.bytes)).collect::<Vec<_>>())
    };
    let index = with_segment();
    let before = records(&index);
    let refused = left_out(&index, &["/a"]).unwrap_err();
    let expected = "has a fork of /a, /b, which needs its bytes; leave out both";
    assert!(refused.contains(expected), "{refused}");
    let refused = left_out(&index, &["/f", "/unknown"]).unwrap_err();
    assert!(refused.contains("has no stream /unknown"), "{refused}");
    assert_eq!(records(&index), before, "of all or none");
    assert_eq!(left_out(&index, &["/b", "/a"]).unwrap(), [(2, 7), (1, 20_300)]);
    assert_eq!(left_out(&index, &["/f"]).unwrap(), [(6, 20_000)]);
    assert_eq!((index.state(ONE), index.state(TWO), index.state(StreamId(6))), (None, None, None));
    let reading = index.index.read().unwrap();
    let found = ["/a", "/b", "/c", "/d"].map(|name| reading.path_id(&path(name)).unwrap());
    assert_eq!(found, [None, None, Some(THREE), Some(FOUR)]);
    drop(reading);
    assert_eq!(problems(&index), [""; 0]);
}

/// Also one with more records than are removed at a time, one whose name is damaged, and one whose state is.
#[test]
fn damaged_streams_and_large_ones_are_left_out_too() {
    let mut index = filled();
    index.fold((0..2500).map(|n| (THREE, produced(Bytes::new(), &format!("p{n}"), 0))));
    let before = index.count();
    assert_eq!(index.index.leave_out(&[path("/c")]).unwrap()[0].bytes, 9);
    // Its name, its state, its chunk, its producers.
    assert_eq!(before - index.count(), 3 + 2500);
    for name in [true, false] {
        let index = filled();
        tamper(&index, true, |index, txn| {
            if name {
                Ok(index.paths.put(txn, &name_of("/b"), b"damage")?)
            } else {
                Ok(index.streams.put(txn, &keys::id(TWO), b"damage")?)
            }
        });
        let done = index.index.leave_out(&[path("/b")]).unwrap();
        assert_eq!((done[0].id, done[0].bytes), (2, 7));
        assert_eq!(problems(&index), [""; 0]);
    }
}
