//! Sends a producer's batches, several at a time.

use std::sync::Arc;

use durable_streams_protocol::{ContentType, headers};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{Method, header};
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
}

impl ProducerDriver {
    pub(super) fn new(
        shared: Arc<ProducerShared>,
        stream: Stream,
        content_type: ContentType,
    ) -> Self {
        let sender = Arc::new(BatchSender { stream, content_type });
        ProducerDriver { shared, sender, in_flight: FuturesUnordered::new() }
    }

    pub(super) async fn run(mut self) {
        loop {
            let (requests, wake_at) = {
                let mut core = self.shared.core.lock();
                let now = Instant::now();
                let requests: Vec<_> = std::iter::from_fn(|| core.next_request(now)).collect();
                (requests, core.next_time())
            };
            for request in requests {
                let sender = self.sender.clone();
                self.in_flight.push(Box::pin(async move {
                    let response = sender.send(&request).await;
                    (request, response)
                }));
            }
            let wake = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((request, response)) = self.in_flight.next() => {
                    let freed = self.shared.core.lock().take(&request, response);
                    self.shared.room.add_permits(freed);
                }
                () = self.shared.changed.notified() => {}
                () = wake => {}
            }
        }
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
        let mut call = self.stream.call(Method::POST);
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
        // The highest accepted number cannot be below this one: then it is the response to another request.
        let facts = &response.facts;
        if facts.producer_epoch.is_some_and(|epoch| epoch != producer.epoch)
            || facts.producer_seq.is_some_and(|seq| seq < producer.seq)
        {
            return Err(response.broken("it answers another batch"));
        }
        let offset = match response.next_offset() {
            Ok(offset) => offset,
            // Some servers return none for a batch that they had before.
            Err(_) => self.stream.head().await?.tail,
        };
        Ok(BatchResponse::Accepted { offset })
    }
}
