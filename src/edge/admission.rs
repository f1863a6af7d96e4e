//! What every request passes before it is routed: its size, and the timeouts of its session.
//!
//! Pingora has already refused what is not HTTP (see `tests/proxy/hygiene.rs`); this adds our
//! own, tighter bounds. Nothing here allocates for a request within bounds.

use std::time::Duration;

use http::{StatusCode, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use super::http1::framing;
use super::options::HttpLimits;
use super::problem::EdgeProblem;
use super::target;

/// How long the rest of an unread body is drained to keep a connection alive.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Applies the limits that belong to a session. Called once its head has been read. `timed`: the transport
/// itself times the silence between requests.
pub(crate) fn configure(
    session: &mut ServerSession,
    limits: &HttpLimits,
    timed: bool,
    stopping: bool,
) {
    session.set_read_timeout(Some(limits.body_timeout));
    session.set_write_timeout(Some(limits.write_timeout));
    session.set_min_send_rate(limits.min_send_rate);
    session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
    // Requests sent ahead on one connection are answered in order instead of being dropped.
    session.set_pipelining_enabled(true);
    // `None` stands: the client asked to close, or the framing made reuse unsafe.
    if session.get_keepalive().is_some() {
        // 0 is for ever.
        let seconds = if timed { 0 } else { limits.keepalive_timeout.as_secs().max(1) };
        session.set_keepalive(if stopping { None } else { Some(seconds) });
    }
}

/// Judges a request head.
///
/// # Errors
/// 400 for the host and the length, 414 for the URI, 431 for the fields, 501 for the transfer coding.
pub(crate) fn check(request: &RequestHeader, limits: &HttpLimits) -> Result<(), EdgeProblem> {
    target::check_host(request)?;
    if framing::content_length(request).is_err() {
        let detail = "Content-Length is one number, in one field";
        return Err(EdgeProblem::new(StatusCode::BAD_REQUEST, "content-length", detail));
    }
    // RFC 9112 §6.1: the body would be stored, or passed on, still in that coding.
    if request.headers.contains_key(header::TRANSFER_ENCODING) && !is_chunked(request) {
        let detail = "the only transfer coding known here is chunked, once";
        return Err(EdgeProblem::new(StatusCode::NOT_IMPLEMENTED, "transfer-coding", detail));
    }
    let uri = request.raw_path().len();
    if uri > limits.max_uri {
        return Err(EdgeProblem::new(
            StatusCode::URI_TOO_LONG,
            "uri-too-long",
            format!("the URI has {uri} bytes, the limit is {}", limits.max_uri),
        ));
    }
    let fields = request.headers.len();
    if fields > limits.max_headers {
        return Err(EdgeProblem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "too-many-headers",
            format!("the request has {fields} header fields, the limit is {}", limits.max_headers),
        ));
    }
    let bytes: usize = request.headers.iter().map(|(k, v)| k.as_str().len() + v.len()).sum();
    if bytes > limits.max_header_bytes {
        return Err(EdgeProblem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers-too-large",
            format!(
                "the header fields have {bytes} bytes, the limit is {}",
                limits.max_header_bytes
            ),
        ));
    }
    Ok(())
}

fn is_chunked(request: &RequestHeader) -> bool {
    let mut codings = request.headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next().is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"chunked"));
    first && codings.next().is_none()
}
