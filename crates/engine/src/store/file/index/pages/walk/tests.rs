use std::fs;

use super::*;
use crate::store::file::index::pages::tests::{file, filled};

/// What a walk says of a leaf page that has the place of another one, and where it goes on.
#[test]
fn a_page_in_the_place_of_another_is_damage_and_the_walk_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, high, meta, tree) = {
        let index = filled(dir.path());
        let reading = index.read().unwrap();
        let (meta, trees) = reading.index().page_trees(&reading.txn).unwrap().unwrap();
        let tree = trees.iter().find(|(known, _)| known == "purge").unwrap().1;
        let pages = &reading.index().pages;
        let mut walk = PageWalk::new(pages, &meta, tree);
        let mut step = |key: &[u8]| match walk.leaf(key).unwrap() {
            Some(WalkStep::Leaf(page, high)) => (page.number(), high.unwrap()),
            _ => panic!("damage"),
        };
        let (_, next) = step(&[]);
        let (first, next) = step(&next);
        let (second, after) = step(&next);
        (first, second, (next, after), meta, tree)
    };
    let path = dir.path().join("data.mdb");
    let whole = fs::read(&path).unwrap();
    let bytes = |number: u64| number as usize * 4096..(number as usize + 1) * 4096;
    for (to, from) in [(first, second), (second, first)] {
        let mut mixed = whole.clone();
        mixed.copy_within(bytes(from), bytes(to).start);
        mixed[bytes(to).start..][..8].copy_from_slice(&to.to_le_bytes());
        let pages = file(dir.path(), &mixed);
        let mut walk = PageWalk::new(&pages, &meta, tree);
        let key = if to == first { 0_u64.to_be_bytes().to_vec() } else { high.0.clone() };
        let key = if to == first {
            // One that the first of them has.
            let before = u64::from_be_bytes(high.0.clone().try_into().unwrap()) - 3;
            before.to_be_bytes().to_vec()
        } else {
            key
        };
        let Some(WalkStep::Damaged(damage)) = walk.leaf(&key).unwrap() else { panic!("whole") };
        assert_eq!((damage.page, &*damage.found), (to, "has keys that belong to another page"));
        let expected = if to == first { &high.0 } else { &high.1 };
        assert_eq!(damage.high.as_ref(), Some(expected));
        assert!(matches!(
            walk.leaf(expected).unwrap(),
            Some(WalkStep::Leaf(..) | WalkStep::Damaged(_))
        ));
    }
    let pages = file(dir.path(), &whole);
    for (root, last) in [(1, meta.last), (meta.last + 1, meta.last), (u64::MAX, meta.last)] {
        let (meta, tree) = (MetaPage { last, ..meta }, PageTree { root: Some(root), ..tree });
        let Some(WalkStep::Damaged(damage)) = PageWalk::new(&pages, &meta, tree).leaf(b"").unwrap()
        else {
            panic!("there is no such page")
        };
        assert_eq!((damage.page, &*damage.found), (root, "is not in use"));
    }
}

#[test]
fn a_page_with_the_first_key_of_the_next_one_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (number, last, high, meta, tree) = {
        let index = filled(dir.path());
        let reading = index.read().unwrap();
        let (meta, trees) = reading.index().page_trees(&reading.txn).unwrap().unwrap();
        let tree = trees.iter().find(|(known, _)| known == "purge").unwrap().1;
        let step = PageWalk::new(&reading.index().pages, &meta, tree).leaf(b"").unwrap();
        let Some(WalkStep::Leaf(page, Some(high))) = step else { panic!("more than one page") };
        let last = page.key(page.nodes().last().unwrap()).to_vec();
        (page.number(), last, high, meta, tree)
    };
    let mut bytes = fs::read(dir.path().join("data.mdb")).unwrap();
    let page = &mut bytes[number as usize * 4096..][..4096];
    // What lies before the nodes may be an older copy.
    let at = page.windows(8).rposition(|key| key == last).unwrap();
    page[at..at + 8].copy_from_slice(&high);
    let pages = file(dir.path(), &bytes);
    let step = PageWalk::new(&pages, &meta, tree).leaf(b"").unwrap();
    let Some(WalkStep::Damaged(damage)) = step else { panic!("whole") };
    assert_eq!((damage.page, &*damage.found), (number, "has keys that belong to another page"));
}
