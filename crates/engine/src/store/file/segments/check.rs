//! Checking segment files: header, trailer and footer when one is opened, all blocks when it is sealed, verified or
//! scrubbed.

use std::path::Path;

use bytes::Bytes;

use super::{
    files::another,
    format::{self, BLOCK, HEADER, SegmentDamage, SegmentFooter, SegmentTrailer, TRAILER},
};
use crate::store::{
    StoreError,
    file::{
        disk::{Disk, DiskFile},
        error::{corrupt, io_error},
        index::extents::SegmentRecord,
    },
};

/// Bytes of data that are checked at a time.
const SLICE: usize = 16 * BLOCK;

/// Opens the file of this number; checks everything but its data.
///
/// # Errors
/// [`StoreError::Corrupt`]; [`StoreError::Io`] with `NotFound` when there is no such file.
pub(in crate::store::file) fn open_checked(
    disk: &dyn Disk,
    path: &Path,
    number: u64,
) -> Result<(Box<dyn DiskFile>, SegmentFooter), StoreError> {
    let file = disk.open_to_read(path).map_err(io_error("open", path))?;
    let footer = read_footer(&*file, path, number)?;
    Ok((file, footer))
}

fn read_footer(file: &dyn DiskFile, path: &Path, number: u64) -> Result<SegmentFooter, StoreError> {
    let failed = io_error("read", path);
    let damaged = |found: SegmentDamage| corrupt(path, found.offset, found.what);
    let mut header = [0; HEADER];
    let read = file.read_at(0, &mut header).map_err(&failed)?;
    format::check_header(&header[..read], number).map_err(damaged)?;
    let len = file.len().map_err(&failed)?;
    let mut trailer = [0; TRAILER];
    let read = file.read_at(len.saturating_sub(TRAILER as u64), &mut trailer).map_err(&failed)?;
    let trailer = SegmentTrailer::parse(&trailer[..read], number, len).map_err(damaged)?;
    let mut footer = vec![0; trailer.footer_len as usize];
    let read = file.read_at(trailer.footer_offset, &mut footer).map_err(&failed)?;
    SegmentFooter::parse(trailer, &footer[..read]).map_err(damaged)
}

/// A check of the data of one file, slice by slice.
pub(in crate::store::file) struct SegmentCheck {
    file: Box<dyn DiskFile>,
    pub(in crate::store::file) footer: SegmentFooter,
    next: u64,
}

impl SegmentCheck {
    /// Opens a file and compares it with its record.
    ///
    /// # Errors
    /// See [`open_checked`].
    pub(in crate::store::file) fn begin(
        disk: &dyn Disk,
        path: &Path,
        number: u64,
        record: &SegmentRecord,
    ) -> Result<Self, StoreError> {
        let file = disk.open_to_read(path).map_err(io_error("open", path))?;
        Self::of(file, path, number, record)
    }

    /// Of an open file.
    ///
    /// # Errors
    /// See [`open_checked`].
    pub(in crate::store::file) fn of(
        file: Box<dyn DiskFile>,
        path: &Path,
        number: u64,
        record: &SegmentRecord,
    ) -> Result<Self, StoreError> {
        let footer = read_footer(&*file, path, number)?;
        let data = footer.data_end() - HEADER as u64;
        let same = (footer.file_len(), data, footer.trailer.footer_crc)
            == (record.file_len, record.data, record.footer_crc);
        if !same {
            return Err(another(path));
        }
        Ok(SegmentCheck { file, footer, next: HEADER as u64 })
    }

    /// Checks the next slice; returns how many bytes it has, 0 at the end. What is damaged is passed over by the next call.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the first block that is damaged; [`StoreError::Io`].
    pub(in crate::store::file) fn slice(&mut self, path: &Path) -> Result<usize, StoreError> {
        Ok(self.next_slice(path)?.len())
    }

    /// The same, with the bytes.
    fn next_slice(&mut self, path: &Path) -> Result<Vec<u8>, StoreError> {
        let left = self.footer.data_end() - self.next;
        let len = left.min(SLICE as u64) as usize;
        if len == 0 {
            return Ok(Vec::new());
        }
        let at = self.next;
        self.next += len as u64;
        let mut bytes = vec![0; len];
        let read = self.file.read_at(at, &mut bytes).map_err(io_error("read", path))?;
        let checked = self.footer.check(at, &bytes[..read]);
        checked.map_err(|found| corrupt(path, found.offset, found.what))?;
        Ok(bytes)
    }

    /// Goes on right behind the block at a place, so that each damaged block of a slice is found.
    pub(in crate::store::file) fn resume_behind(&mut self, offset: u64) {
        self.next = offset.saturating_add(BLOCK as u64).min(self.footer.data_end());
    }

    /// What the file ends with, footer and trailer, when it is still what it was at the beginning of the check.
    fn end(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        let SegmentTrailer { number, footer_offset, footer_len, .. } = self.footer.trailer;
        let mut end = vec![0; footer_len as usize + TRAILER];
        let read = self.file.read_at(footer_offset, &mut end).map_err(io_error("read", path))?;
        end.truncate(read);
        let (footer, trailer) = end.split_at(read.saturating_sub(TRAILER));
        let trailer = SegmentTrailer::parse(trailer, number, self.footer.file_len());
        let again = trailer.and_then(|trailer| SegmentFooter::parse(trailer, footer));
        let again = again.map_err(|found| corrupt(path, found.offset, found.what))?;
        if again == self.footer { Ok(end) } else { Err(another(path)) }
    }
}

/// A whole file in parts, of which every byte was checked after it was read.
///
/// # Errors
/// See [`SegmentCheck`].
pub(in crate::store::file) fn read_whole(
    disk: &dyn Disk,
    path: &Path,
    number: u64,
    record: &SegmentRecord,
) -> Result<Vec<Bytes>, StoreError> {
    let mut check = SegmentCheck::begin(disk, path, number, record)?;
    let mut parts = vec![Bytes::copy_from_slice(&format::header(number))];
    loop {
        let part = check.next_slice(path)?;
        if part.is_empty() {
            break;
        }
        parts.push(part.into());
    }
    parts.push(check.end(path)?.into());
    Ok(parts)
}

/// Checks a whole file; returns its footer.
///
/// # Errors
/// See [`SegmentCheck`].
pub(in crate::store::file) fn check_file(
    disk: &dyn Disk,
    path: &Path,
    number: u64,
    record: &SegmentRecord,
) -> Result<SegmentFooter, StoreError> {
    let mut check = SegmentCheck::begin(disk, path, number, record)?;
    while check.slice(path)? > 0 {}
    Ok(check.footer)
}
