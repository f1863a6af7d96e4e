//! A segment file as bytes, without I/O: header, data, footer and trailer. Format: docs/storage.md, "Sealed segments".
//!
//! Invariants
//! - Every byte of a file is covered by a checksum, and every checksum by the number of the file: no flipped bit and no
//!   block of another file is taken for what was written.
//! - A footer that was parsed describes the whole data area: extents lie one behind the other in it, without gaps.
//! - What was pushed to a writer is what a reader gets back, in whichever form the file has it.

mod ends;
mod reader;
mod writer;

use std::ops::Range;

pub use reader::SegmentFooter;
pub use writer::SegmentWriter;

use crate::store::MessageForm;

/// Bytes before the data.
pub const HEADER: usize = 32;
/// Bytes of the data that share a checksum; the last block may have fewer.
pub const BLOCK: usize = 64 << 10;
/// Bytes at the end of the file.
pub const TRAILER: usize = 48;
/// The largest footer that is read, bytes: more than any writer makes.
pub const MAX_FOOTER: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"DSseg\0\0\x01";
const END_MAGIC: [u8; 8] = *b"DSsegend";
const SUFFIX: &str = ".seg";

/// A contiguous range of one stream's own bytes in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedExtent {
    /// The stream's id.
    pub stream: u64,
    /// The position of its first byte in the stream.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// The place of its first byte in the file.
    pub offset: u64,
    /// The lengths of its appends as the index stores them, if they are known; empty for JSON, which delimits itself.
    pub append_lens: Vec<u8>,
}

/// Why bytes are not those of a segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (byte {offset})")]
pub struct SegmentDamage {
    /// The place in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: &'static str,
}

fn damage(offset: u64, what: &'static str) -> SegmentDamage {
    SegmentDamage { offset, what }
}

/// The name of a segment file.
pub fn file_name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

/// The number that a file name has; `None` for other files.
pub fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// The first bytes of a file.
pub fn header(number: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Checks the first bytes of the file of this number.
///
/// # Errors
/// When they are others.
pub fn check_header(found: &[u8], number: u64) -> Result<(), SegmentDamage> {
    let whole = found == header(number);
    if whole { Ok(()) } else { Err(damage(0, "it does not begin with its header")) }
}

/// The end of a file: where its footer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentTrailer {
    /// The number of the file.
    pub number: u64,
    /// The place of the footer, which is the end of the data.
    pub footer_offset: u64,
    /// Bytes of the footer.
    pub footer_len: u64,
    /// Checksum of the footer; the index has it, too, and so tells a file from another one of the same number.
    pub footer_crc: u32,
    /// How its data has JSON messages.
    pub form: MessageForm,
}

impl SegmentTrailer {
    /// Its bytes.
    pub fn encode(&self) -> [u8; TRAILER] {
        let mut out = [0; TRAILER];
        out[..8].copy_from_slice(&self.footer_offset.to_le_bytes());
        out[8..16].copy_from_slice(&self.footer_len.to_le_bytes());
        out[16..20].copy_from_slice(&self.footer_crc.to_le_bytes());
        out[20..24].copy_from_slice(&form_code(self.form).to_le_bytes());
        out[24..32].copy_from_slice(&self.number.to_le_bytes());
        out[32..40].copy_from_slice(&END_MAGIC);
        let crc = crc32c::crc32c(&out[..44]);
        out[44..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The trailer of the file of this number, which has `file_len` bytes, from its last [`TRAILER`] bytes.
    ///
    /// # Errors
    /// When they are not a trailer, or not of this file.
    pub fn parse(found: &[u8], number: u64, file_len: u64) -> Result<Self, SegmentDamage> {
        let at = file_len.saturating_sub(TRAILER as u64);
        let wrong = || damage(at, "it does not end with its trailer");
        let field = |at: usize| {
            let bytes = found.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_le_bytes).ok_or_else(wrong)
        };
        let (crc, form) = (field(16)? as u32, (field(16)? >> 32) as u32);
        let trailer = SegmentTrailer {
            footer_offset: field(0)?,
            footer_len: field(8)?,
            footer_crc: crc,
            form: if form == form_code(MessageForm::Array) {
                MessageForm::Array
            } else {
                MessageForm::Stored
            },
            number: field(24)?,
        };
        if found != trailer.encode() || trailer.number != number {
            return Err(wrong());
        }
        let end = trailer.footer_offset.checked_add(trailer.footer_len);
        let fits = trailer.footer_offset >= HEADER as u64
            && trailer.footer_len <= MAX_FOOTER
            && end == Some(at);
        if fits { Ok(trailer) } else { Err(damage(at, "its trailer names a place outside of it")) }
    }
}

/// The number that a trailer has for a form. Another one fails the comparison of the whole trailer.
fn form_code(form: MessageForm) -> u32 {
    match form {
        MessageForm::Stored => 0,
        MessageForm::Array => 1,
    }
}

/// The checksum of a block of the data of file `number`; `block` counts from 0.
fn block_crc(number: u64, block: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(block_seed(number, block), bytes)
}

fn block_seed(number: u64, block: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &block.to_le_bytes())
}

fn footer_crc(number: u64, footer: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), footer)
}

/// The whole blocks that hold a range of a file whose data ends at `data_end`, as a range of the file. Those bytes can be
/// checked by [`SegmentFooter::check`].
pub fn blocks_around(range: Range<u64>, data_end: u64) -> Range<u64> {
    let (first, block) = (HEADER as u64, BLOCK as u64);
    let from = range.start.saturating_sub(first) / block * block + first;
    let to = range.end.saturating_sub(first).div_ceil(block).saturating_mul(block) + first;
    from..to.min(data_end).max(from)
}

#[cfg(test)]
mod tests;
