//! The one place that writes to a session.

use bytes::Bytes;
use durable_streams_protocol::{Body, Response};
use http::{HeaderValue, Version, header};
use pingora::{Result, http::ResponseHeader, protocols::http::ServerSession};

use super::{Cors, is_head};

/// Writes a whole response, or the head of a live one.
///
/// # Errors
/// Only when the client can no longer be written to.
pub(super) async fn send(
    session: &mut ServerSession,
    response: Response,
    cors: &Cors,
) -> Result<()> {
    let may_have_body = response.may_have_body();
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = response.status;
    // Filled before it is Pingora's, which would parse each name again.
    let headers = &mut head.headers;
    headers.reserve(response.headers.len() + 6);
    for (name, value) in response.headers {
        headers.append(name, value);
    }
    let request = session.req_header();
    cors.apply(&request.method, &request.headers, headers);
    match response.body {
        Body::Live => {
            // HTTP/1.0 has no chunks: there the end of the connection ends the body.
            match request.version {
                Version::HTTP_11 => {
                    let chunked = HeaderValue::from_static("chunked");
                    headers.insert(header::TRANSFER_ENCODING, chunked);
                }
                Version::HTTP_10 => session.set_keepalive(None),
                _ => {}
            }
            session.write_response_header(boxed(head)).await
        }
        Body::Empty => {
            if may_have_body && !is_head(session) {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            session.write_response_header(boxed(head)).await?;
            session.write_response_body(Bytes::new(), true).await
        }
        Body::Full(chunks) => {
            let length: usize = chunks.iter().map(Bytes::len).sum();
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            session.write_response_header(boxed(head)).await?;
            let body = if is_head(session) { Bytes::new() } else { whole(chunks) };
            session.write_response_body(body, true).await
        }
    }
}

/// All pieces as one: to hand each to the socket, and to wake the client for each, costs more than a copy.
fn whole(mut chunks: Vec<Bytes>) -> Bytes {
    match chunks.len() {
        0 | 1 => chunks.pop().unwrap_or_default(),
        _ => chunks.concat().into(),
    }
}

fn boxed(head: http::response::Parts) -> Box<ResponseHeader> {
    Box::new(ResponseHeader::from(head))
}
