//! The numbers of records that the meta record seals.

use super::*;
use crate::store::file::index::env::NAMES;

/// As the meta record says them, by database.
fn sealed(index: &TestIndex) -> Vec<u64> {
    index.index.read().unwrap().meta().unwrap().records.unwrap().to_vec()
}

fn differences(index: &TestIndex) -> Vec<(&'static str, u64, u64)> {
    let reading = index.index.read().unwrap();
    reading.index().differences(&reading.txn).unwrap()
}

#[test]
fn every_commit_seals_how_many_records_there_are() {
    let mut index = TestIndex::new();
    index.fold([(ONE, expiring("/a", 5000)), (ONE, produced(bytes(0, 100_000), "p", 0))]);
    let source = index.state(ONE).unwrap();
    index.fold([(TWO, fork("/b", &source, 50, bytes(0, 7)))]);
    // paths, streams, chunks, appends, producers, deadlines, forks, purge, dropped, extents, segment_files
    assert_eq!(sealed(&index), [2, 2, 3, 0, 1, 1, 1, 0, 0, 0, 0]);
    assert_eq!(index.count(), 11, "with the meta record");
    assert!(differences(&index).is_empty());
    index.fold([(TWO, deleted())]);
    assert_eq!(sealed(&index), [1, 1, 3, 0, 1, 1, 0, 1, 0, 0, 0]);
    index.index.purge_some(&|| Ok(()), 99).unwrap();
    assert_eq!(sealed(&index), [1, 1, 2, 0, 1, 1, 0, 0, 0, 0, 0]);
    let reading = index.index.read().unwrap();
    for (name, records) in NAMES.into_iter().zip([1].into_iter().chain(sealed(&index))) {
        let (_, tree) = reading.index().tree_of(&reading.txn, name).unwrap().unwrap();
        assert_eq!(tree.entries, records, "{name}");
    }
    assert!(reading.index().tree_of(&reading.txn, "other").unwrap().is_none());
}

/// The count in the meta record and the records differ, since one was hidden or added by damage: commits keep the difference,
/// and `repair` ends it.
#[test]
fn a_difference_stays_through_later_commits() {
    let mut index = TestIndex::new();
    index.fold([(ONE, created("/a", bytes(0, 10)))]);
    let tamper = index.index.write(&|| Ok(()), |index, txn| {
        let mut meta = index.meta(txn)?;
        let records = meta.records.as_mut().unwrap();
        // One name more, and no state.
        (records[0], records[1]) = (records[0] + 1, records[1] - 1);
        let mut value = Vec::new();
        keys::seal(keys::META, &meta.encode(), &mut value);
        Ok(index.meta.put(txn, keys::META, &value)?)
    });
    tamper.unwrap();
    assert_eq!(differences(&index), [("paths", 2, 1), ("streams", 0, 1)]);
    index.fold([(TWO, created("/b", bytes(0, 10)))]);
    assert_eq!(differences(&index), [("paths", 3, 2), ("streams", 1, 2)]);
}

/// LMDB uses no page that its last transaction freed, nor those of the one before.
#[test]
fn free_pages_are_aged_by_two_commits() {
    let index = TestIndex::new();
    let txn = || index.index.read().unwrap().txn.id();
    let before = txn();
    index.index.age_free_pages(&|| Ok(())).unwrap();
    assert_eq!(txn() - before, 2);
}
