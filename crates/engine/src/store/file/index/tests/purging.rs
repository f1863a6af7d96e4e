//! What deleted and trimmed streams leave goes in steps.

use super::*;

fn purge(index: &TestIndex, max: usize) -> (u64, bool) {
    let before = index.count();
    let Purged { any, more, freed } = index.index.purge_some(&|| Ok(()), max).unwrap();
    assert!((any || !more) && freed.is_empty());
    (before - index.count(), more)
}

/// Two chunks, one record of lengths, two producers.
fn filled(index: &mut TestIndex, id: StreamId, name: &str) {
    let first = 200_u64;
    index.fold([(id, created(name, Bytes::new()))]);
    index.fold((0..first).map(|n| (id, appended(bytes(n, 1)))));
    index.fold([
        (id, produced(bytes(first, 40_000), "p", 0)),
        (id, produced(bytes(0, 30_000), "q", 0)),
    ]);
    index.fold([(id, appended(bytes(0, 10)))]);
    assert_eq!(index.records("chunks", id).len() + index.records("appends", id).len(), 3);
}

#[test]
fn each_step_removes_as_many_records_as_it_may() {
    for max in [1, 2, 3, 5, 6, 7, 11, 12, 13] {
        let mut index = TestIndex::new();
        filled(&mut index, ONE, "/a");
        filled(&mut index, TWO, "/b");
        filled(&mut index, StreamId(3), "/c");
        let kept = index.state(StreamId(3));
        assert_eq!(purge(&index, max), (0, false));
        index.fold([(ONE, deleted()), (TWO, deleted())]);
        // Five records and the one that says so, of each.
        let mut left = 12;
        loop {
            let (removed, more) = purge(&index, max);
            assert_eq!(removed, (max as u64).min(left), "with steps of {max}");
            left -= removed;
            if !more {
                break;
            }
        }
        assert_eq!((left, purge(&index, max)), (0, (0, false)));
        assert_eq!(index.state(StreamId(3)), kept);
        assert_eq!(index.bytes(StreamId(3), 0, 70_210, usize::MAX).len(), 70_210);
        // Its name, its state, its five records, and the meta record.
        assert_eq!(index.count(), 8);
    }
}

#[test]
fn a_trim_removes_what_is_wholly_before_it() {
    // Behind which position how many chunks and records of lengths are before it.
    for (kept, before) in
        [(1, 0), (199, 0), (200, 1), (65_535, 1), (65_536, 2), (70_209, 2), (70_210, 3)]
    {
        let mut index = TestIndex::new();
        filled(&mut index, ONE, "/a");
        filled(&mut index, TWO, "/b");
        index.fold([(ONE, trimmed(kept))]);
        let mut all = 0;
        loop {
            let (removed, more) = purge(&index, 1);
            assert_eq!(removed, 1, "in each step");
            all += removed;
            if !more {
                break;
            }
        }
        assert_eq!(all, before + 1, "before {kept}, and the record that said so");
        let left = index.records("chunks", ONE);
        assert!(left.iter().all(|(at, len)| at + *len as u64 > kept), "{left:?} behind {kept}");
        let state = index.state(ONE).unwrap();
        assert_eq!(index.bytes(ONE, kept, 70_210, usize::MAX).len() as u64, state.own_len());
        assert_eq!(index.bytes(TWO, 0, 70_210, usize::MAX).len(), 70_210);
    }
}

#[test]
fn several_trims_are_done_in_steps_as_well() {
    for max in [1, 2, 3, 4, 5, 6, 7] {
        let mut index = TestIndex::new();
        filled(&mut index, ONE, "/a");
        filled(&mut index, TWO, "/b");
        index.fold([(ONE, trimmed(65_536)), (TWO, trimmed(65_536))]);
        // Of each a chunk, the lengths in it, and the record that says so.
        let mut left = 6;
        while left > 0 {
            let (removed, _) = purge(&index, max);
            assert_eq!(removed, (max as u64).min(left), "with steps of {max}");
            left -= removed;
        }
        assert_eq!(purge(&index, max), (0, false));
    }
}

/// Another stream's id in a record of what is to be purged: only a changed bit explains it.
#[test]
fn the_data_of_a_stream_that_is_there_is_never_purged() {
    let mut index = TestIndex::new();
    filled(&mut index, ONE, "/a");
    let put = |id| {
        let put = index
            .index
            .write(&|| Ok(()), |index, txn| Ok(index.purge.put(txn, &keys::id(id), &[])?));
        put.unwrap();
    };
    put(ONE);
    filled(&mut index, TWO, "/b");
    index.fold([(TWO, deleted())]);
    assert_eq!(purge(&index, 99), (1 + 6, false), "those behind it are done as well");
    assert_eq!(index.bytes(ONE, 0, 70_210, usize::MAX).len(), 70_210);
}
