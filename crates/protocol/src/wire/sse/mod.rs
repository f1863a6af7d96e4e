//! The bytes of server-sent events (§5.8).
//!
//! A data event is followed by its control event in the same buffer. CR, LF and CRLF in text each start
//! a new `data:` line, so no payload can end an event or begin another. A space goes after the colon only
//! when the line itself begins with one, because clients take one away. Each control event carries its
//! offset as `id:`, so that a browser's `EventSource` resumes by itself. The one that says that the stream is closed
//! has an id of its own: `EventSource` reconnects after it all the same, and stops at the 204 that this id gets.

mod decode;
mod encode;

use std::fmt;

pub use decode::{ReceivedControl, SseDecoder, SseError, SseEvent};
pub use encode::{DataEncoder, encode_data};

use crate::{ContentType, Cursor, Offset};

/// How a stream's bytes travel in data events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SseEncoding {
    /// Text, line by line.
    Text,
    /// A JSON array.
    Json,
    /// Base64 (`stream-sse-data-encoding: base64`).
    Base64,
}

impl SseEncoding {
    /// The encoding that a content type calls for.
    pub fn of(content_type: &ContentType) -> Self {
        if content_type.is_json() {
            SseEncoding::Json
        } else if content_type.is_text() {
            SseEncoding::Text
        } else {
            SseEncoding::Base64
        }
    }
}

/// A control event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ControlEvent {
    /// `streamNextOffset`.
    pub next_offset: Offset,
    /// `streamCursor`; absent once the stream is closed.
    pub cursor: Option<Cursor>,
    /// `upToDate`.
    pub up_to_date: bool,
    /// `streamClosed`.
    pub closed: bool,
}

/// Appends a control event.
pub fn encode_control(out: &mut Vec<u8>, control: &ControlEvent) {
    let offset = control.next_offset.text();
    out.extend_from_slice(b"event: control\ndata:{\"streamNextOffset\":\"");
    out.extend_from_slice(&offset);
    out.push(b'"');
    if let Some(cursor) = control.cursor {
        out.extend_from_slice(b",\"streamCursor\":\"");
        out.extend_from_slice(cursor.value().to_string().as_bytes());
        out.push(b'"');
    }
    if control.up_to_date {
        out.extend_from_slice(b",\"upToDate\":true");
    }
    if control.closed {
        out.extend_from_slice(b",\"streamClosed\":true");
    }
    out.extend_from_slice(b"}\nid:");
    out.extend_from_slice(&offset);
    if control.closed {
        out.extend_from_slice(CLOSED_ID.as_bytes());
    }
    out.extend_from_slice(b"\n\n");
}

/// Follows the offset in the id of the control event that says that the stream is closed.
const CLOSED_ID: &str = ":closed";

/// What a client says with the `id` of the last event that it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastEventId {
    /// Where the data before the event ended.
    pub offset: Offset,
    /// The event said that the stream is closed.
    pub closed: bool,
}

impl LastEventId {
    /// `None` for an id of another server.
    pub fn parse(text: &str) -> Option<Self> {
        let closed = text.strip_suffix(CLOSED_ID);
        let offset = Offset::parse(closed.unwrap_or(text))?;
        Some(LastEventId { offset, closed: closed.is_some() })
    }
}

impl fmt::Display for LastEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.offset, if self.closed { CLOSED_ID } else { "" })
    }
}

/// A comment, which clients ignore.
pub const fn keep_alive() -> &'static [u8] {
    b":\n\n"
}

/// How many bytes at the end of `text` are the beginning of a character whose rest is still to come.
pub fn text_boundary(text: &[u8]) -> usize {
    let start = text.len().saturating_sub(3);
    (start..text.len())
        .find(|&at| {
            let tail = text.get(at..).unwrap_or(&[]);
            let leads = tail.first().is_some_and(|byte| *byte >= 0xc0);
            leads
                && matches!(std::str::from_utf8(tail), Err(e) if e.error_len().is_none() && e.valid_up_to() == 0)
        })
        .map_or(0, |at| text.len() - at)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn data(encoding: SseEncoding, chunks: &[&'static str]) -> String {
        let chunks: Vec<Bytes> = chunks.iter().map(|c| Bytes::from_static(c.as_bytes())).collect();
        let mut out = Vec::new();
        encode_data(&mut out, encoding, &chunks);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_lines() {
        assert_eq!(data(SseEncoding::Text, &["hello"]), "event: data\ndata:hello\n\n");
        assert_eq!(
            data(SseEncoding::Text, &["a\nb\r\nc\rd"]),
            "event: data\ndata:a\ndata:b\ndata:c\ndata:d\n\n"
        );
        assert_eq!(data(SseEncoding::Text, &[" x\n"]), "event: data\ndata:  x\ndata:\n\n");
        assert_eq!(data(SseEncoding::Text, &["a", "b"]), "event: data\ndata:ab\n\n");
    }

    #[test]
    fn json_and_base64() {
        assert_eq!(
            data(SseEncoding::Json, &["1\u{1e}", "{\n}\u{1e}"]),
            "event: data\ndata:[1,{\ndata:}]\n\n"
        );
        assert_eq!(data(SseEncoding::Base64, &["a", "bc"]), "event: data\ndata:YWJj\n\n");
    }

    #[test]
    fn control_events() {
        let mut out = Vec::new();
        let control = ControlEvent {
            next_offset: Offset::new(7),
            cursor: None,
            up_to_date: true,
            closed: true,
        };
        encode_control(&mut out, &control);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "event: control\ndata:{\"streamNextOffset\":\"0000000000000000_0000000000000007\",\
             \"upToDate\":true,\"streamClosed\":true}\nid:0000000000000000_0000000000000007:closed\n\n"
        );
        for closed in [false, true] {
            let control = ControlEvent { closed, ..control };
            let mut out = Vec::new();
            encode_control(&mut out, &control);
            let text = String::from_utf8(out).unwrap();
            let id = text.split("\nid:").nth(1).unwrap().trim_end();
            let parsed = LastEventId { offset: control.next_offset, closed };
            assert_eq!((LastEventId::parse(id), parsed.to_string().as_str()), (Some(parsed), id));
        }
        for other in ["", ":closed", "7:closed", "0000000000000000_0000000000000007:close"] {
            assert_eq!(LastEventId::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn unfinished_characters_are_found() {
        assert_eq!(text_boundary("é".as_bytes()), 0);
        assert_eq!(text_boundary(&"aé".as_bytes()[..2]), 1);
        assert_eq!(text_boundary(&"😀".as_bytes()[..3]), 3);
        assert_eq!(text_boundary(b"\xff\xff"), 0, "never valid, so nothing to wait for");
        assert_eq!(text_boundary(b""), 0);
    }

    proptest! {
        #[test]
        fn no_payload_breaks_framing(text in "\\PC*[\r\n:a]*\\PC*") {
            let mut out = Vec::new();
            encode_data(&mut out, SseEncoding::Text, &[Bytes::from(text.clone())]);
            let event = String::from_utf8(out).unwrap();
            let body = event.strip_prefix("event: data\n").unwrap().strip_suffix("\n\n").unwrap();
            let lines: Vec<&str> = body
                .split('\n')
                .map(|line| line.strip_prefix("data:").unwrap())
                .map(|line| line.strip_prefix(' ').unwrap_or(line))
                .collect();
            prop_assert_eq!(lines.join("\n"), text.replace("\r\n", "\n").replace('\r', "\n"));
        }
    }
}
