//! Which part of the server a path belongs to: decided once per request, from the path alone.
//!
//! Rules
//! - The stream route wins, on a segment boundary: `/v1/stream` and `/v1/stream/x` are streams,
//!   `/v1/streamx` is not.
//! - Otherwise the upstream with the longest matching prefix, on a segment boundary.
//! - A path must mean one thing. If its other spelling (percent-decoded, `\` as `/`, doubled
//!   slashes merged, dot segments resolved) would go somewhere else, it is [`EdgeRoute::Ambiguous`]
//!   and refused: nothing can be smuggled to a stream past an upstream's rules, or the reverse.
//!   A spelling that stays in its place is passed on as it came.

use std::borrow::Cow;

use durable_streams_pingora::transport::is_under;
use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::options::EdgeOptions;
use super::problem::EdgeProblem;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeRoute {
    /// Under the stream route: answered here.
    Stream,
    /// The upstream with this index in [`EdgeOptions::upstreams`].
    Upstream(usize),
    /// No route matches.
    NotFound,
    /// Two spellings of the path lead to two places.
    Ambiguous,
}

/// Decides the route of `path` (no query).
pub fn classify(path: &str, options: &EdgeOptions) -> EdgeRoute {
    let route = by_prefix(path, options);
    if !has_other_spelling(path) {
        return route;
    }
    if by_prefix(&canonical(path), options) == route { route } else { EdgeRoute::Ambiguous }
}

fn by_prefix(path: &str, options: &EdgeOptions) -> EdgeRoute {
    if options.streams.matches(path) {
        return EdgeRoute::Stream;
    }
    let matching = options.upstreams.iter().enumerate().filter(|(_, u)| is_under(path, &u.prefix));
    match matching.max_by_key(|(_, u)| u.prefix.trim_end_matches('/').len()) {
        Some((index, _)) => EdgeRoute::Upstream(index),
        None => EdgeRoute::NotFound,
    }
}

fn has_other_spelling(path: &str) -> bool {
    let bytes = path.as_bytes();
    let after = |slash: usize| matches!(bytes.get(slash + 1), Some(b'/' | b'.'));
    memchr::memchr2(b'%', b'\\', bytes).is_some() || memchr::memchr_iter(b'/', bytes).any(after)
}

/// The spelling a lenient server behind us might read.
fn canonical(path: &str) -> String {
    let decoded: Cow<'_, str> = percent_decode_str(path).decode_utf8_lossy();
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split(['/', '\\']) {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let mut out = String::with_capacity(decoded.len());
    for segment in segments {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() { "/".to_owned() } else { out }
}

/// The answer to [`EdgeRoute::NotFound`].
pub(crate) fn nowhere(options: &EdgeOptions) -> EdgeProblem {
    let what = if options.upstreams.is_empty() {
        "no upstream is configured"
    } else {
        "no upstream is configured for this path"
    };
    let detail = format!(
        "{what}; streams live under {}, everything else needs an entry in `upstreams`",
        options.streams.route
    );
    EdgeProblem::new(StatusCode::NOT_FOUND, "no-upstream", detail)
}

/// The answer to [`EdgeRoute::Ambiguous`].
pub(crate) fn ambiguous() -> EdgeProblem {
    let detail = "decoded, this path leads elsewhere than it does as sent; \
                  send it without encoded letters, dot segments or doubled slashes";
    EdgeProblem::new(StatusCode::BAD_REQUEST, "ambiguous-path", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::upstream::UpstreamOptions;

    fn options(prefixes: &[&str]) -> EdgeOptions {
        let upstreams = prefixes
            .iter()
            .map(|p| UpstreamOptions { prefix: (*p).to_owned(), ..UpstreamOptions::default() })
            .collect();
        EdgeOptions { upstreams, ..EdgeOptions::default() }
    }

    #[test]
    fn the_stream_route_ends_at_a_segment_boundary() {
        let options = options(&["/"]);
        for path in ["/v1/stream", "/v1/stream/", "/v1/stream/a", "/v1/stream/a/b%20c"] {
            assert_eq!(classify(path, &options), EdgeRoute::Stream, "{path}");
        }
        for path in ["/v1/streamx", "/v1/streams/a", "/v1", "/", "/v1/Stream/a", "/x/v1/stream/a"] {
            assert_eq!(classify(path, &options), EdgeRoute::Upstream(0), "{path}");
        }
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        for prefixes in [["/", "/api", "/api/v2/"], ["/api/v2/", "/", "/api"]] {
            let options = options(&prefixes);
            let index = |p: &str| prefixes.iter().position(|x| *x == p).map(EdgeRoute::Upstream);
            assert_eq!(Some(classify("/api/v2/x", &options)), index("/api/v2/"));
            assert_eq!(Some(classify("/api/v2", &options)), index("/api/v2/"));
            assert_eq!(Some(classify("/api/v20", &options)), index("/api"));
            assert_eq!(Some(classify("/apis", &options)), index("/"));
        }
        assert_eq!(classify("/other", &options(&["/api"])), EdgeRoute::NotFound);
    }

    #[test]
    fn a_path_with_two_meanings_is_refused() {
        let options = options(&["/"]);
        for path in [
            "/v1/%73tream/a",
            "/v1%2Fstream/a",
            "/v1/./stream/a",
            "/v1//stream/a",
            "//v1/stream/a",
            "/x/../v1/stream/a",
            "/v1/stream/../admin",
            "/v1/stream/%2e%2e/admin",
            "/v1/stream/..%2fadmin",
            "/v1/stream/..\\admin",
            "/v1\\stream/a",
            "/v1/stream%2Fa",
        ] {
            assert_eq!(classify(path, &options), EdgeRoute::Ambiguous, "{path}");
        }
    }

    #[test]
    fn a_spelling_that_stays_in_its_place_is_left_alone() {
        let options = options(&["/"]);
        for path in
            ["/v1/stream/a%2Fb", "/v1/stream/a//b", "/v1/stream/.hidden", "/v1/stream/a/../b"]
        {
            assert_eq!(classify(path, &options), EdgeRoute::Stream, "{path}");
        }
        for path in ["/a%20b", "/a/../b", "/%E4%BD%A0", "/.well-known/x", "/a//b"] {
            assert_eq!(classify(path, &options), EdgeRoute::Upstream(0), "{path}");
        }
    }

    proptest::proptest! {
        /// However a stream's path is spelled, it never reaches an upstream.
        #[test]
        fn no_spelling_of_a_stream_leads_upstream(
            name in "[a-z./]{0,12}",
            encode in proptest::collection::vec(proptest::bool::weighted(0.2), 40),
            noise in proptest::sample::select(vec!["", "/", "/.", "/x/.."]),
        ) {
            let plain = format!("/v1/stream/{name}");
            let is_stream = is_under(&canonical(&plain), "/v1/stream");
            let spelled: String = plain
                .bytes()
                .zip(encode.iter().cycle())
                .map(|(b, encode)| if *encode && b != b'/' {
                    format!("%{b:02x}")
                } else {
                    char::from(b).to_string()
                })
                .collect();
            let spelled = format!("{noise}{spelled}");
            let route = classify(&spelled, &options(&["/"]));
            if is_stream {
                proptest::prop_assert_ne!(route, EdgeRoute::Upstream(0), "{}", spelled);
            } else {
                proptest::prop_assert_ne!(route, EdgeRoute::Stream, "{}", spelled);
            }
        }

        /// Any text is a path to somewhere or nowhere, never a panic.
        #[test]
        fn any_text_is_classified(path in ".*") {
            let _ = classify(&path, &options(&["/", "/a/b"]));
        }
    }
}
