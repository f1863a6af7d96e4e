//! What a request is addressed to: its target and its host, in the one form in which they are routed and passed on.
//!
//! - A target in absolute form (`GET http://a/x`) becomes origin form (`/x`), and its authority becomes `Host`
//!   (RFC 9112 §3.2.2). Pingora has already refused one that disagrees with `Host`.
//! - A target in neither form is refused: what `route` has not classified cannot reach an upstream. `OPTIONS *` is
//!   about the server, and belongs to no upstream.
//! - `Host`, or `:authority` of HTTP/2, is a host with an optional port (RFC 9110 §7.2). It ends up in `Location`.

use std::net::Ipv6Addr;

use http::{HeaderValue, Method, StatusCode, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::authority::{RawTargetAuthority, raw_target_authority};

use super::problem::EdgeProblem;

/// The form of a request target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm<'a> {
    /// `/path?query`.
    Origin,
    /// `http://authority/path?query`; the path may be empty.
    Absolute {
        /// Host and port.
        authority: &'a [u8],
        /// What follows the authority.
        path_and_query: &'a [u8],
    },
    /// `*` of an `OPTIONS` request.
    Asterisk,
}

impl<'a> TargetForm<'a> {
    /// The form of `target`; `None` for what is no target of this method, or holds bytes that no target may hold.
    pub fn of(method: &Method, target: &'a [u8]) -> Option<Self> {
        if target == b"*" {
            return (*method == Method::OPTIONS).then_some(TargetForm::Asterisk);
        }
        if !may_be_target(target) {
            return None;
        }
        if target.starts_with(b"/") {
            return Some(TargetForm::Origin);
        }
        match raw_target_authority(target) {
            RawTargetAuthority::Absolute { scheme, authority, path_and_query }
                if is_http(scheme) && is_host(authority) =>
            {
                Some(TargetForm::Absolute { authority, path_and_query })
            }
            _ => None,
        }
    }
}

/// Visible ASCII, and UTF-8 as browsers' address lines are pasted into scripts.
fn may_be_target(target: &[u8]) -> bool {
    has_target_bytes(target) && (target.is_ascii() || std::str::from_utf8(target).is_ok())
}

/// Whether there is no blank, no control character and no `#`: a fragment is never sent, and Pingora would cut it off.
pub(crate) fn has_target_bytes(target: &[u8]) -> bool {
    let visible = |byte: u8| byte > b' ' && byte != b'#' && byte != 0x7f;
    // Without an early end the compiler takes sixteen bytes at a time.
    target.iter().fold(true, |all, byte| all & visible(*byte))
}

fn is_http(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")
}

/// Whether these bytes are `uri-host [":" port]`, and not empty.
pub fn is_host(value: &[u8]) -> bool {
    let (is_name, rest) = match value.strip_prefix(b"[") {
        Some(literal) => {
            let Some(end) = memchr::memchr(b']', literal) else { return false };
            let (address, rest) = literal.split_at(end);
            let address = std::str::from_utf8(address).ok();
            (address.is_some_and(|a| a.parse::<Ipv6Addr>().is_ok()), rest.get(1..).unwrap_or(rest))
        }
        None => {
            let (name, rest) = value.split_at(memchr::memchr(b':', value).unwrap_or(value.len()));
            (is_registered_name(name), rest)
        }
    };
    is_name && (rest.is_empty() || rest.strip_prefix(b":").is_some_and(is_port))
}

/// `reg-name` of RFC 3986 §3.2.2, without the empty one.
fn is_registered_name(name: &[u8]) -> bool {
    let escapes = memchr::memchr_iter(b'%', name).all(|at| {
        name.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    !name.is_empty() && name.iter().all(|byte| OF_NAME[usize::from(*byte)]) && escapes
}

/// By byte: whether it may be part of a `reg-name`.
static OF_NAME: [bool; 256] = {
    let mut known = [false; 256];
    let mut byte = 0;
    while byte < known.len() {
        known[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=%";
    let mut at = 0;
    while at < others.len() {
        known[others[at] as usize] = true;
        at += 1;
    }
    known
};

fn is_port(port: &[u8]) -> bool {
    // Empty is the scheme's own (RFC 3986 §3.2.3).
    port.iter().all(u8::is_ascii_digit)
        && port
            .iter()
            .fold(0_u32, |n, digit| n.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
            <= u32::from(u16::MAX)
}

/// Judges the host that a request names.
///
/// # Errors
/// 400 for none in HTTP/1.1, and for what is no host.
pub(crate) fn check_host(request: &RequestHeader) -> Result<(), EdgeProblem> {
    let refuse = |code, detail| Err(EdgeProblem::new(StatusCode::BAD_REQUEST, code, detail));
    // RFC 9112 §3.2. HTTP/2 has its own field for it, HTTP/1.0 has none.
    let host = request.headers.get(header::HOST).map(HeaderValue::as_bytes);
    if request.version == http::Version::HTTP_11 && host.is_none() {
        return refuse("host-missing", "an HTTP/1.1 request needs a Host field");
    }
    let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    // An empty Host is that of a URL without an authority (RFC 9112 §3.2).
    if !host.is_none_or(|host| host.is_empty() || is_host(host)) || !authority.is_none_or(is_host) {
        return refuse("host-invalid", "the Host field is not a host with an optional port");
    }
    Ok(())
}

/// Brings a request's target into origin form, and the authority of an absolute one into `Host`.
///
/// # Errors
/// 400 for what is no target, 405 for `CONNECT`.
pub(crate) fn normalize(request: &mut RequestHeader) -> Result<(), EdgeProblem> {
    if request.method == Method::CONNECT {
        let detail = "this server opens no tunnels; an upgrade is a GET with an Upgrade field";
        return Err(EdgeProblem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail));
    }
    let (host, target) = match TargetForm::of(&request.method, request.raw_path()) {
        Some(TargetForm::Origin | TargetForm::Asterisk) => return Ok(()),
        Some(TargetForm::Absolute { authority, path_and_query }) => {
            (HeaderValue::from_bytes(authority).ok(), origin(path_and_query))
        }
        None => (None, Vec::new()),
    };
    let normalized = host.and_then(|host| {
        request.set_raw_path(&target).ok()?;
        request.insert_header(header::HOST, host).ok()
    });
    normalized.ok_or_else(|| {
        let detail = "the request target is neither a path, which begins with a slash, nor an http or https URL; \
                      blanks, control characters and # are percent-encoded in it";
        EdgeProblem::new(StatusCode::BAD_REQUEST, "target-invalid", detail)
    })
}

/// The path and query of a URL whose path may be empty.
fn origin(path_and_query: &[u8]) -> Vec<u8> {
    let root: &[u8] = if path_and_query.starts_with(b"/") { b"" } else { b"/" };
    [root, path_and_query].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The target and the host that a request is routed with.
    fn normalized(method: &str, target: &str) -> Option<(String, String)> {
        let mut request = RequestHeader::build(method, target.as_bytes(), None).ok()?;
        request.insert_header(header::HOST, "t").unwrap();
        normalize(&mut request).ok()?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Some((text(request.raw_path()), text(request.headers[header::HOST].as_bytes())))
    }

    #[test]
    fn a_target_is_routed_in_origin_form() {
        for (target, expected, host) in [
            ("/", "/", "t"),
            ("/a/%20b?c=/d?e", "/a/%20b?c=/d?e", "t"),
            ("//a", "//a", "t"),
            ("/a:b@c", "/a:b@c", "t"),
            ("/\u{4f60}", "/\u{4f60}", "t"),
            ("http://a/x?y", "/x?y", "a"),
            ("HTTPS://a.example:8443", "/", "a.example:8443"),
            ("http://a?x", "/?x", "a"),
            ("http://[::1]:80//x", "//x", "[::1]:80"),
        ] {
            let expected = Some((expected.to_owned(), host.to_owned()));
            assert_eq!(normalized("GET", target), expected, "{target}");
        }
        assert_eq!(normalized("OPTIONS", "*").unwrap().0, "*");
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for target in [
            "x",
            "?a",
            "*",
            "@evil/a",
            "t:80",
            "ftp://t/x",
            "http:/x",
            "http:x",
            "http://",
            "http:///x",
            "http://u@t/x",
            "http://t:x/",
            "://t/x",
            "ws://t/x",
            "./a",
            "\\a",
        ] {
            assert_eq!(normalized("GET", target), None, "{target}");
        }
        for target in
            [&b"/\xff"[..], b"/a#b", b"http://t/#b", b"/a b", b"/a\tb", b"/\x7f", b"", b"/\0"]
        {
            assert_eq!(
                TargetForm::of(&Method::GET, target),
                None,
                "{:?}",
                target.escape_ascii().to_string()
            );
        }
        assert_eq!(normalized("CONNECT", "t:443"), None);
    }

    #[test]
    fn a_host_has_a_name_and_perhaps_a_port() {
        for host in [
            "a",
            "a.example",
            "a:80",
            "a:",
            "a:65535",
            "1.2.3.4:1",
            "[::1]",
            "[::1]:80",
            "a%41",
            "a_b",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a:b", "a:80:90", "a:65536", "a:-1", "a b", "a/b", "a@b", "a#b", "a?b",
            "a\\b", "[::1", "[x]", "[]", "[::1]80", "::1", "a%4", "a%zz", "a\u{e9}", "<a>", "a\"",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
