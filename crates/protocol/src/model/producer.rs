//! Idempotent producers (§5.2.1) and `Stream-Seq` (§5.2).

use std::sync::Arc;

/// The largest epoch and sequence number: JavaScript's largest safe integer.
pub(crate) const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;
/// The longest producer id and `Stream-Seq`, bytes.
pub(crate) const MAX_ID_BYTES: usize = 256;

/// The client's stable name for a producer. Not empty, at most 256 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProducerId(Arc<str>);

impl ProducerId {
    /// `None` when empty or longer than 256 bytes.
    pub fn new(id: &str) -> Option<Self> {
        (!id.is_empty() && id.len() <= MAX_ID_BYTES).then(|| ProducerId(id.into()))
    }

    /// The id as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The three producer headers of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Who.
    pub id: ProducerId,
    /// Which session of theirs.
    pub epoch: u64,
    /// Which request of that session.
    pub seq: u64,
}

/// What a stream remembers of a producer: the newest epoch and its last accepted sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// The newest epoch.
    pub epoch: u64,
    /// The last sequence number accepted in it.
    pub last_seq: u64,
}

/// How a stream receives a producer's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerAdmission {
    /// New: append it.
    Accept,
    /// Seen before; the highest accepted sequence number answers it.
    Duplicate(ProducerState),
    /// From a session that a newer one has replaced.
    StaleEpoch {
        /// The newest epoch.
        current: u64,
    },
    /// A new epoch must start at sequence number zero.
    EpochMustStartAtZero,
    /// A request before this one is missing.
    Gap {
        /// The sequence number that would be accepted.
        expected: u64,
    },
}

impl Producer {
    /// Judges this request against what the stream remembers (the table of §5.2.1).
    pub fn admit(&self, known: Option<ProducerState>) -> ProducerAdmission {
        let Some(known) = known else {
            return if self.seq == 0 {
                ProducerAdmission::Accept
            } else {
                ProducerAdmission::Gap { expected: 0 }
            };
        };
        if self.epoch < known.epoch {
            ProducerAdmission::StaleEpoch { current: known.epoch }
        } else if self.epoch > known.epoch {
            if self.seq == 0 {
                ProducerAdmission::Accept
            } else {
                ProducerAdmission::EpochMustStartAtZero
            }
        } else if self.seq <= known.last_seq {
            ProducerAdmission::Duplicate(known)
        } else if self.seq == known.last_seq + 1 {
            ProducerAdmission::Accept
        } else {
            ProducerAdmission::Gap { expected: known.last_seq + 1 }
        }
    }

    /// What the stream remembers once this request is accepted.
    pub fn accepted(&self) -> ProducerState {
        ProducerState { epoch: self.epoch, last_seq: self.seq }
    }
}

/// The application's own sequence (§5.2): opaque, compared byte by byte, strictly increasing.
///
/// Its scope is the stream: all writers of a stream share one sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamSeq(Arc<str>);

impl StreamSeq {
    /// `None` when empty or longer than 256 bytes.
    pub fn new(seq: &str) -> Option<Self> {
        (!seq.is_empty() && seq.len() <= MAX_ID_BYTES).then(|| StreamSeq(seq.into()))
    }

    /// The text as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(epoch: u64, seq: u64) -> Producer {
        Producer { id: ProducerId::new("p").unwrap(), epoch, seq }
    }

    #[test]
    fn the_validation_table() {
        let known = Some(ProducerState { epoch: 2, last_seq: 5 });
        for (epoch, seq, expected) in [
            (2, 6, ProducerAdmission::Accept),
            (2, 5, ProducerAdmission::Duplicate(ProducerState { epoch: 2, last_seq: 5 })),
            (2, 0, ProducerAdmission::Duplicate(ProducerState { epoch: 2, last_seq: 5 })),
            (2, 7, ProducerAdmission::Gap { expected: 6 }),
            (1, 6, ProducerAdmission::StaleEpoch { current: 2 }),
            (3, 0, ProducerAdmission::Accept),
            (3, 1, ProducerAdmission::EpochMustStartAtZero),
        ] {
            assert_eq!(request(epoch, seq).admit(known), expected, "epoch {epoch} seq {seq}");
        }
        assert_eq!(request(7, 0).admit(None), ProducerAdmission::Accept);
        assert_eq!(request(0, 1).admit(None), ProducerAdmission::Gap { expected: 0 });
    }

    #[test]
    fn stream_seq_sorts_by_bytes() {
        let seq = |s| StreamSeq::new(s).unwrap();
        assert!(seq("10") < seq("2") && seq("09") < seq("10") && seq("A") < seq("a"));
        assert!(StreamSeq::new("").is_none() && StreamSeq::new(&"x".repeat(257)).is_none());
    }
}
