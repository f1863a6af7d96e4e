use super::*;
use proptest::prelude::*;

impl<K> GlobNode<K> {
    fn count(&self) -> usize {
        let wild = [&self.star, &self.globstar].into_iter().flatten().map(|node| node.count());
        1 + wild.sum::<usize>() + self.literals.values().map(GlobNode::count).sum::<usize>()
    }
}

fn glob(text: &str) -> Glob {
    Glob::parse(text).unwrap()
}

/// Patterns of 24 segments from `*`, `**` and `a`, all different.
fn hostile(count: u64) -> Vec<Glob> {
    let pattern = |seed: u64| {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let segments = (0..24).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ["*", "**", "a"][(state >> 33) as usize % 3]
        });
        serde_json::from_value(segments.collect::<Vec<_>>().join("/").into()).unwrap()
    };
    (0..count).map(pattern).collect()
}

/// What such a walk takes of a server's time is seen by the attack with patterns in tests/attacks.
#[test]
fn many_mixed_wildcards_visit_each_node_once_for_each_segment() {
    let mut index = GlobIndex::default();
    let globs = hostile(2_000);
    globs.iter().enumerate().for_each(|(key, glob)| index.insert(glob, key));
    let segments = 100;
    let path = ["a"; 100].join("/");
    let walk = index.walk(&path);
    let nodes = walk.active.iter().chain(&walk.staying);
    let mut found: Vec<usize> = nodes.flat_map(|node| node.keys.iter().copied()).collect();
    found.sort_unstable();
    let expected: Vec<usize> = (0..globs.len()).filter(|key| globs[*key].matches(&path)).collect();
    assert_eq!(found, expected);
    assert!(found.len() > 1_000, "most have a `**`, and match: {}", found.len());
    let nodes = index.root.count();
    assert!(walk.visits > segments, "{} visits", walk.visits);
    assert!(walk.visits <= nodes + index.floating() * segments, "{} visits", walk.visits);
}

#[test]
fn floating_segments_are_bounded_and_come_back() {
    let mut index = GlobIndex::default();
    let mut added = Vec::new();
    for glob in hostile(2_000) {
        if index.has_room_for(&glob, 0) {
            index.insert(&glob, added.len());
            added.push(glob);
        }
    }
    assert!((MAX_FLOATING - 24..=MAX_FLOATING).contains(&index.floating()));
    assert!(
        !index.has_room_for(&glob("**/of/its/own/**/x/y/z/**/and/so/on/and/on/to/24/a/b/c/d/e"), 0)
    );
    // One path reaches few of these, so they do not count.
    for tenant in 0..10_000 {
        let glob = glob(&format!("tenant/{tenant}/**"));
        assert!(index.has_room_for(&glob, 0));
        index.insert(&glob, usize::MAX);
    }
    assert!(index.has_room_for(&added[0], 0), "a pattern that is there shares its nodes");
    let mut found = Vec::new();
    index.matches("tenant/77/a/b", |key| found.push(*key));
    assert!(found.contains(&usize::MAX));
    added.iter().enumerate().for_each(|(key, glob)| index.remove(glob, &key));
    assert_eq!(index.floating, 0);
}

#[test]
fn a_segment_that_does_not_float_yet_needs_room_to_float() {
    let mut index = GlobIndex::default();
    index.insert(&glob("a/**"), 0);
    assert_eq!(index.floating(), 0, "the end of a pattern of literals is looked at once");
    let longer = glob("a/**/b");
    assert!(index.has_room_for(&longer, MAX_FLOATING - 2));
    assert!(!index.has_room_for(&longer, MAX_FLOATING - 1), "`**` and `b` are two");
    index.insert(&longer, 1);
    assert_eq!(index.floating(), 2);
}

#[test]
fn the_newest_pattern_is_found_however_many_there_are() {
    let mut index = GlobIndex::default();
    for key in 0..200 {
        index.insert(&glob(&format!("{key}/**")), key);
        let mut found = Vec::new();
        index.matches(&format!("{key}/a"), |key| found.push(*key));
        assert_eq!(found, [key]);
    }
}

fn joined(part: &'static str) -> impl Strategy<Value = String> {
    proptest::collection::vec(part, 1..6).prop_map(|parts| parts.join("/"))
}

proptest! {
    #[test]
    fn the_index_finds_what_each_pattern_finds(
        patterns in proptest::collection::vec(joined(r"a|b|\*|\*\*"), 0..12),
        path in joined("a|b|c"),
        gone in any::<u16>(),
    ) {
        let globs: Vec<Glob> = patterns.iter().map(|p| glob(p)).collect();
        let mut index = GlobIndex::default();
        globs.iter().enumerate().for_each(|(key, glob)| index.insert(glob, key));
        let removed = |key: usize| gone & (1 << key) != 0;
        for (key, glob) in globs.iter().enumerate().filter(|(key, _)| removed(*key)) {
            index.remove(glob, &key);
        }
        let mut found = Vec::new();
        index.matches(&path, |key| found.push(*key));
        found.sort_unstable();
        let expected: Vec<usize> =
            (0..globs.len()).filter(|k| !removed(*k) && globs[*k].matches(&path)).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(index.is_empty(), (0..globs.len()).all(removed));
        for (key, glob) in globs.iter().enumerate() {
            index.remove(glob, &key);
        }
        prop_assert!(index.is_empty(), "removal leaves nothing behind");
        prop_assert_eq!(index.floating, 0);
        prop_assert_eq!(index.free_globstars.len(), index.next_globstar);
    }
}
