//! What must hold for patterns over stream paths.

use durable_streams_protocol::subscription::{Glob, GlobIndex, MAX_FLOATING};

/// The most patterns of an input: a slow matcher shows with few.
const MAX_PATTERNS: usize = 64;

/// A path on the first line, a pattern on each other one.
pub fn globs(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let path = lines.next().unwrap_or_default();
    let globs: Vec<Glob> =
        lines.take(MAX_PATTERNS).filter_map(|line| Glob::parse(line).ok()).collect();
    let mut index = GlobIndex::default();
    for (key, glob) in globs.iter().enumerate() {
        assert_eq!(Glob::parse(glob.as_str()).as_ref(), Ok(glob), "one spelling");
        assert!(glob.covers(glob), "{} covers itself", glob.as_str());
        assert_eq!(glob.matches(path), matches_slowly(glob.as_str(), path), "{}", glob.as_str());
        assert!(index.has_room_for(glob, 0), "{MAX_PATTERNS} patterns are few");
        index.insert(glob, key);
    }
    assert!(index.floating() <= MAX_FLOATING);
    let mut found = Vec::new();
    index.matches(path, |key| found.push(*key));
    found.sort_unstable();
    let matching: Vec<usize> = (0..globs.len()).filter(|key| globs[*key].matches(path)).collect();
    assert_eq!(found, matching, "the index finds what each pattern finds, once");
    for glob in &globs {
        let prefix = glob.literal_prefix();
        assert!(!glob.matches(path) || path.starts_with(&prefix), "{prefix} of {}", glob.as_str());
        let covered = globs.iter().filter(|other| glob.covers(other));
        for other in covered.filter(|other| other.matches(path)) {
            assert!(glob.matches(path), "{} covers {}", glob.as_str(), other.as_str());
        }
    }
    for (key, glob) in globs.iter().enumerate() {
        index.remove(glob, &key);
    }
    assert!(index.is_empty() && index.floating() == 0, "removal leaves nothing behind");
}

/// Section 6.2 as a table: which beginnings of the pattern match which beginnings of the path.
fn matches_slowly(pattern: &str, path: &str) -> bool {
    let path: Vec<&str> = path.split('/').collect();
    let mut row = vec![false; path.len() + 1];
    row[0] = true;
    for segment in pattern.split('/') {
        let before = row.clone();
        for at in 0..row.len() {
            row[at] = match (segment, at.checked_sub(1)) {
                ("**", None) => before[at],
                ("**", Some(last)) => before[at] || row[last],
                (_, None) => false,
                ("*", Some(last)) => before[last],
                (literal, Some(last)) => {
                    before[last] && literal.replace("%2A", "*").replace("%2a", "*") == path[last]
                }
            };
        }
    }
    row[path.len()]
}
