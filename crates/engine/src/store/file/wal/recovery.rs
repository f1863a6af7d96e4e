//! Recovery: reads the events after the last checkpoint from the log's files. See docs/storage.md, "Recovery".
//!
//! What recovery reads may be in the page cache only: a killed process leaves written bytes there that were never synced,
//! and a failed sync leaves bytes there that the kernel takes for written. Before a new segment follows them, and before
//! any of their events is shown or acknowledged, [`RecoveredLog::make_durable`] writes them again and syncs them.

use std::{collections::VecDeque, io, path::Path};

use super::{
    Lsn,
    end_mark::EndMark,
    reader::{self, OnEvent},
    segment::{self, WalSegment},
};
use crate::store::{
    StoreError,
    file::{
        disk::Disk,
        error::{corrupt, io_error},
    },
};

/// A sealed segment: no longer written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::file) struct OldSegment {
    pub(in crate::store::file) number: u64,
    pub(in crate::store::file) first: Lsn,
}

/// What recovery found.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store::file) struct RecoveredLog {
    /// Segments with events, oldest first.
    pub(in crate::store::file) sealed: VecDeque<OldSegment>,
    /// A last segment without any event; removed once there is a newer one.
    pub(in crate::store::file) empty: Option<OldSegment>,
    /// The number of the next event.
    pub(in crate::store::file) next: Lsn,
    /// The number of the next segment.
    pub(in crate::store::file) next_segment: u64,
    /// The checksum of the last frame, 0 when there is none.
    pub(in crate::store::file) last_crc: u32,
    /// Replayed frames, oldest first; in each segment those from `from` on may not be durable.
    pub(in crate::store::file) replayed: Vec<ReplayedFrames>,
}

/// The frames of one segment that recovery read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::file) struct ReplayedFrames {
    pub(super) number: u64,
    /// Where the frames begin that are not known to be durable.
    pub(super) from: u64,
    pub(super) to: u64,
}

impl RecoveredLog {
    /// Makes every replayed frame and the names of the files durable: writes again what may be in the page cache only,
    /// and syncs each segment.
    pub(in crate::store::file) fn make_durable(
        &self,
        disk: &dyn Disk,
        dir: &Path,
    ) -> Result<(), StoreError> {
        // A killed process may have renamed an old segment to the spare file without a sync: writing to the spare
        // file would then write to the old segment, should a power cut undo the renaming.
        disk.sync_dir(dir).map_err(io_error("sync", dir))?;
        for replayed in &self.replayed {
            let path = dir.join(segment::file_name(replayed.number));
            replayed.rewrite(disk, &path).map_err(io_error("sync", &path))?;
        }
        Ok(())
    }
}

impl ReplayedFrames {
    /// Syncing alone is not enough: after a sync that failed the kernel takes the pages for clean.
    fn rewrite(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        const PIECE: u64 = 1 << 20;
        let file = disk.open(path, false)?;
        let mut at = self.from;
        let mut piece = vec![0; self.to.saturating_sub(at).min(PIECE) as usize];
        while at < self.to {
            piece.truncate((self.to - at).min(PIECE) as usize);
            let read = file.read_at(at, &mut piece)?;
            if read < piece.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_at(at, &piece)?;
            at += read as u64;
        }
        file.sync()
    }
}

/// Calls `each` with every event after `checkpoint` in order. Changes nothing on disk.
///
/// # Errors
/// [`StoreError::Corrupt`] when events are missing that were durable; [`StoreError::Io`].
pub(in crate::store::file) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    checkpoint: Lsn,
    each: &mut OnEvent<'_>,
) -> Result<RecoveredLog, StoreError> {
    let numbers = segment::numbers_in(disk, dir)?;
    let mut segments = Vec::with_capacity(numbers.len());
    for number in &numbers {
        segments.push(WalSegment::open(disk, dir, *number)?);
    }
    check_order(dir, checkpoint, &segments)?;

    let mark = match EndMark::read(disk, dir) {
        // A damaged mark costs nothing by itself.
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::warn!(%error, "the end of the log cannot be checked");
            EndMark::default()
        }
        mark => mark?.unwrap_or_default(),
    };
    let mut next = checkpoint + 1;
    let mut last_crc = 0;
    let mut empty = None;
    let mut replayed = Vec::<ReplayedFrames>::new();
    for (at, segment) in segments.iter().enumerate() {
        let limit = segments.get(at + 1).map(|following| following.first);
        if limit.is_some_and(|limit| limit <= checkpoint + 1) {
            continue;
        }
        let end = reader::read(segment, limit, &mut |logged| {
            let header = &logged.header;
            last_crc = header.crc;
            if header.lsn + 1 == mark.next && mark.crc != 0 && mark.crc != header.crc {
                let found = format!(
                    "event {} is whole, but is not the one that was safe on disk: another process has written here",
                    header.lsn
                );
                return Err(logged.damaged(&found));
            }
            if header.lsn > checkpoint { each(logged) } else { Ok(()) }
        })?;
        if limit.is_some_and(|limit| end.next < limit) {
            let found = format!(
                "event {}{} is missing or broken, and later ones exist",
                end.next,
                reader::whose(segment, end)
            );
            return Err(corrupt(&segment.path, end.offset, &found));
        }
        next = next.max(end.next);
        if limit.is_none() && next < mark.next {
            let found = format!(
                "the log ends before event {next}{}, but the events up to {} were safe on disk (in segment {}, as `end` \
                 beside it says): they are missing or broken; this is damage, not a crash. Restore a backup, or see what \
                 `repair` would drop",
                reader::whose(segment, end),
                mark.next - 1,
                mark.segment
            );
            return Err(corrupt(&segment.path, end.offset, &found));
        }
        if end.synced_before.is_some() {
            replayed.iter_mut().for_each(|earlier| earlier.from = earlier.to);
        }
        let from = end.synced_before.unwrap_or(segment::HEADER);
        replayed.push(ReplayedFrames { number: segment.number, from, to: end.offset });
        if limit.is_none() && end.next == segment.first {
            empty = Some(OldSegment { number: segment.number, first: segment.first });
        }
    }
    let sealed = segments.iter().map(|s| OldSegment { number: s.number, first: s.first });
    let sealed = sealed.filter(|sealed| Some(*sealed) != empty).collect();
    let next_segment = numbers.last().map_or(1, |last| last + 1);
    Ok(RecoveredLog { sealed, empty, next, next_segment, last_crc, replayed })
}

fn check_order(dir: &Path, checkpoint: Lsn, segments: &[WalSegment]) -> Result<(), StoreError> {
    match segments.first() {
        None if checkpoint > 0 => {
            let found = format!("the log is gone, but the index has events up to {checkpoint}");
            return Err(corrupt(dir, 0, &found));
        }
        Some(oldest) if oldest.first > checkpoint + 1 => {
            let found = format!(
                "the log begins with event {}, but the index ends with event {checkpoint}; a segment \
                 is gone, or the index is not of this log",
                oldest.first
            );
            return Err(corrupt(&oldest.path, 0, &found));
        }
        _ => {}
    }
    for pair in segments.windows(2) {
        if let [older, newer] = pair
            && newer.first < older.first
        {
            let found = "the segment begins before the one it follows";
            return Err(corrupt(&newer.path, 16, found));
        }
    }
    Ok(())
}
