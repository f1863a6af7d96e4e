//! Reading server-sent events (§5.8): the reverse of [`encode_data`](crate::encode_data) and
//! [`encode_control`](crate::encode_control), for clients.
//!
//! Follows the HTML standard, "interpreting an event stream": lines end with CR, LF or CRLF, a byte order
//! mark may begin the stream, comments and unknown fields are skipped, an event without its empty line is
//! dropped. Events that the protocol does not define are skipped, too.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;

use super::ControlEvent;
use crate::{Cursor, Offset};

/// The memory of a line is used again for the next one up to this size, bytes: events of 64 KiB, in base64, fit.
const KEPT_CAPACITY: usize = 128 << 10;

/// An event of a live read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SseEvent {
    /// Bytes of the stream: text with LF line ends, one JSON array, or decoded binary data.
    Data(Bytes),
    /// Where the data before it ends.
    Control(ReceivedControl),
}

/// A control event of any server of the protocol: offset and cursor are opaque text (§8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedControl {
    /// `streamNextOffset`; not empty.
    pub next_offset: Box<str>,
    /// `streamCursor`; absent once the stream is closed.
    pub cursor: Option<Box<str>>,
    /// `upToDate`; also true when the stream is closed.
    pub up_to_date: bool,
    /// `streamClosed`.
    pub closed: bool,
}

impl ReceivedControl {
    /// With the offset and the cursor as this implementation forms them; `None` for another server's offset. A
    /// malformed cursor reads as `None`.
    pub fn parse(&self) -> Option<ControlEvent> {
        Some(ControlEvent {
            next_offset: Offset::parse(&self.next_offset)?,
            cursor: self.cursor.as_deref().and_then(Cursor::parse),
            up_to_date: self.up_to_date,
            closed: self.closed,
        })
    }
}

/// Why a stream of events cannot be read on. The reader should reconnect at its last control event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SseError {
    /// One event is larger than the decoder may hold.
    #[error("an event is larger than {limit} bytes")]
    TooLarge {
        /// The bound, bytes.
        limit: usize,
    },
    /// A control event is not the JSON that §5.8 describes.
    #[error("a control event is malformed: {reason}")]
    InvalidControl {
        /// What is wrong.
        reason: String,
    },
    /// A data event is not base64 although the response announced it.
    #[error("a data event is not base64: {0}")]
    InvalidBase64(#[from] base64::DecodeError),
}

/// An incremental decoder: takes the body in pieces of any size and returns whole events.
///
/// Holds one unfinished event and no more than the bound given to [`new`](Self::new).
#[derive(Debug)]
pub struct SseDecoder {
    base64: bool,
    limit: usize,
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    name: EventName,
    data: Vec<u8>,
    has_data: bool,
    id: Option<Box<str>>,
    last_event_id: Option<Box<str>>,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line is read, so a byte order mark is no longer one.
    started: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventName {
    Data,
    Control,
    Unknown,
}

/// The fields of a control event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ControlFields<'a> {
    #[serde(borrow)]
    stream_next_offset: Cow<'a, str>,
    #[serde(borrow)]
    stream_cursor: Option<Cow<'a, str>>,
    #[serde(default)]
    up_to_date: bool,
    #[serde(default)]
    stream_closed: bool,
}

impl SseDecoder {
    /// A decoder for one response. `base64` is [`ResponseFacts::sse_base64`](crate::ResponseFacts::sse_base64).
    /// `limit` bounds one event, bytes as sent: base64 is a third longer than the data in it.
    pub fn new(base64: bool, limit: usize) -> Self {
        SseDecoder {
            base64,
            limit,
            line: Vec::new(),
            name: EventName::Unknown,
            data: Vec::new(),
            has_data: false,
            id: None,
            last_event_id: None,
            after_cr: false,
            started: false,
        }
    }

    /// Takes bytes from the front of `input` until an event is whole. `None` once all of `input` is taken;
    /// call it again with the next piece of the body.
    ///
    /// # Errors
    /// Every [`SseError`]. The rest of the response cannot be read then.
    pub fn next_event(&mut self, input: &mut &[u8]) -> Result<Option<SseEvent>, SseError> {
        loop {
            if self.after_cr && !input.is_empty() {
                self.after_cr = false;
                *input = input.strip_prefix(b"\n").unwrap_or(input);
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', input) else {
                self.hold(input)?;
                *input = &[];
                return Ok(None);
            };
            let (line, rest) = input.split_at(end);
            self.after_cr = rest.first() == Some(&b'\r');
            *input = rest.get(1..).unwrap_or(&[]);
            let event = if self.line.is_empty() {
                self.take_line(line)?
            } else {
                self.hold(line)?;
                let mut line = std::mem::take(&mut self.line);
                let event = self.take_line(&line)?;
                if line.capacity() <= KEPT_CAPACITY {
                    line.clear();
                    self.line = line;
                }
                event
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// The `id` of the last whole event, a [`LastEventId`](crate::LastEventId). `None` before the first.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Whether the body may end here without cutting an event.
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && !self.has_data && self.name == EventName::Unknown
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), SseError> {
        self.check_room(part.len())?;
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn check_room(&self, more: usize) -> Result<(), SseError> {
        let held = self.line.len() + self.data.len() + self.id.as_ref().map_or(0, |id| id.len());
        if held + more > self.limit {
            Err(SseError::TooLarge { limit: self.limit })
        } else {
            Ok(())
        }
    }

    fn take_line(&mut self, line: &[u8]) -> Result<Option<SseEvent>, SseError> {
        let marked = if self.started { None } else { line.strip_prefix("\u{feff}".as_bytes()) };
        let line = marked.unwrap_or(line);
        self.started = true;
        if line.is_empty() {
            return self.finish_event();
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => {
                self.name = match value {
                    b"data" => EventName::Data,
                    b"control" => EventName::Control,
                    _ => EventName::Unknown,
                };
            }
            b"data" => {
                self.check_room(value.len() + 1)?;
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"id" if !value.contains(&0) => {
                self.check_room(value.len())?;
                self.id = Some(String::from_utf8_lossy(value).into());
            }
            _ => {}
        }
        Ok(None)
    }

    fn finish_event(&mut self) -> Result<Option<SseEvent>, SseError> {
        if let Some(id) = self.id.take() {
            self.last_event_id = Some(id);
        }
        let name = std::mem::replace(&mut self.name, EventName::Unknown);
        let mut data = std::mem::take(&mut self.data);
        if !std::mem::take(&mut self.has_data) {
            return Ok(None);
        }
        match name {
            EventName::Data if self.base64 => {
                // Servers rarely break it into lines, and looking for one is faster than copying.
                if memchr::memchr(b'\n', &data).is_some() {
                    data.retain(|byte| *byte != b'\n');
                }
                Ok(Some(SseEvent::Data(STANDARD.decode(data)?.into())))
            }
            EventName::Data => Ok(Some(SseEvent::Data(data.into()))),
            EventName::Control => {
                parse_control(&data).map(|control| Some(SseEvent::Control(control)))
            }
            EventName::Unknown => Ok(None),
        }
    }
}

fn parse_control(json: &[u8]) -> Result<ReceivedControl, SseError> {
    let fields: ControlFields<'_> = serde_json::from_slice(json)
        .map_err(|error| SseError::InvalidControl { reason: error.to_string() })?;
    if fields.stream_next_offset.is_empty() {
        return Err(SseError::InvalidControl { reason: "streamNextOffset is empty".to_owned() });
    }
    Ok(ReceivedControl {
        next_offset: fields.stream_next_offset.into(),
        cursor: fields.stream_cursor.map(Into::into),
        up_to_date: fields.up_to_date || fields.stream_closed,
        closed: fields.stream_closed,
    })
}

#[cfg(test)]
mod tests;
