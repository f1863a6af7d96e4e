//! Catch-up reads: everything from a position to the tail (§5.6).

use futures_util::{Stream as FuturesStream, stream};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{
    batch::{StreamBatch, messages_of},
    error::ClientError,
    page::PageBody,
    position::{StartFrom, StreamPosition},
    retry::{FailureCount, RetryPolicy},
    stream::Stream,
    telemetry,
};

/// Reads what is stored, page by page, up to the tail. Holds one piece of a response; a JSON message at a time.
///
/// A response that is cut is resumed where it ended. Dropping the reader ends its request.
#[derive(Debug)]
pub struct StreamReader {
    stream: Stream,
    from: StartFrom,
    position: StreamPosition,
    page: Option<PageBody>,
    failures: FailureCount,
    retry: RetryPolicy,
    retry_at: Option<Instant>,
    ended: bool,
    closed: bool,
}

impl StreamReader {
    pub(crate) fn new(stream: Stream, from: StartFrom) -> Self {
        let retry = stream.client().inner.retry.clone();
        let position = match &from {
            StartFrom::Start | StartFrom::Now => StreamPosition::START,
            StartFrom::Position(position) => position.clone(),
        };
        StreamReader {
            stream,
            from,
            position,
            page: None,
            failures: FailureCount::default(),
            retry,
            retry_at: None,
            ended: false,
            closed: false,
        }
    }

    /// After what was delivered. Where a read from [`StartFrom::Now`] begins is known after its first request.
    pub fn position(&self) -> &StreamPosition {
        &self.position
    }

    /// The stream is closed, and all of it was delivered.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The next batch; `None` at the tail. Cancelling it loses nothing.
    ///
    /// # Errors
    /// Failures that no retry can help, and those that last longer than the client's [`RetryPolicy`] allows. The
    /// position stays where it was, and another call tries again.
    pub async fn next(&mut self) -> Result<Option<StreamBatch>, ClientError> {
        while !self.ended {
            match self.step().await {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    self.failures.clear();
                    self.position = batch.position.clone();
                    return Ok(Some(batch));
                }
                Err(error) => {
                    self.page = None;
                    self.retry_at = self.failures.next_try(&self.retry, &error);
                    if self.retry_at.is_none() {
                        self.failures.clear();
                        return Err(error);
                    }
                    telemetry::retried("read");
                    tracing::debug!(%error, url = self.stream.url(), "a read is resumed after a pause");
                }
            }
        }
        Ok(None)
    }

    async fn step(&mut self) -> Result<Option<StreamBatch>, ClientError> {
        let page = match &mut self.page {
            Some(page) => page,
            None => {
                if let Some(at) = self.retry_at {
                    tokio::time::sleep_until(at).await;
                    self.retry_at = None;
                }
                let opened = open_page(&self.stream, &self.from, &self.position).await?;
                self.page.insert(opened)
            }
        };
        if let Some(batch) = page.next().await? {
            return Ok(Some(batch));
        }
        let position = page.end_position();
        let end = page.end();
        // A page without data ends at the tail, should the server not say so.
        self.ended = end.up_to_date || end.closed || !page.has_data();
        self.closed = end.closed;
        self.from = StartFrom::Position(position.clone());
        self.position = position;
        self.page = None;
        self.failures.clear();
        Ok(None)
    }

    /// Reads to the tail, all into memory.
    ///
    /// # Errors
    /// Those of [`next`](Self::next).
    pub async fn collect(&mut self) -> Result<Vec<StreamBatch>, ClientError> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }

    /// The batches as a [`futures_util::Stream`], which ends after an error.
    pub fn into_stream(self) -> impl FuturesStream<Item = Result<StreamBatch, ClientError>> + Send {
        stream::try_unfold(self, |mut reader| async {
            Ok(reader.next().await?.map(|batch| (batch, reader)))
        })
    }

    /// The messages of a JSON stream as values, one by one.
    pub fn into_messages<T: DeserializeOwned + Send>(
        self,
    ) -> impl FuturesStream<Item = Result<T, ClientError>> + Send {
        messages_of(self.into_stream())
    }
}

/// Requests the page at `position`, or, for [`StartFrom::Now`], the tail.
pub(crate) async fn open_page(
    stream: &Stream,
    from: &StartFrom,
    position: &StreamPosition,
) -> Result<PageBody, ClientError> {
    let offset = if *from == StartFrom::Now { "now" } else { position.query() };
    let call = stream.read_call("read", &[("offset", offset)])?;
    let inner = &stream.client().inner;
    let response = inner.transport.send(call).await?;
    PageBody::new(response, position.clone(), inner.max_message)
}
