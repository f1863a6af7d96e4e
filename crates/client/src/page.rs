//! The body of a catch-up or long-poll response, delivered as it arrives.

use bytes::Bytes;
use durable_streams_protocol::{ContentType, ETag, Offset};
use http::StatusCode;

use crate::{
    batch::{BatchData, StreamBatch},
    error::ClientError,
    exchange::StreamResponse,
    position::{StreamOffset, StreamPosition},
    splitter::{ArraySplitter, SplitError},
};

/// A page that is being read.
///
/// Its last piece is delivered with the page's end as its position, so that a piece is held until the next has come.
#[derive(Debug)]
pub(crate) struct PageBody {
    response: StreamResponse,
    splitter: Option<ArraySplitter>,
    /// After what was taken from the response.
    position: StreamPosition,
    /// Units at the front that were delivered before.
    skip: u64,
    held: Option<BatchData>,
    end: PageEnd,
    /// The page may have data: its end is after its beginning.
    advances: bool,
    /// It must have some: its end is after the offset that it was requested at.
    leaps: bool,
    /// Some of it has come, delivered before or not.
    has_data: bool,
    finished: bool,
    failure: Option<ClientError>,
    max_message: usize,
}

/// What the head of a page says of its end.
#[derive(Clone, Debug)]
pub(crate) struct PageEnd {
    pub(crate) next: StreamOffset,
    pub(crate) up_to_date: bool,
    pub(crate) closed: bool,
}

impl PageBody {
    /// The page that `response` to a request at `position` carries.
    ///
    /// # Errors
    /// When its offset lies before `position`, or after it without data, or its tag says that it begins elsewhere: it answers
    /// another request.
    pub(crate) fn new(
        response: StreamResponse,
        position: StreamPosition,
        max_message: usize,
    ) -> Result<Self, ClientError> {
        let next = response.next_offset()?;
        let before = position.offset();
        if before.is_some_and(|before| next < *before) {
            return Err(response.broken(format!("it ends at {next}, before {position}")));
        }
        if !begins_at(&response, before) {
            return Err(response.broken(format!("it does not begin at {position}")));
        }
        let advances = before.is_none_or(|before| next > *before);
        let leaps = before.is_some() && advances;
        if leaps && response.status == StatusCode::NO_CONTENT {
            return Err(
                response.broken(format!("it has no data and ends at {next}, after {position}"))
            );
        }
        let end = PageEnd {
            next,
            up_to_date: response.facts.up_to_date || response.facts.closed,
            closed: response.facts.closed,
        };
        let has_body = response.status != StatusCode::NO_CONTENT;
        let json = response.facts.content_type.as_ref().is_some_and(ContentType::is_json);
        Ok(PageBody {
            splitter: (json && has_body).then(|| ArraySplitter::new(max_message)),
            skip: position.skip(),
            position,
            held: None,
            end,
            advances,
            leaps,
            has_data: false,
            finished: !has_body,
            failure: None,
            response,
            max_message,
        })
    }

    pub(crate) fn content_type(&self) -> Option<&ContentType> {
        self.response.facts.content_type.as_ref()
    }

    pub(crate) fn cursor(&self) -> Option<&str> {
        self.response.cursor.as_deref()
    }

    pub(crate) fn end(&self) -> &PageEnd {
        &self.end
    }

    /// Whether it had any data, once it is read.
    pub(crate) fn has_data(&self) -> bool {
        self.has_data
    }

    /// Where to go on once the page is read.
    pub(crate) fn end_position(&self) -> StreamPosition {
        StreamPosition::at(self.end.next.clone()).plus(self.skip)
    }

    /// The next batch; `None` at the end of the page. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the response is cut or contradicts itself; all before was delivered.
    pub(crate) async fn next(&mut self) -> Result<Option<StreamBatch>, ClientError> {
        loop {
            if let Some(error) = self.failure.take() {
                return Err(error);
            }
            if self.finished {
                return Ok(self.held.take().map(|data| self.last(data)));
            }
            let taken = match self.response.chunk().await {
                Ok(Some(chunk)) => self.take(chunk),
                Ok(None) => self.finish(),
                Err(error) => Err(error),
            };
            match taken {
                Ok(Some(data)) => return Ok(Some(self.inner(data))),
                Ok(None) => {}
                Err(error) => {
                    let Some(data) = self.held.take() else { return Err(error) };
                    self.failure = Some(error);
                    return Ok(Some(self.inner(data)));
                }
            }
        }
    }

    /// Takes a piece of the body, and returns the one before it.
    fn take(&mut self, chunk: Bytes) -> Result<Option<BatchData>, ClientError> {
        let mut data = match &mut self.splitter {
            None => BatchData::Bytes(chunk),
            Some(splitter) => {
                let mut messages = Vec::new();
                splitter.push(&chunk, &mut messages).map_err(|error| match error {
                    SplitError::NotAnArray => self.response.damaged("the page is no JSON array"),
                    SplitError::TooLarge => {
                        ClientError::MessageTooLarge { limit: self.max_message }
                    }
                })?;
                BatchData::Messages(messages)
            }
        };
        self.has_data |= data.units() > 0;
        if self.has_data && !self.advances {
            return Err(self.response.broken("it has data but ends where it began"));
        }
        data.skip(&mut self.skip);
        Ok(if data.units() == 0 { None } else { self.held.replace(data) })
    }

    fn finish(&mut self) -> Result<Option<BatchData>, ClientError> {
        if self.splitter.as_ref().is_some_and(|splitter| !splitter.is_done()) {
            return Err(self.response.damaged("the JSON array is cut"));
        }
        if self.leaps && !self.has_data {
            return Err(self.response.broken("it has no data but ends after where it began"));
        }
        self.finished = true;
        Ok(None)
    }

    /// A batch within the page.
    fn inner(&mut self, data: BatchData) -> StreamBatch {
        self.position = self.position.plus(data.units());
        StreamBatch { data, position: self.position.clone(), up_to_date: false, closed: false }
    }

    /// The batch at its end.
    fn last(&mut self, data: BatchData) -> StreamBatch {
        self.position = self.end_position();
        let PageEnd { up_to_date, closed, .. } = self.end;
        StreamBatch { data, position: self.position.clone(), up_to_date, closed }
    }
}

/// Whether a page begins at `offset`, as far as the tags of this server say so; those of others are opaque. The response to
/// another reader's request ends after `offset`, too, when it was sent twice and the first one freed its connection.
fn begins_at(response: &StreamResponse, offset: Option<&StreamOffset>) -> bool {
    let tag = response.facts.etag.as_deref().and_then(ETag::parse);
    // The first offset of a trimmed stream is not 0.
    let asked = match offset {
        Some(offset) => Offset::parse(offset.as_str()),
        None => response.earliest.is_none().then_some(Offset::ZERO),
    };
    tag.zip(asked).is_none_or(|(tag, asked)| tag.start.position() == asked.position())
}
