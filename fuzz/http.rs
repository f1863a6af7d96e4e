//! What must hold for the parts of a request that the server's edge judges before Pingora does.

use durable_streams_server::edge::EdgeOptions;
use durable_streams_server::edge::http1::chunks::{ChunkScanner, MAX_IGNORED};
use durable_streams_server::edge::route::{EdgeRoute, classify};
use durable_streams_server::edge::target::{TargetForm, is_host};
use durable_streams_server::edge::upstream::UpstreamOptions;
use http::Method;
use pingora::http::RequestHeader;

/// A method and a request target, one a line.
pub fn target(input: &[u8]) {
    let (line, target) = input.split_at(memchr::memchr(b'\n', input).unwrap_or(0));
    let target = target.strip_prefix(b"\n").unwrap_or(target);
    let method = Method::from_bytes(line).unwrap_or(Method::GET);
    let Some(form) = TargetForm::of(&method, target) else { return };
    assert!(!target.iter().any(|byte| *byte <= b' ' || *byte == b'#' || *byte == 0x7f));
    match form {
        TargetForm::Asterisk => assert_eq!((method, target), (Method::OPTIONS, &b"*"[..])),
        TargetForm::Absolute { authority, path_and_query } => {
            assert!(is_host(authority));
            assert!(target.ends_with(path_and_query));
            assert!(matches!(path_and_query.first(), None | Some(b'/' | b'?')));
        }
        TargetForm::Origin => {
            // What Pingora cannot hold is refused; otherwise it routes, and passes on, the same bytes.
            let Ok(request) = RequestHeader::build(method, target, None) else { return };
            assert_eq!(request.raw_path(), target);
            let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
            assert_eq!(request.uri.path().as_bytes(), path);
            let upstream = UpstreamOptions { prefix: "/".to_owned(), ..UpstreamOptions::default() };
            let options = EdgeOptions { upstreams: vec![upstream], ..EdgeOptions::default() };
            let route = classify(request.uri.path(), &options);
            assert_ne!(route, EdgeRoute::NotFound, "one upstream takes every path");
            let of_streams = path == b"/v1/stream" || path.starts_with(b"/v1/stream/");
            assert!(of_streams || route != EdgeRoute::Stream);
            assert!(!of_streams || !matches!(route, EdgeRoute::Upstream(_)));
        }
    }
}

/// A byte that says how the rest is cut, and a chunked body with what follows it.
pub fn chunks(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else { return };
    let mut whole = ChunkScanner::default();
    let scanned = whole.scan(bytes);
    let mut pieces = ChunkScanner::default();
    let mut by_piece = Ok(0);
    for piece in bytes.chunks(usize::from(*cut) + 1) {
        by_piece = by_piece.and_then(|n| pieces.scan(piece).map(|m| n + m));
    }
    assert_eq!(scanned, by_piece, "cuts change nothing");
    let Ok(length) = scanned else { return };
    assert_eq!(whole.is_done(), pieces.is_done());
    assert!(whole.is_done() || length == bytes.len());
    if whole.is_done() {
        assert_eq!(end_of_body(bytes), Some(length), "another reading of the grammar");
    }
}

/// The end of the chunked body that `bytes` begin with, if it is whole, read line by line.
fn end_of_body(bytes: &[u8]) -> Option<usize> {
    let line = |at: usize| {
        let end = at + memchr::memmem::find(bytes.get(at..)?, b"\r\n")?;
        let line = bytes.get(at..end)?;
        let visible = line.iter().all(|byte| *byte >= b' ' && *byte != 0x7f || *byte == b'\t');
        visible.then_some((line, end + 2))
    };
    let (mut at, mut ignored) = (0, 0);
    loop {
        let (head, data) = line(at)?;
        let digits = head.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size =
            usize::from_str_radix(std::str::from_utf8(head.get(..digits)?).ok()?, 16).ok()?;
        ignored += head.len() - digits;
        let extension = head.get(digits..)?.trim_ascii_start();
        if digits > 16 || !(extension.is_empty() || extension.starts_with(b";")) {
            return None;
        }
        if size == 0 {
            at = data;
            break;
        }
        at = data.checked_add(size)?;
        at = bytes.get(at..)?.starts_with(b"\r\n").then_some(at + 2)?;
    }
    loop {
        let (trailer, next) = line(at)?;
        ignored += trailer.len();
        at = next;
        if trailer.is_empty() {
            return (ignored <= MAX_IGNORED).then_some(at);
        }
        if trailer.starts_with(b" ") || trailer.starts_with(b"\t") {
            return None;
        }
    }
}
