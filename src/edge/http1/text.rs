//! A whole answer as HTTP/1.1 text, where there is no session to write it.

use crate::protocol::{Body, Response};

/// The text, and how much of it is the body, bytes. `connection`: what the connection does afterwards.
pub(crate) fn whole(response: &Response, connection: &str) -> (Vec<u8>, usize) {
    let body = match &response.body {
        Body::Full(chunks) => chunks.concat(),
        Body::Empty | Body::Live => Vec::new(),
    };
    let status = response.status;
    let reason = status.canonical_reason().unwrap_or("Error");
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &response.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    let rest = format!("content-length: {}\r\nconnection: {connection}\r\n\r\n", body.len());
    text.extend_from_slice(rest.as_bytes());
    text.extend_from_slice(&body);
    (text, body.len())
}
