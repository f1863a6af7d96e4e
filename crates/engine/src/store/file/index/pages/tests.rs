//! The file of an index as its pages say it.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;
use crate::store::file::index::handle::IndexHandle;

pub(super) const META_SIZE: usize = PAGE_HEADER + 152;

pub(super) fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// `MDB_db`.
pub(super) fn tree(root: u64, depth: u16, entries: u64) -> Vec<u8> {
    let mut bytes = vec![0; 48];
    bytes[6..8].copy_from_slice(&depth.to_le_bytes());
    put(&mut bytes, 32, entries);
    put(&mut bytes, 40, root);
    bytes
}

/// A meta page of a file with pages of 4,096 bytes.
pub(super) fn meta(page: u64, map: u64, last: u64, txn: u64) -> Vec<u8> {
    let mut bytes = vec![0; META_SIZE];
    put(&mut bytes, 0, page);
    bytes[10] = 8;
    bytes[16..20].copy_from_slice(&0xbeef_c0de_u32.to_le_bytes());
    bytes[20] = 1;
    put(&mut bytes, 32, map);
    bytes[40..88].copy_from_slice(&tree(NONE, 0, 0));
    bytes[40..44].copy_from_slice(&4096_u32.to_le_bytes());
    bytes[88..136].copy_from_slice(&tree(5, 1, 12));
    put(&mut bytes, 136, last);
    put(&mut bytes, 144, txn);
    bytes
}

pub(super) fn file(dir: &Path, bytes: &[u8]) -> PageFile {
    let path = dir.join("data.mdb");
    fs::write(&path, bytes).unwrap();
    PageFile::open(&path, 4096).unwrap()
}

#[test]
fn a_tree_has_a_root_and_levels_or_neither() {
    let decode = |bytes: &[u8]| {
        PageTree::decode(bytes, false).map(|tree| (tree.root, tree.depth, tree.entries))
    };
    assert_eq!(decode(&tree(5, 1, 9)), Some((Some(5), 1, 9)));
    assert_eq!(decode(&tree(5, 32, 9)), Some((Some(5), 32, 9)));
    assert_eq!(decode(&tree(5, 33, 9)), None);
    assert_eq!(decode(&tree(NONE, 0, 0)), Some((None, 0, 0)));
    assert_eq!(decode(&tree(NONE, 1, 0)), None);
    assert_eq!(decode(&tree(5, 0, 9)), None);
    assert_eq!(decode(&tree(5, 1, 9)[..47]), None);
    assert_eq!(decode(&[tree(5, 1, 9), vec![0]].concat()), None);
}

#[test]
fn a_meta_page_is_whole_or_says_that_it_is_not() {
    let whole = meta(1, 1 << 20, 77, 5);
    let found = decode_meta(&whole, 1, 4096).unwrap();
    assert_eq!((found.txn, found.last), (5, 77));
    assert_eq!((found.free.root, found.free.numbers), (None, true));
    assert_eq!((found.main.root, found.main.entries, found.main.numbers), (Some(5), 12, false));
    assert!(decode_meta(&whole, 0, 4096).is_none() && decode_meta(&whole, 1, 8192).is_none());
    for at in (0..8).chain([10, 11]).chain(16..24).chain(40..44) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        assert_eq!(decode_meta(&flipped, 1, 4096), None, "byte {at}");
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = |first: Vec<u8>| {
        let mut bytes = first;
        bytes.resize(4096, 0);
        bytes.extend_from_slice(&whole);
        file(dir.path(), &bytes)
    };
    let both = pages(meta(0, 1 << 20, 70, 4));
    let of = |file: &PageFile, txn| file.meta(txn).unwrap().map(|meta| meta.map(|meta| meta.last));
    assert_eq!([4, 5].map(|txn| of(&both, txn).unwrap()), [Some(70), Some(77)]);
    assert_eq!([2, 3, 6, 7].map(|txn| of(&both, txn).unwrap()), [None; 4]);
    let one = pages(vec![0; META_SIZE]);
    assert_eq!(of(&one, 5).unwrap(), Some(77));
    let damage = of(&one, 4).unwrap_err();
    assert_eq!((damage.page, &*damage.found), (0, "is not a whole meta page"));
    let StoreError::Corrupt { offset, found, .. } = damage.error(&one, "x") else { panic!() };
    assert_eq!(offset, 0);
    assert!(found.starts_with("page 0 of `x` is not a whole meta page;"), "{found}");
    let short = file(dir.path(), &whole[..META_SIZE - 1]);
    assert_eq!(of(&short, 4).unwrap_err().found, "is beyond the end of the file");
    let far = short.read(u64::MAX, 1).unwrap().unwrap_err();
    assert_eq!((far.page, &*far.found), (u64::MAX, "is beyond the end of the file"));
    let StoreError::Corrupt { offset, .. } = PageDamage::new(3, "").error(&short, "x") else {
        panic!()
    };
    assert_eq!(offset, 3 * 4096);
}

/// LMDB maps as many bytes as they say.
#[test]
fn sizes_that_no_process_can_map_are_refused_before_lmdb_sees_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.mdb");
    assert!(PageFile::check_sizes(&path).is_ok(), "there is no file yet");
    let most = 1 << 47;
    let check = |first: Vec<u8>, second: Vec<u8>| {
        let mut bytes = first;
        bytes.resize(4096, 0);
        bytes.extend_from_slice(&second);
        fs::write(&path, bytes).unwrap();
        PageFile::check_sizes(&path)
    };
    let fine = || meta(1, 1 << 20, 9, 1);
    let pages = most / 4096;
    assert!(check(meta(0, most - 1, pages - 2, 0), fine()).is_ok());
    for (map, last) in [(most, 9), (1 << 20, pages - 1), (u64::MAX, u64::MAX)] {
        for (at, found) in
            [check(meta(0, map, last, 0), fine()), check(fine(), meta(1, map, last, 1))]
                .into_iter()
                .enumerate()
        {
            let Err(StoreError::Corrupt { offset, found, .. }) = found else { panic!("{found:?}") };
            assert_eq!(offset, at as u64 * 4096);
            let used = last.saturating_add(1).saturating_mul(4096);
            let expected = format!(
                "meta page {at} says that the map has {map} bytes, of which {used} are in use;"
            );
            assert!(found.starts_with(&expected), "{found}");
        }
    }
    // What LMDB refuses by itself.
    let mut odd = meta(0, most, 9, 0);
    odd[40] = 1;
    assert!(check(odd, fine()).is_ok());
    fs::write(&path, &meta(0, most, 9, 0)[..META_SIZE - 1]).unwrap();
    assert!(PageFile::check_sizes(&path).is_ok());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(PageFile::check_sizes(&path).is_err(), "it cannot be read");
    fs::write(dir.path().join("other"), "").unwrap();
    let below = dir.path().join("other").join("data.mdb");
    assert!(PageFile::check_sizes(&below).is_err(), "it cannot be opened");
}

#[test]
fn a_set_of_pages_knows_which_were_added_and_refuses_others() {
    let mut set = PageSet::new(130);
    let refused = |set: &mut PageSet, first, count| {
        let damage = set.add(first, count).unwrap_err();
        (damage.page, damage.found)
    };
    let unused = |page| (page, "is not in use".to_owned());
    assert_eq!(refused(&mut set, 0, 1), unused(0));
    assert_eq!(refused(&mut set, 1, 1), unused(1));
    assert_eq!(refused(&mut set, 131, 1), unused(131));
    let pages = [2, 3, 62, 63, 64, 65, 127, 128, 129];
    for page in pages {
        assert!(!set.has(page));
        set.add(page, 1).unwrap();
        assert!(set.has(page));
    }
    for page in 0..=200 {
        assert_eq!(set.has(page), pages.contains(&page), "{page}");
    }
    assert_eq!(refused(&mut set, 64, 1), (64, "is used twice, or free".to_owned()));
    assert_eq!(refused(&mut set, 60, 9), (62, "is used twice, or free".to_owned()));
    assert_eq!(set.missing(), Some(4));
    set.add(4, 56).unwrap();
    set.add(66, 61).unwrap();
    assert_eq!(set.missing(), Some(130));
    assert_eq!(refused(&mut set, 130, 2), unused(131));
    assert_eq!((set.has(130), set.missing()), (true, None));
    let mut unknown = PageSet::unknown();
    unknown.add(1 << 40, 1).unwrap();
    unknown.add(1 << 40, 1).unwrap();
    assert!(unknown.add(1, 1).is_err() && !unknown.has(1 << 40));
}

/// An index with many streams, some of them deleted.
pub(super) fn filled(dir: &Path) -> IndexHandle {
    let index = IndexHandle::open(dir, 16 << 20).unwrap();
    for round in 0..3_u64 {
        index
            .write(&|| Ok(()), |index, txn| {
                for n in 0..4000_u64 {
                    let key = (n * 3 + round).to_be_bytes();
                    index.purge.put(txn, &key, &[7; 40])?;
                }
                index.dropped.put(txn, &round.to_be_bytes(), &vec![round as u8; 20_000])?;
                Ok(())
            })
            .unwrap();
    }
    index
        .write(&|| Ok(()), |index, txn| {
            for n in (0..12_000_u64).filter(|n| n % 5 < 2) {
                index.purge.delete(txn, &n.to_be_bytes())?;
            }
            Ok(())
        })
        .unwrap();
    index
}

fn kept() -> Vec<u64> {
    (0..12_000).filter(|n| n % 5 >= 2).collect()
}

#[test]
fn a_walk_meets_every_leaf_page_once_and_finds_every_key() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path());
    let reading = index.read().unwrap();
    let (meta, trees) = reading.index().page_trees(&reading.txn).unwrap().unwrap();
    let of = |name: &str| trees.iter().find(|(known, _)| known == name).unwrap().1;
    let tree = of("purge");
    assert_eq!((tree.entries, tree.depth), (7200, 3));
    let pages = &reading.index().pages;
    let mut walk = PageWalk::new(pages, &meta, tree);
    let (mut next, mut found, mut seen) = (Some(Vec::new()), Vec::new(), BTreeSet::new());
    while let Some(from) = next {
        let Some(WalkStep::Leaf(page, high)) = walk.leaf(&from).unwrap() else { panic!("damage") };
        assert!(seen.insert(page.number()), "page {} twice", page.number());
        let keys = page.nodes().iter().map(|node| page.key(node).to_vec());
        found.extend(keys.map(|key| u64::from_be_bytes(key.try_into().unwrap())));
        next = high;
    }
    assert_eq!(found, kept());
    assert!(seen.len() > 50);
    let branches = walk.take_branches();
    assert_eq!(branches.first(), tree.root.as_ref());
    let once: BTreeSet<u64> = branches.iter().copied().collect();
    assert!(branches.len() > 2 && once.len() == branches.len(), "{branches:?}");
    assert!(once.is_disjoint(&seen));
    assert_eq!(walk.take_branches(), [0; 0]);
    for key in kept().into_iter().step_by(7) {
        let key = key.to_be_bytes();
        let Some(WalkStep::Leaf(page, _)) = walk.leaf(&key).unwrap() else { panic!("damage") };
        assert!(page.nodes().iter().any(|node| page.key(node) == key));
    }
    let empty = PageWalk::new(pages, &meta, of("forks")).leaf(b"x").unwrap();
    assert!(empty.is_none());

    // Large values.
    let Some(WalkStep::Leaf(page, None)) =
        PageWalk::new(pages, &meta, of("dropped")).leaf(b"").unwrap()
    else {
        panic!("one page")
    };
    for (round, node) in page.nodes().iter().enumerate() {
        assert_eq!(node.len(), 20_000);
        assert!(pages.value(&page, node, meta.last).unwrap().unwrap() == vec![round as u8; 20_000]);
        pages.check_value(&page, node, meta.last).unwrap().unwrap();
        let first = node.page().unwrap();
        // Five pages, up to the last one in use.
        assert!(pages.value(&page, node, first + 4).unwrap().is_ok());
        for last in [first + 3, first, 1] {
            let damage = pages.check_value(&page, node, last).unwrap().unwrap_err();
            assert_eq!(damage.found, format!("has a value on page {first}, which is not in use"));
        }
    }
    assert_eq!([0, 4080, 4081, 8176, 8177].map(|len| pages.pages_of(len)), [1, 1, 2, 2, 3]);
}

#[test]
fn the_structure_is_whole_and_each_page_is_used_once_or_free() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path());
    let reading = index.read().unwrap();
    let pages = &reading.index().pages;
    let txn = reading.txn.id() as u64;
    pages.check_structure(txn).unwrap();
    pages.check_structure(txn + 2).unwrap();
    let meta = pages.meta(txn).unwrap().unwrap().unwrap();
    let mut seen = PageSet::new(meta.last);
    pages.add_free(&meta, &mut seen, u64::MAX).unwrap();
    let trees = pages.databases(&meta, &mut seen).unwrap();
    let names: Vec<&str> = trees.iter().map(|(name, _)| name.as_str()).collect();
    let mut expected = crate::store::file::index::env::NAMES;
    expected.sort_unstable();
    assert_eq!(names, expected);
    let free = (2..=meta.last).filter(|page| seen.has(*page)).count();
    assert!(free > 10, "{free} pages are free");
    for (name, tree) in &trees {
        let mut large = Vec::new();
        pages
            .each_page(name, tree, &mut seen, true, &mut |page| {
                let large_values =
                    page.nodes().iter().filter_map(|node| Some((node.page()?, node.len())));
                large.extend(large_values);
                Ok(())
            })
            .unwrap();
        for (first, len) in large {
            seen.add(first, pages.pages_of(len)).unwrap();
        }
    }
    assert_eq!(seen.missing(), None);
}

#[test]
fn a_large_value_begins_on_a_page_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (meta, tree) = {
        let index = filled(dir.path());
        let reading = index.read().unwrap();
        let (meta, trees) = reading.index().page_trees(&reading.txn).unwrap().unwrap();
        (meta, trees.iter().find(|(known, _)| known == "dropped").unwrap().1)
    };
    let whole = fs::read(dir.path().join("data.mdb")).unwrap();
    let check = |bytes: &[u8]| {
        let pages = file(dir.path(), bytes);
        let step = PageWalk::new(&pages, &meta, tree).leaf(b"").unwrap();
        let Some(WalkStep::Leaf(page, None)) = step else { panic!("one page") };
        let node = page.nodes().last().unwrap();
        let value = pages.value(&page, node, meta.last).unwrap().map(|value| value == [2; 20_000]);
        let checked = pages.check_value(&page, node, meta.last).unwrap();
        assert_eq!(checked.is_ok(), value.is_ok());
        (node.page().unwrap(), value.map_err(|damage| (damage.page, damage.found)))
    };
    let (first, value) = check(&whole);
    assert_eq!(value, Ok(true));
    // Its number, its flags and how many pages there are.
    for at in (0..8).chain(10..16) {
        let mut flipped = whole.clone();
        flipped[first as usize * 4096 + at] ^= 0x10;
        let expected = Err((first, "is not the first of a large value".to_owned()));
        assert_eq!(check(&flipped).1, expected, "byte {at}");
    }
    // The value itself has checksums of its own.
    let mut flipped = whole;
    flipped[first as usize * 4096 + 16] ^= 1;
    assert_eq!(check(&flipped).1, Ok(false));
}
