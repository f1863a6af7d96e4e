//! Frames: one event of one stream as the log holds it. Format: docs/storage.md, "Frame".
//!
//! The checksum covers the number of the segment, which is not stored, so that bytes of an earlier use of a recycled
//! file are never taken for a frame.

use bytes::Bytes;
use durable_streams_protocol::{StreamEvent, StreamId};

use super::Lsn;

/// First bytes of a frame.
pub(in crate::store::file) const MAGIC: [u8; 4] = *b"DSf1";
/// Bytes before the record.
pub(in crate::store::file) const HEADER: usize = 36;
/// The longest record, bytes; a header with a longer one is not a frame.
pub(in crate::store::file) const MAX_RECORD: usize = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::file) struct FrameHeader {
    pub(in crate::store::file) lsn: Lsn,
    /// Every event below this was durable when the frame was written.
    pub(in crate::store::file) synced: Lsn,
    pub(in crate::store::file) id: StreamId,
    /// Bytes of the record that follows.
    pub(in crate::store::file) len: usize,
}

/// Appends one frame.
pub(in crate::store::file) fn encode(
    out: &mut Vec<u8>,
    segment: u64,
    lsn: Lsn,
    synced: Lsn,
    id: StreamId,
    event: &StreamEvent,
) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&lsn.to_le_bytes());
    out.extend_from_slice(&synced.to_le_bytes());
    out.extend_from_slice(&id.0.to_le_bytes());
    event.encode_head(out);
    if let Some(data) = event.data() {
        out.extend_from_slice(data);
    }
    let frame = &mut out[start..];
    let len = u32::try_from(frame.len() - HEADER).unwrap_or(u32::MAX);
    frame[4..8].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(segment, len, &frame[12..]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// The header at the front of `bytes`, if it is plausible; its checksum is not computed.
pub(in crate::store::file) fn peek(bytes: &[u8]) -> Option<FrameHeader> {
    let header = bytes.get(..HEADER)?;
    let u64_at = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
    let len = u32::from_le_bytes(header.get(4..8)?.try_into().ok()?) as usize;
    if header.get(..4)? != MAGIC || len > MAX_RECORD {
        return None;
    }
    Some(FrameHeader { lsn: u64_at(12)?, synced: u64_at(20)?, id: StreamId(u64_at(28)?), len })
}

/// The frame at the front of `bytes`, if it is whole, undamaged and of this segment.
pub(in crate::store::file) fn decode(segment: u64, bytes: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let header = peek(bytes)?;
    let crc = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?);
    let covered = bytes.get(12..HEADER + header.len)?;
    let len = u32::try_from(header.len).ok()?;
    (checksum(segment, len, covered) == crc).then_some((header, covered.get(HEADER - 12..)?))
}

/// The event in a record.
pub(in crate::store::file) fn event(
    record: &[u8],
) -> Result<StreamEvent, durable_streams_protocol::DecodeError> {
    StreamEvent::decode(&Bytes::copy_from_slice(record))
}

fn checksum(segment: u64, len: u32, rest: &[u8]) -> u32 {
    let mut seed = [0; 12];
    seed[..8].copy_from_slice(&segment.to_le_bytes());
    seed[8..].copy_from_slice(&len.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&seed), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_streams_protocol::Timestamp;

    fn touched() -> Vec<u8> {
        let mut out = Vec::new();
        let event = StreamEvent::Touched { at: Timestamp::from_millis(5) };
        encode(&mut out, 7, 1, 1, StreamId(3), &event);
        out
    }

    #[test]
    fn a_frame_is_read_back_from_its_own_segment_only() {
        let bytes = touched();
        let (header, record) = decode(7, &bytes).unwrap();
        assert_eq!(header, FrameHeader { lsn: 1, synced: 1, id: StreamId(3), len: 9 });
        assert_eq!(event(record).unwrap(), StreamEvent::Touched { at: Timestamp::from_millis(5) });
        assert_eq!(decode(8, &bytes), None, "another segment's frame");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = touched();
        for cut in 0..bytes.len() {
            assert_eq!(decode(7, &bytes[..cut]), None, "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(7, &flipped), None, "bit {bit}");
        }
    }
}
