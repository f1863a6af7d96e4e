//! The frames of an HTTP/2 client, followed as far as is needed to see that it stops in the middle of something.
//!
//! h2 hands nothing on of a frame, or of a header block, before it is whole, and waits for the rest for ever. A client
//! that stops inside one has the time of a head for it. DATA is different: it belongs to a body, which has times of
//! its own.

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length, type, flags, stream.
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the frames of one connection, from its preface on.
#[derive(Debug)]
pub(super) struct FrameScanner {
    /// Bytes left of the preface, or of the payload of the present frame.
    left: usize,
    head: [u8; HEAD],
    /// Bytes of `head` that are there.
    filled: usize,
    /// The payload is that of a DATA frame.
    in_data: bool,
    /// A header block has begun and not ended.
    in_block: bool,
}

impl Default for FrameScanner {
    fn default() -> Self {
        let head = [0; HEAD];
        FrameScanner { left: PREFACE.len(), head, filled: 0, in_data: false, in_block: false }
    }
}

impl FrameScanner {
    /// Follows what was read. Returns whether something came to its end in it.
    pub(super) fn scan(&mut self, mut bytes: &[u8]) -> bool {
        let mut ended = false;
        while !bytes.is_empty() {
            if self.left > 0 {
                let read = self.left.min(bytes.len());
                self.left -= read;
                bytes = bytes.get(read..).unwrap_or_default();
            } else {
                let read = (HEAD - self.filled).min(bytes.len());
                let (part, rest) = bytes.split_at(read);
                if let Some(place) = self.head.get_mut(self.filled..self.filled + read) {
                    place.copy_from_slice(part);
                }
                self.filled += read;
                bytes = rest;
                if self.filled == HEAD {
                    self.begin();
                }
            }
            ended |= !self.is_inside();
        }
        ended
    }

    /// Whether the client owes the rest of something.
    pub(super) fn is_inside(&self) -> bool {
        self.in_block || self.filled > 0 || (self.left > 0 && !self.in_data)
    }

    /// The head of a frame is whole.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.filled = 0;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.in_data = kind == DATA;
        if matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            self.in_block = flags & END_HEADERS == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + payload, b'x');
        frame
    }

    /// Whether the client is inside something after each byte.
    fn inside(bytes: &[u8]) -> Vec<bool> {
        let mut scanner = FrameScanner::default();
        let one_by_one = bytes.iter().map(|byte| {
            scanner.scan(&[*byte]);
            scanner.is_inside()
        });
        let all: Vec<_> = one_by_one.collect();
        let mut at_once = FrameScanner::default();
        at_once.scan(bytes);
        assert_eq!(Some(&at_once.is_inside()), all.last());
        all
    }

    #[test]
    fn the_preface_is_owed_from_the_start() {
        assert!(FrameScanner::default().is_inside());
        let all = inside(PREFACE);
        assert!(all[..PREFACE.len() - 1].iter().all(|inside| *inside) && !all[PREFACE.len() - 1]);
    }

    #[test]
    fn a_frame_is_owed_from_its_first_byte_and_data_only_to_its_head() {
        for (kind, payload, owed) in
            [(4, 6, 15), (8, 4, 13), (4, 0, 9), (DATA, 300, 9), (HEADERS, 5, 14)]
        {
            let all = inside(&[PREFACE, &frame(kind, END_HEADERS, payload)].concat());
            let of_frame = &all[PREFACE.len()..];
            let first = of_frame.iter().position(|inside| !inside);
            assert_eq!(first, Some(owed - 1), "type {kind}");
            assert!(of_frame[owed - 1..].iter().all(|inside| !inside), "type {kind}");
        }
    }

    #[test]
    fn a_header_block_is_owed_to_its_last_frame() {
        let block =
            [frame(HEADERS, 0, 3), frame(CONTINUATION, 0, 2), frame(CONTINUATION, END_HEADERS, 2)];
        let bytes = [PREFACE, &block.concat(), &frame(DATA, 0, 9)].concat();
        let all = inside(&bytes);
        let end = PREFACE.len() + block.concat().len();
        assert!(all[PREFACE.len()..end - 1].iter().all(|inside| *inside));
        assert!(!all[end - 1]);
        let mut scanner = FrameScanner::default();
        assert!(scanner.scan(PREFACE));
        assert!(!scanner.scan(&bytes[PREFACE.len()..end - 1]));
        assert!(scanner.scan(&bytes[end - 1..]));
    }
}
