//! Reading a segment: its footer, and checks of its data.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::{
    BLOCK, HEADER, SealedExtent, SegmentDamage, SegmentTrailer, TRAILER, check_header, damage,
    ends::MessageEnds, footer_crc,
};
use crate::store::MessageForm;

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFooter {
    /// The end of the file.
    pub trailer: SegmentTrailer,
    /// Its extents, in the order of their places.
    pub extents: Vec<SealedExtent>,
    /// The checksum of each block of [`BLOCK`] bytes of the data.
    pub block_crcs: Vec<u32>,
    /// Where commas are in the place of terminators.
    pub(super) ends: MessageEnds,
}

impl SegmentFooter {
    /// The footer, from its bytes as the trailer places them.
    ///
    /// # Errors
    /// When they are not the footer of this file.
    pub fn parse(trailer: SegmentTrailer, found: &[u8]) -> Result<Self, SegmentDamage> {
        let at = trailer.footer_offset;
        let whole = found.len() as u64 == trailer.footer_len
            && footer_crc(trailer.number, found) == trailer.footer_crc;
        if !whole {
            return Err(damage(at, "its footer does not match its checksum"));
        }
        // Behind a right checksum only a defect of the writer is left.
        let wrong = || damage(at, "its footer does not describe its data");
        let mut rest = found;
        let mut field = || {
            let (field, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_le_bytes(*field))
        };
        let len = field().ok_or_else(wrong)?;
        let count = field().ok_or_else(wrong)?;
        if len != at.saturating_sub(HEADER as u64) || count > found.len() as u64 {
            return Err(wrong());
        }
        let mut rest = found.get(16..).unwrap_or(&[]);
        let mut extents = Vec::with_capacity(count as usize);
        let mut offset = HEADER as u64;
        for _ in 0..count {
            let extent = take_extent(&mut rest).ok_or_else(wrong)?;
            let end = extent.start.checked_add(extent.len);
            if extent.offset != offset || extent.len == 0 || end.is_none() {
                return Err(wrong());
            }
            offset = offset.checked_add(extent.len).ok_or_else(wrong)?;
            extents.push(extent);
        }
        if offset != at {
            return Err(wrong());
        }
        let blocks = usize::try_from(len.div_ceil(BLOCK as u64)).map_err(|_| wrong())?;
        let (crcs, ends) = rest.split_at_checked(blocks.saturating_mul(4)).ok_or_else(wrong)?;
        let ends = match trailer.form {
            MessageForm::Array => MessageEnds::decode(ends, len),
            MessageForm::Stored => ends.is_empty().then(MessageEnds::default),
        };
        let ends = ends.ok_or_else(wrong)?;
        let crcs = crcs.chunks_exact(4).filter_map(|crc| crc.try_into().ok());
        let block_crcs = crcs.map(u32::from_le_bytes).collect();
        Ok(SegmentFooter { trailer, extents, block_crcs, ends })
    }

    /// Bytes of the data that begin at `offset` of the file as they were sealed: with the terminators of JSON messages.
    pub fn restore(&self, offset: u64, bytes: &mut [u8]) {
        if self.trailer.form == MessageForm::Array {
            self.ends.restore(offset.saturating_sub(HEADER as u64), bytes);
        }
    }

    /// The same, copied where others have them, too.
    pub fn restored(&self, offset: u64, bytes: Bytes) -> Bytes {
        if self.trailer.form == MessageForm::Stored {
            return bytes;
        }
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        self.restore(offset, &mut bytes);
        bytes.freeze()
    }

    /// Whether a range of the file has commas in the place of terminators.
    pub fn has_commas(&self, range: Range<u64>) -> bool {
        let data = HEADER as u64;
        let (from, to) = (range.start.saturating_sub(data), range.end.saturating_sub(data));
        self.trailer.form == MessageForm::Array && self.ends.any_between(from, to)
    }

    /// Bytes of it in memory that grow with the data.
    pub fn size(&self) -> usize {
        4 * self.block_crcs.len() + self.ends.size()
    }

    /// Checks bytes of the data that begin at `offset` of the file: whole blocks, of which the last one may be the short
    /// last one of the file. [`blocks_around`](super::blocks_around) places them.
    ///
    /// # Errors
    /// The first block that is not as it was written.
    pub fn check(&self, offset: u64, bytes: &[u8]) -> Result<(), SegmentDamage> {
        let wrong = |at| damage(at, "its data does not match its checksum");
        let first = offset.checked_sub(HEADER as u64).ok_or_else(|| wrong(offset))?;
        let end = offset + bytes.len() as u64;
        let whole = bytes.len().is_multiple_of(BLOCK) || end == self.data_end();
        if !first.is_multiple_of(BLOCK as u64) || !whole || end > self.data_end() {
            return Err(damage(offset, "a part of a block cannot be checked"));
        }
        for (block, bytes) in (first / BLOCK as u64..).zip(bytes.chunks(BLOCK)) {
            let expected = self.block_crcs.get(block as usize);
            if expected != Some(&self.block_crc_of(block, bytes)) {
                return Err(wrong(HEADER as u64 + block * BLOCK as u64));
            }
        }
        Ok(())
    }

    /// Where the data ends in the file.
    pub fn data_end(&self) -> u64 {
        self.trailer.footer_offset
    }

    /// Size of the file, bytes.
    pub fn file_len(&self) -> u64 {
        self.trailer.footer_offset + self.trailer.footer_len + TRAILER as u64
    }

    /// Checks a whole file in memory, and returns its footer.
    ///
    /// # Errors
    /// The first thing that is not as it was written.
    pub fn of_file(number: u64, file: &[u8]) -> Result<Self, SegmentDamage> {
        check_header(file.get(..HEADER).unwrap_or(file), number)?;
        let end = file.len().saturating_sub(TRAILER);
        let trailer = SegmentTrailer::parse(&file[end..], number, file.len() as u64)?;
        // The trailer lies behind the footer, and the footer within the file.
        let at = trailer.footer_offset as usize;
        let footer = Self::parse(trailer, file.get(at..end).unwrap_or(&[]))?;
        footer.check(HEADER as u64, file.get(HEADER..at).unwrap_or(&[]))?;
        Ok(footer)
    }
}

fn take_extent(rest: &mut &[u8]) -> Option<SealedExtent> {
    let mut fields = [0; 5];
    for field in &mut fields {
        let (bytes, after) = rest.split_first_chunk()?;
        *field = u64::from_le_bytes(*bytes);
        *rest = after;
    }
    let [stream, start, len, offset, lens] = fields;
    let (append_lens, after) = rest.split_at_checked(usize::try_from(lens).ok()?)?;
    *rest = after;
    Some(SealedExtent { stream, start, len, offset, append_lens: append_lens.to_vec() })
}
