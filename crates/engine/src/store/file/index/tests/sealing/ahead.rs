//! Segments that a checkpoint references for bytes that were never in chunks.

use super::*;

/// A segment that was written for a checkpoint, with one extent.
fn ahead(number: u64, id: StreamId, start: u64, end: u64) -> NewSegment {
    let new = segment(number, &[(id, extent(start, end), None)]);
    let record = SegmentRecord { live: end - start, data: end - start, ..new.record };
    NewSegment { record, ..new }
}

/// Appends of 10,000 bytes each to a stream that ends here.
fn appends(from: u64, count: u64) -> Vec<(StreamId, StreamEvent)> {
    let appends = (0..count).map(|n| (ONE, appended(bytes(from + n * 10_000, 10_000))));
    appends.collect()
}

/// The numbers of the segments that a checkpoint references, and then the stream's extents, from where to where, and its chunks,
/// from where and how long.
type Folded = (Vec<u64>, Vec<(u64, u64)>, Vec<(u64, usize)>);

/// What is where after a checkpoint of three appends behind 20,000 bytes in chunks, with these segments.
fn folded(segments: &[NewSegment]) -> Folded {
    let mut index = TestIndex::new();
    chunked(&mut index, ONE, "/a", 1);
    index.fold([(TWO, created("/b", bytes(0, 20_000)))]);
    let referenced = index.fold_ahead(appends(20_000, 3), segments).referenced;
    for number in &referenced {
        let of = segments.iter().find(|segment| segment.number == *number).unwrap();
        assert_eq!(index.live(*number), Some(of.record.live));
    }
    let next = index.index.read().unwrap().meta().unwrap().next_segment;
    assert!(referenced.iter().all(|number| *number < next), "{next}");
    assert_eq!(index.bytes(TWO, 0, 20_000, 20_000), bytes(0, 20_000), "another stream's");
    // What is appended next goes behind it, whatever has the bytes before.
    index.fold([(ONE, appended(bytes(50_000, 5)))]);
    assert_eq!(index.state(ONE).unwrap().tail, Offset::new(50_005));
    let extents = index.extents(ONE).into_iter().map(|(start, end, ..)| (start, end)).collect();
    (referenced, extents, index.records("chunks", ONE))
}

#[test]
fn segments_have_the_first_new_bytes_and_what_was_in_chunks() {
    let none = (vec![], vec![], vec![(0, 20_000), (20_000, 30_000), (50_000, 5)]);
    assert_eq!(folded(&[]), none);
    // All of it; a part, with the rest in a chunk; both parts in files of their own.
    assert_eq!(
        folded(&[ahead(8, ONE, 0, 50_000)]),
        (vec![8], vec![(0, 50_000)], vec![(50_000, 5)])
    );
    let part = ahead(8, ONE, 0, 30_000);
    assert_eq!(folded(&[part]), (vec![8], vec![(0, 30_000)], vec![(30_000, 20_000), (50_000, 5)]));
    let both = [ahead(8, ONE, 0, 30_000), ahead(9, ONE, 30_000, 50_000)];
    let whole = (vec![8, 9], vec![(0, 30_000), (30_000, 50_000)], vec![(50_000, 5)]);
    assert_eq!(folded(&both), whole);
    // Others are for other streams.
    let of_two = [ahead(7, TWO, 20_000, 30_000), ahead(8, ONE, 0, 50_000)];
    assert_eq!(folded(&of_two).0, [8]);
}

#[test]
fn a_segment_that_does_not_fit_is_left_out_and_all_that_follow() {
    let none = (vec![], vec![], vec![(0, 20_000), (20_000, 30_000), (50_000, 5)]);
    for (start, end) in [
        (10_000, 50_000), // in the middle of a chunk
        (30_000, 50_000), // behind a gap
        (0, 20_000),      // what the index has
        (0, 35_000),      // within an append
        (0, 60_000),      // more than there is
        (50_000, 60_000),
    ] {
        assert_eq!(folded(&[ahead(8, ONE, start, end)]), none, "{start} {end}");
    }
    let gap = [ahead(8, ONE, 0, 30_000), ahead(9, ONE, 40_000, 50_000)];
    assert_eq!(folded(&gap), (vec![8], vec![(0, 30_000)], vec![(30_000, 20_000), (50_000, 5)]));
    let two = segment(8, &[(ONE, extent(0, 30_000), None), (TWO, extent(0, 20_000), None)]);
    assert_eq!(folded(&[two]), none, "a segment of two streams is none of a checkpoint");
}

#[test]
fn a_new_stream_begins_with_segments() {
    let mut index = TestIndex::new();
    let events = [(ONE, created("/a", bytes(0, 300))), (ONE, appended(bytes(300, 300)))];
    let done = index.fold_ahead(events, &[ahead(3, ONE, 0, 600)]);
    assert_eq!((done.referenced, index.extents(ONE).len()), (vec![3], 1));
    assert_eq!(index.records("chunks", ONE), []);
    // A stream that ends in the same checkpoint has none.
    let events = [(TWO, created("/b", bytes(0, 300))), (TWO, deleted())];
    let done = index.fold_ahead(events, &[ahead(4, TWO, 0, 300)]);
    assert_eq!((done.referenced, index.extents(TWO).len(), index.live(4)), (vec![], 0, None));
}
