//! Writing a segment: the caller writes the bytes to the file, and this remembers their checksums.

use std::borrow::Cow;

use durable_streams_protocol::with_commas;

use super::{
    BLOCK, HEADER, SealedExtent, SegmentFooter, SegmentTrailer, block_crc, block_seed,
    ends::MessageEnds, footer_crc,
};
use crate::store::MessageForm;

/// A segment that is being written, front to back. It holds the footer only, not the data.
pub struct SegmentWriter {
    number: u64,
    /// Of the last extent so far.
    form: MessageForm,
    /// Whether any extent has the [array form](MessageForm::Array).
    has_arrays: bool,
    /// Bytes of data so far.
    len: u64,
    extents: Vec<SealedExtent>,
    block_crcs: Vec<u32>,
    /// Where commas are in the place of terminators.
    ends: MessageEnds,
    /// Checksum of the block that is not full yet.
    open_crc: u32,
    /// Checksum of the last extent so far.
    extent_crc: u32,
}

impl SegmentWriter {
    /// Begins file `number`. Its first bytes are [`header`](super::header).
    pub fn new(number: u64) -> Self {
        SegmentWriter {
            number,
            form: MessageForm::Stored,
            has_arrays: false,
            len: 0,
            extents: Vec::new(),
            block_crcs: Vec::new(),
            ends: MessageEnds::default(),
            open_crc: block_seed(number, 0),
            extent_crc: 0,
        }
    }

    /// Where the next bytes of data belong in the file.
    pub fn position(&self) -> u64 {
        HEADER as u64 + self.len
    }

    /// Begins an extent: the bytes of a stream from `start` on, in this form.
    pub fn begin_extent(
        &mut self,
        stream: u64,
        start: u64,
        append_lens: Vec<u8>,
        form: MessageForm,
    ) {
        self.form = form;
        self.has_arrays |= form == MessageForm::Array;
        let offset = self.position();
        self.extents.push(SealedExtent { stream, start, len: 0, offset, append_lens });
        self.extent_crc = 0;
    }

    /// Notes the next bytes of the last extent. Returns how the file has them, which the caller writes at what was
    /// [`position`](Self::position) before.
    pub fn push<'b>(&mut self, stored: &'b [u8]) -> Cow<'b, [u8]> {
        let written = match self.form {
            MessageForm::Stored => Cow::Borrowed(stored),
            MessageForm::Array => Cow::Owned(with_commas(stored).collect()),
        };
        if let Some(extent) = self.extents.last_mut() {
            extent.len += stored.len() as u64;
        }
        self.extent_crc = crc32c::crc32c_append(self.extent_crc, &written);
        let (mut stored, mut bytes) = (stored, &written[..]);
        while !bytes.is_empty() {
            let at = (self.len % BLOCK as u64) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - at));
            self.open_crc = crc32c::crc32c_append(self.open_crc, now);
            if self.form == MessageForm::Array {
                let (of_block, behind) = stored.split_at(now.len());
                self.ends.note(at, of_block);
                stored = behind;
            }
            self.len += now.len() as u64;
            if self.len.is_multiple_of(BLOCK as u64) {
                self.end_block();
                self.open_crc = block_seed(self.number, self.block_crcs.len() as u64);
            }
            bytes = later;
        }
        written
    }

    fn end_block(&mut self) {
        self.block_crcs.push(self.open_crc);
        self.ends.end_block();
    }

    /// Whether the messages are so small that a list of their ends is not worth its bytes.
    pub fn has_tiny_messages(&self) -> bool {
        self.has_arrays && self.ends.are_many(self.len)
    }

    /// The checksum of the bytes of the last extent.
    pub fn extent_crc(&self) -> u32 {
        self.extent_crc
    }

    /// Ends the file: what it ends with, which belongs at [`position`](Self::position), and the footer as it is parsed.
    pub fn finish(mut self) -> (Vec<u8>, SegmentFooter) {
        let position = self.position();
        if !self.len.is_multiple_of(BLOCK as u64) {
            self.end_block();
        }
        let mut footer = encode(self.len, &self.extents, &self.block_crcs);
        let (form, ends) = match self.has_arrays {
            true => (MessageForm::Array, self.ends),
            false => (MessageForm::Stored, MessageEnds::default()),
        };
        ends.encode(&mut footer);
        let trailer = SegmentTrailer {
            number: self.number,
            footer_offset: position,
            footer_len: footer.len() as u64,
            footer_crc: footer_crc(self.number, &footer),
            form,
        };
        let end = [&footer[..], &trailer.encode()].concat();
        let (extents, block_crcs) = (self.extents, self.block_crcs);
        (end, SegmentFooter { trailer, extents, block_crcs, ends })
    }
}

fn encode(len: u64, extents: &[SealedExtent], block_crcs: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&(extents.len() as u64).to_le_bytes());
    for extent in extents {
        for field in [extent.stream, extent.start, extent.len, extent.offset] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&(extent.append_lens.len() as u64).to_le_bytes());
        out.extend_from_slice(&extent.append_lens);
    }
    for crc in block_crcs {
        out.extend_from_slice(&crc.to_le_bytes());
    }
    out
}

/// A whole segment in memory, for small ones and tests.
impl SegmentWriter {
    /// The file in the stored form with these extents: stream, start, append lengths, bytes.
    pub fn file(number: u64, extents: &[(u64, u64, &[u8], &[u8])]) -> Vec<u8> {
        Self::file_as(number, MessageForm::Stored, extents)
    }

    /// The same in any form.
    pub fn file_as(
        number: u64,
        form: MessageForm,
        extents: &[(u64, u64, &[u8], &[u8])],
    ) -> Vec<u8> {
        let mut writer = SegmentWriter::new(number);
        let mut file = super::header(number).to_vec();
        for (stream, start, lens, bytes) in extents {
            writer.begin_extent(*stream, *start, lens.to_vec(), form);
            file.extend_from_slice(&writer.push(bytes));
        }
        file.extend_from_slice(&writer.finish().0);
        file
    }
}

impl SegmentFooter {
    pub(super) fn block_crc_of(&self, block: u64, bytes: &[u8]) -> u32 {
        block_crc(self.trailer.number, block, bytes)
    }
}
