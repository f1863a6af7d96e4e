//! What a repair makes of bytes in segments, whose files are not there.

use super::{
    super::sealing::{FILE, chunked, extent, segment},
    *,
};
use crate::store::file::layout::{TIER_IDENTITY, keys_dir};

#[test]
fn what_a_stream_without_its_state_has_in_segments_counts() {
    let mut index = TestIndex::new();
    chunked(&mut index, ONE, "/a", 3);
    chunked(&mut index, TWO, "/b", 1);
    index.hand_over(&segment(FILE, &[(ONE, extent(0, 45_000), None)]));
    tamper(&index, true, |index, txn| {
        index.streams.delete(txn, &keys::id(ONE))?;
        Ok(())
    });
    let damage = repaired(&index);
    assert_eq!(damage.lost, [lost(ONE, Some("/a"), LostPart::Stream { bytes: 60_000 })]);
    assert_eq!(index.extents(ONE), []);
}

#[test]
fn chunks_and_extents_that_belong_nowhere_are_removed_at_no_loss() {
    type Stray<'s> = (&'s [u64], &'s [(u64, u64)]);
    let cases: [Stray<'_>; 6] = [
        (&[100], &[]),
        (&[19_999, 59_999], &[]),
        // Behind the tail.
        (&[60_000, 70_000], &[]),
        (&[], &[(60_000, 60_001)]),
        (&[], &[(50_000, 60_001), (70_000, 80_000)]),
        (&[59_990], &[(59_000, 70_000)]),
    ];
    for (chunks, extents) in cases {
        let mut index = TestIndex::new();
        chunked(&mut index, ONE, "/a", 3);
        tamper(&index, true, |index, txn| {
            for at in chunks {
                let key = keys::chunk(ONE, Offset::new(*at));
                index.chunks.put(txn, &key, &sealed(&key, b"stray"))?;
            }
            for (start, end) in extents {
                index.put_extent(txn, ONE, &extent(*start, *end))?;
            }
            Ok(())
        });
        let damage = repaired(&index);
        assert_eq!(damage.lost, [], "{chunks:?} {extents:?}");
        assert_eq!(index.bytes(ONE, 0, 60_000, usize::MAX), bytes(0, 60_000));
        assert_eq!((index.records("chunks", ONE).len(), index.extents(ONE)), (3, vec![]));
    }
}

/// No segment is there: what is in them is lost, and what is missing before it.
#[test]
fn extents_that_are_missing_or_without_a_file_are_lost() {
    for removed in [vec![0], vec![20_000], vec![]] {
        let mut index = TestIndex::new();
        chunked(&mut index, ONE, "/a", 3);
        index.hand_over(&segment(FILE, &[(ONE, extent(0, 20_000), None)]));
        index.hand_over(&segment(8, &[(ONE, extent(20_000, 40_000), None)]));
        tamper(&index, true, |index, txn| {
            for at in &removed {
                index.extents.delete(txn, &keys::chunk(ONE, Offset::new(*at)))?;
            }
            Ok(())
        });
        let damage = repaired(&index);
        let part = LostPart::Bytes { from: 0, to: 40_000 };
        assert_eq!(damage.lost, [lost(ONE, Some("/a"), part)], "without {removed:?}");
        let rewritten: &[_] = if removed.is_empty() { &[] } else { &["segment_files"] };
        assert_eq!(damage.rewritten, rewritten, "without {removed:?}");
        assert_eq!(index.bytes(ONE, 40_000, 60_000, usize::MAX), bytes(40_000, 20_000));
    }
}

/// A file that cannot be read now may be whole.
#[test]
fn nothing_is_planned_while_a_segment_cannot_be_read() {
    for place in [SegmentPlace::Local, SegmentPlace::Both] {
        let mut index = TestIndex::new();
        chunked(&mut index, ONE, "/a", 1);
        index.hand_over(&segment(FILE, &[(ONE, extent(0, 20_000), None)]));
        let places = (SegmentPlace::Local, place);
        index.index.move_segment(&|| Ok(()), FILE, places).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let segments = SegmentFiles::new(Arc::new(RealDisk), dir.path(), 1);
        std::fs::create_dir(segments.path(FILE)).unwrap();
        let plan = index.index.read().unwrap().plan_repair(&segments);
        assert!(matches!(plan, Err(StoreError::Io { .. })), "{:?}", plan.map(|plan| plan.damage));
    }
}

/// A segment without a record and a file, in a directory whose segments may be objects, is taken for one.
#[test]
fn a_segment_that_may_be_an_object_is_assumed_to_be_one() {
    for may_be in [false, true] {
        let mut index = TestIndex::new();
        chunked(&mut index, ONE, "/a", 2);
        index.hand_over(&segment(FILE, &[(ONE, extent(0, 20_000), None)]));
        index.hand_over(&segment(8, &[(ONE, extent(20_000, 40_000), None)]));
        tamper(&index, true, |index, txn| {
            index.segment_files.delete(txn, &FILE.to_be_bytes())?;
            Ok(())
        });
        let dir = tempfile::tempdir().unwrap();
        let segments = dir.path().join("segments");
        let keys = keys_dir(dir.path());
        [&segments, &keys].into_iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        if may_be {
            std::fs::write(keys.join(TIER_IDENTITY), "{}").unwrap();
        }
        let segments = SegmentFiles::new(Arc::new(RealDisk), &segments, 1);
        assert_eq!(segments.may_be_objects(), may_be);
        let plan = index.index.read().unwrap().plan_repair(&segments).unwrap();
        // The other one has a record that says that it is local.
        let from = if may_be { 20_000 } else { 0 };
        let lost = [lost(ONE, Some("/a"), LostPart::Bytes { from, to: 40_000 })];
        let rewritten = ["segment_files"];
        assert_eq!((&*plan.damage.lost, &*plan.damage.rewritten), (&lost[..], &rewritten[..]));
        index.index.repair(&plan).unwrap();
        let record = index.index.read().unwrap().segment(FILE).unwrap();
        let assumed = SegmentRecord {
            file_len: 32 + 20_000,
            data: 20_000,
            live: 20_000,
            footer_crc: 0,
            place: SegmentPlace::Object,
            sealed_at: None,
        };
        assert_eq!(record, may_be.then_some(assumed));
    }
}
