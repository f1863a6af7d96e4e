//! What a producer sends next, and what responses mean for it: plain state, no I/O, no clock.
//!
//! Invariants
//! - Batches are numbered in the order of their messages, and a batch keeps its number and its bytes until it is
//!   acknowledged. So a repeated request is recognized by the server (§5.2.1).
//! - Until the server has accepted the first batch of the epoch, only that one is in flight.

use std::collections::VecDeque;

use bytes::Bytes;
use durable_streams_protocol::ProducerId;
use tokio::time::Instant;

use super::{
    batch::{BatchState, OpenBatch, SealedBatch},
    error::ProducerError,
    outcome::PendingOutcome,
};
use crate::{
    error::ClientError,
    position::StreamOffset,
    retry::{FailureCount, RetryPolicy},
    telemetry,
};

/// No producer gets this far: a request with it asks for the state of a producer and stores nothing.
const PROBE_SEQ: u64 = (1 << 53) - 1;
/// A claimed epoch is up to so many above the newest: two producers that claim at once do not take the same one.
const CLAIM_SPREAD: u64 = 1 << 16;

/// Settings that the state depends on.
#[derive(Clone, Debug)]
pub(super) struct CoreOptions {
    pub(super) id: ProducerId,
    /// `None` claims one that is newer than all before.
    pub(super) epoch: Option<u64>,
    pub(super) first_seq: u64,
    pub(super) json: bool,
    pub(super) linger: std::time::Duration,
    pub(super) max_batch: usize,
    pub(super) max_batch_messages: u64,
    pub(super) max_in_flight: usize,
    pub(super) retry: RetryPolicy,
}

/// The state of a producer.
#[derive(Debug)]
pub(super) struct ProducerCore {
    options: CoreOptions,
    epoch: EpochState,
    next_seq: u64,
    open: OpenBatch,
    /// When the open batch has to go.
    linger_until: Option<Instant>,
    flushing: bool,
    /// A batch was begun or sealed since the driver looked for requests.
    news: bool,
    /// Not acknowledged, in order.
    queue: VecDeque<SealedBatch>,
    in_flight: usize,
    failures: FailureCount,
    retry_at: Option<Instant>,
    /// A batch that closes the stream is sealed.
    closing: bool,
    failed: Option<ProducerError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EpochState {
    /// To be asked for.
    Unknown,
    Probing,
    /// Chosen; the server has accepted nothing of it that is known of.
    Chosen(u64),
    /// The server has accepted a batch of it.
    Established(u64),
}

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BatchRequest {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) body: Bytes,
    pub(super) close: bool,
}

impl BatchRequest {
    /// It asks for the newest epoch, and no server stores it.
    pub(super) fn is_probe(&self) -> bool {
        self.seq == PROBE_SEQ
    }
}

/// How the server received a request.
#[derive(Clone, Debug)]
pub(super) enum BatchResponse {
    /// Stored, now or before.
    Accepted {
        offset: StreamOffset,
    },
    /// A batch before it is missing.
    Gap {
        expected: u64,
    },
    /// A newer epoch has begun.
    StaleEpoch {
        current: u64,
    },
    Failed(ClientError),
}

impl ProducerCore {
    pub(super) fn new(options: CoreOptions) -> Self {
        ProducerCore {
            epoch: options.epoch.map_or(EpochState::Unknown, EpochState::Chosen),
            next_seq: options.first_seq,
            open: OpenBatch::new(options.json),
            linger_until: None,
            flushing: false,
            news: false,
            queue: VecDeque::new(),
            in_flight: 0,
            failures: FailureCount::default(),
            retry_at: None,
            closing: false,
            failed: None,
            options,
        }
    }

    /// Takes a message, whose outcome the receiver will have.
    pub(super) fn push(
        &mut self,
        message: &[u8],
        now: Instant,
    ) -> Result<PendingOutcome, ProducerError> {
        self.check_open()?;
        if !self.open.is_empty() && self.open.length_with(message) > self.options.max_batch {
            self.seal(false);
        }
        self.news |= self.open.is_empty();
        let outcome = self.open.push(message);
        self.linger_until.get_or_insert(now + self.options.linger);
        if self.open.is_full(self.options.max_batch, self.options.max_batch_messages) {
            self.seal(false);
        }
        Ok(outcome)
    }

    /// Whether the driver has to look for requests. With as many in flight as may be, it does so after the next response
    /// anyway.
    pub(super) fn has_news(&self) -> bool {
        self.news && self.in_flight < self.options.max_in_flight
    }

    /// Why no message can be taken.
    pub(super) fn check_open(&self) -> Result<(), ProducerError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.closing => Err(ProducerError::Stopped),
            None => Ok(()),
        }
    }

    /// Sends what is buffered without waiting for more, and returns the outcomes of all that is not acknowledged.
    pub(super) fn flush(&mut self) -> Result<Vec<PendingOutcome>, ProducerError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut outcomes: Vec<_> = self.queue.iter().map(SealedBatch::subscribe).collect();
        if !self.open.is_empty() {
            outcomes.push(self.open.subscribe());
            self.flushing = true;
        }
        Ok(outcomes)
    }

    /// Seals what is buffered as the last batch, with which the stream is closed.
    pub(super) fn close_stream(&mut self) -> Result<Vec<PendingOutcome>, ProducerError> {
        self.check_open()?;
        self.seal(true);
        self.closing = true;
        self.flush()
    }

    /// Refuses messages from now on.
    pub(super) fn stop(&mut self) {
        self.closing = true;
    }

    /// Messages that are not acknowledged.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.queue.iter().map(|batch| batch.messages).sum::<u64>() + self.open.messages()
    }

    /// What to send now. Call it until it returns `None`.
    pub(super) fn next_request(&mut self, now: Instant) -> Option<BatchRequest> {
        self.news = false;
        if self.failed.is_some() || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        self.retry_at = None;
        let has_work = !self.queue.is_empty() || !self.open.is_empty();
        let (epoch, limit) = match self.epoch {
            EpochState::Probing => return None,
            EpochState::Unknown if !has_work => return None,
            EpochState::Unknown => {
                self.epoch = EpochState::Probing;
                let body = Bytes::from_static(b"0");
                return Some(BatchRequest { epoch: 0, seq: PROBE_SEQ, body, close: false });
            }
            EpochState::Chosen(epoch) => (epoch, 1),
            EpochState::Established(epoch) => (epoch, self.options.max_in_flight),
        };
        if self.in_flight >= limit {
            return None;
        }
        let lingered = self.linger_until.is_some_and(|until| until <= now);
        if !self.open.is_empty() && (lingered || self.flushing) {
            self.seal(false);
        }
        let first_unsent =
            self.queue.iter().position(|batch| batch.state != BatchState::InFlight)?;
        let first = self.queue.front()?.seq;
        let batch = self.queue.get_mut(first_unsent)?;
        // A closed stream refuses the repetition of every batch but the one that closed it (§5.2.1).
        let goes_alone = batch.state == BatchState::AfterOthers || batch.close;
        if goes_alone && first_unsent > 0 {
            return None;
        }
        batch.state = BatchState::InFlight;
        batch.sent_after = first;
        self.in_flight += 1;
        Some(BatchRequest { epoch, seq: batch.seq, body: batch.body.clone(), close: batch.close })
    }

    /// When to call [`next_request`](Self::next_request) although nothing has happened.
    pub(super) fn next_time(&self) -> Option<Instant> {
        match (self.retry_at, self.open.is_empty()) {
            (Some(at), _) => Some(at),
            (None, false) if self.in_flight < self.options.max_in_flight => self.linger_until,
            (None, _) => None,
        }
    }

    /// Takes the response to `request`. Returns how many bytes of the buffer are free again.
    pub(super) fn take(&mut self, request: &BatchRequest, response: BatchResponse) -> usize {
        if self.failed.is_some() {
            return 0;
        }
        if request.is_probe() {
            return self.take_probe(response);
        }
        self.in_flight -= 1;
        let seq = request.seq;
        let Some(at) = self.queue.iter().position(|batch| batch.seq == seq) else { return 0 };
        match response {
            BatchResponse::Accepted { offset } => {
                self.failures.clear();
                self.epoch = EpochState::Established(request.epoch);
                let Some(batch) = self.queue.remove(at) else { return 0 };
                let cost = batch.cost;
                telemetry::acknowledged(batch.messages, batch.body.len());
                batch.resolve(Ok(offset));
                cost
            }
            BatchResponse::Gap { expected } => {
                // Others may have been accepted since; those acknowledged before it was sent must be known.
                let acknowledged = self.queue.get(at).map_or(0, |batch| batch.sent_after);
                if expected < acknowledged {
                    return self.fail(ProducerError::ServerLostBatches { expected, acknowledged });
                }
                telemetry::gap();
                if let Some(batch) = self.queue.get_mut(at) {
                    // The one before it is on its way on another connection, and has most often arrived by now.
                    batch.state = match std::mem::replace(&mut batch.overtook, true) {
                        false => BatchState::Ready,
                        true => BatchState::AfterOthers,
                    };
                }
                if expected >= seq {
                    // The server contradicts itself; not at full speed.
                    let error = gap_error(seq, expected);
                    return self.retry_later(&error);
                }
                0
            }
            BatchResponse::StaleEpoch { current } => {
                let epoch = request.epoch;
                let automatic = self.options.epoch.is_none();
                if automatic && self.epoch == EpochState::Chosen(epoch) && epoch < current {
                    // Another producer began while this one did; the newest one wins, and that is this one.
                    self.set_state(at, BatchState::Ready);
                    self.epoch = EpochState::Chosen(claimed(current));
                    return 0;
                }
                let id = self.options.id.as_str().to_owned();
                self.fail(ProducerError::Fenced { id, epoch, current })
            }
            BatchResponse::Failed(error) => {
                self.set_state(at, BatchState::Ready);
                self.retry_later(&error)
            }
        }
    }

    fn take_probe(&mut self, response: BatchResponse) -> usize {
        self.epoch = EpochState::Unknown;
        let chosen = match response {
            // Unknown to the server, or known with epoch 0.
            BatchResponse::Gap { expected: 0 } => 0,
            BatchResponse::Gap { .. } => claimed(0),
            BatchResponse::StaleEpoch { current } => claimed(current),
            // Servers may check that an unknown producer begins at 0 before they look for gaps.
            BatchResponse::Failed(error) if error.status().is_some_and(|status| status == 400) => 0,
            BatchResponse::Failed(error) => return self.retry_later(&error),
            BatchResponse::Accepted { .. } => {
                let reason = "a batch out of order was accepted; choose an epoch".to_owned();
                let error = ClientError::InvalidResponse { url: String::new(), reason };
                return self.fail(error.into());
            }
        };
        self.failures.clear();
        self.epoch = EpochState::Chosen(chosen);
        0
    }

    /// Plans another attempt, or fails.
    fn retry_later(&mut self, error: &ClientError) -> usize {
        match self.failures.next_try(&self.options.retry, error) {
            Some(at) => {
                telemetry::retried("produce");
                tracing::debug!(%error, producer = self.options.id.as_str(), "a batch is repeated");
                // Of several batches that failed together the last pause counts.
                self.retry_at = Some(at);
                0
            }
            None => self.fail(error.clone().into()),
        }
    }

    /// Stops with `error`, which every message that is not acknowledged gets. Returns the freed bytes.
    pub(super) fn fail(&mut self, error: ProducerError) -> usize {
        tracing::warn!(%error, producer = self.options.id.as_str(), messages = self.unacknowledged(),
            "a producer stops; its unacknowledged messages are not known to be stored");
        telemetry::abandoned(self.unacknowledged());
        self.seal_rest();
        self.failed = Some(error.clone());
        let mut freed = 0;
        for batch in self.queue.drain(..) {
            freed += batch.cost;
            batch.resolve(Err(error.clone()));
        }
        freed
    }

    fn seal_rest(&mut self) {
        if !self.open.is_empty() {
            self.seal(false);
        }
    }

    fn seal(&mut self, close: bool) {
        let open = std::mem::replace(&mut self.open, OpenBatch::new(self.options.json));
        if open.is_empty() && !close {
            return;
        }
        self.queue.push_back(open.seal(self.next_seq, close));
        self.next_seq += 1;
        self.linger_until = None;
        self.flushing = false;
        self.news = true;
    }

    fn set_state(&mut self, at: usize, state: BatchState) {
        if let Some(batch) = self.queue.get_mut(at) {
            batch.state = state;
        }
    }
}

fn claimed(newest: u64) -> u64 {
    newest + 1 + fastrand::u64(0..CLAIM_SPREAD)
}

fn gap_error(seq: u64, expected: u64) -> ClientError {
    ClientError::Transport {
        url: String::new(),
        reason: format!("batch {seq} was refused for a gap, although {expected} is expected"),
        unsent: false,
    }
}

#[cfg(test)]
mod tests;
