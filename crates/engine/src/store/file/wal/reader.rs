//! Reading one segment: its good frames in order, and the check of what follows them.

use std::{ops::ControlFlow, path::Path};

use durable_streams_protocol::StreamEvent;

use super::{
    Lsn,
    frame::{self, FrameHeader},
    segment::{self, WalSegment},
};
use crate::store::{
    StoreError,
    file::error::{corrupt, io_error},
};

pub(super) const WINDOW: usize = 1 << 20;

/// How the good frames of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::file) struct SegmentEnd {
    /// The event after the last good frame.
    pub(in crate::store::file) next: Lsn,
    /// Where its frame would be.
    pub(in crate::store::file) offset: u64,
    /// A frame that says that every event before it was durable when it was written; the last such.
    pub(in crate::store::file) synced_before: Option<u64>,
}

/// An event in a whole frame.
pub(in crate::store::file) struct LoggedEvent<'l> {
    pub(in crate::store::file) header: FrameHeader,
    record: &'l [u8],
    path: &'l Path,
    /// Where its frame is.
    offset: u64,
}

impl LoggedEvent<'_> {
    pub(in crate::store::file) fn event(&self) -> Result<StreamEvent, StoreError> {
        let decoded = frame::event(self.record);
        decoded.map_err(|error| self.damaged(&format!("a whole frame, but {error}")))
    }

    /// Damage at this frame.
    pub(in crate::store::file) fn damaged(&self, found: &str) -> StoreError {
        corrupt(self.path, self.offset, found)
    }
}

/// Receives each event.
pub(in crate::store::file) type OnEvent<'e> =
    dyn FnMut(&LoggedEvent<'_>) -> Result<(), StoreError> + 'e;

/// Receives each whole frame: its header, its record and its offset.
pub(in crate::store::file) type OnFrame<'e> =
    dyn FnMut(FrameHeader, &[u8], u64) -> ControlFlow<()> + 'e;

/// A sliding window over a segment's bytes.
pub(super) struct ReadWindow<'s> {
    pub(super) segment: &'s WalSegment,
    pub(super) bytes: Vec<u8>,
    /// Where in the file `bytes` starts.
    pub(super) start: u64,
}

impl ReadWindow<'_> {
    /// Returns at least `len` bytes at `offset`; fewer only at the end of the file.
    pub(super) fn at(&mut self, offset: u64, len: usize) -> Result<&[u8], StoreError> {
        let until = self.start + self.bytes.len() as u64;
        let wanted = (offset + len as u64).min(self.segment.allocated);
        if offset < self.start || wanted > until {
            let left = usize::try_from(self.segment.allocated.saturating_sub(offset))
                .unwrap_or(usize::MAX);
            let len = len.max(WINDOW).min(left);
            if self.bytes.len() < len {
                self.bytes = vec![0; len];
            }
            self.bytes.truncate(len);
            let read = self.segment.file.read_at(offset, &mut self.bytes);
            let read = read.map_err(io_error("read", &self.segment.path))?;
            self.bytes.truncate(read);
            self.start = offset;
        }
        Ok(self.bytes.get((offset - self.start) as usize..).unwrap_or(&[]))
    }
}

/// Calls `each` with a segment's events in order, from its first one up to `limit`, which is the next segment's first
/// event, if there is a next segment.
///
/// # Errors
/// [`StoreError::Corrupt`] when a good frame after the end shows that the event at the end was durable once, and the
/// errors of `each`.
pub(in crate::store::file) fn read(
    segment: &WalSegment,
    limit: Option<Lsn>,
    each: &mut OnEvent<'_>,
) -> Result<SegmentEnd, StoreError> {
    let mut window = ReadWindow { segment, bytes: Vec::new(), start: 0 };
    let mut end = SegmentEnd { next: segment.first, offset: segment::HEADER, synced_before: None };
    while limit.is_none_or(|limit| end.next < limit) {
        let front = window.at(end.offset, frame::HEADER + 1)?;
        let Some(header) = frame::peek(front) else { break };
        let (len, joined) = (header.size(), frame::joins_next(&header, front));
        if header.lsn != end.next {
            break;
        }
        // A batch that was torn between the two of a pair ends before the pair.
        if joined && !is_whole(&mut window, end.offset + len as u64, end.next + 1)? {
            break;
        }
        let bytes = window.at(end.offset, len)?;
        let Some((header, record)) = frame::decode(segment.number, bytes) else { break };
        each(&LoggedEvent { header, record, path: &segment.path, offset: end.offset })?;
        if header.synced == header.lsn {
            end.synced_before = Some(end.offset);
        }
        end.next += 1;
        end.offset += len as u64;
    }
    if limit.is_none_or(|limit| end.next < limit) {
        check_rest(segment, end)?;
    }
    Ok(end)
}

/// Whether the frame of event `lsn` is at `offset`, whole and undamaged.
fn is_whole(window: &mut ReadWindow<'_>, offset: u64, lsn: Lsn) -> Result<bool, StoreError> {
    let segment = window.segment;
    let Some(header) = frame::peek(window.at(offset, frame::HEADER)?) else { return Ok(false) };
    let whole = frame::decode(segment.number, window.at(offset, header.size())?);
    Ok(whole.is_some_and(|(header, _)| header.lsn == lsn))
}

/// Searches for a good frame after the end that was written when the event at the end was durable already.
fn check_rest(segment: &WalSegment, end: SegmentEnd) -> Result<(), StoreError> {
    let mut later = None;
    scan(segment, end.offset, &|header| header.synced > end.next, &mut |header, _, offset| {
        later = Some((header.lsn, offset));
        ControlFlow::Break(())
    })?;
    let Some((lsn, offset)) = later else { return Ok(()) };
    let found = format!(
        "event {next}{whose} is missing or broken, but event {lsn} after it (at byte {offset}) is whole and \
         was written when event {next} was safe on disk; this is damage, not a crash. Restore a backup, or \
         see what `repair` would drop",
        next = end.next,
        whose = whose(segment, end)
    );
    Err(corrupt(&segment.path, end.offset, &found))
}

/// The stream of the broken event at the end, in words, if its header is plausible.
pub(in crate::store::file) fn whose(segment: &WalSegment, end: SegmentEnd) -> String {
    let mut window = ReadWindow { segment, bytes: Vec::new(), start: 0 };
    let header = window.at(end.offset, frame::HEADER).ok().and_then(frame::peek);
    let header = header.filter(|header| header.lsn == end.next);
    header.map_or(String::new(), |header| format!(" (of stream {})", header.id.0))
}

/// Calls `each` with every whole frame at or after `from`, at any offset, whose header is `wanted`. Checksums of other
/// frames are not computed, which would take long.
pub(in crate::store::file) fn scan(
    segment: &WalSegment,
    from: u64,
    wanted: &dyn Fn(&FrameHeader) -> bool,
    each: &mut OnFrame<'_>,
) -> Result<(), StoreError> {
    let mut window = ReadWindow { segment, bytes: Vec::new(), start: 0 };
    let mut offset = from;
    while offset + frame::HEADER_1 as u64 <= segment.allocated {
        let bytes = window.at(offset, frame::HEADER)?;
        let Some(found) = memchr::memmem::find(bytes, frame::PREFIX) else {
            // It may lie across two windows.
            offset += bytes.len().saturating_sub(frame::PREFIX.len() - 1).max(1) as u64;
            continue;
        };
        offset += found as u64;
        if let Some(header) = frame::peek(window.at(offset, frame::HEADER)?)
            && header.synced <= header.lsn
            && wanted(&header)
            && offset + header.size() as u64 <= segment.allocated
            && let Some((header, record)) =
                frame::decode(segment.number, window.at(offset, header.size())?)
            && each(header, record, offset).is_break()
        {
            return Ok(());
        }
        offset += 1;
    }
    Ok(())
}
