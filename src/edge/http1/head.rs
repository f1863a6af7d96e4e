//! The head of an HTTP/1.1 request as it comes from the wire: where it ends, and its request line.
//!
//! The head is read whole before Pingora sees a byte of it. Pingora repairs request lines that it cannot parse (a blank
//! in the target becomes `%20`); RFC 9112 §3 has them refused, since another server on the way may read them otherwise.

use std::io;

use bytes::{Buf, BytesMut};
use http::{HeaderName, HeaderValue};
use pingora::protocols::Shutdown;
use tokio::io::AsyncReadExt;

use crate::edge::connection::ClientConnection;
use crate::edge::options::HttpLimits;
use crate::edge::target::has_target_bytes;

/// Reads a head to its end, of which `read` is the beginning. What came behind it goes back to the connection.
/// `None`: the client left before the end.
///
/// # Errors
/// As reading the connection: too slow, too long, gone.
pub(super) async fn complete(
    connection: &mut ClientConnection,
    mut read: BytesMut,
) -> io::Result<Option<BytesMut>> {
    let mut scanned = 0;
    loop {
        // RFC 9112 §2.2: empty lines in front are not part of it.
        let blank = empty_lines(&read);
        if blank > 0 {
            read.advance(blank);
            scanned = 0;
        }
        if let Some(end) = end(&read, scanned) {
            let head = read.split_to(end);
            connection.head_read(read);
            return Ok(Some(head));
        }
        scanned = read.len();
        if connection.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
    }
}

/// Waits for a whole head and puts it back. Pingora, where it reads heads by itself, logs an error for every client that
/// leaves inside one, and closes without a response where it cannot parse one: that is answered here. `false`: there
/// will be none.
pub(crate) async fn arrives(connection: &mut ClientConnection) -> bool {
    match connection.sniff().await {
        Ok(Some(read)) => match complete(connection, read).await {
            Ok(Some(head)) if has_request_line(&head) && has_fields(&head) => {
                connection.head_back(head);
                true
            }
            Ok(Some(_)) => {
                let (refusal, pace) = (super::malformed().http1_text(), HttpLimits::DEFAULT.pace());
                if connection.send_in_time(&refusal, &[], pace).await.is_ok() {
                    connection.shutdown().await;
                }
                false
            }
            Ok(None) | Err(_) => false,
        },
        // HTTP/2, which these listeners refuse.
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Bytes of whole empty lines at the beginning.
fn empty_lines(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match bytes.get(at..) {
            Some([b'\r', b'\n', ..]) => at += 2,
            Some([b'\n', ..]) => at += 1,
            _ => return at,
        }
    }
}

/// The length of the head that `bytes` begins with, if it is whole. Lines end with CRLF or LF, as Pingora reads them.
/// The first `scanned` bytes hold no end.
fn end(bytes: &[u8], scanned: usize) -> Option<usize> {
    let from = scanned.saturating_sub(2);
    memchr::memchr_iter(b'\n', bytes.get(from..)?).find_map(|lf| {
        let next = from + lf + 1;
        match bytes.get(next..)? {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        }
    })
}

/// Whether a head begins with `method SP request-target SP HTTP-version`. What the three are made of is for those who
/// parse them; here nothing may separate them but one blank each.
pub(super) fn has_request_line(head: &[u8]) -> bool {
    let line = memchr::memchr(b'\n', head).and_then(|lf| head.get(..lf)).unwrap_or(head);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (Some(first), Some(last)) = (memchr::memchr(b' ', line), memchr::memrchr(b' ', line))
    else {
        return false;
    };
    let target = line.get(first + 1..last).unwrap_or_default();
    first > 0
        && !target.is_empty()
        && has_target_bytes(target)
        && line.get(last + 1..).is_some_and(|version| version.starts_with(b"HTTP/1."))
}

/// Whether each line behind the request line is a field: a name, a colon, a value.
fn has_fields(head: &[u8]) -> bool {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).filter(|line| !line.is_empty()).all(
        |line| {
            let mut parts = line.splitn(2, |byte| *byte == b':');
            let (name, value) = (parts.next().unwrap_or_default(), parts.next());
            HeaderName::from_bytes(name).is_ok()
                && value.is_some_and(|value| HeaderValue::from_bytes(value).is_ok())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_first_empty_line() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\na: b\r\n\r\nbody", Some(24)),
            ("GET / HTTP/1.1\na: b\n\nbody", Some(21)),
            ("GET / HTTP/1.1\r\n\r\n", Some(18)),
            ("GET / HTTP/1.1\n\r\n\r\n", Some(17)),
            ("GET / HTTP/1.1\r\na: b\r\n", None),
            ("GET / HTTP/1.1\r\na: b\r\n\r", None),
            ("", None),
        ] {
            let bytes = text.as_bytes();
            for scanned in 0..=bytes.len() {
                if end(&bytes[..scanned], 0).is_none() {
                    assert_eq!(end(bytes, scanned), expected, "{text:?} after {scanned}");
                }
            }
        }
    }

    #[test]
    fn empty_lines_in_front_are_skipped() {
        for (text, expected) in [("\r\n\r\nGET", 4), ("\n\r\nGET", 3), ("\rGET", 0), ("GET", 0)] {
            assert_eq!(empty_lines(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_request_line_has_three_parts_and_two_blanks() {
        for line in
            ["GET / HTTP/1.1", "GET /%20 HTTP/1.0", "GET http://a/ HTTP/1.1", "OPTIONS * HTTP/1.1"]
        {
            assert!(has_request_line(format!("{line}\r\nhost: a\r\n\r\n").as_bytes()), "{line}");
            assert!(has_request_line(format!("{line}\n\n").as_bytes()), "{line}");
        }
        for line in [
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            " GET / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /a b HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET /\tHTTP/1.1",
            "GET /\x0b HTTP/1.1",
            "GET /\x7f HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET  HTTP/1.1",
            "GET /",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            "",
        ] {
            assert!(!has_request_line(format!("{line}\r\nhost: a\r\n\r\n").as_bytes()), "{line}");
        }
    }
}
