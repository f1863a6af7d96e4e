//! Sends a producer's batches, several at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use durable_streams_protocol::{ContentType, headers};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::core::{BatchRequest, BatchResponse, ProducerCore};
use crate::{error::ClientError, fields::put, stream::Stream};

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
}

struct BatchSender {
    stream: Stream,
    content_type: ContentType,
    /// The server has returned a batch's epoch with its success (§5.2.1), as most servers do always.
    echoes: AtomicBool,
}

impl ProducerDriver {
    pub(super) fn new(
        shared: Arc<ProducerShared>,
        stream: Stream,
        content_type: ContentType,
    ) -> Self {
        let sender = Arc::new(BatchSender { stream, content_type, echoes: AtomicBool::new(false) });
        ProducerDriver { shared, sender, in_flight: FuturesUnordered::new() }
    }

    pub(super) async fn run(mut self) {
        loop {
            let (request, wake_at) = {
                let mut core = self.shared.core.lock();
                (core.next_request(Instant::now()), core.next_time())
            };
            if let Some(request) = request {
                self.begin(request).await;
                continue;
            }
            let wake = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((request, response)) = self.in_flight.next() => self.take(&request, response),
                () = self.shared.changed.notified() => {}
                () = wake => {}
            }
        }
    }

    /// Begins a request. Several in flight travel on connections of their own, whose tasks write them: this task yields to
    /// each, so that batches arrive in order and the server refuses few for a gap.
    async fn begin(&mut self, request: BatchRequest) {
        let sender = self.sender.clone();
        self.in_flight.push(Box::pin(async move {
            let response = sender.send(&request).await;
            (request, response)
        }));
        if let Poll::Ready(Some((request, response))) = futures_util::poll!(self.in_flight.next()) {
            self.take(&request, response);
        }
        tokio::task::yield_now().await;
    }

    fn take(&self, request: &BatchRequest, response: BatchResponse) {
        let freed = self.shared.core.lock().take(request, response);
        self.shared.room.add_permits(freed);
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
        put(&mut call.headers, headers::PRODUCER_ID, producer.id.as_str())?;
        put(&mut call.headers, headers::PRODUCER_EPOCH, &producer.epoch.to_string())?;
        put(&mut call.headers, headers::PRODUCER_SEQ, &producer.seq.to_string())?;
        if request.close {
            call.headers.insert(headers::STREAM_CLOSED, headers::TRUE);
        }
        if !request.body.is_empty() {
            put(&mut call.headers, header::CONTENT_TYPE, self.content_type.as_str())?;
            call.body = request.body.clone();
        }
        let response = self.stream.client().inner.transport.send(&call).await?;
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
