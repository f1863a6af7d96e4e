//! An event as a chunk of HTTP/1.1 (RFC 9112 §7.1), framed once for all of its readers.
//!
//! ```text
//! length in hexadecimal, CR LF, the event, CR LF
//! ```

use bytes::Bytes;

/// Room for the longest length and its CR LF.
const ROOM: usize = 18;
const CRLF: &[u8; 2] = b"\r\n";

/// What ends a body of chunks, without trailers.
pub const LAST: &[u8] = b"0\r\n\r\n";

/// One event with its frame; clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventChunk(Bytes);

impl EventChunk {
    /// Frames what `fill` appends to a buffer with room for `capacity` bytes. It must not be empty, which would
    /// be the last chunk.
    pub(crate) fn new(capacity: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut out = Vec::with_capacity(ROOM + capacity + CRLF.len());
        out.resize(ROOM, 0);
        fill(&mut out);
        let length = format!("{:x}\r\n", out.len() - ROOM);
        let from = ROOM - length.len();
        if let Some(place) = out.get_mut(from..ROOM) {
            place.copy_from_slice(length.as_bytes());
        }
        out.extend_from_slice(CRLF);
        EventChunk(Bytes::from(out).slice(from..))
    }

    /// Frames a piece of a body, which must not be empty.
    pub fn of(piece: &[u8]) -> Self {
        EventChunk::new(piece.len(), |out| out.extend_from_slice(piece))
    }

    /// What was framed here before.
    pub(crate) fn framed(bytes: Bytes) -> Self {
        EventChunk(bytes)
    }

    /// With its frame.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Without its frame.
    pub fn event(&self) -> Bytes {
        self.0.slice(self.start()..self.0.len() - CRLF.len())
    }

    /// Bytes of the event.
    pub fn len(&self) -> usize {
        self.0.len() - CRLF.len() - self.start()
    }

    /// Whether the event has no bytes; one that was framed here has some.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn start(&self) -> usize {
        memchr::memchr(b'\n', &self.0).map_or(0, |end| end + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_the_length_of_its_event() {
        for length in [1, 15, 16, 255, 256, 70_000] {
            let event = vec![b'\n'; length];
            let chunk = EventChunk::new(0, |out| out.extend_from_slice(&event));
            assert_eq!((chunk.event().as_ref(), chunk.len()), (&event[..], length));
            let framed = [format!("{length:x}\r\n").as_bytes(), &event, CRLF].concat();
            assert_eq!(chunk.bytes(), &framed[..]);
            assert_eq!(EventChunk::framed(chunk.bytes().clone()), chunk);
        }
    }
}
