//! Sends a producer's batches, several at a time.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use durable_streams_protocol::{ContentType, ProducerId, headers};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::core::{BatchRequest, BatchResponse, ProducerCore};
use crate::{error::ClientError, fields::sendable, stream::Stream};

/// Between a [`Producer`](super::Producer) and its driver.
#[derive(Debug)]
pub(super) struct ProducerShared {
    pub(super) core: Mutex<ProducerCore>,
    /// There may be something to send.
    pub(super) changed: Notify,
    /// Bytes of messages that may still be accepted.
    pub(super) room: Semaphore,
}

/// Runs until the producer is dropped.
pub(super) struct ProducerDriver {
    shared: Arc<ProducerShared>,
    sender: Arc<BatchSender>,
    in_flight: FuturesUnordered<BoxFuture<'static, (BatchRequest, BatchResponse)>>,
    /// Bytes of acknowledged messages that are still taken from `room`.
    freed: usize,
}

struct BatchSender {
    stream: Stream,
    /// Of every batch.
    id: HeaderValue,
    content_type: HeaderValue,
    /// The server has returned a batch's epoch with its success (§5.2.1), as most servers do always.
    echoes: AtomicBool,
}

impl ProducerDriver {
    pub(super) fn new(
        shared: Arc<ProducerShared>,
        stream: Stream,
        id: &ProducerId,
        content_type: &ContentType,
    ) -> Result<Self, ClientError> {
        let id = sendable(&headers::PRODUCER_ID, id.as_str())?;
        let content_type = sendable(&header::CONTENT_TYPE, content_type.as_str())?;
        let echoes = AtomicBool::new(false);
        let sender = Arc::new(BatchSender { stream, id, content_type, echoes });
        Ok(ProducerDriver { shared, sender, in_flight: FuturesUnordered::new(), freed: 0 })
    }

    pub(super) async fn run(mut self) {
        // A request was handed to its connection, and the connection's task may not have run since.
        let mut unwritten = false;
        loop {
            let (request, wake_at) = {
                let mut core = self.shared.core.lock();
                (core.next_request(Instant::now()), core.next_time())
            };
            if let Some(request) = request {
                if unwritten {
                    // Requests in flight at once travel on connections of their own, whose tasks write them. The driver
                    // yields between two, so that they arrive in order and the server holds none for its predecessor.
                    tokio::task::yield_now().await;
                }
                unwritten = true;
                self.begin(request);
                continue;
            }
            // Only now: the next requests are on their way before the callers wake.
            self.shared.room.add_permits(std::mem::take(&mut self.freed));
            let (response, waited) = self.event(wake_at).await;
            unwritten &= !waited;
            if let Some((request, response)) = response {
                self.take(&request, response);
            }
        }
    }

    /// Waits for a response, a message or `wake_at`. Also returns whether other tasks could run meanwhile.
    async fn event(
        &mut self,
        wake_at: Option<Instant>,
    ) -> (Option<(BatchRequest, BatchResponse)>, bool) {
        let event = async {
            let wake = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = self.in_flight.next() => Some(done),
                () = self.shared.changed.notified() => None,
                () = wake => None,
            }
        };
        let (mut event, mut waited) = (pin!(event), false);
        let response = poll_fn(|context| {
            let polled = event.as_mut().poll(context);
            waited |= polled.is_pending();
            polled
        });
        (response.await, waited)
    }

    /// Begins a request: polls it once, so that it is handed to its connection.
    fn begin(&mut self, request: BatchRequest) {
        let sender = self.sender.clone();
        self.in_flight.push(Box::pin(async move {
            let response = sender.send(&request).await;
            (request, response)
        }));
        if let Some(Some((request, response))) = self.in_flight.next().now_or_never() {
            self.take(&request, response);
        }
    }

    fn take(&mut self, request: &BatchRequest, response: BatchResponse) {
        self.freed += self.shared.core.lock().take(request, response);
    }
}

impl BatchSender {
    /// Sends one batch once, and classifies the response.
    async fn send(&self, request: &BatchRequest) -> BatchResponse {
        let sent = self.try_send(request).await;
        sent.unwrap_or_else(|error| {
            let Some(refusal) = error.refusal() else { return BatchResponse::Failed(error) };
            match (refusal.status.as_u16(), refusal.producer_epoch, refusal.expected_seq) {
                (403, Some(current), _) => BatchResponse::StaleEpoch { current },
                (409, _, Some(expected)) if !refusal.closed => BatchResponse::Gap { expected },
                _ => BatchResponse::Failed(error),
            }
        })
    }

    async fn try_send(&self, request: &BatchRequest) -> Result<BatchResponse, ClientError> {
        let mut call = self.stream.call("produce", Method::POST);
        let producer = &request.producer;
        call.headers.reserve(8);
        call.headers.insert(headers::PRODUCER_ID, self.id.clone());
        call.headers.insert(headers::PRODUCER_EPOCH, producer.epoch.into());
        call.headers.insert(headers::PRODUCER_SEQ, producer.seq.into());
        if request.close {
            call.headers.insert(headers::STREAM_CLOSED, headers::TRUE);
        }
        if !request.body.is_empty() {
            call.headers.insert(header::CONTENT_TYPE, self.content_type.clone());
            call.body = request.body.clone();
        }
        let response = self.stream.client().inner.transport.send_for_head(&call).await?;
        // A response that was sent twice can be taken for that to the next request on its connection. The highest accepted
        // number cannot be below this one; a new batch is answered with its epoch where any was; an append creates nothing,
        // and only reads have cursors, or a type where the probe, which no server accepts, seems to be accepted.
        let facts = &response.facts;
        let echoes = self.echoes.fetch_or(facts.producer_epoch.is_some(), Ordering::Relaxed);
        let of_another = match facts.producer_epoch {
            Some(epoch) => epoch != producer.epoch,
            None => {
                (echoes && response.status == StatusCode::OK)
                    || response.status == StatusCode::CREATED
                    || response.cursor.is_some()
                    || (request.is_probe() && facts.content_type.is_some())
            }
        };
        if of_another || facts.producer_seq.is_some_and(|seq| seq < producer.seq) {
            return Err(response.broken("it answers another request"));
        }
        let offset = match response.next_offset() {
            Ok(offset) => offset,
            // Some servers return none for a batch that they had before.
            Err(_) => self.stream.head().await?.tail,
        };
        Ok(BatchResponse::Accepted { offset })
    }
}
