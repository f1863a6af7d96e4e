//! A live read over server-sent events (§5.8).

use std::time::Duration;

use bytes::Bytes;
use durable_streams_protocol::{
    ContentType, ReceivedControl, SseDecoder, SseEncoding, SseError, SseEvent, split_messages,
};
use http::{HeaderValue, header};
use tokio::time::Instant;

use crate::{
    batch::{BatchData, StreamBatch},
    error::ClientError,
    exchange::{StreamCall, StreamResponse},
    position::{StreamOffset, StreamPosition},
    stream::Stream,
};

/// Shorter SSE responses than this count as cut by something on the way.
const SHORT: Duration = Duration::from_secs(10);

/// How the bytes of a stream travel in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadKind {
    Json,
    /// Line ends become LF, and bytes that are no UTF-8 are replaced.
    Text,
    /// Base64.
    Binary,
}

impl PayloadKind {
    pub(crate) fn of(content_type: &ContentType) -> Self {
        match SseEncoding::of(content_type) {
            SseEncoding::Json => PayloadKind::Json,
            SseEncoding::Text => PayloadKind::Text,
            SseEncoding::Base64 => PayloadKind::Binary,
        }
    }
}

/// An open SSE response.
#[derive(Debug)]
pub(crate) struct EventLink {
    response: StreamResponse,
    decoder: SseDecoder,
    kind: PayloadKind,
    /// Of the piece that is being decoded.
    unread: Bytes,
    /// Data events whose control event has not come.
    data: Vec<Bytes>,
    position: StreamPosition,
    opened: Instant,
    /// Until the first event.
    patience: Option<Duration>,
    live_timeout: Duration,
}

/// What an SSE response brings next.
#[derive(Debug)]
pub(crate) enum EventStep {
    Batch(StreamBatch),
    /// The position, without data; the stream may be closed.
    Moved {
        position: StreamPosition,
        cursor: Option<Box<str>>,
        up_to_date: bool,
        closed: bool,
    },
    /// Data that this way of reading may have changed.
    Inexact,
    /// The response ended as it should.
    Ended,
}

/// Why events do not come.
#[derive(Debug)]
pub(crate) enum EventFailure {
    /// Something holds them back, or the server has none: long-poll may work.
    Unavailable(String),
    Failed(ClientError),
}

impl EventLink {
    /// Requests events from `position`, which must be an offset.
    pub(crate) async fn open(
        stream: &Stream,
        position: &StreamPosition,
        cursor: Option<&str>,
        kind: PayloadKind,
    ) -> Result<Self, EventFailure> {
        let inner = &stream.client().inner;
        let mut call = live_call(stream, position, "sse", cursor).map_err(EventFailure::Failed)?;
        call.headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let opened = Instant::now();
        let patience = inner.event_patience;
        let sent = tokio::time::timeout(patience, inner.transport.send(call)).await;
        let mut response = match sent {
            Err(_) => return Err(EventFailure::Unavailable("no response arrives".to_owned())),
            Ok(Err(error)) if is_unsupported(&error) => {
                return Err(EventFailure::Unavailable(error.to_string()));
            }
            Ok(sent) => sent.map_err(EventFailure::Failed)?,
        };
        let content_type = response.facts.content_type.as_ref().map_or("", |kind| kind.as_str());
        if !content_type.starts_with("text/event-stream") {
            let reason = format!("the response is {content_type:?}, not events");
            return Err(EventFailure::Unavailable(reason));
        }
        response.set_read_timeout(patience);
        // Base64 is a third longer, and lines break it.
        let limit = inner.max_message.saturating_add(inner.max_message / 2).saturating_add(1024);
        Ok(EventLink {
            decoder: SseDecoder::new(response.facts.sse_base64, limit),
            kind: if response.facts.sse_base64 { PayloadKind::Binary } else { kind },
            unread: Bytes::new(),
            data: Vec::new(),
            position: position.clone(),
            opened,
            patience: Some(patience),
            live_timeout: stream.live_timeout(),
            response,
        })
    }

    /// The response ended so soon that something on the way may cut it.
    pub(crate) fn was_short(&self) -> bool {
        self.opened.elapsed() < SHORT
    }

    /// The next step. Cancelling it loses nothing.
    pub(crate) async fn next(&mut self) -> Result<EventStep, EventFailure> {
        loop {
            if let Some(event) = self.decode().map_err(EventFailure::Failed)? {
                self.patience = None;
                self.response.set_read_timeout(self.live_timeout);
                match event {
                    SseEvent::Data(data) => self.data.push(data),
                    SseEvent::Control(control) => {
                        return self.control(control).map_err(EventFailure::Failed);
                    }
                }
                continue;
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.unread = chunk,
                Ok(None) if self.data.is_empty() && self.decoder.is_between_events() => {
                    return Ok(EventStep::Ended);
                }
                Ok(None) => {
                    let error = self.response.broken("it ends within an event");
                    return Err(EventFailure::Failed(error));
                }
                // Not one event in this time, although the server sends one at once.
                Err(_)
                    if self.patience.is_some_and(|patience| self.opened.elapsed() >= patience) =>
                {
                    return Err(EventFailure::Unavailable("no event arrives".to_owned()));
                }
                Err(error) => return Err(EventFailure::Failed(error)),
            }
        }
    }

    /// The next event of what has arrived.
    fn decode(&mut self) -> Result<Option<SseEvent>, ClientError> {
        let mut rest = &self.unread[..];
        let event = self.decoder.next_event(&mut rest).map_err(|error| match error {
            SseError::TooLarge { limit } => ClientError::MessageTooLarge { limit },
            error => self.response.damaged(error.to_string()),
        })?;
        self.unread = self.unread.slice(self.unread.len() - rest.len()..);
        Ok(event)
    }

    /// Puts the data before a control event and its offset together.
    fn control(&mut self, control: ReceivedControl) -> Result<EventStep, ClientError> {
        let next = StreamOffset::new(&control.next_offset)
            .ok_or_else(|| self.response.invalid("streamNextOffset is no offset"))?;
        let data = std::mem::take(&mut self.data);
        let has_data = data.iter().any(|event| !event.is_empty());
        let inconsistent = match self.position.offset() {
            None => false,
            Some(before) if has_data => next <= *before,
            Some(before) => next < *before,
        };
        if inconsistent {
            let reason = format!("an event at {} ends at {next}", self.position);
            return Err(self.response.broken(reason));
        }
        let ReceivedControl { cursor, up_to_date, closed, .. } = control;
        if has_data && self.kind == PayloadKind::Text && data.iter().any(|text| is_inexact(text)) {
            return Ok(EventStep::Inexact);
        }
        self.position = StreamPosition::at(next);
        if !has_data {
            let position = self.position.clone();
            return Ok(EventStep::Moved { position, cursor, up_to_date, closed });
        }
        let data = match self.kind {
            PayloadKind::Json => BatchData::Messages(self.messages(&data)?),
            PayloadKind::Text | PayloadKind::Binary => BatchData::Bytes(joined(data)),
        };
        Ok(EventStep::Batch(StreamBatch {
            data,
            position: self.position.clone(),
            up_to_date,
            closed,
        }))
    }

    fn messages(&self, events: &[Bytes]) -> Result<Vec<Bytes>, ClientError> {
        let mut messages = Vec::new();
        for event in events {
            let split = split_messages(event)
                .map_err(|error| self.response.damaged(format!("an event is no JSON: {error}")))?;
            messages.extend(split.into_iter().map(|message| event.slice_ref(message)));
        }
        Ok(messages)
    }
}

/// A live read, with its parameters sorted by name, as caches like them (§10.1).
pub(crate) fn live_call(
    stream: &Stream,
    position: &StreamPosition,
    live: &str,
    cursor: Option<&str>,
) -> Result<StreamCall, ClientError> {
    let parameters =
        [("cursor", cursor.unwrap_or_default()), ("live", live), ("offset", position.query())];
    let given = if cursor.is_some() { &parameters[..] } else { &parameters[1..] };
    stream.read_call("follow", given)
}

/// A server without SSE for this stream.
fn is_unsupported(error: &ClientError) -> bool {
    error.status().is_some_and(|status| matches!(status.as_u16(), 400 | 405 | 406 | 415 | 501))
}

/// An LF may have been CR or CRLF; U+FFFD may have been other bytes.
fn is_inexact(text: &[u8]) -> bool {
    text.contains(&b'\n') || text.windows(3).any(|bytes| bytes == "\u{fffd}".as_bytes())
}

fn joined(mut events: Vec<Bytes>) -> Bytes {
    if events.len() == 1 { events.swap_remove(0) } else { events.concat().into() }
}
