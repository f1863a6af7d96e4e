//! Judging a `POST` (§5.2, §5.2.1, §5.3).

use bytes::Bytes;

use super::{Decision, StreamState};
use crate::{
    Append, Appended, ContentType, JsonError, Offset, Producer, ProducerAdmission, ProducerState,
    Rejection, StreamEvent, Timestamp, count_messages,
};

/// The answer to a `POST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendOutcome {
    /// The tail after the append.
    pub next_offset: Offset,
    /// The stream is closed.
    pub closed: bool,
    /// What the stream remembers of the request's producer, if it named one.
    pub producer: Option<ProducerState>,
    /// Bytes were added: neither a retry of something accepted before, nor only a closure.
    pub added: bool,
}

impl Append {
    /// Judges the content type of a body for a stream of type `stream` (§5.2).
    ///
    /// # Errors
    /// [`Rejection::MissingContentType`], [`Rejection::InvalidContentType`], [`Rejection::ContentTypeMismatch`].
    pub fn check_content_type(&self, stream: &ContentType) -> Result<(), Rejection> {
        let given = self.content_type.as_ref().ok_or(Rejection::MissingContentType)?;
        let given = given.as_ref().map_err(|error| Rejection::InvalidContentType(*error))?;
        if given.matches(stream) {
            Ok(())
        } else {
            Err(Rejection::ContentTypeMismatch { stream: stream.clone() })
        }
    }
}

impl StreamState {
    /// Judges an append against the state decided so far; changes nothing.
    ///
    /// The order of the checks is the precedence of §5.2: empty, closed, content type, producer, JSON,
    /// `Stream-Seq`. `body` is in stored form, or the reason why it is not JSON. `known` is what the stream remembers of
    /// the append's producer; it need not be in [`producers`](Self::producers).
    ///
    /// # Errors
    /// [`Rejection::EmptyAppend`], [`Rejection::StreamClosed`], [`Rejection::MissingContentType`],
    /// [`Rejection::ContentTypeMismatch`], [`Rejection::StaleEpoch`], [`Rejection::EpochMustStartAtZero`],
    /// [`Rejection::SequenceGap`], [`Rejection::InvalidJson`], [`Rejection::EmptyJsonArray`],
    /// [`Rejection::SequenceRegression`], [`Rejection::StreamFull`].
    pub fn append(
        &self,
        append: &Append,
        known: Option<ProducerState>,
        body_empty: bool,
        body: Result<Bytes, JsonError>,
        now: Timestamp,
    ) -> Result<Decision<AppendOutcome>, Rejection> {
        if body_empty && !append.close {
            return Err(Rejection::EmptyAppend);
        }
        if let Some(reply) = self.check_closed(append, body_empty)? {
            return Ok(Decision::Reply(reply));
        }
        if !body_empty {
            append.check_content_type(&self.core.content_type)?;
        }
        if let Some(duplicate) = self.check_producer(append.producer.as_ref(), known)? {
            return Ok(Decision::Reply(duplicate));
        }
        let data = body.map_err(Rejection::invalid_json)?;
        if !body_empty && data.is_empty() {
            return Err(Rejection::EmptyJsonArray);
        }
        self.check_stream_seq(append)?;
        let next_offset = self.after(data.len());
        if next_offset == Offset::MAX {
            return Err(Rejection::StreamFull);
        }
        let outcome = AppendOutcome {
            next_offset,
            closed: append.close,
            producer: append.producer.as_ref().map(Producer::accepted),
            added: !body_empty,
        };
        let terminators =
            if self.core.content_type.is_json() { count_messages(&data) as u64 } else { 0 };
        let event = StreamEvent::Appended(Appended {
            at: now,
            data,
            terminators,
            producer: append.producer.clone(),
            stream_seq: append.stream_seq.clone(),
            close: append.close,
        });
        Ok(Decision::Commit(event, outcome))
    }

    /// A closed stream takes only the retry that closed it, known by its producer headers alone (§5.2.1),
    /// and close-only without a producer.
    fn check_closed(
        &self,
        append: &Append,
        body_empty: bool,
    ) -> Result<Option<AppendOutcome>, Rejection> {
        let Some(closure) = &self.closed else { return Ok(None) };
        let retry = match (&append.producer, &closure.by) {
            (Some(now), Some(then)) => now == then,
            (None, _) => append.close && body_empty,
            (Some(_), None) => false,
        };
        if retry {
            Ok(Some(self.duplicate(append.producer.as_ref().map(Producer::accepted))))
        } else {
            Err(Rejection::StreamClosed { tail: self.tail })
        }
    }

    fn check_producer(
        &self,
        producer: Option<&Producer>,
        known: Option<ProducerState>,
    ) -> Result<Option<AppendOutcome>, Rejection> {
        let Some(producer) = producer else { return Ok(None) };
        match producer.admit(known) {
            ProducerAdmission::Accept => Ok(None),
            ProducerAdmission::Duplicate(known) => Ok(Some(self.duplicate(Some(known)))),
            ProducerAdmission::StaleEpoch { current } => {
                Err(Rejection::StaleEpoch { current, tail: self.tail })
            }
            ProducerAdmission::EpochMustStartAtZero => Err(Rejection::EpochMustStartAtZero),
            ProducerAdmission::Gap { expected } => {
                Err(Rejection::SequenceGap { expected, received: producer.seq, tail: self.tail })
            }
        }
    }

    fn check_stream_seq(&self, append: &Append) -> Result<(), Rejection> {
        match (&append.stream_seq, &self.stream_seq) {
            (Some(given), Some(last)) if given <= last => {
                Err(Rejection::SequenceRegression { last: last.clone(), tail: self.tail })
            }
            _ => Ok(()),
        }
    }

    fn duplicate(&self, producer: Option<ProducerState>) -> AppendOutcome {
        AppendOutcome {
            next_offset: self.tail,
            closed: self.closed.is_some(),
            producer,
            added: false,
        }
    }
}
