//! Parts of segment files that the kernel sends by itself, without a copy in this process.
//!
//! Invariants
//! - A block is sent only after its bytes matched their checksum, in this opening of the file and since they were last read
//!   from the disk: a block that has left memory is read and checked again. Its first page decides whether it has.
//! - A part is in memory when it is returned, so that the task that sends it does not wait for the disk.
//! - An extent that was found in the index stays right while the index has it and its file is there: a stream's bytes never
//!   change, ids and numbers of files are not used again, and a file that is removed is not open any more. When bytes of trimmed
//!   and deleted streams leave the index, all extents are looked up again.
//!
//! Measured: see docs/storage.md, "Sealed segments"; finding an extent again without the index, docs/benchmarks.md.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use durable_streams_protocol::{Offset, StreamId};
use parking_lot::Mutex;

use super::{
    files::{OpenSegment, SegmentFiles, SegmentReadError},
    format::{BLOCK, HEADER, blocks_around},
};
use crate::store::{
    FilePart, MessageForm,
    file::{disk::File, error::corrupt, index::extents::ExtentRecord, options::SegmentOptions},
    file_part::is_in_memory,
};

/// Extents that are found again without the index.
const KNOWN: usize = 64;

/// The extents of which parts were sent last.
#[derive(Default)]
pub(super) struct KnownExtents(Mutex<KnownList>);

#[derive(Default)]
struct KnownList {
    /// How often the list was emptied.
    emptied: u64,
    /// The latest at the end.
    extents: Vec<KnownExtent>,
}

#[derive(Clone, Copy)]
struct KnownExtent {
    id: StreamId,
    extent: ExtentRecord,
    footer_crc: u32,
}

/// A moment before a look into the index: what it finds is known only if no extent was removed since.
#[derive(Clone, Copy)]
pub(in crate::store::file) struct IndexLook(u64);

impl KnownExtents {
    fn find(&self, id: StreamId, at: u64) -> Option<KnownExtent> {
        let known = &mut self.0.lock().extents;
        let holds = |known: &KnownExtent| {
            known.id == id && known.extent.start <= at && at < known.extent.end
        };
        let place = known.iter().rposition(holds)?;
        let found = known.remove(place);
        known.push(found);
        Some(found)
    }

    fn note(&self, look: IndexLook, new: KnownExtent) {
        let list = &mut *self.0.lock();
        if list.emptied != look.0 {
            return;
        }
        // Moved to another file, it is the same range of the stream.
        list.extents.retain(|old| (old.id, old.extent.start) != (new.id, new.extent.start));
        if list.extents.len() >= KNOWN {
            list.extents.remove(0);
        }
        list.extents.push(new);
    }
}

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

/// The number of the block that begins at a place in a file.
fn block_at(at: u64) -> u64 {
    (at - HEADER as u64) / BLOCK as u64
}

impl OpenSegment {
    /// Whether a range of the file is in a form. The range lies in an extent of at least
    /// [`LEAST_SENT`](SegmentOptions::LEAST_SENT) bytes; of that size, all JSON extents of a file have commas, or none has.
    fn is_in(&self, form: MessageForm, range: Range<u64>) -> bool {
        match form {
            MessageForm::Array => self.footer.trailer.form == MessageForm::Array,
            MessageForm::Stored => !self.footer.has_commas(range),
        }
    }
}

impl SegmentFiles {
    /// The bytes of a stream in a form, from `from` to at most `to` and at most `max`, as a part of a file: where they were found
    /// before, the file is still open, and its blocks were checked and are in memory. Never waits.
    pub(in crate::store::file) fn known_part(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
        form: MessageForm,
    ) -> Option<FilePart> {
        let KnownExtent { extent, footer_crc, .. } = self.known.find(id, from.position())?;
        let segment = self.opened(extent.file)?;
        let file = segment.file.handle()?;
        let there = extent.end.min(to.position()).saturating_sub(from.position());
        let len = there.min(max as u64) as usize;
        if len == 0 || segment.footer.trailer.footer_crc != footer_crc {
            return None;
        }
        let range = self.place(&segment, &extent, from.position(), len).ok()?;
        if !segment.is_in(form, range.clone()) {
            return None;
        }
        let around = blocks_around(range.clone(), segment.footer.data_end());
        if !around.step_by(BLOCK).all(|at| self.is_ready(&segment, &file, at)) {
            return None;
        }
        self.parts.fetch_add(len as u64, Ordering::Relaxed);
        Some(FilePart { file, range })
    }

    /// To be called before the index is read for a [`part`](Self::part).
    pub(in crate::store::file) fn index_look(&self) -> IndexLook {
        IndexLook(self.known.0.lock().emptied)
    }

    /// The index has lost extents.
    pub(in crate::store::file) fn forget_extents(&self) {
        let list = &mut *self.known.0.lock();
        list.emptied += 1;
        list.extents.clear();
    }

    /// Whether the block at a place was checked and is in memory.
    fn is_ready(&self, segment: &OpenSegment, file: &File, at: u64) -> bool {
        (!self.checks_reads || segment.checked.has(block_at(at))) && is_in_memory(file, at)
    }

    /// A range of a stream's bytes that an extent has, as a part of their file; `None` where they are to be
    /// [`read`](Self::read), since they are few or the file has them in another form. The footer of the file has this checksum.
    pub(in crate::store::file) fn part(
        &self,
        look: IndexLook,
        id: StreamId,
        extent: &ExtentRecord,
        footer_crc: u32,
        range: Range<u64>,
        form: MessageForm,
    ) -> Result<Option<FilePart>, SegmentReadError> {
        let segment = self.open_as(extent, footer_crc)?;
        let (from, len) = (range.start, (range.end - range.start) as usize);
        let range = self.place(&segment, extent, from, len)?;
        let fits = extent.len() >= SegmentOptions::LEAST_SENT && segment.is_in(form, range.clone());
        let Some(file) = segment.file.handle().filter(|_| fits) else { return Ok(None) };
        self.check_blocks(&segment, &file, extent.file, range.clone())?;
        self.known.note(look, KnownExtent { id, extent: *extent, footer_crc });
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
            if self.is_ready(segment, file, at) {
                continue;
            }
            bytes.resize(((around.end - at) as usize).min(BLOCK), 0);
            self.fill(segment, number, at, &mut bytes)?;
            if self.checks_reads {
                segment.footer.check(at, &bytes).map_err(|found| {
                    let damage = corrupt(&self.path(number), found.offset, found.what);
                    SegmentReadError::Failed(damage)
                })?;
                segment.checked.note(block_at(at));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
