//! An incremental HTTP/1.1 response parser that is fed whatever the socket gave.
//!
//! The common case, a whole head within one read, is parsed in place without a copy. Body bytes
//! are handed on and never gathered, so a response of any size costs no memory here.

use super::Offset;
use memchr::{memchr, memmem};

/// The part of a response head a load judges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// `Stream-Next-Offset`, or [`Offset::NONE`].
    pub(crate) next_offset: Offset,
    /// `Stream-Up-To-Date: true`.
    pub(crate) up_to_date: bool,
    /// `Connection: close`: the server will not take another request here.
    pub(crate) close: bool,
    framing: Framing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

enum State {
    Head,
    Body { remaining: u64 },
    ChunkSize,
    ChunkData { remaining: u64 },
    ChunkEnd,
    Trailer,
    UntilClose,
}

/// What the parser found in the bytes it was fed.
pub(crate) enum Found<'a> {
    Head(Head),
    Body(&'a [u8]),
    End,
}

/// The parser of one connection.
pub(crate) struct Parser {
    state: State,
    /// An unfinished head, size line or trailer line.
    partial: Vec<u8>,
    /// The request was HEAD: the response has no body, whatever its headers say.
    pub(crate) no_body: bool,
}

/// Longest response head accepted, in bytes.
const MAX_HEAD: usize = 64 * 1024;

impl Parser {
    pub(crate) fn new() -> Self {
        Self { state: State::Head, partial: Vec::new(), no_body: false }
    }

    /// Whether the connection lies between two responses.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Head) && self.partial.is_empty()
    }

    /// Whether the end of the connection is the regular end of this response.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// Consumes `data`, calling `sink` for each find in order.
    pub(crate) fn feed(
        &mut self,
        mut data: &[u8],
        sink: &mut impl FnMut(Found<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        while !data.is_empty() {
            data = match self.state {
                State::Head => self.feed_head(data, sink)?,
                State::Body { remaining } => {
                    let (rest, left) = pass(data, remaining, sink)?;
                    self.state = State::Body { remaining: left };
                    if left == 0 {
                        self.end(sink)?;
                    }
                    rest
                }
                State::ChunkData { remaining } => {
                    let (rest, left) = pass(data, remaining, sink)?;
                    self.state = match left {
                        0 => State::ChunkEnd,
                        remaining => State::ChunkData { remaining },
                    };
                    rest
                }
                State::ChunkSize | State::ChunkEnd | State::Trailer => {
                    self.feed_line(data, sink)?
                }
                State::UntilClose => {
                    sink(Found::Body(data))?;
                    &[]
                }
            };
        }
        Ok(())
    }

    fn end(
        &mut self,
        sink: &mut impl FnMut(Found<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        self.state = State::Head;
        sink(Found::End)
    }

    fn feed_head<'a>(
        &mut self,
        data: &'a [u8],
        sink: &mut impl FnMut(Found<'_>) -> Result<(), String>,
    ) -> Result<&'a [u8], String> {
        let (head, rest) = if self.partial.is_empty() {
            match memmem::find(data, b"\r\n\r\n") {
                Some(at) => (parse_head(&data[..at + 2])?, &data[at + 4..]),
                None => {
                    self.partial.extend_from_slice(data);
                    return Ok(&[]);
                }
            }
        } else {
            let before = self.partial.len();
            let from = before.saturating_sub(3);
            self.partial.extend_from_slice(data);
            match memmem::find(&self.partial[from..], b"\r\n\r\n") {
                Some(at) => {
                    let end = from + at;
                    let head = parse_head(&self.partial[..end + 2])?;
                    self.partial.clear();
                    (head, &data[end + 4 - before..])
                }
                None if self.partial.len() > MAX_HEAD => return Err("endless head".into()),
                None => return Ok(&[]),
            }
        };
        sink(Found::Head(head))?;
        let empty = self.no_body || head.status == 204 || head.status == 304;
        match head.framing {
            _ if empty => self.end(sink)?,
            Framing::Length(0) => self.end(sink)?,
            Framing::Length(remaining) => self.state = State::Body { remaining },
            Framing::Chunked => self.state = State::ChunkSize,
            Framing::UntilClose => self.state = State::UntilClose,
        }
        Ok(rest)
    }

    fn feed_line<'a>(
        &mut self,
        data: &'a [u8],
        sink: &mut impl FnMut(Found<'_>) -> Result<(), String>,
    ) -> Result<&'a [u8], String> {
        let Some(at) = memchr(b'\n', data) else {
            self.partial.extend_from_slice(data);
            return Ok(&[]);
        };
        self.partial.extend_from_slice(&data[..at]);
        let line = self.partial.trim_ascii_end();
        match self.state {
            State::ChunkSize => {
                let size = chunk_size(line)?;
                self.state = match size {
                    0 => State::Trailer,
                    remaining => State::ChunkData { remaining },
                };
            }
            State::Trailer if line.is_empty() => {
                self.partial.clear();
                self.end(sink)?;
            }
            State::Trailer => {}
            _ if line.is_empty() => self.state = State::ChunkSize,
            _ => return Err("bytes after a chunk".into()),
        }
        self.partial.clear();
        Ok(&data[at + 1..])
    }
}

/// Hands on up to `remaining` bytes; returns the bytes after them and what is still to come.
fn pass<'a>(
    data: &'a [u8],
    remaining: u64,
    sink: &mut impl FnMut(Found<'_>) -> Result<(), String>,
) -> Result<(&'a [u8], u64), String> {
    let take = usize::try_from(remaining).unwrap_or(usize::MAX).min(data.len());
    sink(Found::Body(&data[..take]))?;
    Ok((&data[take..], remaining - take as u64))
}

fn chunk_size(line: &[u8]) -> Result<u64, String> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default();
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .ok_or_else(|| format!("bad chunk size {:?}", String::from_utf8_lossy(line)))
}

/// `head` ends with the line end of its last header.
fn parse_head(head: &[u8]) -> Result<Head, String> {
    let bad =
        || format!("bad status line {:?}", String::from_utf8_lossy(&head[..head.len().min(40)]));
    if head.len() < 12 || !head.starts_with(b"HTTP/1.") {
        return Err(bad());
    }
    let status = std::str::from_utf8(&head[9..12])
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(bad)?;
    let mut parsed = Head {
        status,
        next_offset: Offset::NONE,
        up_to_date: false,
        close: false,
        framing: Framing::UntilClose,
    };
    let mut at = memchr(b'\n', head).ok_or_else(bad)? + 1;
    while at < head.len() {
        let end = memchr(b'\n', &head[at..]).map_or(head.len(), |n| at + n);
        header_line(&mut parsed, head[at..end].trim_ascii_end())?;
        at = end + 1;
    }
    Ok(parsed)
}

/// Takes the few headers a load judges; the length of the name picks the candidates cheaply.
fn header_line(parsed: &mut Head, line: &[u8]) -> Result<(), String> {
    let Some(colon) = memchr(b':', line) else {
        return Err(format!("bad header {:?}", String::from_utf8_lossy(line)));
    };
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii_start());
    match name.len() {
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            let text = String::from_utf8_lossy(value);
            let length = text.parse().map_err(|_| format!("bad content-length {text:?}"))?;
            parsed.framing = Framing::Length(length);
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            parsed.framing = Framing::Chunked;
        }
        17 if name.eq_ignore_ascii_case(b"stream-up-to-date") => {
            parsed.up_to_date = value == b"true";
        }
        18 if name.eq_ignore_ascii_case(b"stream-next-offset") => {
            parsed.next_offset = Offset::new(value)
                .ok_or_else(|| format!("bad offset {:?}", String::from_utf8_lossy(value)))?;
        }
        10 if name.eq_ignore_ascii_case(b"connection") => {
            parsed.close = value.eq_ignore_ascii_case(b"close");
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `step`; returns (status, offset, body) of each response.
    fn parse(bytes: &[u8], step: usize) -> Result<Vec<(u16, String, Vec<u8>)>, String> {
        let (mut parser, mut out) = (Parser::new(), Vec::new());
        let mut current = (0, String::new(), Vec::new());
        for piece in bytes.chunks(step) {
            parser.feed(piece, &mut |found| {
                match found {
                    Found::Head(head) => {
                        current = (head.status, head.next_offset.to_string(), vec![])
                    }
                    Found::Body(body) => current.2.extend_from_slice(body),
                    Found::End => out.push(current.clone()),
                }
                Ok(())
            })?;
        }
        assert!(parser.is_idle(), "a response was left unfinished");
        Ok(out)
    }

    const TWO: &[u8] = b"HTTP/1.1 204 No Content\r\nStream-Next-Offset: 0_7\r\n\r\n\
        HTTP/1.1 200 OK\r\nstream-next-offset: 0_9\r\ncontent-length: 3\r\n\r\nabc\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";

    #[test]
    fn finds_the_same_responses_however_the_bytes_are_cut() {
        let whole = parse(TWO, TWO.len()).unwrap();
        assert_eq!(
            whole,
            [
                (204, "0_7".into(), vec![]),
                (200, "0_9".into(), b"abc".to_vec()),
                (200, String::new(), b"abcde".to_vec())
            ]
        );
        for step in 1..TWO.len() {
            assert_eq!(parse(TWO, step).unwrap(), whole, "cut every {step} bytes");
        }
    }

    #[test]
    fn refuses_what_is_not_a_response() {
        assert!(parse(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 99).is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 99).is_err());
        let bad_chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
        assert!(parse(bad_chunk, 99).is_err());
    }
}
