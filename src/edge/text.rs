//! The head of a response as HTTP/1.1 text, where there is no session to write it.

use bytes::Bytes;
use durable_streams_protocol::{Body, Response};
use pingora::protocols::http::date::get_cached_date;

/// Room for the head of a usual response, bytes.
const HEAD: usize = 512;

/// How a client learns where the body ends (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// By the head: the status allows no body, or the connection's end ends it.
    Implied,
    /// By `Content-Length`, bytes.
    Length(usize),
    /// By the last chunk.
    Chunked,
}

/// The head, in a buffer with room for `body` bytes behind it. `connection`: what the server does with the connection
/// afterwards, `keep-alive` or `close`.
pub(crate) fn head(
    response: &Response,
    framing: BodyFraming,
    connection: &str,
    body: usize,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(HEAD + body);
    let reason = response.status.canonical_reason().unwrap_or("Error");
    for part in ["HTTP/1.1 ", response.status.as_str(), " ", reason, "\r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    let mut field = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            text.extend_from_slice(part);
        }
    };
    for (name, value) in &response.headers {
        field(name.as_str(), value.as_bytes());
    }
    match framing {
        BodyFraming::Implied => {}
        BodyFraming::Length(length) => field("content-length", length.to_string().as_bytes()),
        BodyFraming::Chunked => field("transfer-encoding", b"chunked"),
    }
    field("date", get_cached_date().as_bytes());
    field("connection", connection.as_bytes());
    text.extend_from_slice(b"\r\n");
    text
}

/// A whole response, for refusals before there is a request. The connection closes after it.
pub(crate) fn refusal(response: &Response) -> Vec<u8> {
    let body: &[Bytes] = match &response.body {
        Body::Full(chunks) => chunks,
        Body::Empty | Body::Streamed(_) | Body::Live => &[],
    };
    let length = body.iter().map(Bytes::len).sum();
    let mut text = head(response, BodyFraming::Length(length), "close", length);
    body.iter().for_each(|chunk| text.extend_from_slice(chunk));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_streams_protocol::{Outcome, Rejection, render, render_rejection};

    #[test]
    fn a_head_says_how_its_body_ends() {
        let text = |framing| {
            let text = head(&render(Outcome::Deleted), framing, "keep-alive", 0);
            String::from_utf8(text).unwrap()
        };
        let implied = text(BodyFraming::Implied);
        assert!(implied.starts_with("HTTP/1.1 204 No Content\r\n"), "{implied}");
        assert!(implied.ends_with(" GMT\r\nconnection: keep-alive\r\n\r\n"), "{implied}");
        assert!(!implied.contains("content-length"), "{implied}");
        assert!(text(BodyFraming::Length(7)).contains("\r\ncontent-length: 7\r\ndate: "));
        assert!(text(BodyFraming::Chunked).contains("\r\ntransfer-encoding: chunked\r\ndate: "));
    }

    #[test]
    fn a_refusal_declares_the_length_of_its_body() {
        let text = refusal(&render_rejection(&Rejection::BodyTimeout));
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(head.ends_with("\r\nconnection: close"), "{head}");
    }
}
