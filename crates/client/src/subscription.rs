//! A subscription: catches up, then follows what is appended.
//!
//! Invariants
//! - A batch is delivered once, and in order: every request begins at the position after the last delivered batch.
//! - All state is in the subscription; dropping it ends its request.

use std::time::Duration;

use durable_streams_protocol::ContentType;
use futures_util::{Stream as FuturesStream, stream};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{
    batch::{StreamBatch, messages_of},
    error::ClientError,
    events::{EventFailure, EventLink, EventStep, PayloadKind, live_call},
    follow_mode::FollowMode,
    page::PageBody,
    position::{StartFrom, StreamPosition},
    reader::open_page,
    retry::{FailureCount, RetryPolicy},
    stream::Stream,
    telemetry,
};

/// So many SSE responses in a row that were cut early make the subscription use long-poll.
const CUTS: u32 = 3;
/// Live responses without data come no faster than this, whatever the server does.
const EMPTY_PAUSE: Duration = Duration::from_millis(500);

/// Settings of a [`Subscription`].
#[derive(Clone, Debug)]
pub struct SubscriptionBuilder {
    stream: Stream,
    from: StartFrom,
    mode: FollowMode,
    retry: RetryPolicy,
    events_of: Option<ContentType>,
    skip_trimmed: bool,
}

/// A read that goes on as the stream does. Ends when the stream is closed.
///
/// After every failure that a retry can help it resumes where it was. It runs only within
/// [`next`](Subscription::next): no task, and no memory beyond one piece of a response.
#[derive(Debug)]
pub struct Subscription {
    stream: Stream,
    from: StartFrom,
    position: StreamPosition,
    mode: FollowMode,
    retry: RetryPolicy,
    skip_trimmed: bool,
    gaps: u64,
    link: ReadLink,
    kind: PayloadKind,
    cursor: Option<Box<str>>,
    caught_up: bool,
    up_to_date: bool,
    /// SSE does not get through, or is not exact.
    long_poll: bool,
    cuts: u32,
    failures: FailureCount,
    wait_until: Option<Instant>,
    opened: Instant,
    ended: bool,
}

/// The request that is being read.
#[derive(Debug)]
enum ReadLink {
    None,
    CatchUp(Box<PageBody>),
    LongPoll(Box<PageBody>),
    Events(Box<EventLink>),
}

impl SubscriptionBuilder {
    pub(crate) fn new(stream: Stream, from: StartFrom) -> Self {
        let retry = RetryPolicy { give_up_after: None, ..stream.client().inner.retry.clone() };
        let (mode, events_of, skip_trimmed) = (FollowMode::default(), None, false);
        SubscriptionBuilder { stream, from, mode, retry, events_of, skip_trimmed }
    }

    /// How to follow.
    #[must_use]
    pub fn mode(mut self, mode: FollowMode) -> Self {
        self.mode = mode;
        self
    }

    /// How failures are repeated; for ever by default.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Goes on at the earliest offset when the server has removed what would come next. Otherwise the subscription fails
    /// with [`ClientError::Trimmed`]: what was removed is missing then, and [`Subscription::gaps`] counts how often.
    #[must_use]
    pub fn skip_trimmed(mut self) -> Self {
        self.skip_trimmed = true;
        self
    }

    /// Catches up by SSE, too, where the stream is of `content_type`. Slower than pages; but each batch is an event,
    /// and some servers keep appends whole in their events.
    #[must_use]
    pub fn events_from_the_beginning(mut self, content_type: &ContentType) -> Self {
        self.events_of = Some(content_type.clone());
        self
    }

    /// Makes the subscription. Sends nothing yet.
    pub fn build(self) -> Subscription {
        let position = match &self.from {
            StartFrom::Start | StartFrom::Now => StreamPosition::START,
            StartFrom::Position(position) => position.clone(),
        };
        // Where `now` is, and how a page goes on, only a page says.
        let events_of = self.events_of.as_ref();
        let events_of = events_of.filter(|_| self.from != StartFrom::Now && position.skip() == 0);
        Subscription {
            kind: events_of.map_or(PayloadKind::Binary, PayloadKind::of),
            caught_up: events_of.is_some(),
            up_to_date: false,
            stream: self.stream,
            from: self.from,
            position,
            mode: self.mode,
            retry: self.retry,
            skip_trimmed: self.skip_trimmed,
            gaps: 0,
            link: ReadLink::None,
            cursor: None,
            long_poll: self.mode == FollowMode::LongPoll,
            cuts: 0,
            failures: FailureCount::default(),
            wait_until: None,
            opened: Instant::now(),
            ended: false,
        }
    }
}

impl Subscription {
    /// After what was delivered. Where a subscription from [`StartFrom::Now`] begins is known after its first request,
    /// and does not move until something is delivered.
    pub fn position(&self) -> &StreamPosition {
        &self.position
    }

    /// The stream is closed, and all of it was delivered.
    pub fn is_closed(&self) -> bool {
        self.ended
    }

    /// How often removed bytes were skipped: see [`SubscriptionBuilder::skip_trimmed`].
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Everything up to the tail was delivered, as the server named the tail last.
    pub fn is_up_to_date(&self) -> bool {
        self.up_to_date
    }

    /// The next batch; waits until there is one. `None` when the stream is closed. Cancelling it loses nothing.
    ///
    /// # Errors
    /// Failures that no retry can help: the stream is deleted or expired (404, 410), the token is refused. The position
    /// stays where it was, and another call tries again.
    pub async fn next(&mut self) -> Result<Option<StreamBatch>, ClientError> {
        while !self.ended {
            let stepped = match self.step().await {
                Ok(stepped) => stepped,
                Err(error) => {
                    self.failed(error)?;
                    continue;
                }
            };
            let Some(batch) = stepped else { continue };
            self.failures.clear();
            self.from = StartFrom::Position(batch.position.clone());
            self.position = batch.position.clone();
            self.up_to_date = batch.up_to_date;
            // A page is read to its end even after its last batch, but of a closed stream there is nothing more.
            self.ended = batch.closed;
            return Ok(Some(batch));
        }
        self.link = ReadLink::None;
        Ok(None)
    }

    /// Follows for `patience` at most: `Ok(None)` also when nothing came. See [`is_closed`](Self::is_closed).
    ///
    /// # Errors
    /// Those of [`next`](Self::next).
    pub async fn next_within(
        &mut self,
        patience: Duration,
    ) -> Result<Option<StreamBatch>, ClientError> {
        tokio::time::timeout(patience, self.next()).await.unwrap_or(Ok(None))
    }

    /// The batches as a [`futures_util::Stream`], which ends after an error.
    pub fn into_stream(self) -> impl FuturesStream<Item = Result<StreamBatch, ClientError>> + Send {
        stream::try_unfold(self, |mut subscription| async {
            Ok(subscription.next().await?.map(|batch| (batch, subscription)))
        })
    }

    /// The messages of a JSON stream as values, one by one.
    pub fn into_messages<T: DeserializeOwned + Send>(
        self,
    ) -> impl FuturesStream<Item = Result<T, ClientError>> + Send {
        messages_of(self.into_stream())
    }

    async fn step(&mut self) -> Result<Option<StreamBatch>, ClientError> {
        let (page, live) = match &mut self.link {
            ReadLink::None => {
                self.open().await?;
                return Ok(None);
            }
            ReadLink::Events(events) => {
                let step = events.next().await;
                return self.event(step);
            }
            ReadLink::CatchUp(page) => (page, false),
            ReadLink::LongPoll(page) => (page, true),
        };
        if let Some(batch) = page.next().await? {
            return Ok(Some(batch));
        }
        let (end, position) = (page.end().clone(), page.end_position());
        let has_data = page.has_data();
        if !has_data && live && self.opened.elapsed() < EMPTY_PAUSE {
            self.wait_until = Some(self.opened + EMPTY_PAUSE);
        }
        // A page without data ends at the tail, should the server not say so.
        self.caught_up = position.skip() == 0 && (live || end.up_to_date || !has_data);
        self.up_to_date = end.up_to_date || !has_data;
        self.ended = end.closed;
        self.from = StartFrom::Position(position.clone());
        self.position = position;
        self.link = ReadLink::None;
        self.failures.clear();
        Ok(None)
    }

    /// Makes the next request.
    async fn open(&mut self) -> Result<(), ClientError> {
        if let Some(at) = self.wait_until {
            tokio::time::sleep_until(at).await;
            self.wait_until = None;
        }
        self.opened = Instant::now();
        if !self.caught_up {
            let page = open_page(&self.stream, &self.from, &self.position).await?;
            self.saw(&page);
            self.link = ReadLink::CatchUp(Box::new(page));
        } else if self.long_poll {
            let page = self.open_long_poll().await?;
            self.saw(&page);
            self.link = ReadLink::LongPoll(Box::new(page));
        } else {
            let cursor = self.cursor.as_deref();
            let kind = match (self.mode, self.kind) {
                // The caller that chose SSE accepts changed line ends.
                (FollowMode::Sse, PayloadKind::Text) => PayloadKind::Binary,
                (_, kind) => kind,
            };
            let events = EventLink::open(&self.stream, &self.position, cursor, kind).await;
            match events {
                Ok(events) => self.link = ReadLink::Events(Box::new(events)),
                Err(failure) => self.events_failed(failure)?,
            }
        }
        Ok(())
    }

    async fn open_long_poll(&self) -> Result<PageBody, ClientError> {
        let mut call =
            live_call(&self.stream, &self.position, "long-poll", self.cursor.as_deref())?;
        call.timeout = self.stream.live_timeout();
        let inner = &self.stream.client().inner;
        let response = inner.transport.send(call).await?;
        PageBody::new(response, self.position.clone(), inner.max_message)
    }

    fn saw(&mut self, page: &PageBody) {
        self.kind = match page.content_type() {
            // A 204 has none.
            None => self.kind,
            Some(content_type) => PayloadKind::of(content_type),
        };
        if let Some(cursor) = page.cursor() {
            self.cursor = Some(cursor.into());
        }
    }

    fn event(
        &mut self,
        step: Result<EventStep, EventFailure>,
    ) -> Result<Option<StreamBatch>, ClientError> {
        match step {
            Ok(EventStep::Batch(batch)) => return Ok(Some(batch)),
            Ok(EventStep::Moved { position, cursor, up_to_date, closed }) => {
                self.failures.clear();
                self.up_to_date = up_to_date || closed;
                self.from = StartFrom::Position(position.clone());
                self.position = position;
                self.cursor = cursor.or(self.cursor.take());
                self.ended = closed;
            }
            Ok(EventStep::Inexact) => {
                tracing::debug!(
                    url = self.stream.url(),
                    "the text has line ends; long-poll from here"
                );
                self.long_poll = true;
                self.link = ReadLink::None;
            }
            Ok(EventStep::Ended) => {
                self.count_cut();
                if self.opened.elapsed() < EMPTY_PAUSE {
                    self.wait_until = Some(self.opened + EMPTY_PAUSE);
                }
                self.link = ReadLink::None;
            }
            Err(failure) => self.events_failed(failure)?,
        }
        Ok(None)
    }

    fn events_failed(&mut self, failure: EventFailure) -> Result<(), ClientError> {
        self.count_cut();
        self.link = ReadLink::None;
        match failure {
            EventFailure::Unavailable(reason) if self.mode == FollowMode::Automatic => {
                tracing::debug!(url = self.stream.url(), reason, "long-poll in place of SSE");
                telemetry::fell_back();
                self.long_poll = true;
                Ok(())
            }
            EventFailure::Unavailable(reason) => {
                let url = self.stream.url().to_owned();
                Err(ClientError::Transport { url, reason, unsent: false })
            }
            EventFailure::Failed(error) => Err(error),
        }
    }

    /// Counts an SSE response that ended early, and stops using SSE after several.
    fn count_cut(&mut self) {
        if let ReadLink::Events(events) = &self.link {
            self.cuts = if events.was_short() { self.cuts + 1 } else { 0 };
            if self.cuts >= CUTS && self.mode == FollowMode::Automatic {
                tracing::debug!(
                    url = self.stream.url(),
                    "SSE is cut again and again; long-poll from here"
                );
                telemetry::fell_back();
                self.long_poll = true;
            }
        }
    }

    /// Plans the next attempt after `error`, or returns it.
    fn failed(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.link = ReadLink::None;
        if let (ClientError::Trimmed { earliest, .. }, true) = (&error, self.skip_trimmed) {
            self.position = StreamPosition::at(earliest.clone());
            self.from = StartFrom::Position(self.position.clone());
            self.gaps += 1;
            tracing::debug!(%error, url = self.stream.url(), "a subscription skips what was removed");
            return Ok(());
        }
        // Within a page only another page can be resumed.
        self.caught_up &= self.position.skip() == 0;
        let next = self.failures.next_try(&self.retry, &error);
        if next.is_none() {
            self.failures.clear();
            return Err(error);
        }
        telemetry::retried("follow");
        tracing::debug!(%error, url = self.stream.url(), "a subscription resumes after a pause");
        self.wait_until = next;
        Ok(())
    }
}
