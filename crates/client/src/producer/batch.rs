//! Messages that travel in one request.

use bytes::Bytes;

use super::outcome::{BatchOutcome, OutcomeSender, PendingOutcome};

/// The batch that is being filled.
#[derive(Debug)]
pub(super) struct OpenBatch {
    json: bool,
    body: Vec<u8>,
    messages: u64,
    /// Bytes of the messages, as the bound of the buffer counts them.
    cost: usize,
    outcome: OutcomeSender,
}

/// A batch with its sequence number, until it is acknowledged.
#[derive(Debug)]
pub(super) struct SealedBatch {
    pub(super) seq: u64,
    pub(super) body: Bytes,
    pub(super) close: bool,
    pub(super) messages: u64,
    pub(super) cost: usize,
    pub(super) state: BatchState,
    /// When it was sent, all before this number were acknowledged.
    pub(super) sent_after: u64,
    /// The server has refused it once because one before it was missing.
    pub(super) overtook: bool,
    outcome: OutcomeSender,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchState {
    /// To be sent.
    Ready,
    /// To be sent once all batches before it are acknowledged: the server has refused it twice for a gap.
    AfterOthers,
    InFlight,
}

impl OpenBatch {
    pub(super) fn new(json: bool) -> Self {
        OpenBatch {
            json,
            body: Vec::new(),
            messages: 0,
            cost: 0,
            outcome: OutcomeSender::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// The length of the body with `message` in it.
    pub(super) fn length_with(&self, message: &[u8]) -> usize {
        self.body.len() + message.len() + usize::from(self.json) * 2
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    pub(super) fn is_full(&self, max_bytes: usize, max_messages: u64) -> bool {
        self.length_with(b"") >= max_bytes || self.messages >= max_messages
    }

    pub(super) fn push(&mut self, message: &[u8]) -> PendingOutcome {
        if self.json {
            self.body.push(if self.messages == 0 { b'[' } else { b',' });
        }
        self.body.extend_from_slice(message);
        self.messages += 1;
        self.cost += message.len();
        self.outcome.subscribe()
    }

    pub(super) fn subscribe(&self) -> PendingOutcome {
        self.outcome.subscribe()
    }

    pub(super) fn seal(mut self, seq: u64, close: bool) -> SealedBatch {
        if self.json && self.messages > 0 {
            self.body.push(b']');
        }
        SealedBatch {
            seq,
            body: self.body.into(),
            close,
            messages: self.messages,
            cost: self.cost,
            state: BatchState::Ready,
            sent_after: 0,
            overtook: false,
            outcome: self.outcome,
        }
    }
}

impl SealedBatch {
    pub(super) fn subscribe(&self) -> PendingOutcome {
        self.outcome.subscribe()
    }

    pub(super) fn resolve(self, outcome: BatchOutcome) {
        self.outcome.resolve(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_messages_are_an_array_and_bytes_are_joined() {
        for (json, body) in [(true, &b"[1,22]"[..]), (false, b"122")] {
            let mut batch = OpenBatch::new(json);
            assert_eq!(batch.length_with(b"1"), if json { 3 } else { 1 });
            batch.push(b"1");
            batch.push(b"22");
            let sealed = batch.seal(7, false);
            assert_eq!((&sealed.body[..], sealed.messages, sealed.cost), (body, 2, 3));
        }
        assert!(OpenBatch::new(true).seal(0, true).body.is_empty(), "a close without messages");
    }
}
