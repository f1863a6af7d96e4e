//! A whole answer as HTTP/1.1 text, where there is no session to write it.

use bytes::Bytes;
use durable_streams_protocol::{Body, Response};
use pingora::protocols::http::date::get_cached_date;

/// Room for the head of a usual answer, bytes.
const HEAD: usize = 512;

/// The text, and how much of it is the body, bytes. `connection`: what the connection does afterwards.
pub(crate) fn whole(response: &Response, connection: &str) -> (Vec<u8>, usize) {
    let body: &[Bytes] = match &response.body {
        Body::Full(chunks) => chunks,
        Body::Empty | Body::Live => &[],
    };
    let length: usize = body.iter().map(Bytes::len).sum();
    let mut text = Vec::with_capacity(HEAD + length);
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
    if response.may_have_body() {
        field("content-length", length.to_string().as_bytes());
    }
    field("date", get_cached_date().as_bytes());
    field("connection", connection.as_bytes());
    text.extend_from_slice(b"\r\n");
    body.iter().for_each(|chunk| text.extend_from_slice(chunk));
    (text, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_streams_protocol::{Outcome, Rejection, render, render_rejection};

    fn text(response: &Response) -> (String, usize) {
        let (text, body) = whole(response, "keep-alive");
        (String::from_utf8(text).unwrap(), body)
    }

    #[test]
    fn an_answer_without_content_has_no_length_and_each_has_a_date() {
        let (deleted, body) = text(&render(Outcome::Deleted));
        assert!(deleted.starts_with("HTTP/1.1 204 No Content\r\n"), "{deleted}");
        assert!(deleted.ends_with(" GMT\r\nconnection: keep-alive\r\n\r\n"), "{deleted}");
        assert!(!deleted.contains("content-length"), "{deleted}");
        assert_eq!(body, 0);

        let (refused, length) = text(&render_rejection(&Rejection::BodyTimeout));
        let (head, body) = refused.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), length);
        assert!(head.contains(&format!("\r\ncontent-length: {length}\r\ndate: ")), "{head}");
    }
}
