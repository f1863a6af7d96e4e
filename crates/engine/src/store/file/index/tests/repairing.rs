//! What a repair makes of an index that has whole records only.

use std::sync::{Arc, atomic::Ordering};

use heed::RwTxn;

use super::{
    verifying::{FOUR, THREE, filled, name_of, problems, sealed, tamper},
    *,
};
use crate::store::file::{
    disk::RealDisk,
    index::{
        env::IndexEnvironment,
        handle::WriteError,
        repair::{IndexDamage, LostPart, LostRecords},
    },
    segments::files::SegmentFiles,
};

mod sealed;

/// What a repair plans for an index that has whole records only, and what is wrong afterwards.
fn repaired(index: &TestIndex) -> IndexDamage {
    let dir = tempfile::tempdir().unwrap();
    let segments = SegmentFiles::new(Arc::new(RealDisk), dir.path(), 1);
    let plan = index.index.read().unwrap().plan_repair(&segments).unwrap();
    index.index.repair(&plan).unwrap();
    while index.index.purge_some(&|| Ok(()), 99).unwrap().more {}
    assert_eq!(problems(index), [""; 0], "after {:?}", plan.damage);
    let again = index.index.read().unwrap().plan_repair(&segments).unwrap();
    assert_eq!(again.damage, IndexDamage::default());
    plan.damage
}

fn lost(id: StreamId, path: Option<&str>, part: LostPart) -> LostRecords {
    LostRecords { id: id.0, path: path.map(str::to_owned), part }
}

#[test]
fn a_repair_of_a_whole_index_changes_nothing() {
    let index = filled();
    let before: Vec<_> = [ONE, TWO, THREE, FOUR].map(|id| index.state(id)).into();
    assert_eq!(repaired(&index), IndexDamage::default());
    assert_eq!([ONE, TWO, THREE, FOUR].map(|id| index.state(id)), *before);
    assert_eq!(index.bytes(ONE, 0, 20_300, usize::MAX), bytes(0, 20_300));
}

#[test]
fn what_follows_from_states_is_written_again_at_no_loss() {
    type Change = fn(&IndexEnvironment, &mut RwTxn<'_>) -> Result<(), WriteError>;
    let cases: [(Change, &[&str]); 9] = [
        (
            |index, txn| {
                index.paths.delete(txn, &name_of("/b"))?;
                Ok(())
            },
            &["paths"],
        ),
        (
            |index, txn| {
                let name = name_of("/x");
                Ok(index.paths.put(txn, &name, &sealed(&name, &3_u64.to_be_bytes()))?)
            },
            &["paths"],
        ),
        (
            |index, txn| {
                let name = name_of("/b");
                Ok(index.paths.put(txn, &name, &sealed(&name, &3_u64.to_be_bytes()))?)
            },
            &["paths"],
        ),
        (
            |index, txn| {
                index.deadlines.delete(txn, &keys::deadline(at(5000), ONE))?;
                Ok(())
            },
            &["deadlines and forks"],
        ),
        (
            |index, txn| {
                index.deadlines.delete(txn, &keys::deadline(at(5000), ONE))?;
                Ok(index.deadlines.put(txn, &keys::deadline(at(6000), ONE), &[])?)
            },
            &["deadlines and forks"],
        ),
        (
            |index, txn| {
                index.forks.delete(txn, &keys::fork(ONE, TWO))?;
                Ok(index.forks.put(txn, &keys::fork(ONE, THREE), &[])?)
            },
            &["deadlines and forks"],
        ),
        (
            |index, txn| Ok(index.forks.put(txn, &keys::fork(ONE, THREE), &[])?),
            &["deadlines and forks"],
        ),
        (
            |index, txn| {
                let mut meta = index.meta(txn)?;
                meta.bytes += 1;
                Ok(index.put_meta(txn, &mut meta)?)
            },
            &["totals"],
        ),
        (
            |index, txn| {
                let mut meta = index.meta(txn)?;
                meta.next_id = FOUR.0;
                Ok(index.put_meta(txn, &mut meta)?)
            },
            &["totals"],
        ),
    ];
    for (at, (change, rewritten)) in cases.into_iter().enumerate() {
        let index = filled();
        let before: Vec<_> = [ONE, TWO, THREE, FOUR].map(|id| index.state(id)).into();
        tamper(&index, true, change);
        let damage = repaired(&index);
        assert_eq!((&*damage.lost, &*damage.rewritten), (&[][..], rewritten), "case {at}");
        assert_eq!([ONE, TWO, THREE, FOUR].map(|id| index.state(id)), *before);
        let reading = index.index.read().unwrap();
        assert_eq!(reading.path_id(&path("/b")).unwrap(), Some(TWO));
        assert_eq!(reading.path_id(&path("/x")).unwrap(), None);
        assert_eq!(reading.forks(ONE).unwrap(), [TWO]);
        let due = reading.deadlines_from(DeadlineCursor::default(), 9).unwrap();
        assert_eq!(due, (vec![ONE], None));
    }
}

fn chunk(
    index: &IndexEnvironment,
    txn: &mut RwTxn<'_>,
    id: StreamId,
    at: u64,
) -> Result<(), WriteError> {
    assert!(index.chunks.delete(txn, &keys::chunk(id, Offset::new(at)))?);
    Ok(())
}

/// Puts chunks in the place of the one with the messages.
fn parts(
    index: &IndexEnvironment,
    txn: &mut RwTxn<'_>,
    parts: &[(u64, &[u8])],
) -> Result<(), WriteError> {
    chunk(index, txn, THREE, 0)?;
    for (at, part) in parts {
        let key = keys::chunk(THREE, Offset::new(*at));
        index.chunks.put(txn, &key, &sealed(&key, part))?;
    }
    Ok(())
}

/// Puts lists of one append each in the place of the one with all of them.
fn lists(
    index: &IndexEnvironment,
    txn: &mut RwTxn<'_>,
    lists: &[(u64, u8)],
) -> Result<(), WriteError> {
    assert!(index.appends.delete(txn, &keys::chunk(ONE, Offset::ZERO))?);
    for (at, len) in lists {
        let key = keys::chunk(ONE, Offset::new(*at));
        index.appends.put(txn, &key, &sealed(&key, &[*len]))?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_written_again_is_lost_by_whole_appends_and_messages() {
    let bytes_lost = |id, path: &str, from, to| lost(id, Some(path), LostPart::Bytes { from, to });
    type Change = dyn Fn(&IndexEnvironment, &mut RwTxn<'_>) -> Result<(), WriteError>;
    let cases: [(&Change, Vec<LostRecords>); 13] = [
        (&|index, txn| chunk(index, txn, ONE, 20_210), vec![bytes_lost(ONE, "/a", 20_210, 20_300)]),
        (&|index, txn| chunk(index, txn, ONE, 0), vec![bytes_lost(ONE, "/a", 0, 20_210)]),
        (&|index, txn| chunk(index, txn, TWO, 50), vec![bytes_lost(TWO, "/b", 50, 57)]),
        (&|index, txn| chunk(index, txn, THREE, 0), vec![bytes_lost(THREE, "/c", 0, 9)]),
        (
            &|index, txn| chunk(index, txn, FOUR, 40_000),
            vec![bytes_lost(FOUR, "/d", 40_000, 40_005)],
        ),
        (
            // The middle of a stream: 2 is the middle message's first byte.
            &|index, txn| parts(index, txn, &[(0, b"1\x1e2"), (4, b"\x1e333\x1e")]),
            vec![bytes_lost(THREE, "/c", 2, 5)],
        ),
        (
            // The rest of the message is in two chunks.
            &|index, txn| parts(index, txn, &[(0, b"1\x1e"), (3, b"2"), (4, b"\x1e333\x1e")]),
            vec![bytes_lost(THREE, "/c", 2, 5)],
        ),
        (
            // A byte of a message between two that are lost.
            &|index, txn| parts(index, txn, &[(0, b"1\x1e"), (3, b"2"), (5, b"333\x1e")]),
            vec![bytes_lost(THREE, "/c", 2, 9)],
        ),
        (
            // Its beginning is in two chunks; where it ended is not known.
            &|index, txn| parts(index, txn, &[(0, b"1\x1e2"), (3, b"2"), (5, b"333\x1e")]),
            vec![bytes_lost(THREE, "/c", 2, 9)],
        ),
        (
            &|index, txn| {
                index
                    .producers
                    .delete(txn, &keys::producer(ONE, &ProducerId::new("p").unwrap()))?;
                Ok(())
            },
            vec![lost(ONE, Some("/a"), LostPart::Producers { count: 1 })],
        ),
        (
            &|index, txn| {
                index.appends.delete(txn, &keys::chunk(ONE, Offset::ZERO))?;
                Ok(())
            },
            vec![lost(ONE, Some("/a"), LostPart::AppendEnds { before: 20_300 })],
        ),
        // Those in the state begin at 210. A list is missing before the one that reaches there, or ends too early for it.
        (
            &|index, txn| lists(index, txn, &[(100, 110)]),
            vec![lost(ONE, Some("/a"), LostPart::AppendEnds { before: 20_300 })],
        ),
        (
            &|index, txn| lists(index, txn, &[(0, 100), (150, 110)]),
            vec![lost(ONE, Some("/a"), LostPart::AppendEnds { before: 20_300 })],
        ),
    ];
    for (at, (change, expected)) in cases.into_iter().enumerate() {
        let index = filled();
        tamper(&index, true, change);
        let damage = repaired(&index);
        assert_eq!((damage.lost, damage.rewritten), (expected, vec![]), "case {at}");
        assert_eq!(index.index.read().unwrap().meta().unwrap().streams, 4);
    }
}

#[test]
fn a_stream_without_its_state_is_dropped_with_all_that_it_has() {
    let index = filled();
    tamper(&index, true, |index, txn| {
        index.streams.delete(txn, &keys::id(ONE))?;
        // Records of streams that no state or path names.
        let key = keys::chunk(StreamId(7), Offset::new(3));
        index.chunks.put(txn, &key, &sealed(&key, b"four"))?;
        let key = keys::chunk(StreamId(8), Offset::new(3));
        Ok(index.dropped.put(txn, &key, &sealed(&key, &5_u64.to_be_bytes()))?)
    });
    let damage = repaired(&index);
    let stream = |bytes| LostPart::Stream { bytes };
    let expected = [
        lost(ONE, Some("/a"), stream(20_300)),
        lost(StreamId(7), None, stream(4)),
        lost(StreamId(8), None, stream(0)),
    ];
    assert_eq!(damage.lost, expected);
    assert_eq!(damage.rewritten, ["paths", "deadlines and forks", "totals"]);
    let meta = index.index.read().unwrap().meta().unwrap();
    assert_eq!((meta.streams, meta.bytes), (3, 21));
    assert_eq!(index.bytes(ONE, 0, 20_300, 9), b"");
}

/// Names of format 1 have no checksums.
#[test]
fn names_without_checksums_are_whole_in_an_index_of_format_1_only() {
    for (has_checksums, found) in [(true, None), (false, Some(TWO))] {
        let index = filled();
        tamper(&index, true, |index, txn| {
            index.paths_sealed.store(has_checksums, Ordering::Release);
            Ok(index.paths.put(txn, &name_of("/b"), &TWO.0.to_be_bytes())?)
        });
        let dir = tempfile::tempdir().unwrap();
        let copy = IndexHandle::open(dir.path(), 8 << 20).unwrap();
        index.index.salvage(&copy, &mut |_| {}).unwrap();
        let reading = copy.read().unwrap();
        assert_eq!(reading.path_id(&path("/b")).unwrap(), found);
        assert_eq!(reading.path_id(&path("/a")).unwrap(), Some(ONE));
    }
}

#[test]
fn lists_of_appends_that_were_trimmed_are_no_loss() {
    let mut index = TestIndex::new();
    index.fold([(ONE, created("/a", bytes(0, 1)))]);
    index.fold((1..3000).map(|n| (ONE, appended(bytes(n, 1)))));
    let lists = |index: &TestIndex| index.records("appends", ONE).len();
    assert_eq!(lists(&index), 3);
    index.fold([(ONE, trimmed(1500))]);
    assert_eq!(repaired(&index), IndexDamage::default());
    assert_eq!(lists(&index), 2, "the first one is purged");
    assert_eq!(repaired(&index), IndexDamage::default());
    assert_eq!(problems(&index), [""; 0]);
}
