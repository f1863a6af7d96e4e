//! The encoder of data events, which goes on from piece to piece: an append of any size is one event, and a server holds
//! a piece of it.
//!
//! What comes out does not depend on where the pieces are cut: a character, a line end or a base64 group that two pieces
//! share is whole in the event.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::{SseEncoding, text_boundary};
use crate::ArrayFramer;

/// Appends a data event with the stored bytes of `chunks`.
pub fn encode_data(out: &mut Vec<u8>, encoding: SseEncoding, chunks: &[Bytes]) {
    let stored = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    let mut encoder = DataEncoder::begin(out, encoding, stored);
    chunks.iter().for_each(|chunk| encoder.put(out, chunk));
    encoder.end(out);
}

/// Encodes one data event piece by piece.
#[derive(Debug)]
pub struct DataEncoder(EncoderState);

#[derive(Debug)]
enum EncoderState {
    Text(LineEncoder),
    /// The framed array is scratch space, kept for its memory.
    Json(ArrayFramer, Vec<u8>, LineEncoder),
    Base64(Base64Encoder),
}

impl DataEncoder {
    /// Bytes that one byte of a piece becomes at most: an empty line is `data:` and its end.
    pub const MAX_GROWTH: usize = 6;

    /// Begins an event with `stored` bytes of a stream.
    pub fn begin(out: &mut Vec<u8>, encoding: SseEncoding, stored: u64) -> Self {
        out.extend_from_slice(b"event: data\n");
        DataEncoder(match encoding {
            SseEncoding::Text => EncoderState::Text(LineEncoder::default()),
            SseEncoding::Json => {
                let (framer, lines) = (ArrayFramer::new(stored), LineEncoder::default());
                EncoderState::Json(framer, Vec::new(), lines)
            }
            SseEncoding::Base64 => {
                out.extend_from_slice(b"data:");
                EncoderState::Base64(Base64Encoder::default())
            }
        })
    }

    /// The byte before the event is a CR, which has ended its line: an LF at the beginning ends no other.
    pub fn after_cr(&mut self) {
        if let EncoderState::Text(lines) = &mut self.0 {
            lines.after_cr = true;
        }
    }

    /// Appends the next piece of the bytes.
    pub fn put(&mut self, out: &mut Vec<u8>, piece: &[u8]) {
        match &mut self.0 {
            EncoderState::Text(lines) => lines.put(out, piece),
            EncoderState::Json(framer, framed, lines) => {
                framed.clear();
                framer.put(framed, piece);
                lines.put(out, framed);
            }
            EncoderState::Base64(groups) => groups.put(out, piece),
        }
    }

    /// Ends the event.
    pub fn end(self, out: &mut Vec<u8>) {
        match self.0 {
            EncoderState::Text(lines) => lines.end(out),
            EncoderState::Json(mut framer, mut framed, mut lines) => {
                framed.clear();
                framer.end(&mut framed);
                lines.put(out, &framed);
                lines.end(out);
            }
            EncoderState::Base64(groups) => groups.end(out),
        }
        out.push(b'\n');
    }
}

/// Writes text as `data:` lines.
#[derive(Debug, Default)]
struct LineEncoder {
    /// The beginning of a character whose rest is in the next piece.
    unfinished: Vec<u8>,
    /// The present line has its `data:`.
    begun: bool,
    after_cr: bool,
}

impl LineEncoder {
    fn put(&mut self, out: &mut Vec<u8>, piece: &[u8]) {
        if self.unfinished.is_empty() {
            return self.put_bytes(out, piece);
        }
        let mut joined = std::mem::take(&mut self.unfinished);
        joined.extend_from_slice(piece);
        self.put_bytes(out, &joined);
    }

    fn put_bytes(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        let (whole, unfinished) = bytes.split_at(bytes.len() - text_boundary(bytes));
        match std::str::from_utf8(whole) {
            Ok(text) => self.put_text(out, text),
            Err(_) => {
                for part in whole.utf8_chunks() {
                    self.put_text(out, part.valid());
                    if !part.invalid().is_empty() {
                        self.put_text(out, "\u{fffd}");
                    }
                }
            }
        }
        self.unfinished.extend_from_slice(unfinished);
    }

    fn put_text(&mut self, out: &mut Vec<u8>, text: &str) {
        let mut rest = text.as_bytes();
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let (line, tail) = rest.split_at(end);
            self.put_line(out, line);
            if let Some((end, next)) = tail.split_first() {
                self.end_line(out);
                self.after_cr = *end == b'\r';
                rest = next;
            } else {
                return;
            }
        }
    }

    fn put_line(&mut self, out: &mut Vec<u8>, line: &[u8]) {
        if !self.begun && !line.is_empty() {
            self.begun = true;
            out.extend_from_slice(if line.starts_with(b" ") { b"data: " } else { b"data:" });
        }
        out.extend_from_slice(line);
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.begun) {
            out.extend_from_slice(b"data:");
        }
        out.push(b'\n');
    }

    fn end(mut self, out: &mut Vec<u8>) {
        let unfinished = std::mem::take(&mut self.unfinished);
        if !unfinished.is_empty() {
            self.put_text(out, "\u{fffd}");
        }
        self.end_line(out);
    }
}

/// Writes bytes as one line of base64.
#[derive(Debug, Default)]
struct Base64Encoder {
    /// The beginning of a group whose rest is in the next piece; the first `held` count.
    group: [u8; 3],
    held: usize,
}

impl Base64Encoder {
    fn put(&mut self, out: &mut Vec<u8>, mut piece: &[u8]) {
        while self.held > 0
            && let Some((byte, rest)) = piece.split_first()
        {
            self.hold(*byte);
            piece = rest;
            if self.held == self.group.len() {
                self.held = 0;
                encode_groups(out, &self.group);
            }
        }
        let (whole, rest) = piece.split_at(piece.len() - piece.len() % 3);
        encode_groups(out, whole);
        rest.iter().for_each(|byte| self.hold(*byte));
    }

    fn hold(&mut self, byte: u8) {
        if let Some(place) = self.group.get_mut(self.held) {
            *place = byte;
            self.held += 1;
        }
    }

    fn end(self, out: &mut Vec<u8>) {
        encode_groups(out, self.group.get(..self.held).unwrap_or_default());
        out.push(b'\n');
    }
}

/// Appends bytes as base64, with padding unless they are whole groups.
fn encode_groups(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    if let Some(place) = out.get_mut(start..) {
        // The place has just the length that it takes.
        let _ = STANDARD.encode_slice(bytes, place);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Text in which whatever can be cut is frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let parts: [&[u8]; 10] = [
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            "\u{1f600}".as_bytes(),
            "\u{e9}".as_bytes(),
            b"\xf0\x9f",
            b"\xff",
            b"abc",
            b"1\x1e",
        ];
        let parts = proptest::sample::select(parts.to_vec());
        vec(parts, 0..30).prop_map(|parts| parts.concat())
    }

    fn in_pieces(encoding: SseEncoding, bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = DataEncoder::begin(&mut out, encoding, bytes.len() as u64);
        let mut from = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let cut = cut.clamp(from, bytes.len());
            encoder.put(&mut out, &bytes[from..cut]);
            from = cut;
        }
        encoder.end(&mut out);
        out
    }

    proptest! {
        #[test]
        fn pieces_make_the_event_that_the_whole_makes(
            bytes in bytes(),
            mut cuts in vec(0usize..100, 0..12),
        ) {
            cuts.sort_unstable();
            for encoding in [SseEncoding::Text, SseEncoding::Json, SseEncoding::Base64] {
                let whole = in_pieces(encoding, &bytes, &[]);
                prop_assert_eq!(&in_pieces(encoding, &bytes, &cuts), &whole, "{:?}", encoding);
                let grown = whole.len().saturating_sub("event: data\ndata:[]\n\n".len());
                prop_assert!(grown <= DataEncoder::MAX_GROWTH * bytes.len(), "{} bytes", grown);
            }
            let text = String::from_utf8(in_pieces(SseEncoding::Text, &bytes, &cuts)).unwrap();
            let lines = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").replace('\r', "\n");
            let body = text.strip_prefix("event: data\n").unwrap().strip_suffix("\n\n").unwrap();
            let read: Vec<&str> = body
                .split('\n')
                .map(|line| line.strip_prefix("data:").unwrap())
                .map(|line| line.strip_prefix(' ').unwrap_or(line))
                .collect();
            prop_assert_eq!(read.join("\n"), lines);
        }
    }

    #[test]
    fn a_line_feed_after_the_event_before_ends_no_line() {
        for (text, event) in
            [("\nb", "data:b\n\n"), ("b\n", "data:b\ndata:\n\n"), ("\n\n", "data:\ndata:\n\n")]
        {
            let mut out = Vec::new();
            let mut encoder = DataEncoder::begin(&mut out, SseEncoding::Text, 2);
            encoder.after_cr();
            encoder.put(&mut out, text.as_bytes());
            encoder.end(&mut out);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("event: data\n{event}"),
                "{text:?}"
            );
        }
    }
}
