//! Request bytes, built once per connection or stream and sent as they are.

use std::io::Write as _;
use std::net::SocketAddr;

/// The methods the loads use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Method {
    Put,
    Post,
    Get,
    Head,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

/// Where the server listens and under which path its streams lie.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    /// Begins and ends with `/`.
    pub(crate) base: String,
    /// Header lines of every request, such as a credential.
    pub(crate) headers: Vec<String>,
}

impl Target {
    /// The URL path of a stream.
    pub(crate) fn path(&self, stream: &str) -> String {
        format!("{}{stream}", self.base)
    }
}

/// Appends one request to `out`. `headers` are whole lines without their line end; a body is sent
/// with `Content-Length`, and an empty one only where the method expects one.
pub(crate) fn request(
    out: &mut Vec<u8>,
    method: Method,
    target: &Target,
    path: &str,
    headers: &[&str],
    body: &[u8],
) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{} {path} HTTP/1.1\r\nHost: {}\r\n", method.name(), target.addr);
    for header in target.headers.iter().map(String::as_str).chain(headers.iter().copied()) {
        let _ = write!(out, "{header}\r\n");
    }
    if matches!(method, Method::Put | Method::Post) {
        let _ = write!(out, "Content-Length: {}\r\n", body.len());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}
