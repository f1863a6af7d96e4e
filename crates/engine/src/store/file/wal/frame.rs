//! Frames: one event of one stream as the log holds it. Format: docs/storage.md, "Frame".
//!
//! The checksum covers the number of the segment, which is not stored, so that bytes of an earlier use of a recycled
//! file are never taken for a frame.

use bytes::Bytes;
use durable_streams_protocol::{StreamEvent, StreamId};

use super::Lsn;
use crate::store::{
    Commit, EventPlace,
    file::queued_commit::{CommitPairing, QueuedCommit},
};

/// First bytes of a frame.
const MAGIC: [u8; 4] = *b"DSf2";
/// First bytes of a frame of format 1, which has no place.
const MAGIC_1: [u8; 4] = *b"DSf1";
/// What all of them begin with.
pub(in crate::store::file) const PREFIX: &[u8] = b"DSf";
/// Bytes before the record.
pub(in crate::store::file) const HEADER: usize = 52;
/// Bytes before the record in format 1.
pub(in crate::store::file) const HEADER_1: usize = 36;
/// In the first byte of a record, beside the event's kind: the frame counts together with the next one only. Versions
/// that do not know it refuse the record.
const JOINED: u8 = 0x80;
/// The longest record, bytes; a header with a longer one is not a frame.
pub(in crate::store::file) const MAX_RECORD: usize = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::file) struct FrameHeader {
    pub(in crate::store::file) lsn: Lsn,
    /// Every event below this was durable when the frame was written.
    pub(in crate::store::file) synced: Lsn,
    pub(in crate::store::file) id: StreamId,
    /// Where the event belongs in its stream; `None` in a frame of format 1.
    pub(in crate::store::file) place: Option<EventPlace>,
    /// The frame's checksum.
    pub(in crate::store::file) crc: u32,
    /// Bytes of the record that follows.
    pub(in crate::store::file) len: usize,
}

impl FrameHeader {
    fn header_size(&self) -> usize {
        if self.place.is_some() { HEADER } else { HEADER_1 }
    }

    /// Bytes of the whole frame.
    pub(in crate::store::file) fn size(&self) -> usize {
        self.header_size() + self.len
    }
}

/// Appends one frame. Returns its checksum.
pub(in crate::store::file) fn encode(
    out: &mut Vec<u8>,
    segment: u64,
    lsn: Lsn,
    synced: Lsn,
    queued: &QueuedCommit,
) -> u32 {
    let start = out.len();
    let Commit { id, event, place, .. } = &queued.commit;
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 8]);
    for field in [lsn, synced, id.0, place.events, place.position] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    event.encode_head(out);
    if let Some(data) = event.data() {
        out.extend_from_slice(data);
    }
    let frame = &mut out[start..];
    if queued.pairing == CommitPairing::First {
        frame[HEADER] |= JOINED;
    }
    let len = u32::try_from(frame.len() - HEADER).unwrap_or(u32::MAX);
    frame[4..8].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(segment, len, &frame[12..]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// The header at the front of `bytes`, if it is plausible; its checksum is not computed.
pub(in crate::store::file) fn peek(bytes: &[u8]) -> Option<FrameHeader> {
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let magic = bytes.get(..4)?;
    let place = if magic == MAGIC {
        Some(EventPlace { events: u64_at(36)?, position: u64_at(44)? })
    } else if magic == MAGIC_1 {
        None
    } else {
        return None;
    };
    let (len, crc, id) = (u32_at(4)? as usize, u32_at(8)?, StreamId(u64_at(28)?));
    let header = FrameHeader { lsn: u64_at(12)?, synced: u64_at(20)?, id, place, crc, len };
    (len <= MAX_RECORD).then_some(header)
}

/// The frame at the front of `bytes`, if it is whole, undamaged and of this segment.
pub(in crate::store::file) fn decode(segment: u64, bytes: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let header = peek(bytes)?;
    let covered = bytes.get(12..header.size())?;
    let len = u32::try_from(header.len).ok()?;
    let whole = checksum(segment, len, covered) == header.crc;
    whole.then_some((header, covered.get(header.header_size() - 12..)?))
}

/// Whether the frame at the front of `bytes` counts together with the next one only. Its checksum is not computed.
pub(in crate::store::file) fn joins_next(header: &FrameHeader, bytes: &[u8]) -> bool {
    bytes.get(header.header_size()).is_some_and(|kind| kind & JOINED != 0)
}

/// The event in a record.
pub(in crate::store::file) fn event(
    record: &[u8],
) -> Result<StreamEvent, durable_streams_protocol::DecodeError> {
    let mut record = record.to_vec();
    if let Some(kind) = record.first_mut() {
        *kind &= !JOINED;
    }
    StreamEvent::decode(&Bytes::from(record))
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
    use crate::store::{CommitSink, LogEpoch, StoreError};
    use durable_streams_protocol::Timestamp;

    struct NoSink;

    impl CommitSink for NoSink {
        fn committed(&self, _: u64) {}
        fn failed(&self, _: u64, _: StoreError) {}
    }

    const PLACE: EventPlace = EventPlace { events: 2, position: 11 };

    fn touched() -> Vec<u8> {
        let mut out = Vec::new();
        let event = StreamEvent::Touched { at: Timestamp::from_millis(5) };
        let (id, epoch, sink) = (StreamId(3), LogEpoch::default(), std::sync::Arc::new(NoSink));
        let commit = Commit { id, event, place: PLACE, epoch, version: 0, sink };
        encode(&mut out, 7, 1, 1, &QueuedCommit::alone(commit));
        out
    }

    #[test]
    fn a_frame_is_read_back_from_its_own_segment_only() {
        let bytes = touched();
        let (header, record) = decode(7, &bytes).unwrap();
        let (id, place, crc) = (StreamId(3), Some(PLACE), header.crc);
        assert_eq!(header, FrameHeader { lsn: 1, synced: 1, id, place, crc, len: 9 });
        assert_eq!(event(record).unwrap(), StreamEvent::Touched { at: Timestamp::from_millis(5) });
        assert_eq!(decode(8, &bytes), None, "another segment's frame");
    }

    #[test]
    fn the_first_of_a_pair_says_so_and_its_event_is_the_same() {
        let event = StreamEvent::Touched { at: Timestamp::from_millis(5) };
        let commit = || {
            let (epoch, sink) = (LogEpoch::default(), std::sync::Arc::new(NoSink));
            Commit { id: StreamId(3), event: event.clone(), place: PLACE, epoch, version: 0, sink }
        };
        for (at, queued) in QueuedCommit::pair(commit(), commit()).iter().enumerate() {
            let mut bytes = Vec::new();
            let crc = encode(&mut bytes, 7, 1, 1, queued);
            let (header, record) = decode(7, &bytes).unwrap();
            assert_eq!((header.crc, joins_next(&header, &bytes)), (crc, at == 0));
            assert!(!joins_next(&header, &bytes[..HEADER]), "there is no record to say so");
            assert_eq!(super::event(record).unwrap(), event);
        }
    }

    #[test]
    fn a_header_with_a_longer_record_than_there_may_be_is_none() {
        let mut bytes = touched();
        for (len, plausible) in [(1 << 30, true), ((1 << 30) + 1, false)] {
            bytes[4..8].copy_from_slice(&u32::to_le_bytes(len));
            assert_eq!(peek(&bytes).map(|header| header.len), plausible.then_some(len as usize));
            assert_eq!(peek(&bytes[..51]), None);
        }
    }

    #[test]
    fn a_frame_of_format_1_has_no_place() {
        let mut bytes = touched();
        bytes.drain(36..52);
        bytes[3] = b'1';
        let crc = checksum(7, 9, &bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        let (header, record) = decode(7, &bytes).unwrap();
        assert_eq!((header.place, header.size(), record.len()), (None, bytes.len(), 9));
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
