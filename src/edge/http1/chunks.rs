//! The framing of a chunked request body (RFC 9112 §7.1), checked byte by byte on its way to Pingora.
//!
//! Pingora finds the chunks with `httparse::parse_chunk_size`, which takes a chunk-size line without digits for the last
//! chunk and any byte, LF included, for part of a chunk extension. A front end that reads such a body otherwise sees
//! another end of it than this server: that is request smuggling. Here the grammar holds:
//!
//! ```text
//! chunk = 1*16HEXDIG *( SP / HTAB ) [ ";" *( HTAB / SP / VCHAR / obs-text ) ] CRLF  data CRLF
//! ```
//!
//! The last chunk is followed by trailer lines of the same characters and an empty line. Extensions and trailers of one
//! body have at most [`MAX_IGNORED`] bytes: they are read and dropped.

/// Bytes of chunk extensions and trailers in one body. As hyper has it.
pub const MAX_IGNORED: usize = 16 * 1024;

/// More digits say more than 64 bits.
const MAX_DIGITS: u8 = 16;

/// A body that is not chunked as RFC 9112 has it, or whose extensions and trailers are too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is not valid")]
pub struct InvalidChunk;

/// Follows a chunked body to its end.
#[derive(Clone, Debug)]
pub struct ChunkScanner {
    place: ChunkPlace,
    /// Of the present chunk.
    size: u64,
    digits: u8,
    /// Bytes of extensions and trailers so far.
    ignored: usize,
}

/// What the next byte is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkPlace {
    Size,
    /// Blanks behind the size.
    Blank,
    Extension,
    SizeLf,
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Default for ChunkScanner {
    fn default() -> Self {
        ChunkScanner { place: ChunkPlace::Size, size: 0, digits: 0, ignored: 0 }
    }
}

impl ChunkScanner {
    /// Follows the body through `bytes`. Returns how many of them belong to it: fewer than all once it has ended.
    ///
    /// # Errors
    /// [`InvalidChunk`]; nothing may be scanned after it.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<usize, InvalidChunk> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            match self.place {
                ChunkPlace::End => break,
                ChunkPlace::Data(left) => {
                    let here = (bytes.len() - at) as u64;
                    let read = here.min(left);
                    self.place = if read == left {
                        ChunkPlace::DataCr
                    } else {
                        ChunkPlace::Data(left - read)
                    };
                    // Not more than `here`, which is a length.
                    at += usize::try_from(read).unwrap_or(bytes.len());
                }
                _ => {
                    self.place = self.next(byte)?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }

    /// Whether the whole body has been scanned.
    pub fn is_done(&self) -> bool {
        self.place == ChunkPlace::End
    }

    fn next(&mut self, byte: u8) -> Result<ChunkPlace, InvalidChunk> {
        use ChunkPlace as P;
        Ok(match (self.place, byte) {
            (P::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < MAX_DIGITS => {
                let digit = char::from(byte).to_digit(16).ok_or(InvalidChunk)?;
                self.size = self.size << 4 | u64::from(digit);
                self.digits += 1;
                P::Size
            }
            (P::Size | P::Blank | P::Extension, b'\r') if self.digits > 0 => P::SizeLf,
            (P::Size | P::Blank, b';') if self.digits > 0 => self.ignore(P::Extension)?,
            (P::Size | P::Blank, b' ' | b'\t') if self.digits > 0 => self.ignore(P::Blank)?,
            (P::Extension, b' ' | b'\t' | b'!'..=b'~' | 0x80..) => self.ignore(P::Extension)?,
            (P::SizeLf, b'\n') => {
                self.digits = 0;
                match std::mem::take(&mut self.size) {
                    0 => P::TrailerStart,
                    size => P::Data(size),
                }
            }
            (P::DataCr, b'\r') => P::DataLf,
            (P::DataLf, b'\n') => P::Size,
            (P::TrailerStart, b'\r') => P::EndLf,
            (P::Trailer, b'\r') => P::TrailerLf,
            // A line of trailers begins with a name; a blank would continue the line before.
            (P::TrailerStart, b'!'..=b'~') => self.ignore(P::Trailer)?,
            (P::Trailer, b' ' | b'\t' | b'!'..=b'~' | 0x80..) => self.ignore(P::Trailer)?,
            (P::TrailerLf, b'\n') => P::TrailerStart,
            (P::EndLf, b'\n') => P::End,
            _ => return Err(InvalidChunk),
        })
    }

    fn ignore(&mut self, place: ChunkPlace) -> Result<ChunkPlace, InvalidChunk> {
        self.ignored += 1;
        if self.ignored > MAX_IGNORED { Err(InvalidChunk) } else { Ok(place) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of the body in `text`, however it is cut.
    fn end(text: &[u8]) -> Result<Option<usize>, InvalidChunk> {
        let mut whole = ChunkScanner::default();
        let at = whole.scan(text);
        let mut cut = ChunkScanner::default();
        let mut taken = Ok(0);
        for byte in text {
            taken = taken.and_then(|n| cut.scan(&[*byte]).map(|m| n + m));
        }
        assert_eq!(at, taken, "{:?}", text.escape_ascii().to_string());
        Ok(Some(at?).filter(|_| whole.is_done()))
    }

    #[test]
    fn a_body_ends_behind_its_last_chunk() {
        for (text, expected) in [
            ("0\r\n\r\n", Some(5)),
            ("0\r\n\r\nGET", Some(5)),
            ("3\r\nfoo\r\n0\r\n\r\nGET", Some(13)),
            ("003 \t\r\n\r\n\r\r\n000;a=\"b;c\"\r\n\r\n", Some(27)),
            ("A;x\r\n0123456789\r\n0\r\na: b\r\nc: d\r\n\r\n", Some(34)),
            ("3\r\nfoo\r\n0\r\n", None),
            ("3\r\nfo", None),
        ] {
            assert_eq!(end(text.as_bytes()), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for text in [
            "\r\n\r\n",
            "3\r\nfoo\r\n\r\n\r\n",
            ";x\r\n\r\n",
            " \r\n\r\n",
            " 3\r\nfoo\r\n",
            "3\nfoo\r\n",
            "3;a\nfoo\r\n",
            "3;a\n\r\nfoo\r\n",
            "3;a\rb\r\nfoo\r\n",
            "3;a\0\r\n",
            "3 3\r\nfoo\r\n",
            "3x\r\n",
            "0x3\r\n",
            "+3\r\n",
            "-1\r\n",
            "3\r\nfooXX",
            "3\r\nfoo\n",
            "11111111111111111\r\n",
            "0\r\n\n",
            "0\r\na: b\n\r\n",
            "0\r\n a\r\n\r\n",
            "0\r\na: \0\r\n",
        ] {
            assert_eq!(end(text.as_bytes()), Err(InvalidChunk), "{text:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded_together() {
        let mut body = Vec::new();
        for _ in 0..MAX_IGNORED / 2 {
            body.extend_from_slice(b"1;x\r\n.\r\n");
        }
        let mut scanner = ChunkScanner::default();
        assert_eq!(scanner.scan(&body), Ok(body.len()));
        assert_eq!(scanner.clone().scan(b"0\r\n\r\n"), Ok(5));
        assert_eq!(scanner.clone().scan(b"0\r\na: b\r\n\r\n"), Err(InvalidChunk));
        assert_eq!(scanner.scan(b"1;"), Err(InvalidChunk));
    }
}
