//! What caches may do with the responses to reads (§10.1), and entity tags: `"{stream id}:{start}:{end}"`, with `:c`
//! when the response says the stream closed.

use std::fmt;

use http::HeaderValue;

use crate::{LiveMode, Offset, SliceMeta, StreamId};

/// What a cache may do with the response to a catch-up read or a long-poll, decided here for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// Keep nothing: the response has no bytes, or its URL means another place each time (`offset=now`).
    NoStore,
    /// Keep it and ask before each use: what the URL returns changes with the next append, or with a stream that takes
    /// this one's path.
    Revalidate,
    /// Keep it for a while: the URL returns these bytes for ever.
    Keep,
}

impl CachePolicy {
    /// The policy of a response.
    ///
    /// A page keeps its bytes for ever unless it ends at the tail of an open stream, and a long-poll is asked once for
    /// each offset and cursor. But a URL without an offset, or with that of the beginning, belongs to whatever stream is
    /// at its path, and begins somewhere else after a trim.
    pub fn of(meta: &SliceMeta<'_>) -> Self {
        let grows = meta.live == LiveMode::CatchUp && meta.up_to_date && !meta.closed;
        if meta.end <= meta.start || meta.from_now {
            CachePolicy::NoStore
        } else if grows || meta.from_start || meta.start == Offset::ZERO {
            CachePolicy::Revalidate
        } else {
            CachePolicy::Keep
        }
    }

    /// The value of `Cache-Control`. `private`: the response depends on credentials.
    pub fn cache_control(self, private: bool) -> HeaderValue {
        HeaderValue::from_static(match (self, private) {
            (CachePolicy::NoStore, _) => "no-store",
            (CachePolicy::Revalidate, false) => "no-cache",
            (CachePolicy::Revalidate, true) => "private, no-cache",
            (CachePolicy::Keep, false) => "public, max-age=60, stale-while-revalidate=300",
            (CachePolicy::Keep, true) => "private, max-age=60, stale-while-revalidate=300",
        })
    }
}

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

impl ETag {
    /// The reverse of [`value`](Self::value); `None` for a tag of another server.
    pub fn parse(text: &str) -> Option<Self> {
        let quoted = text.strip_prefix("W/").unwrap_or(text);
        let mut parts = quoted.strip_prefix('"')?.strip_suffix('"')?.split(':');
        let stream = u64::from_str_radix(parts.next()?, 16).ok()?;
        let mut position = || parts.next()?.parse().ok().map(Offset::new);
        let (start, end) = (position()?, position()?);
        let closed = match parts.next() {
            None => false,
            Some("c") => true,
            Some(_) => return None,
        };
        let etag = ETag { stream: StreamId(stream), start, end, closed };
        // One spelling only: no sign, no leading zeros, nothing behind.
        (etag.value(false).as_bytes() == quoted.as_bytes()).then_some(etag)
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

    /// Asks whether the response with this tag is still the newest.
    pub fn tag(etag: impl Into<Box<str>>) -> Self {
        IfNoneMatch::Tags(vec![etag.into()])
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

/// The header's value.
impl fmt::Display for IfNoneMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IfNoneMatch::Any => f.write_str("*"),
            IfNoneMatch::Tags(tags) => f.write_str(&tags.join(", ")),
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
    use proptest::prelude::*;

    const TAG: ETag =
        ETag { stream: StreamId(31), start: Offset::ZERO, end: Offset::new(12), closed: false };

    fn matches(lines: &[&'static str]) -> bool {
        let lines: Vec<_> = lines.iter().map(|l| HeaderValue::from_static(l)).collect();
        IfNoneMatch::parse(lines.iter()).is_some_and(|m| m.matches(&TAG))
    }

    #[test]
    fn a_tag_has_one_spelling() {
        for bad in [
            "",
            "\"\"",
            "1f:0:12",
            "\"1f:0\"",
            "\"1f:0:12:d\"",
            "\"1F:0:12\"",
            "\"01f:0:12\"",
            "\"1f:+0:12\"",
            "\"1f:0:12:c:c\"",
            "\"1f:0:12",
            "w/\"1f:0:12\"",
            "\"1f:0:012\"",
        ] {
            assert_eq!(ETag::parse(bad), None, "{bad}");
        }
        assert_eq!(ETag::parse("W/\"1f:0:12\""), Some(TAG));
        assert_eq!(IfNoneMatch::tag("\"x\"").to_string(), "\"x\"");
    }

    proptest! {
        #[test]
        fn a_tag_round_trips(stream: u64, start: u64, end: u64, closed: bool, weak: bool) {
            let (start, end) = (Offset::new(start), Offset::new(end));
            let etag = ETag { stream: StreamId(stream), start, end, closed };
            prop_assert_eq!(ETag::parse(etag.value(weak).to_str().unwrap()), Some(etag));
        }
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
