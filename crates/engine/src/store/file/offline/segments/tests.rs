//! Whether extents of the index and of a segment's footer fit together.

use super::*;
use crate::store::file::{
    index::{
        extents::{NewExtent, NewSegment},
        tests::{ONE, TWO, TestIndex, bytes, created},
    },
    segments::format::{self, SegmentFooter, SegmentWriter},
};

const FILE: u64 = 7;

#[test]
fn an_extent_lies_in_a_sealed_one_at_the_same_distance_from_its_start() {
    let sealed =
        SealedExtent { stream: 1, start: 1000, len: 100, offset: 5000, append_lens: Vec::new() };
    let lies = |start, end, offset| {
        lies_in(&ExtentRecord { start, end, file: FILE, offset, crc: None }, &sealed)
    };
    assert!(lies(1000, 1100, 5000) && lies(1040, 1100, 5040) && lies(1040, 1060, 5040));
    assert!(!lies(1000, 1101, 5000), "more than there is");
    assert!(!lies(1040, 1060, 5041) && !lies(1040, 1060, 5000));
}

/// An index with 1000 bytes of the first stream in a segment, which are `moved` bytes further on in the segment's file.
fn check(moved: u64) -> (VerifiedTotals, Vec<String>, DamagedParts, Vec<SegmentRange>) {
    let (mut index, dir) = (TestIndex::new(), tempfile::tempdir().unwrap());
    let data = bytes(0, 1000);
    index.fold([(ONE, created("one", data.clone())), (TWO, created("two", data.clone()))]);
    let file = SegmentWriter::file(FILE, &[(ONE.0, 0, &[], &data)]);
    std::fs::write(dir.path().join(file_name(FILE)), &file).unwrap();
    let footer = SegmentFooter::of_file(FILE, &file).unwrap();
    let offset = footer.extents[0].offset + moved;
    let extent = ExtentRecord { start: 0, end: 1000, file: FILE, offset, crc: None };
    let record = SegmentRecord {
        file_len: file.len() as u64,
        data: 1000,
        live: 0,
        footer_crc: footer.trailer.footer_crc,
        place: SegmentPlace::Local,
        sealed_at: None,
    };
    let extents = vec![NewExtent { id: ONE, extent, replaces: None }];
    index.index.hand_over(&|| Ok(()), &NewSegment { number: FILE, record, extents }).unwrap();
    let (mut totals, mut problems) = (VerifiedTotals::default(), Vec::new());
    let segments = SegmentSource::local(dir.path());
    let parts = check_segments(&index.index, &segments, &mut totals, &mut |problem| {
        problems.push(problem.to_string());
    });
    let (parts, mut ranges) = (parts.unwrap(), Vec::new());
    ranges_in(&index.index, &parts, &mut |range| ranges.push(range)).unwrap();
    (totals, problems, parts, ranges)
}

#[test]
fn an_extent_that_lies_elsewhere_in_its_file_is_damage_of_its_stream() {
    let (totals, problems, parts, ranges) = check(0);
    assert_eq!((totals.segments, totals.objects, problems, parts.len()), (1, 0, vec![], 0));
    assert!(ranges.is_empty());
    let (_, problems, parts, ranges) = check(1);
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert!(problem.contains("it does not hold what stream 1 should have there"), "{problem}");
    let offset = format::HEADER as u64 + 1;
    let part = offset..offset + 1000;
    assert_eq!(parts[&FILE], std::slice::from_ref(&part));
    let path = Some("one".to_owned());
    assert_eq!(ranges, [SegmentRange { segment: FILE, id: ONE.0, path, from: 0, to: 1000 }]);
}
