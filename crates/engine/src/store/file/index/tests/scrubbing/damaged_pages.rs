//! What a scrub says of pages that are damaged while the index is in use.

use super::*;
use crate::store::file::{
    disk::{Disk as _, RealDisk, mapped_at},
    index::{
        pages::{MetaPage, PageTree},
        scrub::ScrubRound,
    },
};

const PAGE: u64 = 4096;

impl TestIndex {
    /// Changes the file, as a disk may.
    fn overwrite(&self, at: u64, bytes: &[u8]) {
        let file = RealDisk.open(self.index.path(), false).unwrap();
        file.write_at(at, bytes).unwrap();
    }

    fn page(&self, number: u64) -> Vec<u8> {
        let mut bytes = vec![0; PAGE as usize];
        let file = RealDisk.open_to_read(self.index.path()).unwrap();
        assert_eq!(file.read_at(number * PAGE, &mut bytes).unwrap(), bytes.len());
        bytes
    }

    fn meta_page(&self) -> MetaPage {
        let reading = self.index.read().unwrap();
        reading.index().pages.meta(reading.txn.id() as u64).unwrap().unwrap().unwrap()
    }

    fn tree(&self, name: &str) -> PageTree {
        let reading = self.index.read().unwrap();
        reading.index().tree_of(&reading.txn, name).unwrap().unwrap().1
    }
}

/// What a round finds, and how many damaged records and pages it counts.
fn round(index: &TestIndex) -> (Vec<String>, u64, u64) {
    let (round, found, _) = scrub(index, ScrubRound::default(), u64::MAX);
    (found, round.damaged(), round.pages())
}

#[test]
fn a_damaged_meta_page_ends_the_round() {
    let index = filled();
    let which = index.meta_page().txn % 2;
    index.index.check_structure().unwrap();
    // The flags of the page.
    index.overwrite(which * PAGE + 10, &[9]);
    let (found, damaged, pages) = round(&index);
    assert_eq!((damaged, pages), (1, 1), "{found:?}");
    assert!(
        found[0].contains(&format!("page {which} of `the file` is not a whole meta page")),
        "{found:?}"
    );
    assert!(index.index.check_structure().is_err());
}

#[test]
fn damage_of_the_list_of_free_pages_is_found_at_the_end_of_a_round() {
    let index = filled();
    let list = index.meta_page().free.root.unwrap();
    index.overwrite(list * PAGE + 10, &[9]);
    let (found, damaged, pages) = round(&index);
    assert_eq!((damaged, pages), (1, 1), "{found:?}");
    assert!(
        found[0].contains(&format!("page {list} of `the list of free pages` has the flags")),
        "{found:?}"
    );
    assert!(index.index.check_structure().is_err());
}

/// LMDB does not look at the number that a page has in its header.
#[test]
fn a_damaged_leaf_page_counts_as_a_page_and_its_records_as_missing() {
    for (name, records, names) in [("producers", 2, false), ("paths", 4, true)] {
        let index = filled();
        let page = index.tree(name).root.unwrap();
        index.overwrite(page * PAGE, &[0xff]);
        let (found, damaged, pages) = round(&index);
        assert_eq!((damaged, pages), (2, 1), "{found:?}");
        let expected = format!("page {page} of `{name}` has the number of another page");
        assert!(found[0].starts_with(&expected), "{found:?}");
        let expected =
            format!("`{name}`, which has 0 records and should have {records}, is damaged");
        assert_eq!(found[1], expected);
        assert_eq!(index.index.health().names_may_miss(), names, "{name}");
    }
}

/// As after a write that the disk has lost: the page is whole, and one of an earlier commit.
#[test]
fn a_page_of_an_earlier_commit_has_another_number_of_records() {
    let mut index = filled();
    let before = index.page(index.tree("producers").root.unwrap());
    index.fold([(ONE, produced(bytes(20_300, 1), "q", 0))]);
    let page = index.tree("producers").root.unwrap();
    index.overwrite(page * PAGE, &[&page.to_le_bytes(), &before[8..]].concat());
    let (found, damaged, pages) = round(&index);
    let expected = [
        "stream 1 (/a) has 1 producers and should have 2",
        "`producers`, which has 2 records and should have 3, is damaged",
    ];
    assert_eq!((found, damaged, pages), (expected.map(str::to_owned).into(), 2, 0));
    assert!(!index.index.health().names_may_miss());
}

#[test]
fn a_wrong_number_of_records_that_are_no_names_hides_no_names() {
    let index = filled();
    tamper(&index, false, |index, txn| {
        let key = keys::producer(StreamId(5), &ProducerId::new("p").unwrap());
        index.producers.delete(txn, &key)?;
        Ok(())
    });
    let expected = [
        "the number of records in `producers` (1 instead of 2) is damaged",
        "`producers`, which has 1 records and should have 2, is damaged",
    ];
    assert_eq!(round(&index), (expected.map(str::to_owned).into(), 2, 0));
    assert!(!index.index.health().names_may_miss());
}

#[test]
fn a_damaged_record_is_reported_with_its_place_in_the_file() {
    let index = filled();
    let key = keys::chunk(ONE, Offset::new(20_210));
    tamper(&index, true, |index, txn| Ok(index.chunks.put(txn, &key, &[7; 94])?));
    let reading = index.index.read().unwrap();
    let place = mapped_at(reading.index().chunks.get(&reading.txn, &key).unwrap().unwrap());
    assert!(cfg!(not(target_os = "linux")) || place > Some(2 * PAGE));
    let mut found = Vec::new();
    let mut report = |error| found.push(error);
    let mut round = ScrubRound::default();
    assert!(!index.index.scrub_slice(&mut round, u64::MAX, &mut report).unwrap());
    let [StoreError::Corrupt { path, offset, .. }] = &found[..] else { panic!("{found:?}") };
    assert_eq!((path.as_path(), *offset), (index.index.path(), place.unwrap_or(0)));
}
