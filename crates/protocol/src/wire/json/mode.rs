//! JSON mode (§9.1): validate, flatten one level, store message by message, frame as an array on read.
//!
//! A message is stored as its exact bytes followed by [`MESSAGE_END`], a control character that valid JSON
//! cannot contain. So a boundary is visible in the bytes themselves: no index is stored, and an offset is
//! a boundary when the byte before it is the terminator.

use bytes::Bytes;
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
    let stored = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    let mut framer = ArrayFramer::new(stored);
    let mut array = Vec::with_capacity(framer.len() as usize);
    chunks.iter().for_each(|chunk| framer.put(&mut array, chunk));
    framer.end(&mut array);
    array.into()
}

/// Frames a range of stored messages as one JSON array, piece by piece: what it puts, one after the other, is what
/// [`frame_array`] returns for the whole range.
#[derive(Clone, Debug)]
pub struct ArrayFramer {
    stored: u64,
    left: u64,
    begun: bool,
}

impl ArrayFramer {
    /// For a range of `stored` bytes.
    pub fn new(stored: u64) -> Self {
        ArrayFramer { stored, left: stored, begun: false }
    }

    /// Bytes of the whole array: each terminator becomes a comma, the last one the end of the array.
    #[expect(clippy::len_without_is_empty, reason = "an array has its brackets at least")]
    pub fn len(&self) -> u64 {
        (self.stored + 1).max(2)
    }

    /// Appends the next piece of the range.
    pub fn put(&mut self, out: &mut Vec<u8>, piece: &[u8]) {
        self.begin(out);
        out.extend(with_commas(piece));
        self.left = self.left.saturating_sub(piece.len() as u64);
        if let (0, [.., _], Some(last)) = (self.left, piece, out.last_mut()) {
            *last = b']';
        }
    }

    /// Passes over the next `bytes` bytes of the range, which the client receives from elsewhere, with commas for terminators.
    /// The array has begun, and they are not the last of the range.
    pub fn pass(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Takes back the last `bytes` bytes, of which the array's first one is none: the next piece begins with them.
    pub fn put_back(&mut self, bytes: u64) {
        self.left += bytes;
    }

    /// Ends the array, which matters only to one without any piece.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        if self.stored == 0 {
            out.push(b']');
        }
    }

    /// Whether its bracket was put.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Puts the bracket, before anything else, if it was not put.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            out.push(b'[');
        }
    }
}

/// Stored bytes with a comma in the place of each terminator, as an array has them.
pub fn with_commas(stored: &[u8]) -> impl Iterator<Item = u8> {
    // Every byte is written, whether it changes or not, so that the compiler takes many at a time.
    stored.iter().map(|byte| if *byte == MESSAGE_END { b',' } else { *byte })
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

    proptest! {
        #[test]
        fn an_array_framed_in_pieces_is_the_array_framed_at_once(
            messages in proptest::collection::vec("[0-9]{1,9}", 0..6),
            cuts in proptest::collection::vec(0usize..60, 0..6),
        ) {
            let stored: String = messages.iter().map(|message| format!("{message}\u{1e}")).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stored.len())).collect();
            cuts.push(stored.len());
            cuts.sort_unstable();
            let (mut framer, mut array, mut from) = (ArrayFramer::new(stored.len() as u64), Vec::new(), 0);
            for (nth, cut) in cuts.into_iter().enumerate() {
                if nth % 3 == 1 && cut < stored.len() {
                    // The client receives these from elsewhere.
                    framer.pass((cut - from) as u64);
                    array.extend(stored[from..cut].replace(MESSAGE_END as char, ",").bytes());
                    from = cut;
                    continue;
                }
                framer.put(&mut array, &stored.as_bytes()[from..cut]);
                // A part of it is taken back and put again.
                let back = (cut - from) / 3;
                framer.put_back(back as u64);
                array.truncate(array.len() - back);
                framer.put(&mut array, &stored.as_bytes()[cut - back..cut]);
                from = cut;
            }
            framer.end(&mut array);
            prop_assert_eq!(array.len() as u64, framer.len());
            prop_assert_eq!(&array, &format!("[{}]", messages.join(",")).into_bytes());
            prop_assert_eq!(array, frame_array(&[Bytes::from(stored)]));
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
