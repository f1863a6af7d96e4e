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
use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::core::{BatchRequest, BatchResponse, ProducerCore};
use crate::{
    dedicated::DedicatedConnection,
    error::ClientError,
    exchange::{StreamCall, broken},
    fields::put,
    stream::Stream,
};

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
    in_flight: FuturesUnordered<BoxFuture<'static, FinishedBatch>>,
    /// Connections that carry no request.
    idle: Vec<DedicatedConnection>,
    /// Bytes of acknowledged messages that are still taken from `room`.
    freed: usize,
}

/// A request that was sent, and what became of it.
struct FinishedBatch {
    request: BatchRequest,
    response: BatchResponse,
    connection: DedicatedConnection,
}

struct BatchSender {
    stream: Stream,
    /// A batch but for its numbers and its body.
    template: StreamCall,
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
        let mut template = stream.call("produce", Method::POST);
        put(&mut template.headers, headers::PRODUCER_ID, id.as_str())?;
        put(&mut template.headers, header::CONTENT_TYPE, content_type.as_str())?;
        // Each request's own take their places.
        for name in [headers::PRODUCER_EPOCH, headers::PRODUCER_SEQ, header::CONTENT_LENGTH] {
            template.headers.insert(name, 0.into());
        }
        let sender = Arc::new(BatchSender { stream, template, echoes: AtomicBool::new(false) });
        let in_flight = FuturesUnordered::new();
        Ok(ProducerDriver { shared, sender, in_flight, idle: Vec::new(), freed: 0 })
    }

    pub(super) async fn run(mut self) {
        // Requests that share a connection, or have one of the client's pool, are written by its task.
        let tasks_write = !self.sender.stream.client().inner.transport.only_http1;
        // A request was handed to its connection, and the connection's task may not have run since.
        let mut unwritten = false;
        loop {
            let (request, wake_at) = {
                let mut core = self.shared.core.lock();
                (core.next_request(Instant::now()), core.next_time())
            };
            if let Some(request) = request {
                if unwritten {
                    // The driver yields between two, so that they arrive in order and the server holds none for its
                    // predecessor.
                    tokio::task::yield_now().await;
                }
                unwritten = tasks_write;
                self.begin(request);
                continue;
            }
            // Only now: the next requests are on their way before the callers wake.
            self.shared.room.add_permits(std::mem::take(&mut self.freed));
            let (finished, waited) = self.event(wake_at).await;
            unwritten &= !waited;
            if let Some(finished) = finished {
                self.take(finished);
            }
        }
    }

    /// Waits for a response, a message or `wake_at`. Also returns whether other tasks could run meanwhile.
    async fn event(&mut self, wake_at: Option<Instant>) -> (Option<FinishedBatch>, bool) {
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

    /// Begins a request: polls it once, so that it is written, or handed to its connection.
    fn begin(&mut self, request: BatchRequest) {
        let sender = self.sender.clone();
        let mut connection = self.idle.pop().unwrap_or_default();
        self.in_flight.push(Box::pin(async move {
            let response = sender.send(&request, &mut connection).await;
            FinishedBatch { request, response, connection }
        }));
        if let Some(Some(finished)) = self.in_flight.next().now_or_never() {
            self.take(finished);
        }
    }

    fn take(&mut self, finished: FinishedBatch) {
        self.idle.push(finished.connection);
        self.freed += self.shared.core.lock().take(&finished.request, finished.response);
    }
}

impl BatchSender {
    /// Sends one batch once, and classifies the response.
    async fn send(
        &self,
        request: &BatchRequest,
        connection: &mut DedicatedConnection,
    ) -> BatchResponse {
        let sent = self.try_send(request, connection).await;
        sent.unwrap_or_else(|error| {
            let Some(refusal) = error.refusal() else { return BatchResponse::Failed(error) };
            match (refusal.status.as_u16(), refusal.producer_epoch, refusal.expected_seq) {
                (403, Some(current), _) => BatchResponse::StaleEpoch { current },
                (409, _, Some(expected)) if !refusal.closed => BatchResponse::Gap { expected },
                _ => BatchResponse::Failed(error),
            }
        })
    }

    async fn try_send(
        &self,
        request: &BatchRequest,
        connection: &mut DedicatedConnection,
    ) -> Result<BatchResponse, ClientError> {
        let mut call = self.template.clone();
        call.headers.insert(headers::PRODUCER_EPOCH, request.epoch.into());
        call.headers.insert(headers::PRODUCER_SEQ, request.seq.into());
        call.headers.insert(header::CONTENT_LENGTH, request.body.len().into());
        if request.close {
            call.headers.insert(headers::STREAM_CLOSED, headers::TRUE);
        }
        if request.body.is_empty() {
            call.headers.remove(header::CONTENT_TYPE);
        }
        call.body = request.body.clone();
        let receipt = self.stream.client().inner.transport.send_batch(call, connection).await?;
        // A response that was sent twice can be taken for that to the next request on its connection. The highest accepted
        // number cannot be below this one; a new batch is answered with its epoch where any was; an append creates nothing,
        // and only reads have cursors, or a type where the probe, which no server accepts, seems to be accepted.
        let echoes = self.echoes.fetch_or(receipt.epoch.is_some(), Ordering::Relaxed);
        let of_another = match receipt.epoch {
            Some(epoch) => epoch != request.epoch,
            None => {
                (echoes && receipt.status == StatusCode::OK)
                    || receipt.status == StatusCode::CREATED
                    || receipt.has_cursor
                    || (request.is_probe() && receipt.has_type)
            }
        };
        if of_another || receipt.seq.is_some_and(|seq| seq < request.seq) {
            connection.close();
            return Err(broken(&self.template.shown, "it answers another request"));
        }
        let offset = match receipt.next_offset {
            Some(offset) => offset,
            // Some servers return none for a batch that they had before.
            None => Box::pin(self.stream.head()).await?.tail,
        };
        Ok(BatchResponse::Accepted { offset })
    }
}
