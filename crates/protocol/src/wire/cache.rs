//! Entity tags (§10.1): `"{stream id}:{start}:{end}"`, with `:c` when the response says the stream closed.

use http::HeaderValue;

use crate::{Offset, StreamId};

/// The entity tag of one catch-up or long-poll response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ETag {
    /// The stream, so that a stream recreated at the same URL never matches.
    pub stream: StreamId,
    /// First position of the response.
    pub start: Offset,
    /// Position after the response.
    pub end: Offset,
    /// Whether the response carries `Stream-Closed`.
    pub closed: bool,
}

impl ETag {
    /// The quoted tag. `weak` marks a response whose bytes are encoded on the way, such as gzip.
    pub fn value(&self, weak: bool) -> HeaderValue {
        let text = format!(
            "{}\"{:x}:{}:{}{}\"",
            if weak { "W/" } else { "" },
            self.stream.0,
            self.start.position(),
            self.end.position(),
            if self.closed { ":c" } else { "" },
        );
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
    }
}

/// A parsed `If-None-Match`: `*`, or any number of tags, compared weakly (RFC 9110 §13.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfNoneMatch {
    /// `*`: any representation.
    Any,
    /// The quoted texts, without their `W/`.
    Tags(Vec<Box<str>>),
}

impl IfNoneMatch {
    /// Joins all `If-None-Match` lines; what is not a tag matches nothing. `None` when there is no line.
    pub fn parse<'v>(lines: impl Iterator<Item = &'v HeaderValue>) -> Option<Self> {
        let mut found = None;
        for line in lines {
            let tags = match found.get_or_insert_with(|| IfNoneMatch::Tags(Vec::new())) {
                IfNoneMatch::Any => continue,
                IfNoneMatch::Tags(tags) => tags,
            };
            let text = line.to_str().unwrap_or("");
            if text.trim() == "*" {
                found = Some(IfNoneMatch::Any);
                continue;
            }
            tags.extend(opaque_tags(text).map(Into::into));
        }
        found
    }

    /// Whether the client already holds the response with this tag.
    pub fn matches(&self, etag: &ETag) -> bool {
        match self {
            IfNoneMatch::Any => true,
            IfNoneMatch::Tags(tags) => {
                let own = etag.value(false);
                tags.iter().any(|tag| tag.as_bytes() == own.as_bytes())
            }
        }
    }
}

/// The quoted parts of a list of tags; a comma inside quotes belongs to its tag.
fn opaque_tags(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let open = rest.find('"')?;
        let close = rest.get(open + 1..)?.find('"')? + open + 2;
        let tag = rest.get(open..close)?;
        rest = rest.get(close..)?;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: ETag =
        ETag { stream: StreamId(31), start: Offset::ZERO, end: Offset::new(12), closed: false };

    fn matches(lines: &[&'static str]) -> bool {
        let lines: Vec<_> = lines.iter().map(|l| HeaderValue::from_static(l)).collect();
        IfNoneMatch::parse(lines.iter()).is_some_and(|m| m.matches(&TAG))
    }

    #[test]
    fn lists_star_and_weak_tags_match() {
        assert_eq!(TAG.value(false), "\"1f:0:12\"");
        assert_eq!(ETag { closed: true, ..TAG }.value(true), "W/\"1f:0:12:c\"");
        assert!(matches(&["\"1f:0:12\""]));
        assert!(matches(&["W/\"1f:0:12\""]));
        assert!(matches(&["\"x,y\", W/\"1f:0:12\" , \"z\""]));
        assert!(matches(&["\"x\"", "\"1f:0:12\""]));
        assert!(matches(&["*"]));
        assert!(!matches(&[]));
        assert!(!matches(&["1f:0:12"]), "not quoted");
        assert!(!matches(&["\"1f:0:12:c\""]));
        assert!(!matches(&["\"1f:0:12"]), "not closed");
    }
}
