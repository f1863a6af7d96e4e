//! Patterns over stream paths (§6.2): `*` is one segment, `**` any number of them, also none.
//!
//! A wildcard is a whole segment. A segment that is literally `*` is written `%2A`.

use std::{collections::BTreeMap, fmt, ptr};

use serde::{Deserialize, Serialize};

/// The longest pattern, bytes.
const MAX_PATTERN_BYTES: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
enum GlobSegment {
    Literal(Box<str>),
    Star,
    GlobStar,
}

/// A parsed pattern. Its text form is what it was parsed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob {
    text: String,
    segments: Vec<GlobSegment>,
}

impl Glob {
    /// Parses a pattern.
    ///
    /// # Errors
    /// What is wrong with it, for the client.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return Err(format!("pattern must have 1 to {MAX_PATTERN_BYTES} bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err("pattern has a control character".into());
        }
        let segments: Vec<GlobSegment> = text.split('/').map(segment).collect::<Result<_, _>>()?;
        Ok(Glob { text: text.into(), segments })
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Text that every matching path begins with.
    pub fn literal_prefix(&self) -> String {
        let literals = self.segments.iter().map_while(|segment| match segment {
            GlobSegment::Literal(name) => Some(&**name),
            GlobSegment::Star | GlobSegment::GlobStar => None,
        });
        literals.collect::<Vec<_>>().join("/")
    }

    /// Whether every path that `other` can match is matched by this pattern too. `false` where that cannot
    /// be read off segment by segment, as for `*/**` and `**/*`. Time: segments of one times the other.
    pub fn covers(&self, other: &Glob) -> bool {
        // `row[at]`: whether what is left of this pattern covers `other.segments[at..]`.
        let ends = other.segments.len();
        let mut row = vec![false; ends + 1];
        if let Some(end) = row.last_mut() {
            *end = true;
        }
        for wider in self.segments.iter().rev() {
            let mut next = vec![false; ends + 1];
            for at in (0..=ends).rev() {
                let narrower = other.segments.get(at);
                next[at] = match (wider, narrower) {
                    (GlobSegment::GlobStar, None) => row[at],
                    (GlobSegment::GlobStar, Some(_)) => row[at] || next[at + 1],
                    (GlobSegment::Star, Some(GlobSegment::Literal(_) | GlobSegment::Star)) => {
                        row[at + 1]
                    }
                    (GlobSegment::Literal(wider), Some(GlobSegment::Literal(name))) => {
                        wider == name && row[at + 1]
                    }
                    _ => false,
                };
            }
            row = next;
        }
        row[0]
    }

    /// Whether the pattern matches the whole path. Time: at most segments of one times the other.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        let (mut at, mut pattern_at) = (0, 0);
        // Where to go on when a literal fails: only the last `**` can matter.
        let mut back: Option<(usize, usize)> = None;
        while at < path.len() || pattern_at < self.segments.len() {
            match (self.segments.get(pattern_at), path.get(at)) {
                (Some(GlobSegment::GlobStar), _) => {
                    back = Some((pattern_at, at));
                    pattern_at += 1;
                }
                (Some(GlobSegment::Star), Some(_)) => {
                    at += 1;
                    pattern_at += 1;
                }
                (Some(GlobSegment::Literal(literal)), Some(name)) if **literal == **name => {
                    at += 1;
                    pattern_at += 1;
                }
                _ => match back {
                    Some((star, from)) if from < path.len() => {
                        back = Some((star, from + 1));
                        at = from + 1;
                        pattern_at = star + 1;
                    }
                    _ => return false,
                },
            }
        }
        true
    }
}

fn segment(text: &str) -> Result<GlobSegment, String> {
    match text {
        "*" => Ok(GlobSegment::Star),
        "**" => Ok(GlobSegment::GlobStar),
        _ if text.contains('*') => Err(format!(
            "pattern segment {text:?} mixes '*' with other text; '*' and '**' stand for whole \
             segments, and a literal '*' is written %2A"
        )),
        _ => Ok(GlobSegment::Literal(text.replace("%2A", "*").replace("%2a", "*").into())),
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Glob::parse(&text)
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> String {
        glob.text
    }
}

/// Many patterns, matched together: one walk over a path's segments, whatever the number of patterns that
/// begin with other literals.
#[derive(Debug)]
pub struct GlobIndex<K> {
    root: GlobNode<K>,
}

#[derive(Debug)]
struct GlobNode<K> {
    literals: BTreeMap<Box<str>, GlobNode<K>>,
    star: Option<Box<GlobNode<K>>>,
    globstar: Option<Box<GlobNode<K>>>,
    /// Reached by `**`: stays active over any segment.
    stays: bool,
    keys: Vec<K>,
}

impl<K> GlobNode<K> {
    fn new(stays: bool) -> Self {
        GlobNode { literals: BTreeMap::new(), star: None, globstar: None, stays, keys: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.literals.is_empty()
            && self.star.is_none()
            && self.globstar.is_none()
            && self.keys.is_empty()
    }
}

impl<K> Default for GlobIndex<K> {
    fn default() -> Self {
        GlobIndex { root: GlobNode::new(false) }
    }
}

impl<K: PartialEq + Clone> GlobIndex<K> {
    /// Adds a pattern under a key.
    pub fn insert(&mut self, glob: &Glob, key: K) {
        let mut node = &mut self.root;
        for segment in &glob.segments {
            node = match segment {
                GlobSegment::Literal(name) => {
                    node.literals.entry(name.clone()).or_insert_with(|| GlobNode::new(false))
                }
                GlobSegment::Star => {
                    node.star.get_or_insert_with(|| Box::new(GlobNode::new(false)))
                }
                GlobSegment::GlobStar => {
                    node.globstar.get_or_insert_with(|| Box::new(GlobNode::new(true)))
                }
            };
        }
        node.keys.push(key);
    }

    /// Removes a pattern with its key.
    pub fn remove(&mut self, glob: &Glob, key: &K) {
        prune(&mut self.root, &glob.segments, key);
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// Calls `found` for the key of every pattern that matches; never twice for one pattern.
    pub fn matches(&self, path: &str, mut found: impl FnMut(&K)) {
        if self.root.is_empty() {
            return;
        }
        let mut active = Vec::new();
        activate(&self.root, &mut active);
        for name in path.split('/') {
            let mut next = Vec::new();
            for node in active {
                if node.stays {
                    activate(node, &mut next);
                }
                if let Some(child) = node.literals.get(name) {
                    activate(child, &mut next);
                }
                if let Some(child) = &node.star {
                    activate(child, &mut next);
                }
            }
            active = next;
            if active.is_empty() {
                return;
            }
        }
        active.iter().flat_map(|node| &node.keys).for_each(&mut found);
    }
}

/// Makes a node active, and what `**` reaches from it over no segment.
fn activate<'a, K>(node: &'a GlobNode<K>, active: &mut Vec<&'a GlobNode<K>>) {
    if active.iter().any(|seen| ptr::eq(*seen, node)) {
        return;
    }
    active.push(node);
    if let Some(child) = &node.globstar {
        activate(child, active);
    }
}

fn prune<K: PartialEq>(node: &mut GlobNode<K>, segments: &[GlobSegment], key: &K) {
    let Some((first, rest)) = segments.split_first() else {
        if let Some(at) = node.keys.iter().position(|k| k == key) {
            node.keys.swap_remove(at);
        }
        return;
    };
    match first {
        GlobSegment::Literal(name) => {
            if let Some(child) = node.literals.get_mut(name) {
                prune(child, rest, key);
                if child.is_empty() {
                    node.literals.remove(name);
                }
            }
        }
        GlobSegment::Star => prune_wild(&mut node.star, rest, key),
        GlobSegment::GlobStar => prune_wild(&mut node.globstar, rest, key),
    }
}

fn prune_wild<K: PartialEq>(slot: &mut Option<Box<GlobNode<K>>>, rest: &[GlobSegment], key: &K) {
    if let Some(child) = slot {
        prune(child, rest, key);
        if child.is_empty() {
            *slot = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wildcards_stand_for_whole_segments() {
        for (pattern, path, expected) in [
            ("events/*", "events/a", true),
            ("events/*", "events", false),
            ("events/*", "events/a/b", false),
            ("events/**", "events", true),
            ("events/**", "events/a/b/c", true),
            ("**", "anything/at/all", true),
            ("**/end", "end", true),
            ("**/end", "a/b/end", true),
            ("**/end", "a/end/b", false),
            ("a/**/m/*/z", "a/x/m/y/m/q/z", true),
            ("a/%2A", "a/*", true),
            ("a/%2A", "a/b", false),
            ("*", "", true),
        ] {
            assert_eq!(Glob::parse(pattern).unwrap().matches(path), expected, "{pattern} {path}");
        }
        assert!(Glob::parse("events/a*").is_err(), "a part of a segment is not a wildcard");
        assert!(Glob::parse("***").is_err());
        assert!(Glob::parse("").is_err());
    }

    #[test]
    fn a_pattern_covers_what_it_matches_whole() {
        for (wide, narrow, expected) in [
            ("**", "a/**/b", true),
            ("a/**", "a", true),
            ("a/**", "a/*/b", true),
            ("a/*", "a/b", true),
            ("a/*", "a/**", false),
            ("a/*", "a/*", true),
            ("a/b", "a/*", false),
            ("a/**", "**", false),
            ("a/**/z", "a/*/**/z", true),
            ("a/**/z", "a/**", false),
            ("a/%2A", "a/*", false),
        ] {
            let covers = Glob::parse(wide).unwrap().covers(&Glob::parse(narrow).unwrap());
            assert_eq!(covers, expected, "{wide} {narrow}");
        }
    }

    /// The definition, by trying everything.
    fn naive(pattern: &[GlobSegment], path: &[&str]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((GlobSegment::GlobStar, rest)), _) => {
                (0..=path.len()).any(|skip| naive(rest, &path[skip..]))
            }
            (Some((GlobSegment::Star, rest)), Some((_, names))) => naive(rest, names),
            (Some((GlobSegment::Literal(l), rest)), Some((name, names))) => {
                **l == **name && naive(rest, names)
            }
            _ => false,
        }
    }

    fn joined(part: &'static str) -> impl Strategy<Value = String> {
        proptest::collection::vec(part, 1..6).prop_map(|parts| parts.join("/"))
    }

    proptest! {
        #[test]
        fn matching_is_the_definition(pattern in joined(r"a|b|\*|\*\*"), path in joined("a|b|c")) {
            let glob = Glob::parse(&pattern).unwrap();
            let names: Vec<&str> = path.split('/').collect();
            prop_assert_eq!(glob.matches(&path), naive(&glob.segments, &names));
        }

        #[test]
        fn a_pattern_that_covers_another_matches_all_that_it_matches(
            wide in joined(r"a|b|\*|\*\*"),
            narrow in joined(r"a|b|\*|\*\*"),
            path in joined("a|b|c"),
        ) {
            let (wide, narrow) = (Glob::parse(&wide).unwrap(), Glob::parse(&narrow).unwrap());
            if wide.covers(&narrow) && narrow.matches(&path) {
                prop_assert!(wide.matches(&path));
            }
            prop_assert!(wide.covers(&wide));
        }

        #[test]
        fn the_index_finds_what_each_pattern_finds(
            patterns in proptest::collection::vec(joined(r"a|b|\*|\*\*"), 0..12),
            path in joined("a|b|c"),
            gone in any::<u16>(),
        ) {
            let globs: Vec<Glob> = patterns.iter().map(|p| Glob::parse(p).unwrap()).collect();
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
            for (key, glob) in globs.iter().enumerate() {
                index.remove(glob, &key);
            }
            prop_assert!(index.is_empty(), "removal leaves nothing behind");
        }
    }
}
