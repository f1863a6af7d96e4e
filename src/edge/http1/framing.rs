//! Which bytes of a connection belong to the body of the present request.
//!
//! Pingora is handed one request at a time: its head, then its body to the last byte, and nothing behind that. What a
//! client sends ahead waits in the connection. So no byte is both body and head, whatever Pingora's parsers make of it.

use std::io;

use http::header;
use pingora::Error;
use pingora::http::RequestHeader;

use super::chunks::{ChunkScanner, InvalidChunk};

/// What may be read of a connection.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// The head has been read and is not parsed yet. Whoever reads on takes the head for incomplete.
    Unknown,
    /// So many more bytes.
    Length(u64),
    Chunked(ChunkScanner),
    /// A tunnel, HTTP/2, or a listener of another kind: every byte.
    Unbounded,
}

impl RequestBody {
    /// The body of a request, from its head. What is contradictory has been, or will be, refused: it has no body that
    /// could be read.
    pub(crate) fn of(request: &RequestHeader) -> Self {
        if request.headers.contains_key(header::TRANSFER_ENCODING) {
            // The head is refused where chunked is not all there is.
            return RequestBody::Chunked(ChunkScanner::default());
        }
        RequestBody::Length(content_length(request).unwrap_or(Some(0)).unwrap_or(0))
    }

    /// How many of `bytes` are part of the body.
    ///
    /// # Errors
    /// The chunks are not valid.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, InvalidChunk> {
        match self {
            RequestBody::Unknown => Ok(0),
            RequestBody::Unbounded => Ok(bytes.len()),
            RequestBody::Chunked(scanner) => scanner.scan(bytes),
            RequestBody::Length(left) => {
                let taken =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                Ok(taken)
            }
        }
    }

    /// Whether the last byte has been read.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            RequestBody::Unknown | RequestBody::Unbounded => false,
            RequestBody::Length(left) => *left == 0,
            RequestBody::Chunked(scanner) => scanner.is_done(),
        }
    }
}

/// Whether reading a body failed because its chunks are not valid.
pub(crate) fn is_invalid(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

/// A `Content-Length` that is not one number (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidLength;

/// The declared length of a request's body, bytes. RFC 9110 §8.6 lets a recipient merge equal values; here several are
/// refused, as the server behind this one might not merge them.
///
/// # Errors
/// More than one value, or one that is not a number below 2^63.
pub(crate) fn content_length(request: &RequestHeader) -> Result<Option<u64>, InvalidLength> {
    let mut values = request.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.as_bytes();
    if values.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidLength);
    }
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.filter(|number| *number <= i64::MAX as u64).map(Some).ok_or(InvalidLength)
}
