//! Whether a failed attempt may be made again, on another server.
//!
//! - Nothing was sent (connecting failed): yes, whatever the method.
//! - Something was sent: only an idempotent request (RFC 9110 §9.2.2) without a body, whose
//!   response has not begun. Never after a timeout: the server is busy with the first one.
//! - An HTTP/2 server says that it has not looked at the request (`REFUSED_STREAM`, or `GOAWAY` before it; RFC 9113
//!   §8.7): yes, whatever the method, while its body can be repeated, and on the same server if there is no other.
//! - A pooled connection that the server had already closed counts as "something was sent".

use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};

use super::{ca, choose::upstream_of, failure};
use crate::edge::context::RequestContext;

/// Connecting failed.
pub(crate) fn after_connect(
    peer: &HttpPeer,
    ctx: &mut RequestContext,
    error: Box<Error>,
) -> Box<Error> {
    let mut error = error;
    let retry = has_attempts_left(ctx);
    let advice = ca::advice(&error);
    tracing::warn!(target: "upstream", server = %peer._address, %error, advice, retry, "cannot connect");
    ctx.attempt.failure = failure::problem(&error);
    error.set_retry(retry);
    error
}

/// The exchange failed.
pub(crate) fn after_send(
    peer: &HttpPeer,
    session: &mut Session,
    ctx: &mut RequestContext,
    error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    let mut error = error;
    // Pingora's own judgement, which it makes for these two.
    error.retry.decide_reuse(reused);
    let unprocessed = *error.etype() == ErrorType::H2Error
        && error.retry()
        && !session.as_ref().retry_buffer_truncated();
    let repeatable = session.req_header().method.is_idempotent()
        && session.is_body_empty()
        && !matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
    let retry = (unprocessed || repeatable)
        && session.response_written().is_none()
        && error.esource() == &ErrorSource::Upstream
        && has_attempts_left(ctx);
    if retry && (reused || unprocessed) {
        // The server closed a pooled connection between two requests, or has no room for one more: it may be tried
        // again.
        ctx.attempt.forget_last();
    }
    ctx.attempt.failure = failure::problem(&error);
    if error.esource() == &ErrorSource::Upstream && !(retry && reused) {
        tracing::warn!(target: "upstream", server = %peer._address, %error, retry, "exchange failed");
    }
    error.set_retry(retry);
    error
}

fn has_attempts_left(ctx: &RequestContext) -> bool {
    upstream_of(ctx).is_ok_and(|upstream| ctx.attempt.count() <= upstream.options.retries)
}
