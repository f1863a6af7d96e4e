//! What a principal may do: operations on the paths that patterns match.
//!
//! Patterns are matched against the decoded path as the client names it, so that no other spelling of a
//! URL and no tenant can change what a grant covers.

use durable_streams_protocol::{StreamPath, subscription::Glob};
use serde::{Deserialize, Serialize};

use crate::{Operation, OperationSet};

/// The most patterns of one grant.
pub const MAX_PATTERNS: usize = 64;

/// The streams whose path is this text or begins with it and a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix(StreamPath);

impl PathPrefix {
    /// Checks a prefix: whole segments, with no empty one among them.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn new(text: &str) -> Result<Self, String> {
        let path = StreamPath::new(text).map_err(|error| error.to_string())?;
        if text.split('/').any(str::is_empty) {
            return Err("a path prefix has no slash at its ends and no empty segments".into());
        }
        Ok(PathPrefix(path))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether a path is below the prefix, or the prefix itself.
    pub fn covers(&self, path: &StreamPath) -> bool {
        let rest = path.as_str().strip_prefix(self.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Which paths a grant covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PathPattern {
    /// Every path: the pattern `**`.
    Everything,
    /// The one path whose text this is. It has no wildcards, so it can name every stream.
    Exact(StreamPath),
    /// A subscription's pattern (§6.2): `*` is one segment, `**` any number of them.
    Glob(Glob),
}

impl PathPattern {
    /// Parses a pattern in the syntax of subscriptions.
    ///
    /// # Errors
    /// A text that says what is wrong with the pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "**" {
            return Ok(PathPattern::Everything);
        }
        Glob::parse(text).map(PathPattern::Glob)
    }

    /// Whether the pattern matches the whole path. Time: at most the segments of one times the other's,
    /// each at most 512.
    pub fn matches(&self, path: &StreamPath) -> bool {
        match self {
            PathPattern::Everything => true,
            PathPattern::Exact(exact) => exact == path,
            PathPattern::Glob(glob) => glob.matches(path.as_str()),
        }
    }

    /// Whether the pattern matches every path that `other` can match. `false` where that cannot be read
    /// off the two texts segment by segment.
    pub fn covers(&self, other: &Glob) -> bool {
        match self {
            PathPattern::Everything => true,
            PathPattern::Exact(_) => false,
            PathPattern::Glob(glob) => glob.covers(other),
        }
    }
}

impl TryFrom<String> for PathPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        PathPattern::parse(&text)
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> String {
        match pattern {
            PathPattern::Everything => "**".into(),
            // Only for people: a path that has `%2A` in its text would come back as another one.
            PathPattern::Exact(path) => path.as_str().replace('*', "%2A"),
            PathPattern::Glob(glob) => glob.into(),
        }
    }
}

/// Operations on the paths that any of the patterns match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The operations.
    #[serde(rename = "allow")]
    pub operations: OperationSet,
    /// The patterns.
    #[serde(deserialize_with = "bounded")]
    pub paths: Vec<PathPattern>,
}

impl Grant {
    /// A grant on the paths that one pattern matches.
    pub fn on(operations: OperationSet, pattern: PathPattern) -> Self {
        Grant { operations, paths: vec![pattern] }
    }

    /// A grant on every path.
    pub fn everywhere(operations: OperationSet) -> Self {
        Grant::on(operations, PathPattern::Everything)
    }

    /// Whether the grant allows an operation on a path.
    pub fn allows(&self, operation: Operation, path: &StreamPath) -> bool {
        self.operations.contains(operation) && self.paths.iter().any(|one| one.matches(path))
    }

    /// Whether the grant allows an operation on a path that one of its patterns spells out. An exact path does not count:
    /// it comes from the request or its token, under a grant that may be wider.
    pub fn names(&self, operation: Operation, path: &StreamPath) -> bool {
        let spells = |one: &PathPattern| match one {
            PathPattern::Everything | PathPattern::Exact(_) => false,
            PathPattern::Glob(glob) => glob.as_str() == path.as_str(),
        };
        self.operations.contains(operation) && self.paths.iter().any(spells)
    }

    /// Whether the grant allows an operation on every path that a pattern can match.
    pub fn covers(&self, operation: Operation, pattern: &Glob) -> bool {
        self.operations.contains(operation) && self.paths.iter().any(|one| one.covers(pattern))
    }
}

fn bounded<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<PathPattern>, D::Error> {
    let paths = Vec::<PathPattern>::deserialize(deserializer)?;
    if paths.is_empty() || paths.len() > MAX_PATTERNS {
        let why = format!("a grant needs 1 to {MAX_PATTERNS} paths; '**' is every path");
        return Err(serde::de::Error::custom(why));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> StreamPath {
        StreamPath::new(text).unwrap()
    }

    #[test]
    fn a_grant_needs_both_operation_and_path() {
        let grant: Grant =
            serde_json::from_str(r#"{"allow":["read"],"paths":["chat/*","logs/**"]}"#).unwrap();
        assert!(grant.allows(Operation::Read, &path("chat/a")));
        assert!(grant.allows(Operation::Read, &path("logs/a/b")));
        assert!(!grant.allows(Operation::Append, &path("chat/a")));
        assert!(!grant.allows(Operation::Read, &path("chat/a/b")));
        assert!(!grant.allows(Operation::Read, &path("chats/a")));
    }

    #[test]
    fn an_exact_path_has_no_wildcards() {
        for text in ["a/*", "a/**", "**", "a%2Ab"] {
            let grant = Grant::on(OperationSet::ALL, PathPattern::Exact(path(text)));
            assert!(grant.allows(Operation::Read, &path(text)), "{text}");
            assert!(!grant.allows(Operation::Read, &path("a/b")), "{text}");
            assert!(!grant.allows(Operation::Read, &path("a*b")), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_grant_is_refused() {
        for text in [
            r#"{"allow":["read"]}"#,
            r#"{"allow":["read"],"paths":[]}"#,
            r#"{"allow":["read"],"paths":["a*"]}"#,
            r#"{"allow":["read"],"paths":["a"],"path":"b"}"#,
            r#"{"paths":["a"]}"#,
        ] {
            assert!(serde_json::from_str::<Grant>(text).is_err(), "{text}");
        }
    }
}
