//! Reading ranges of segment files.
//!
//! Invariant: bytes are returned only after their checksum was compared. Only clients may get others, where the options say
//! so: what is written again would get a checksum of its own.

use bytes::Bytes;

use super::{
    files::{OpenSegment, SegmentFiles, SegmentReadError},
    format::{BLOCK, blocks_around},
};
use crate::store::file::{
    error::{corrupt, io_error},
    index::extents::ExtentRecord,
};

impl SegmentFiles {
    /// Reads `len` bytes of an extent from position `from` of its stream on. The footer of its file has this checksum.
    pub(in crate::store::file) fn read(
        &self,
        extent: &ExtentRecord,
        footer_crc: u32,
        from: u64,
        len: usize,
    ) -> Result<Bytes, SegmentReadError> {
        let segment = self.open_as(extent, footer_crc)?;
        let range = self.place(&segment, extent, from, len)?;
        let damaged =
            |offset, what| SegmentReadError::Failed(corrupt(&self.path(extent.file), offset, what));
        let data_end = segment.footer.data_end();
        // A small extent has a checksum of its own; of a large one, the blocks around the range are checked.
        let whole = extent.offset..extent.offset + extent.len();
        let own = extent.crc.filter(|_| extent.len() <= BLOCK as u64 && whole.end <= data_end);
        let around = own.map_or_else(|| blocks_around(range.clone(), data_end), |_| whole);
        let mut bytes = vec![0; (around.end - around.start) as usize];
        self.fill(&segment, extent.file, around.start, &mut bytes)?;
        match own {
            Some(crc) if crc32c::crc32c(&bytes) != crc => {
                return Err(damaged(
                    around.start,
                    "the bytes of a stream do not match their checksum",
                ));
            }
            Some(_) => {}
            None => segment
                .footer
                .check(around.start, &bytes)
                .map_err(|found| damaged(found.offset, found.what))?,
        }
        segment.footer.restore(around.start, &mut bytes);
        let skip = (range.start - around.start) as usize;
        // A reader that stalls keeps what it was given: not much more than it asked for.
        if len < bytes.len() - bytes.len() / 4 {
            return Ok(Bytes::copy_from_slice(bytes.get(skip..skip + len).unwrap_or_default()));
        }
        Ok(Bytes::from(bytes).slice(skip..skip + len))
    }

    /// The same for a client. Not compared with checksums where the options say so; what is written again always is.
    pub(in crate::store::file) fn read_for_client(
        &self,
        extent: &ExtentRecord,
        footer_crc: u32,
        from: u64,
        len: usize,
    ) -> Result<Bytes, SegmentReadError> {
        if self.checks_reads {
            return self.read(extent, footer_crc, from, len);
        }
        let segment = self.open_as(extent, footer_crc)?;
        let at = self.place(&segment, extent, from, len)?.start;
        let mut bytes = vec![0; len];
        self.fill(&segment, extent.file, at, &mut bytes)?;
        segment.footer.restore(at, &mut bytes);
        Ok(bytes.into())
    }

    /// Reads exactly `bytes` of the data of an open file, unchecked and in the file's form.
    pub(super) fn fill(
        &self,
        segment: &OpenSegment,
        number: u64,
        at: u64,
        bytes: &mut [u8],
    ) -> Result<(), SegmentReadError> {
        let read = segment.file.read_at(at, bytes).map_err(io_error("read", &self.path(number)));
        if read.map_err(SegmentReadError::Failed)? < bytes.len() {
            let what = "the file ends before its data";
            return Err(SegmentReadError::Failed(corrupt(&self.path(number), at, what)));
        }
        Ok(())
    }
}
