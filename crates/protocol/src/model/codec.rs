//! The byte codec that events and snapshots share: little-endian integers, length-prefixed texts.
//!
//! | type | bytes |
//! |---|---|
//! | `u8`, `u64` | 1, 8, little-endian |
//! | text | `u16` length, then that many bytes of UTF-8 |
//! | option | `u8` 0, or `u8` 1 and the value |

use std::str;

/// Bytes that are not what this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {what}")]
pub struct DecodeError {
    /// The part that is wrong.
    pub what: &'static str,
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    // Every text is bounded far below this where it is parsed.
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text.as_bytes().get(..usize::from(len)).unwrap_or(&[]));
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Flags as one byte, the first in its lowest bit.
pub(crate) fn put_flags(out: &mut Vec<u8>, flags: &[bool]) {
    out.push(flags.iter().rev().fold(0, |byte, flag| byte * 2 + u8::from(*flag)));
}

pub(crate) fn put_option<T>(
    out: &mut Vec<u8>,
    value: Option<T>,
    put: impl FnOnce(&mut Vec<u8>, T),
) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            put(out, value);
        }
    }
}

/// Reads from the front of a slice; every read may fail, none panics.
pub(crate) struct ByteReader<'a> {
    rest: &'a [u8],
}

impl<'a> ByteReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        ByteReader { rest: bytes }
    }

    /// Bytes not read yet.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(DecodeError { what })?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.take(1, what)?.first().copied().unwrap_or(0))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let bytes = self.take(8, what)?.try_into().map_err(|_| DecodeError { what })?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let len = self.take(2, what)?.try_into().map_err(|_| DecodeError { what })?;
        let bytes = self.take(usize::from(u16::from_le_bytes(len)), what)?;
        str::from_utf8(bytes).map_err(|_| DecodeError { what })
    }

    pub(crate) fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.u8(what)? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(DecodeError { what }),
        }
    }

    pub(crate) fn finish(&self, what: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError { what }) }
    }
}
