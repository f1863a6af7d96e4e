//! Receiving a request body: bounded before it is read, whole or not at all.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use durable_streams_engine::{Engine, LimitPermit};
use durable_streams_protocol::Rejection;
use http::header;
use pingora_core::{ErrorType, protocols::http::ServerSession};
use pingora_http::RequestHeader;

/// What an append of unknown length sets aside at first, bytes.
const FIRST_PERMIT: usize = 64 << 10;

/// A received body and the share of the in-flight limit that it holds.
pub(super) struct ReceivedBody {
    pub(super) bytes: Bytes,
    pub(super) room: Option<LimitPermit>,
}

/// Receives the whole body; `silence` is the longest pause inside it.
///
/// # Errors
/// [`Rejection::BodyTooLarge`] before more than the limit is read, [`Rejection::TooManyAppends`],
/// [`Rejection::BodyTimeout`], [`Rejection::BodyIncomplete`]. A body cut short is never used.
pub(super) async fn receive(
    session: &mut ServerSession,
    engine: &Engine,
    silence: Duration,
) -> Result<ReceivedBody, Rejection> {
    let limit = engine.limits().max_append;
    let too_large = || Rejection::BodyTooLarge { limit: limit as u64 };
    let declared = declared_length(session);
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    if declared == Some(0) || (declared.is_none() && session.is_body_empty()) {
        return Ok(ReceivedBody { bytes: Bytes::new(), room: None });
    }
    let mut permit = engine.append_permit(declared.unwrap_or(FIRST_PERMIT))?;
    if expects_continue(session.req_header()) {
        // Pingora takes any head before the end of the body, this one too, for a reason to close.
        let keepalive = session.get_keepalive();
        session.write_continue_response().await.map_err(|_| Rejection::BodyIncomplete)?;
        session.set_keepalive(keepalive);
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(piece) = next(session, silence).await? {
        if first.is_empty() {
            first = piece;
        } else {
            if rest.is_empty() {
                rest.reserve(declared.unwrap_or(0).max(first.len() + piece.len()));
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&piece);
        }
        let length = first.len().max(rest.len());
        if length > limit {
            return Err(too_large());
        }
        while length > permit.units() {
            engine.grow_append_permit(&mut permit)?;
        }
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(ReceivedBody { bytes, room: Some(permit) })
}

async fn next(session: &mut ServerSession, silence: Duration) -> Result<Option<Bytes>, Rejection> {
    let http2 = session.is_http2();
    let read = session.read_request_body();
    // Pingora times the bodies of HTTP/1 itself, and those of HTTP/2 not at all.
    let read = if http2 {
        tokio::time::timeout(silence, read).await.map_err(|_| Rejection::BodyTimeout)?
    } else {
        read.await
    };
    read.map_err(|error| match error.etype() {
        ErrorType::ReadTimedout => Rejection::BodyTimeout,
        _ => Rejection::BodyIncomplete,
    })
}

/// Whether the client waits for `100 Continue` before it sends the body.
pub(super) fn expects_continue(request: &RequestHeader) -> bool {
    request.version != http::Version::HTTP_10
        && request
            .headers
            .get(header::EXPECT)
            .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

pub(super) fn declared_length(session: &ServerSession) -> Option<usize> {
    let headers = &session.req_header().headers;
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Whether a request has no body, as far as its head tells.
pub(super) fn is_absent(session: &mut ServerSession) -> bool {
    declared_length(session) == Some(0) || session.is_body_empty()
}
