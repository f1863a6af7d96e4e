//! An idempotent producer (§5.2.1): appends in the background, in order, each message once.

mod batch;
mod core;
mod driver;
mod error;
mod outcome;

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use durable_streams_protocol::{ContentType, ProducerId};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::Instant,
};

use self::{
    core::{CoreOptions, ProducerCore},
    driver::{ProducerDriver, ProducerShared},
    outcome::PendingOutcome,
};
use crate::{error::ClientError, position::StreamOffset, retry::RetryPolicy, stream::Stream};

pub use error::ProducerError;

/// Settings of a [`Producer`].
#[derive(Clone, Debug)]
pub struct ProducerBuilder {
    stream: Stream,
    id: String,
    epoch: Option<u64>,
    first_seq: u64,
    content_type: Option<ContentType>,
    linger: Duration,
    max_batch: usize,
    max_batch_messages: u64,
    max_in_flight: usize,
    max_buffered: usize,
    retry: RetryPolicy,
}

/// Appends messages in the background: in batches, several of them in flight, in order, each message exactly once,
/// whatever happens to requests and responses.
///
/// Messages are accepted by [`append`](Producer::append) and stored later. [`flush`](Producer::flush) waits until all
/// are durable. **A producer that is dropped stops at once**: what is not acknowledged may be stored or not, its
/// [`Delivery`] says [`ProducerError::Stopped`], and a warning with the count is logged. Call
/// [`close`](Producer::close) before.
///
/// Memory: at most [`max_buffered`](ProducerBuilder::max_buffered) bytes of messages, and their framing.
#[derive(Debug)]
pub struct Producer {
    shared: Arc<ProducerShared>,
    json: bool,
    max_buffered: usize,
    driver: JoinHandle<()>,
}

/// The outcome of one message. It need not be awaited; the message is sent all the same.
#[derive(Clone, Debug)]
pub struct Delivery {
    outcome: PendingOutcome,
}

impl ProducerBuilder {
    pub(crate) fn new(stream: Stream, id: &str) -> Self {
        ProducerBuilder {
            stream,
            id: id.to_owned(),
            epoch: None,
            first_seq: 0,
            content_type: None,
            linger: Duration::from_millis(5),
            max_batch: 512 << 10,
            max_batch_messages: u64::MAX,
            max_in_flight: 4,
            max_buffered: 16 << 20,
            retry: RetryPolicy::forever(),
        }
    }

    /// The session of this producer, which the application counts: one more than the last time. The first batch has
    /// number 0. Repeating a session with the same messages, cut in the same way, stores nothing twice.
    ///
    /// Without it an epoch is claimed that is newer than all before, which fences every producer of the same id that
    /// still runs.
    #[must_use]
    pub fn epoch(mut self, epoch: u64) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// The number of the first batch, to continue a session of [`epoch`](Self::epoch); 0 by default.
    #[must_use]
    pub fn first_seq(mut self, seq: u64) -> Self {
        self.first_seq = seq;
        self
    }

    /// The stream's type. Without it [`start`](Self::start) asks the server.
    #[must_use]
    pub fn content_type(mut self, content_type: ContentType) -> Self {
        self.content_type = Some(content_type);
        self
    }

    /// How long a message waits for others to travel with; 5 ms by default.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// The size at which a batch goes without waiting, bytes; 512 KiB by default. A single message may be larger.
    #[must_use]
    pub fn max_batch(mut self, bytes: usize) -> Self {
        self.max_batch = bytes;
        self
    }

    /// The number of messages at which a batch goes without waiting; unbounded by default.
    #[must_use]
    pub fn max_batch_messages(mut self, messages: u64) -> Self {
        self.max_batch_messages = messages;
        self
    }

    /// How many batches are in flight at a time; 4 by default.
    #[must_use]
    pub fn max_in_flight(mut self, batches: usize) -> Self {
        self.max_in_flight = batches;
        self
    }

    /// How many bytes of messages may be unacknowledged; 16 MiB by default. [`Producer::append`] waits beyond it.
    #[must_use]
    pub fn max_buffered(mut self, bytes: usize) -> Self {
        self.max_buffered = bytes.min(Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        self
    }

    /// How failed requests are repeated; for ever by default.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Starts the producer on the current tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::InvalidArgument`] for an id that is not 1 to 256 bytes of visible ASCII, an epoch beyond 2^53 - 1,
    /// or a bound of 0; those of [`Stream::head`] when the type is to be asked for.
    pub async fn start(self) -> Result<Producer, ClientError> {
        let invalid = |reason: &str| ClientError::InvalidArgument {
            what: "the producer",
            reason: reason.to_owned(),
        };
        let visible = self.id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let id = ProducerId::new(&self.id)
            .filter(|_| visible && self.id.trim() == self.id)
            .ok_or_else(|| invalid("its id must be 1 to 256 bytes of visible ASCII"))?;
        if self.epoch.unwrap_or(0).max(self.first_seq) >= 1 << 53 {
            return Err(invalid("epoch and sequence number must be below 2^53"));
        }
        let bounds = [self.max_batch, self.max_in_flight, self.max_buffered];
        if bounds.contains(&0) || self.max_batch_messages == 0 {
            return Err(invalid(
                "max_batch, max_batch_messages, max_in_flight and max_buffered must be at least 1",
            ));
        }
        let content_type = match self.content_type {
            Some(content_type) => content_type,
            None => self.stream.content_type().await?,
        };
        let json = content_type.is_json();
        let core = ProducerCore::new(CoreOptions {
            id: id.clone(),
            epoch: self.epoch,
            first_seq: self.first_seq,
            json,
            linger: self.linger,
            max_batch: self.max_batch,
            max_batch_messages: self.max_batch_messages,
            max_in_flight: self.max_in_flight,
            retry: self.retry,
        });
        let shared = Arc::new(ProducerShared {
            core: Mutex::new(core),
            changed: Notify::new(),
            room: Semaphore::new(self.max_buffered),
        });
        let driver = ProducerDriver::new(shared.clone(), self.stream, &id, &content_type)?;
        let driver = tokio::spawn(driver.run());
        Ok(Producer { shared, json, max_buffered: self.max_buffered, driver })
    }
}

impl Producer {
    /// Accepts a message: bytes, or the text of one JSON value where the stream is of `application/json`. Waits only
    /// while the buffer is full. Messages of one caller are stored in the order of its calls.
    ///
    /// # Errors
    /// Why the producer has stopped; [`ProducerError::InvalidMessage`] and [`ProducerError::TooLarge`] for this message
    /// alone.
    pub async fn append(&self, message: impl AsRef<[u8]>) -> Result<Delivery, ProducerError> {
        let message = message.as_ref();
        let cost = self.check(message)?;
        let room = self.shared.room.acquire_many(cost).await;
        self.enqueue(message, room.map_err(|_| ProducerError::Stopped)?)
    }

    /// [`append`](Self::append), without waiting.
    ///
    /// # Errors
    /// [`ProducerError::BufferFull`]; those of [`append`](Self::append).
    pub fn try_append(&self, message: impl AsRef<[u8]>) -> Result<Delivery, ProducerError> {
        let message = message.as_ref();
        let cost = self.check(message)?;
        match self.shared.room.try_acquire_many(cost) {
            Ok(room) => self.enqueue(message, room),
            Err(tokio::sync::TryAcquireError::NoPermits) => Err(ProducerError::BufferFull),
            Err(tokio::sync::TryAcquireError::Closed) => Err(ProducerError::Stopped),
        }
    }

    /// Appends `message` as JSON.
    ///
    /// # Errors
    /// [`ProducerError::InvalidMessage`] when it does not serialize; those of [`append`](Self::append).
    pub async fn append_json<T: Serialize + ?Sized>(
        &self,
        message: &T,
    ) -> Result<Delivery, ProducerError> {
        let text = serde_json::to_vec(message)
            .map_err(|error| ProducerError::InvalidMessage(error.to_string()))?;
        self.append(text).await
    }

    /// Waits until every message accepted so far is durable.
    ///
    /// # Errors
    /// Why the producer has stopped; then some of them are not known to be stored.
    pub async fn flush(&self) -> Result<(), ProducerError> {
        let outcomes = self.shared.core.lock().flush()?;
        self.wait_for(outcomes).await.map(|_| ())
    }

    /// Flushes, then ends the producer.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush).
    pub async fn close(self) -> Result<(), ProducerError> {
        let flushed = self.flush().await;
        self.shared.core.lock().stop();
        flushed
    }

    /// Flushes, closes the stream in the same step as the last batch, and ends the producer. Returns the end of the
    /// stream. A fenced producer closes nothing.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush).
    pub async fn close_stream(self) -> Result<StreamOffset, ProducerError> {
        let outcomes = self.shared.core.lock().close_stream()?;
        self.wait_for(outcomes).await?.ok_or(ProducerError::Stopped)
    }

    /// Messages that are accepted and not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        self.shared.core.lock().unacknowledged()
    }

    async fn wait_for(
        &self,
        outcomes: Vec<PendingOutcome>,
    ) -> Result<Option<StreamOffset>, ProducerError> {
        self.shared.changed.notify_one();
        let mut last = None;
        for outcome in outcomes {
            last = Some(Delivery { outcome }.wait().await?);
        }
        Ok(last)
    }

    /// Checks a message, and returns how much of the buffer it takes.
    fn check(&self, message: &[u8]) -> Result<u32, ProducerError> {
        if message.is_empty() {
            return Err(ProducerError::InvalidMessage("it is empty".to_owned()));
        }
        if self.json {
            // In a batch, a message that is no JSON would be refused with all others, or be several.
            serde_json::from_slice::<&serde_json::value::RawValue>(message)
                .map_err(|error| ProducerError::InvalidMessage(error.to_string()))?;
        }
        let (bytes, limit) = (message.len(), self.max_buffered);
        u32::try_from(bytes)
            .ok()
            .filter(|_| bytes <= limit)
            .ok_or(ProducerError::TooLarge { bytes, limit })
    }

    fn enqueue(
        &self,
        message: &[u8],
        room: tokio::sync::SemaphorePermit<'_>,
    ) -> Result<Delivery, ProducerError> {
        let (outcome, has_news) = {
            let mut core = self.shared.core.lock();
            (core.push(message, Instant::now())?, core.has_news())
        };
        // The driver returns it when the batch is acknowledged.
        room.forget();
        if has_news {
            self.shared.changed.notify_one();
        }
        Ok(Delivery { outcome })
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let mut core = self.shared.core.lock();
        let messages = core.unacknowledged();
        if messages > 0 && core.check_open().is_ok() {
            core.fail(ProducerError::Stopped);
        }
        core.stop();
        self.driver.abort();
    }
}

impl Delivery {
    /// Waits until the message is durable. Returns the tail after its batch: a reader at that offset has it. After a
    /// repeated request it can be later than the batch.
    ///
    /// # Errors
    /// Why the producer stopped before.
    pub async fn wait(self) -> Result<StreamOffset, ProducerError> {
        self.outcome.wait().await
    }
}

impl IntoFuture for Delivery {
    type Output = Result<StreamOffset, ProducerError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}
