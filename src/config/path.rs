//! URL paths: the route of the streams, the prefixes of upstreams, the path of a health check.
//!
//! A path in the configuration starts with `/`, needs no percent-encoding and has no empty or dot segments, so
//! that comparing it with a request's path cannot be fooled by a second spelling.

use super::reader::setting::{InvalidValue, ScalarSetting};
use crate::edge::StreamOptions;

/// Where the streams live: `/v1/stream`. Never `/`, never with a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRoute(String);

/// The start of the paths that an upstream serves, by whole segments: `/api` covers `/api` and
/// `/api/x`, not `/apix`. `/` covers everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix(String);

/// The path, and query if any, that a health check requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckPath(String);

/// Longest path in the configuration, in bytes.
const LONGEST: usize = 256;

impl StreamRoute {
    /// The route as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for StreamRoute {
    fn default() -> Self {
        Self(StreamOptions::default().route)
    }
}

impl PathPrefix {
    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when every path of this prefix belongs to the streams under `route`.
    pub(crate) fn lies_under(&self, route: &StreamRoute) -> bool {
        self.0.strip_prefix(route.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/'))
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl CheckPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for CheckPath {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl ScalarSetting for StreamRoute {
    const WHAT: &'static str = "a path such as /v1/stream";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        if text == "/" {
            let fix = "name a path such as /v1/stream; the rest belongs to the upstreams";
            return Err(InvalidValue::new("would cover everything", fix));
        }
        plain_path(text).map(Self)
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ScalarSetting for PathPrefix {
    const WHAT: &'static str = "a path such as /api";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        if text == "/" { Ok(Self::default()) } else { plain_path(text).map(Self) }
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ScalarSetting for CheckPath {
    const WHAT: &'static str = "a path such as /healthz";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let printable = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if text.starts_with('/') && printable && text.len() <= LONGEST {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidValue::not_a(Self::WHAT)
            .fix("start it with /, and percent-encode what is not ASCII"))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// A path that is compared literally.
fn plain_path(text: &str) -> Result<String, InvalidValue> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    let problem = if text.is_empty() {
        Some(("is empty", "write a path such as /v1/stream".to_owned()))
    } else if !text.starts_with('/') {
        Some(("does not start with a slash", format!("write {:?}", format!("/{text}"))))
    } else if text.ends_with('/') {
        Some(("ends with a slash", format!("write {:?}", text.trim_end_matches('/'))))
    } else if text.split('/').skip(1).any(|s| matches!(s, "" | "." | "..")) {
        Some(("has an empty or dot segment", "name every segment".to_owned()))
    } else if !text.bytes().all(is_plain) {
        let fix = "use letters, digits, and - . _ ~ only".to_owned();
        Some(("has a character that would need encoding", fix))
    } else if text.len() > LONGEST {
        Some(("is too long", format!("use {LONGEST} bytes at most")))
    } else {
        None
    };
    match problem {
        Some((rule, fix)) => Err(InvalidValue::new(rule, fix)),
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_exactly_one_spelling() {
        for text in ["/v1/stream", "/s", "/a.b/c-d_e~f"] {
            assert_eq!(StreamRoute::parse(text).unwrap().as_str(), text);
        }
        let long = format!("/{}", "x".repeat(LONGEST));
        for text in
            ["", "/", "v1", "/v1/", "/a//b", "/a/../b", "/a b", "/ä", "/a%20", "/a?b", &long]
        {
            assert!(StreamRoute::parse(text).is_err(), "{text:?} must be refused");
        }
        assert_eq!(PathPrefix::parse("/").unwrap(), PathPrefix::default());
    }

    #[test]
    fn prefixes_compare_by_segment() {
        let route = StreamRoute::default();
        for (prefix, under) in
            [("/v1/stream", true), ("/v1/stream/a", true), ("/v1/streams", false), ("/v1", false)]
        {
            assert_eq!(PathPrefix::parse(prefix).unwrap().lies_under(&route), under, "{prefix}");
        }
    }
}
