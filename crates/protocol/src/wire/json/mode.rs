//! JSON mode (§9.1): validate, flatten one level, store message by message, frame as an array on read.
//!
//! A message is stored as its exact bytes followed by [`MESSAGE_END`], a control character that valid JSON
//! cannot contain. So a boundary is visible in the bytes themselves: no index is stored, and an offset is
//! a boundary when the byte before it is the terminator.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use super::scan;

/// The byte after every stored message: ASCII record separator.
pub const MESSAGE_END: u8 = 0x1e;

/// Why a body is not JSON.
pub type JsonError = serde_json::Error;

/// Turns a request body into stored form. A top-level array is flattened by one level; an empty one
/// gives no bytes. All of the body is accepted or none.
///
/// # Errors
/// The parser's, with line and column, when the body is not one JSON value.
pub fn store_messages(body: &[u8]) -> Result<Bytes, JsonError> {
    let mut stored = StoredMessages(Vec::with_capacity(body.len() + 1));
    if scan::messages(body, |message| stored.push(message)).is_none() {
        // The scan knows no reasons. Whatever the parser says now stands, even that the body is JSON.
        stored.0.clear();
        parse_messages(body)?.iter().for_each(|message| stored.push(message));
    }
    // Whoever keeps it counts its length, so a body of white space must not stay behind it.
    if stored.0.len() < body.len() / 2 {
        stored.0.shrink_to_fit();
    }
    Ok(stored.0.into())
}

/// Messages, each followed by [`MESSAGE_END`].
struct StoredMessages(Vec<u8>);

impl StoredMessages {
    fn push(&mut self, message: &[u8]) {
        self.0.extend_from_slice(message);
        self.0.push(MESSAGE_END);
    }
}

/// The messages of a body, each its exact bytes: the elements of an array, or the one value that is something
/// else. Reads what [`frame_array`] wrote, and splits a body as [`store_messages`] does.
///
/// # Errors
/// The parser's, with line and column, when the body is not one JSON value.
pub fn split_messages(body: &[u8]) -> Result<Vec<&[u8]>, JsonError> {
    let mut messages = Vec::new();
    match scan::messages(body, |message| messages.push(message)) {
        Some(()) => Ok(messages),
        None => parse_messages(body),
    }
}

/// The messages of a body, slowly, but with a reason if it is not JSON.
pub(crate) fn parse_messages(body: &[u8]) -> Result<Vec<&[u8]>, JsonError> {
    let values: Vec<&RawValue> = match body.trim_ascii_start() {
        [b'[', ..] => serde_json::from_slice(body)?,
        _ => vec![serde_json::from_slice(body)?],
    };
    Ok(values.into_iter().map(|value| value.get().as_bytes()).collect())
}

/// Frames stored chunks, cut at message boundaries, as one JSON array.
pub fn frame_array(chunks: &[Bytes]) -> Bytes {
    let stored: usize = chunks.iter().map(Bytes::len).sum();
    let mut array = BytesMut::with_capacity(stored + 2);
    array.put_u8(b'[');
    for chunk in chunks {
        let start = array.len();
        array.put_slice(chunk);
        if let Some(copied) = array.get_mut(start..) {
            for byte in copied.iter_mut().filter(|byte| **byte == MESSAGE_END) {
                *byte = b',';
            }
        }
    }
    // The last terminator became a comma; it closes the array instead.
    match array.last_mut() {
        Some(last) if stored > 0 => *last = b']',
        _ => array.put_u8(b']'),
    }
    array.freeze()
}

/// Whether the position after `before` starts a message; `before` is the byte just before it, if any.
pub fn is_message_boundary(before: Option<u8>) -> bool {
    before.is_none_or(|byte| byte == MESSAGE_END)
}

/// The number of whole messages in stored bytes.
pub fn count_messages(stored: &[u8]) -> usize {
    memchr::memchr_iter(MESSAGE_END, stored).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(body: &str) -> String {
        let stored = store_messages(body.as_bytes()).unwrap();
        String::from_utf8(frame_array(&[stored]).to_vec()).unwrap()
    }

    #[test]
    fn flattens_exactly_one_level_and_keeps_bytes() {
        for (body, read) in [
            (r#"{"event":"created"}"#, r#"[{"event":"created"}]"#),
            (r#" [ {"a" : 1} , 2 ] "#, r#"[{"a" : 1},2]"#),
            ("[[1,2], [3,4]]", "[[1,2],[3,4]]"),
            ("[[[1,2,3]]]", "[[[1,2,3]]]"),
            ("[]", "[]"),
            ("12345678901234567890123", "[12345678901234567890123]"),
            (r#"{"b":1,"a":"\u00e9\/","a":1.0e5}"#, r#"[{"b":1,"a":"\u00e9\/","a":1.0e5}]"#),
            ("null", "[null]"),
        ] {
            assert_eq!(round_trip(body), read, "{body}");
        }
    }

    #[test]
    fn refuses_what_is_not_one_json_value() {
        for bad in
            ["", " ", "{", "[1,]", "1 2", "{'a':1}", "\u{feff}1", "\"\u{1e}\"", "[1]x", "nul"]
        {
            assert!(store_messages(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(store_messages(b"\"\xff\"").is_err(), "not UTF-8");
    }

    #[test]
    fn white_space_is_not_kept_in_memory() {
        for body in ["1", "[1, 2]"] {
            let stored = store_messages(format!("{body:>10000}").as_bytes()).unwrap();
            assert!(stored.try_into_mut().unwrap().capacity() < 100, "{body}");
        }
    }

    #[test]
    fn a_refusal_says_where() {
        for (bad, said) in [
            ("[1,\n 2,]", "trailing comma at line 2 column 4"),
            (
                "{\"a\":\n\n\"\t\"}",
                "control character (\\u0000-\\u001F) found while parsing a string at line 3 column 1",
            ),
            ("[1]x", "trailing characters at line 1 column 4"),
        ] {
            assert_eq!(store_messages(bad.as_bytes()).unwrap_err().to_string(), said, "{bad:?}");
        }
    }

    #[test]
    fn deep_nesting_neither_fails_nor_overflows() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(round_trip(&deep), deep);
    }

    #[test]
    fn what_is_framed_splits_into_the_same_messages() {
        for body in ["[]", "1", " [ {\"a\" : [1]} , 2 ] ", "[[1,2], [3,4]]", "\"[\""] {
            let stored = store_messages(body.as_bytes()).unwrap();
            let framed = frame_array(&[stored]);
            assert_eq!(split_messages(&framed).unwrap(), split_messages(body.as_bytes()).unwrap());
        }
        assert_eq!(split_messages(b"[1, 2 ,{}]").unwrap(), [&b"1"[..], b"2", b"{}"]);
        assert!(split_messages(b"[1,").is_err());
    }

    #[test]
    fn a_message_starts_after_a_terminator_or_nothing() {
        assert!(is_message_boundary(None) && is_message_boundary(Some(MESSAGE_END)));
        assert!(!is_message_boundary(Some(b',')));
    }

    proptest! {
        #[test]
        fn any_bytes_are_stored_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(stored) = store_messages(&body) {
                let array: Vec<serde_json::Value> = serde_json::from_slice(&frame_array(std::slice::from_ref(&stored))).unwrap();
                prop_assert_eq!(array.len(), count_messages(&stored));
            }
        }
    }
}
