//! Paths of every length, against a map.

use std::fmt::Write as _;

use super::*;

/// Names that share their beginnings, around the lengths at which they are split.
fn names() -> Vec<String> {
    let long = |len: usize, end: &str| {
        let mut name = String::from("/");
        while name.len() < len - end.len() {
            let _ = write!(name, "{}", (b'a' + (name.len() % 26) as u8) as char);
        }
        name + end
    };
    let mut names = vec!["/".to_owned() + "a", "/b".to_owned(), "/b/c".to_owned()];
    for len in [499, 500, 501, 502, 999, 1000, 1001, 1002, 1024] {
        names.push(long(len, ""));
        names.push(long(len, "z"));
    }
    names.sort();
    names.dedup();
    names
}

fn listed(index: &TestIndex, after: Option<&str>, max: usize) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let reading = index.index.read().unwrap();
    reading
        .each_path(after, &mut |path, id| {
            found.push((path, id.0));
            Ok(found.len() < max)
        })
        .unwrap();
    found
}

#[test]
fn paths_of_all_lengths_are_found_listed_and_removed() {
    let names = names();
    let mut index = TestIndex::new();
    let mut model = BTreeMap::new();
    let check = |index: &TestIndex, model: &BTreeMap<String, u64>| {
        let reading = index.index.read().unwrap();
        for name in &names {
            let found = reading.path_id(&path(name)).unwrap();
            assert_eq!(found.map(|id| id.0), model.get(name).copied(), "{} bytes", name.len());
        }
        drop(reading);
        let all: Vec<_> = model.iter().map(|(name, id)| (name.clone(), *id)).collect();
        assert_eq!(listed(index, None, usize::MAX), all);
        for (at, (name, _)) in all.iter().enumerate() {
            assert_eq!(listed(index, Some(name), usize::MAX), all[at + 1..], "after {name}");
            assert_eq!(listed(index, Some(name), 1), all[at + 1..all.len().min(at + 2)]);
        }
        // Behind what is not there.
        for name in names.iter().filter(|name| !model.contains_key(*name)) {
            let following = all.partition_point(|(other, _)| other < name);
            assert_eq!(listed(index, Some(name), usize::MAX), all[following..]);
        }
    };
    for step in [2, 3, 1] {
        for (at, name) in names.iter().enumerate().step_by(step) {
            if !model.contains_key(name) {
                let id = 100 * step as u64 + at as u64;
                model.insert(name.clone(), id);
                index.fold([(StreamId(id), created(name, Bytes::new()))]);
            }
        }
        check(&index, &model);
    }
    let order: Vec<String> =
        names.iter().step_by(2).chain(names.iter().skip(1).step_by(2)).cloned().collect();
    for name in order {
        let id = model.remove(&name).unwrap();
        index.fold([(StreamId(id), deleted())]);
        check(&index, &model);
    }
    while index.index.purge_some(&|| Ok(()), 99).unwrap().more {}
    assert_eq!(index.count(), 1, "no link is left, nothing but the meta record");
}

/// A newer stream has the path by then.
#[test]
fn a_stream_that_goes_leaves_a_path_that_names_another() {
    let mut index = TestIndex::new();
    index.fold([(ONE, created("/a", Bytes::new()))]);
    index.fold([(TWO, created("/a", Bytes::new()))]);
    index.fold([(ONE, deleted())]);
    assert_eq!(index.index.read().unwrap().path_id(&path("/a")).unwrap(), Some(TWO));
}
