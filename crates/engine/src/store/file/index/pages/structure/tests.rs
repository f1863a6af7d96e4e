use super::*;
use crate::store::file::index::{
    handle::IndexHandle,
    pages::{
        NONE,
        tests::{file, meta, tree},
    },
};

/// What is wrong, and in which page.
fn refused(found: Result<(), StoreError>) -> (u64, String) {
    match found {
        Err(StoreError::Corrupt { offset, found, .. }) => (offset / 4096, found.to_string()),
        other => panic!("{other:?}"),
    }
}

/// Two meta pages of a file without databases; each has its transaction and its last page.
fn empty(metas: [(u64, u64); 2]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (page, (txn, last)) in metas.into_iter().enumerate() {
        let mut meta = meta(page as u64, 1 << 20, last, txn);
        meta[88..136].copy_from_slice(&tree(NONE, 0, 0));
        meta.resize(4096, 0);
        bytes.extend(meta);
    }
    bytes
}

#[test]
fn a_meta_page_follows_the_other_one() {
    let dir = tempfile::tempdir().unwrap();
    for (metas, txn, whole) in [
        ([(4, 9), (5, 9)], 5, true),
        ([(4, 8), (5, 9)], 5, true),
        // The file does not shrink.
        ([(4, 10), (5, 9)], 5, false),
        ([(6, 9), (5, 10)], 6, false),
        // The other one is newer, as while a commit is under way.
        ([(4, 9), (5, 10)], 4, true),
        ([(4, 10), (5, 9)], 4, true),
        ([(2, 9), (5, 9)], 5, false),
        ([(8, 9), (5, 9)], 8, false),
        ([(8, 9), (5, 9)], 5, false),
        // It was overwritten by two later ones.
        ([(8, 9), (5, 9)], 6, true),
    ] {
        let checked = file(dir.path(), &empty(metas)).check_structure(txn);
        if whole {
            checked.unwrap();
            continue;
        }
        let (page, found) = refused(checked);
        assert_eq!(page, txn % 2, "{metas:?}");
        assert!(found.contains("does not follow the other meta page"), "{found}");
    }
}

/// Ten records are on one page.
#[test]
fn a_list_of_databases_with_two_levels_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    for txn in [4, 5] {
        let mut bytes = empty([(4, 9), (5, 9)]);
        bytes[(txn % 2) as usize * 4096 + 88..][..48].copy_from_slice(&tree(5, 2, 12));
        let (page, found) = refused(file(dir.path(), &bytes).check_structure(txn));
        assert_eq!(page, txn % 2);
        assert!(found.contains("has a damaged list of databases"), "{found}");
    }
}

#[test]
fn a_long_list_of_free_pages_may_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let index = IndexHandle::open(dir.path(), 16 << 20).unwrap();
    let value = vec![7; 1000 * 4096];
    let write = |value: Option<&[u8]>| {
        let done = index.write(&|| Ok(()), |index, txn| {
            match value {
                Some(value) => index.purge.put(txn, &[0; 8], value)?,
                None => drop(index.purge.delete(txn, &[0; 8])?),
            }
            Ok(())
        });
        done.unwrap();
    };
    write(Some(&value));
    write(None);
    let reading = index.read().unwrap();
    let pages = &reading.index().pages;
    let meta = pages.meta(reading.txn.id() as u64).unwrap().unwrap().unwrap();
    let free = |most| {
        let mut seen = PageSet::new(meta.last);
        pages.add_free(&meta, &mut seen, most).unwrap();
        (2..=meta.last).filter(|page| seen.has(*page)).count() as u64
    };
    let all = free(u64::MAX);
    assert!(all > 1000, "{all} pages are free");
    // The list itself has a number of pages of its own.
    let mut lists = Vec::new();
    let mut own = PageSet::new(meta.last);
    pages
        .each_page("free", &meta.free, &mut own, true, &mut |page| {
            lists.extend(
                page.nodes().iter().filter(|node| node.page().is_some()).map(|node| node.len()),
            );
            Ok(())
        })
        .unwrap();
    let long = lists.iter().map(|len| pages.pages_of(*len)).sum::<u64>();
    assert!(long > 1, "{lists:?}");
    let tree = (2..=meta.last).filter(|page| own.has(*page)).count() as u64;
    assert_eq!((free(long * 4096), free(long * 4096 - 1)), (all, tree + long));
}

#[test]
fn a_list_of_free_pages_that_has_fewer_than_it_says_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (txn, list) = {
        let index = IndexHandle::open(dir.path(), 1 << 20).unwrap();
        for n in 0..3_u64 {
            index
                .write(&|| Ok(()), |index, txn| Ok(index.purge.put(txn, &n.to_be_bytes(), &[])?))
                .unwrap();
        }
        let reading = index.read().unwrap();
        let pages = &reading.index().pages;
        let txn = reading.txn.id() as u64;
        pages.check_structure(txn).unwrap();
        (txn, pages.meta(txn).unwrap().unwrap().unwrap().free.root.unwrap())
    };
    let mut bytes = std::fs::read(dir.path().join("data.mdb")).unwrap();
    let page = &mut bytes[list as usize * 4096..][..4096];
    // Behind the header of the first node and its key is the number of pages in its list.
    let node = usize::from(u16::from_le_bytes([page[16], page[17]]));
    let len = usize::from(u16::from_le_bytes([page[node], page[node + 1]]));
    let count = &mut page[node + 16..][..8];
    assert!(number(count, 0).unwrap() < len as u64 / 8);
    count.copy_from_slice(&(len as u64 / 8).to_le_bytes());
    let (page, found) = refused(file(dir.path(), &bytes).check_structure(txn));
    assert_eq!(page, list);
    assert!(found.contains("has a list of another length"), "{found}");
}
