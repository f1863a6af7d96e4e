//! Parts of segment files that the kernel sends by itself, without a copy in this process.
//!
//! Invariants
//! - A block is sent only after its bytes matched their checksum, in this opening of the file and since they were last read
//!   from the disk: a block that has left memory is read and checked again. Its first page decides whether it has.
//! - A part is in memory when it is returned, so that the task that sends it does not wait for the disk.
//!
//! Measured: see docs/storage.md, "Sealed segments".

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    files::{OpenSegment, SegmentFiles, SegmentReadError},
    format::{BLOCK, HEADER, blocks_around},
};
use crate::store::{
    FilePart,
    file::{disk::File, error::corrupt, index::extents::ExtentRecord},
    file_part::is_in_memory,
};

/// Extents smaller than this are read: a look at the index and a call cost more than their copy.
const LEAST: u64 = 64 << 10;

/// A bit for each block of an open file that was read and was as it was written.
pub(super) struct CheckedBlocks(Box<[AtomicU64]>);

impl CheckedBlocks {
    pub(super) fn none_of(blocks: usize) -> Self {
        CheckedBlocks((0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn has(&self, block: u64) -> bool {
        let word = self.0.get((block / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (block % 64)) != 0)
    }

    fn note(&self, block: u64) {
        if let Some(word) = self.0.get((block / 64) as usize) {
            word.fetch_or(1 << (block % 64), Ordering::Relaxed);
        }
    }
}

impl SegmentFiles {
    /// `len` bytes of an extent from position `from` of its stream on, as a part of their file; `None` where they are to be
    /// [`read`](Self::read). The footer of the file has this checksum.
    pub(in crate::store::file) fn part(
        &self,
        extent: &ExtentRecord,
        footer_crc: u32,
        from: u64,
        len: usize,
    ) -> Result<Option<FilePart>, SegmentReadError> {
        let segment = self.open_as(extent, footer_crc)?;
        let large = extent.len() >= LEAST;
        let Some(file) = segment.file.handle().filter(|_| large) else { return Ok(None) };
        let range = self.place(&segment, extent, from, len)?;
        self.check_blocks(&segment, &file, extent.file, range.clone())?;
        self.parts.fetch_add(len as u64, Ordering::Relaxed);
        Ok(Some(FilePart { file, range }))
    }

    /// Reads the blocks around a range that were not checked, or may have left memory since: a sender must not wait for the
    /// disk.
    fn check_blocks(
        &self,
        segment: &OpenSegment,
        file: &File,
        number: u64,
        range: Range<u64>,
    ) -> Result<(), SegmentReadError> {
        let around = blocks_around(range, segment.footer.data_end());
        let mut bytes = Vec::new();
        for at in around.clone().step_by(BLOCK) {
            let block = (at - HEADER as u64) / BLOCK as u64;
            let whole = !self.checks_reads || segment.checked.has(block);
            if whole && is_in_memory(file, at) {
                continue;
            }
            bytes.resize(((around.end - at) as usize).min(BLOCK), 0);
            self.fill(segment, number, at, &mut bytes)?;
            if self.checks_reads {
                segment.footer.check(at, &bytes).map_err(|found| {
                    let damage = corrupt(&self.path(number), found.offset, found.what);
                    SegmentReadError::Failed(damage)
                })?;
                segment.checked.note(block);
            }
        }
        Ok(())
    }
}
