//! The one place that writes to a session.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, Version, header};
use pingora::{Result, http::ResponseHeader, protocols::http::ServerSession};

use super::{Cors, is_head};
use crate::protocol::{Body, Response};

/// Writes a whole response, or the head of a live one.
///
/// # Errors
/// Only when the client can no longer be written to.
pub(super) async fn send(
    session: &mut ServerSession,
    response: Response,
    cors: &Cors,
) -> Result<()> {
    let mut head =
        ResponseHeader::build_no_case(response.status, Some(response.headers.len() + 6))?;
    for (name, value) in response.headers {
        head.append_header(name, value)?;
    }
    let request = session.req_header();
    cors.apply(&request.method, &request.headers, &mut head)?;
    match response.body {
        Body::Live => {
            // HTTP/1.0 has no chunks: there the end of the connection ends the body.
            match request.version {
                Version::HTTP_11 => {
                    let chunked = HeaderValue::from_static("chunked");
                    head.insert_header(header::TRANSFER_ENCODING, chunked)?;
                }
                Version::HTTP_10 => session.set_keepalive(None),
                _ => {}
            }
            session.write_response_header(Box::new(head)).await
        }
        Body::Empty => {
            if !has_no_body(response.status) && !is_head(session) {
                head.insert_header(header::CONTENT_LENGTH, HeaderValue::from_static("0"))?;
            }
            session.write_response_header(Box::new(head)).await?;
            session.write_response_body(Bytes::new(), true).await
        }
        Body::Full(chunks) => {
            let length: usize = chunks.iter().map(Bytes::len).sum();
            head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length))?;
            session.write_response_header(Box::new(head)).await?;
            if !is_head(session) {
                for chunk in chunks {
                    session.write_response_body(chunk, false).await?;
                }
            }
            session.write_response_body(Bytes::new(), true).await
        }
    }
}

fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
