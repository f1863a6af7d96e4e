//! Patterns over stream paths (§6.2): `*` is one segment, `**` any number of them, also none.
//!
//! A wildcard is a whole segment. A segment that is literally `*` is written `%2A`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest pattern, bytes.
const MAX_PATTERN_BYTES: usize = 1024;
/// The most segments of a pattern.
const MAX_PATTERN_SEGMENTS: usize = 32;
/// The most `**` segments of a pattern.
const MAX_GLOBSTARS: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GlobSegment {
    Literal(Box<str>),
    Star,
    GlobStar,
}

/// A parsed pattern. Its text form is what it was parsed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob {
    text: String,
    pub(super) segments: Vec<GlobSegment>,
}

impl Glob {
    /// Parses a pattern of a request: at most 1,024 bytes, 32 segments and 4 `**`.
    ///
    /// # Errors
    /// What is wrong with it, as text for the client.
    pub fn parse(text: &str) -> Result<Self, String> {
        let glob = Self::parse_stored(text)?;
        let globstars = glob.segments.iter().filter(|s| **s == GlobSegment::GlobStar).count();
        if glob.segments.len() > MAX_PATTERN_SEGMENTS {
            return Err(format!("pattern has more than {MAX_PATTERN_SEGMENTS} segments"));
        }
        if globstars > MAX_GLOBSTARS {
            return Err(format!("pattern has more than {MAX_GLOBSTARS} '**' segments"));
        }
        Ok(glob)
    }

    /// Parses a pattern that a log holds. Logs written before the bounds on segments hold patterns beyond
    /// them, which stay valid.
    fn parse_stored(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return Err(format!("pattern must have 1 to {MAX_PATTERN_BYTES} bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err("pattern has a control character".into());
        }
        let mut segments: Vec<GlobSegment> =
            text.split('/').map(segment).collect::<Result<_, _>>()?;
        segments.dedup_by(|a, b| *a == GlobSegment::GlobStar && a == b);
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

    /// The first segment, unless it is a wildcard.
    pub fn first_literal(&self) -> Option<&str> {
        match self.segments.first()? {
            GlobSegment::Literal(name) => Some(name),
            GlobSegment::Star | GlobSegment::GlobStar => None,
        }
    }

    /// Whether the pattern matches the whole path. Time: at most segments of one times the other.
    pub fn matches(&self, path: &str) -> bool {
        // Grants are matched for every request, and most have no `**` before their end.
        let mut names = path.split('/');
        for (at, segment) in self.segments.iter().enumerate() {
            match segment {
                GlobSegment::GlobStar if at + 1 == self.segments.len() => return true,
                GlobSegment::GlobStar => return self.matches_listed(path),
                GlobSegment::Star if names.next().is_some() => {}
                GlobSegment::Literal(literal) if names.next() == Some(literal) => {}
                GlobSegment::Star | GlobSegment::Literal(_) => return false,
            }
        }
        names.next().is_none()
    }

    /// As [`matches`](Self::matches), for any pattern.
    fn matches_listed(&self, path: &str) -> bool {
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
        Glob::parse_stored(&text)
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> String {
        glob.text
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

    #[test]
    fn requests_are_bounded_and_stored_patterns_stay_readable() {
        let long = ["a"; 33].join("/");
        assert!(Glob::parse(&["a"; 32].join("/")).is_ok());
        assert!(Glob::parse(&long).unwrap_err().contains("32 segments"));
        let wild = "**/a/**/b/**/c/**/d/**";
        assert!(Glob::parse(wild).unwrap_err().contains("4 '**'"));
        assert!(Glob::parse("**/a/**/b/**/c/**").is_ok());
        assert!(Glob::parse("**/**/**/**/**/**").is_ok(), "adjacent ones are one");
        for text in [long.as_str(), wild] {
            let stored: Glob = serde_json::from_value(serde_json::json!(text)).unwrap();
            assert_eq!(stored.as_str(), text);
        }
        let stored: Glob = serde_json::from_value(serde_json::json!(wild)).unwrap();
        assert!(stored.matches("x/a/b/y/y/c/d") && !stored.matches("a/b/d/c"));
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
    }
}
