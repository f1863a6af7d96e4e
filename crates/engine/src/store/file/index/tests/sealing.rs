//! Extents of segments: they take over the bytes of chunks, are cut, and go.

use super::*;
use crate::store::file::segments::format::SealedExtent;

mod ahead;

pub(super) const FILE: u64 = 7;

pub(super) fn extent(start: u64, end: u64) -> ExtentRecord {
    ExtentRecord { start, end, file: FILE, offset: 32 + start, crc: Some(9) }
}

pub(super) fn segment(
    number: u64,
    extents: &[(StreamId, ExtentRecord, Option<ExtentRecord>)],
) -> NewSegment {
    let extents = extents.iter().map(|(id, extent, replaces)| NewExtent {
        id: *id,
        extent: ExtentRecord { file: number, ..*extent },
        replaces: *replaces,
    });
    let record = SegmentRecord {
        file_len: 200_000,
        data: 100_000,
        live: 0,
        footer_crc: 1,
        place: SegmentPlace::Local,
        sealed_at: None,
    };
    NewSegment { number, record, extents: extents.collect() }
}

impl TestIndex {
    pub(super) fn hand_over(&self, segment: &NewSegment) -> HandedOver {
        self.index.hand_over(&|| Ok(()), segment).unwrap()
    }

    fn live(&self, number: u64) -> Option<u64> {
        self.index.read().unwrap().segment(number).unwrap().map(|record| record.live)
    }

    /// The checksums that its extents have.
    fn checksums(&self, id: StreamId) -> Vec<Option<u32>> {
        let found = self.index.read().unwrap().extents(id).unwrap();
        found.into_iter().map(|(_, extent)| extent.unwrap().crc).collect()
    }

    pub(super) fn extents(&self, id: StreamId) -> Vec<(u64, u64, u64, u64)> {
        let found = self.index.read().unwrap().extents(id).unwrap();
        let fields = |extent: ExtentRecord| (extent.start, extent.end, extent.file, extent.offset);
        found.into_iter().map(|(_, extent)| fields(extent.unwrap())).collect()
    }
}

/// Chunks of 20,000 bytes each.
pub(super) fn chunked(index: &mut TestIndex, id: StreamId, name: &str, chunks: u64) {
    index.fold([(id, created(name, bytes(0, 20_000)))]);
    (1..chunks).for_each(|n| drop(index.fold([(id, appended(bytes(n * 20_000, 20_000)))])));
}

#[test]
fn a_segment_takes_over_whole_chunks_and_the_beginning_of_one() {
    for (end, left) in [
        (20_000, vec![(20_000, 20_000), (40_000, 20_000)]),
        (45_000, vec![(45_000, 15_000)]),
        (60_000, vec![]),
    ] {
        let mut index = TestIndex::new();
        chunked(&mut index, ONE, "/a", 3);
        let done = index.hand_over(&segment(FILE, &[(ONE, extent(0, end), None)]));
        assert_eq!(done, HandedOver { live: end, freed: vec![] });
        assert_eq!(index.records("chunks", ONE), left);
        assert_eq!(index.extents(ONE), [(0, end, FILE, 32)]);
        assert_eq!(index.live(FILE), Some(end));
        assert_eq!(index.bytes(ONE, end, 60_000, usize::MAX), bytes(end, 60_000 - end as usize));
        let reading = index.index.read().unwrap();
        assert_eq!(reading.meta().unwrap().next_segment, FILE + 1);
        assert_eq!(reading.sealed_to(ONE).unwrap(), Some(Offset::new(end)));
        assert_eq!(reading.sealed_to(TWO).unwrap(), None);
        let at = |at| reading.extent_at(ONE, at).unwrap().map(|extent| extent.end);
        assert_eq!([0, end - 1, end].map(at), [Some(end), Some(end), None]);
        let piece = |from, to, max| {
            let found = reading.segment_piece(ONE, Offset::new(from), Offset::new(to), max);
            found.unwrap().map(|(_, _, len)| len as u64)
        };
        assert_eq!(piece(0, 60_000, usize::MAX), Some(end));
        assert_eq!(piece(5, end - 1, usize::MAX), Some(end - 6));
        assert_eq!(piece(5, end - 1, 100), Some(100));
        assert_eq!(piece(end, 60_000, 100), None);
        let none = reading.pieces(ONE, Offset::new(10), Offset::new(10), 99).unwrap();
        assert!(none.is_empty());
        let pieces = reading.pieces(ONE, Offset::new(10), Offset::new(60_000), 59_000).unwrap();
        let lens: Vec<_> = pieces
            .iter()
            .map(|piece| match piece {
                IndexPiece::Chunks(bytes) => ("chunks", bytes.len() as u64),
                IndexPiece::Segment { from, len, .. } => {
                    assert_eq!(*from, 10);
                    ("segment", *len as u64)
                }
            })
            .collect();
        let mut expected =
            vec![("segment", end.min(59_010) - 10), ("chunks", 59_010_u64.saturating_sub(end))];
        expected.retain(|(_, len)| *len > 0);
        assert_eq!(lens, expected);
    }
}

/// What has changed since the segment was written stays as it is.
#[test]
fn a_segment_does_not_take_over_what_is_not_there() {
    let mut index = TestIndex::new();
    chunked(&mut index, ONE, "/a", 3);
    chunked(&mut index, TWO, "/b", 2);
    let (third, before) = (StreamId(3), index.count());
    for (id, start, end) in [
        (third, 0, 10),
        (ONE, 100, 20_000),
        (ONE, 0, 60_001),
        (ONE, 60_000, 60_001),
        (ONE, 10_000, 60_000),
    ] {
        let done = index.hand_over(&segment(FILE, &[(id, extent(start, end), None)]));
        assert_eq!(done, HandedOver::default(), "{start} to {end}");
    }
    let elsewhere = ExtentRecord { file: 3, ..extent(0, 20_000) };
    let done = index.hand_over(&segment(FILE, &[(ONE, extent(0, 20_000), Some(elsewhere))]));
    assert_eq!((done, index.count()), (HandedOver::default(), before));
    // A gap.
    let removed = index.index.write(&|| Ok(()), |index, txn| {
        Ok(index.chunks.delete(txn, &keys::chunk(ONE, Offset::new(20_000)))?)
    });
    assert!(removed.unwrap());
    let done = index.hand_over(&segment(FILE, &[(ONE, extent(0, 60_000), None)]));
    assert_eq!(done, HandedOver::default());
    // As many bytes as are missing, at another place.
    let (key, mut value) = (keys::chunk(ONE, Offset::new(30_000)), Vec::new());
    keys::seal(&key, &bytes(30_000, 20_000), &mut value);
    let put =
        index.index.write(&|| Ok(()), |index, txn| Ok(index.chunks.put(txn, &key, &value)?));
    put.unwrap();
    let done = index.hand_over(&segment(FILE, &[(ONE, extent(0, 40_000), None)]));
    assert_eq!(done, HandedOver::default());
    assert_eq!(index.live(FILE), None);
    let done = index.hand_over(&segment(
        FILE,
        &[
            (third, extent(0, 10), None),
            (TWO, extent(0, 30_000), None),
            (ONE, extent(0, 20_000), None),
        ],
    ));
    assert_eq!((done.live, index.live(FILE)), (50_000, Some(50_000)));
}

#[test]
fn a_rewritten_segment_frees_the_one_that_it_replaces() {
    let mut index = TestIndex::new();
    chunked(&mut index, ONE, "/a", 2);
    chunked(&mut index, TWO, "/b", 2);
    index.hand_over(&segment(
        FILE,
        &[(ONE, extent(0, 40_000), None), (TWO, extent(0, 20_000), None)],
    ));
    let (first, second) = (extent(0, 40_000), extent(0, 20_000));
    let done = index.hand_over(&segment(8, &[(ONE, first, Some(first))]));
    assert_eq!(done, HandedOver { live: 40_000, freed: vec![] });
    assert_eq!((index.live(FILE), index.live(8)), (Some(20_000), Some(40_000)));
    let done = index.hand_over(&segment(9, &[(TWO, second, Some(second))]));
    assert_eq!(done, HandedOver { live: 20_000, freed: vec![FILE] });
    assert_eq!((index.live(FILE), index.live(9)), (None, Some(20_000)));
    let reading = index.index.read().unwrap();
    assert_eq!(Vec::from_iter(reading.segments_named().unwrap()), [8, 9]);
    let after = |after, max| -> Vec<u64> {
        let found = reading.segments_after(after, max).unwrap();
        found.into_iter().map(|(number, _)| number).collect()
    };
    assert_eq!((after(None, 9), after(None, 1)), (vec![8, 9], vec![8]));
    assert_eq!((after(Some(8), 9), after(Some(9), 9)), (vec![9], vec![]));
    let step = |from: Option<&[u8]>, max| {
        let step = reading.extents_after(from, max).unwrap();
        (step.extents.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), step.last)
    };
    let (some, last) = step(None, 1);
    assert_eq!((some, last.is_some()), (vec![1], true));
    assert_eq!(step(last.as_deref(), 1), (vec![2], None));
    assert_eq!(step(None, 2), (vec![1, 2], None));
    let in_use = |file, stream: StreamId, start, len| {
        let sealed = SealedExtent { stream: stream.0, start, len, offset: 32, append_lens: vec![] };
        reading.is_in_use(file, &[sealed])
    };
    assert!(in_use(8, ONE, 0, 40_000) && in_use(9, TWO, 0, 1));
    assert!(!in_use(9, ONE, 0, 40_000) && !in_use(8, TWO, 0, 40_000), "another file");
    assert!(!in_use(8, ONE, 1, 40_000) && !in_use(8, StreamId(3), 0, 40_000));
    let between = |start, end| reading.extents_between(ONE, start, end).unwrap().len();
    assert_eq!((between(0, 1), between(0, 0), between(1, 50_000)), (1, 0, 0));
    let [local, both, object] = index.index.segment_totals().unwrap();
    assert_eq!((local.files, local.bytes, local.live), (2, 400_000, 60_000));
    assert_eq!((both.files, object.files), (0, 0));
}

#[test]
fn a_segment_is_moved_if_it_is_where_it_was() {
    use SegmentPlace::{Both, Local, Object};
    let mut index = TestIndex::new();
    chunked(&mut index, ONE, "/a", 1);
    index.hand_over(&segment(FILE, &[(ONE, extent(0, 20_000), None)]));
    let moved =
        |number, from, to| index.index.move_segment(&|| Ok(()), number, (from, to)).unwrap();
    let place = || index.index.read().unwrap().segment(FILE).unwrap().map(|record| record.place);
    assert_eq!((moved(8, Local, Both), moved(FILE, Both, Object)), (None, Some(Local)));
    assert_eq!(place(), Some(Local));
    assert_eq!((moved(FILE, Local, Both), place()), (Some(Local), Some(Both)));
    let meta = || index.index.read().unwrap().meta().unwrap();
    let before = meta();
    index.index.move_all_to_objects().unwrap();
    assert_eq!(place(), Some(Object));
    index.index.skip_numbers().unwrap();
    assert_eq!(meta().next_id - before.next_id, 1 << 32);
    assert_eq!(meta().next_segment - before.next_segment, 1 << 31);
}

#[test]
fn trims_cut_extents_and_files_without_bytes_are_freed() {
    let mut index = TestIndex::new();
    chunked(&mut index, ONE, "/a", 3);
    index.hand_over(&segment(FILE, &[(ONE, extent(0, 20_000), None)]));
    index.hand_over(&segment(8, &[(ONE, extent(20_000, 40_000), None)]));
    index.hand_over(&segment(9, &[(ONE, extent(40_000, 60_000), None)]));
    let purge = |index: &TestIndex| {
        let mut freed = Vec::new();
        loop {
            let before = index.count();
            let done = index.index.purge_some(&|| Ok(()), 1).unwrap();
            freed.extend(done.freed);
            assert!(before - index.count() <= 3, "a record, its file's, and the one that said so");
            if !done.more {
                return freed;
            }
        }
    };
    index.fold([(ONE, trimmed(5))]);
    assert_eq!(purge(&index), [0; 0]);
    assert_eq!(index.extents(ONE)[0], (5, 20_000, FILE, 37));
    assert_eq!(index.live(FILE), Some(19_995));
    assert_eq!(index.checksums(ONE), [None, Some(9), Some(9)], "a part has none");
    index.fold([(ONE, trimmed(20_000))]);
    assert_eq!(purge(&index), [FILE]);
    assert_eq!(index.extents(ONE).len(), 2);
    index.fold([(ONE, trimmed(50_000))]);
    assert_eq!(purge(&index), [8]);
    assert_eq!(index.extents(ONE), [(50_000, 60_000, 9, 32 + 50_000)]);
    assert_eq!((index.live(8), index.live(9)), (None, Some(10_000)));
    index.fold([(ONE, deleted())]);
    assert_eq!(purge(&index), [9]);
    assert_eq!(index.count(), 1, "nothing but the meta record");
}

#[test]
fn a_deleted_stream_frees_its_files_extent_by_extent() {
    for damaged in [false, true] {
        let mut index = TestIndex::new();
        chunked(&mut index, ONE, "/a", 4);
        for number in 1..=3 {
            let part = extent((number - 1) * 20_000, number * 20_000);
            index.hand_over(&segment(number, &[(ONE, part, None)]));
        }
        if damaged {
            let put = index.index.write(&|| Ok(()), |index, txn| {
                Ok(index.streams.put(txn, &keys::id(ONE), b"no state")?)
            });
            put.unwrap();
        }
        assert_eq!(index.fold([(ONE, deleted())]).freed, 80_000);
        // Three extents, each with the record of its file; a chunk, and the record that says so.
        for expected in [vec![1], vec![2], vec![3], vec![]] {
            let done = index.index.purge_some(&|| Ok(()), 1).unwrap();
            assert_eq!((done.freed, done.more), (expected, true));
        }
        let done = index.index.purge_some(&|| Ok(()), 1).unwrap();
        assert_eq!((done.freed, done.more, index.count()), (vec![], false, 1));
    }
}

/// What `repair` drops from the middle of a stream.
#[test]
fn a_dropped_range_leaves_the_bytes_on_both_sides() {
    for (start, end) in [
        (0, 1),
        (10_000, 20_000),
        (10_000, 30_000),
        (20_000, 40_000),
        (39_999, 60_001),
        (50_000, 60_000),
        (70_000, 80_000),
    ] {
        let mut index = TestIndex::new();
        chunked(&mut index, ONE, "/a", 4);
        index.hand_over(&segment(FILE, &[(ONE, extent(0, 20_000), None)]));
        index.hand_over(&segment(8, &[(ONE, extent(20_000, 40_000), None)]));
        let dropped =
            index.index.write(&|| Ok(()), |index, txn| index.drop_bytes(txn, ONE, start, end));
        dropped.unwrap();
        let reading = index.index.read().unwrap();
        // What is left, of extents and chunks, in order.
        let mut left: Vec<(u64, u64)> = index
            .extents(ONE)
            .iter()
            .map(|(start, end, file, offset)| {
                assert_eq!(*offset, 32 + start, "of file {file}");
                (*start, *end)
            })
            .collect();
        left.extend(index.records("chunks", ONE).iter().map(|(at, len)| (*at, at + *len as u64)));
        let mut expected = Vec::new();
        for (from, to) in [(0, 20_000), (20_000, 40_000), (40_000, 60_000), (60_000, 80_000)] {
            expected.extend(
                [(from, to.min(start)), (from.max(end), to)].into_iter().filter(|(a, b)| a < b),
            );
        }
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(left, expected, "{start} to {end}");
        let is_whole = |(start, end, ..): &(u64, u64, u64, u64)| end - start == 20_000;
        let whole: Vec<bool> = index.extents(ONE).iter().map(is_whole).collect();
        let sealed: Vec<bool> = index.checksums(ONE).iter().map(Option::is_some).collect();
        assert_eq!(sealed, whole, "what is cut has no checksum, and nothing else has lost it");
        for (from, to) in left.into_iter().filter(|(from, _)| *from >= 40_000) {
            assert_eq!(index.bytes(ONE, from, to, usize::MAX), bytes(from, (to - from) as usize));
        }
        let ranges = reading.dropped().unwrap();
        let next = |from, to| {
            let found = ranges.next(ONE, Offset::new(from), Offset::new(to));
            found.map(|(start, end)| (start.position(), end.position()))
        };
        assert_eq!(next(0, 80_000), Some((start, end)));
        assert_eq!((next(end - 1, 80_000), next(end, 80_000)), (Some((start, end)), None));
        assert_eq!((next(0, start), next(0, start + 1)), (None, Some((start, end))));
        assert_eq!(ranges.next(TWO, Offset::ZERO, Offset::new(9)), None);
        let past = |at| ranges.past(ONE, at);
        assert_eq!((past(start), past(end - 1), past(end)), (Some(end), Some(end), None));
    }
}

/// The first chunk of a stream begins at 0.
#[test]
fn a_range_in_the_first_chunk_leaves_two() {
    let mut index = TestIndex::new();
    chunked(&mut index, ONE, "/a", 2);
    let dropped = index.index.write(&|| Ok(()), |index, txn| index.drop_bytes(txn, ONE, 10, 20));
    dropped.unwrap();
    assert_eq!(index.records("chunks", ONE), [(0, 10), (20, 19_980), (20_000, 20_000)]);
}

/// A range that is dropped with others in it takes their place.
#[test]
fn a_dropped_range_takes_in_those_that_it_covers() {
    let mut index = TestIndex::new();
    chunked(&mut index, ONE, "/a", 1);
    let drop_bytes = |start, end| {
        let dropped =
            index.index.write(&|| Ok(()), |index, txn| index.drop_bytes(txn, ONE, start, end));
        dropped.unwrap();
    };
    drop_bytes(50, 60);
    drop_bytes(100, 110);
    drop_bytes(120, 130);
    drop_bytes(100, 120);
    let ranges = index.index.read().unwrap().dropped().unwrap();
    let mut found = Vec::new();
    let mut from = Offset::ZERO;
    while let Some((start, end)) = ranges.next(ONE, from, Offset::new(20_000)) {
        found.push((start.position(), end.position()));
        from = end;
    }
    assert_eq!(found, [(50, 60), (100, 120), (120, 130)]);
    assert_eq!((ranges.past(ONE, 49), ranges.past(ONE, 119)), (None, Some(120)));
}
