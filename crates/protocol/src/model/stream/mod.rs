//! The state of one stream: what it is, and how an event changes it.
//!
//! `decide` functions (`create`, `append`) judge a command and change nothing; [`StreamState::fold`] folds
//! in an event that was decided, live and in recovery alike.

mod append;
mod create;
mod fold;
mod retention;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

pub use append::AppendOutcome;
pub use create::{CreateOutcome, ForkSource};
pub use retention::TimeMark;

use crate::{
    ContentType, Expiry, ForkPoint, Offset, Producer, ProducerId, ProducerState, Rejection,
    StreamEvent, StreamPath, StreamSeq, Timestamp,
};

/// The internal, never reused name of a stream. A path that is created anew gets a new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The incarnation of a stream with this id: not 0, at most sixteen digits, and greater than those of lower ids.
    ///
    /// It starts again at 1 with every 10^16 - 1 ids. A store chooses its first id so that it never gets there.
    pub const fn incarnation(self) -> u64 {
        1 + self.0 % INCARNATIONS
    }

    /// The least id, from this one on, after which `room` more have growing incarnations.
    #[must_use]
    pub const fn with_room(self, room: u64) -> Self {
        let used = self.0 % INCARNATIONS;
        if INCARNATIONS - used > room { self } else { StreamId(self.0 + (INCARNATIONS - used)) }
    }
}

/// How many incarnations sixteen digits can number, zero apart.
const INCARNATIONS: u64 = Offset::MAX.position();

/// What a stream is; shared by everyone who reads it. After the creation only the expiry may change, and a changed one is
/// shared as a new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamCore {
    /// Internal name.
    pub id: StreamId,
    /// Where it lives.
    pub path: StreamPath,
    /// Its type.
    pub content_type: ContentType,
    /// When it goes away by itself.
    pub expiry: Expiry,
    /// The expiry came from the source of a fork.
    pub expiry_inherited: bool,
    /// Its source, when it is a fork.
    pub fork: Option<ForkPoint>,
    /// The first number of its own offsets; see [`Offset`]. 0 in a stream of format 1.
    pub incarnation: u64,
    /// Readable without credentials.
    pub public: bool,
}

/// Who closed a stream: the producer headers of the closing request, if it had any (§5.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closure {
    /// The closing request's producer headers.
    pub by: Option<Producer>,
}

/// Everything the protocol remembers about a stream, apart from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// What it is.
    pub core: Arc<StreamCore>,
    /// The position after the last byte.
    pub tail: Offset,
    /// Events folded in since the creation. Format 1 did not count them: there the count begins with format 2.
    pub events: u64,
    /// From this position on the store knows where each append ends. Format 1 did not store it.
    pub delimited_from: Offset,
    /// Set once, never unset.
    pub closed: Option<Closure>,
    /// The last accepted `Stream-Seq`.
    pub stream_seq: Option<StreamSeq>,
    /// The last read or write that pushed the expiry back. It goes by the wall clock, and so back when that is set back.
    pub touched: Timestamp,
    /// Deleted, but forks still read its bytes (§4.2).
    pub soft_deleted: bool,
    /// Readers find nothing before this position. A fork begins with that of its source.
    pub earliest: Offset,
    /// No fork needs own bytes before this position, and no reader finds them: see
    /// [`first_kept`](StreamState::first_kept). At most [`earliest`](StreamState::earliest).
    pub kept: Offset,
    /// When it was created; `None` where the state was stored before that was.
    pub created: Option<Timestamp>,
    /// The last append; `None` before the first, and where the state was stored before that was.
    pub appended: Option<Timestamp>,
    /// Its own messages since the creation: JSON messages, or the appends of bytes. `None` where the state was stored
    /// before they were counted.
    pub messages: Option<u64>,
    /// How many of those are before [`earliest`](StreamState::earliest), if that is known.
    pub messages_before: Option<u64>,
    /// Where the tail was at some times, oldest first; empty unless a rule of retention noted it.
    pub marks: Vec<TimeMark>,
    /// The newest epoch and sequence number of producers: of all, or of those that the holder of the state needs. Ids are
    /// chosen by clients, hence the randomly keyed hash.
    pub producers: HashMap<ProducerId, ProducerState>,
}

/// What becomes of a command: an event to commit first, or an answer that changes nothing.
///
/// Either way the answer may only be given once the state it was judged on is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<T> {
    /// Commit the event, then answer.
    Commit(StreamEvent, T),
    /// Answer.
    Reply(T),
}

impl StreamCore {
    /// Where this stream's own bytes begin; everything before is inherited.
    pub fn own_start(&self) -> Offset {
        self.fork.as_ref().map_or(Offset::ZERO, |fork| fork.position)
    }

    /// The offset that clients know of a position.
    pub fn offset_at(&self, position: u64) -> Offset {
        let inherited = self.fork.as_ref().and_then(|fork| fork.inherited(position));
        inherited.unwrap_or(Offset::new(position).in_incarnation(self.incarnation))
    }

    /// The position that a client's offset names; `tail` is this stream's.
    ///
    /// # Errors
    /// [`Rejection::OffsetOfDeletedStream`] when neither this stream nor one that it inherits from, up to there, has the
    /// offset's incarnation; [`Rejection::OffsetBeyondTail`] when it is of a later creation, and so sorts after `tail`.
    pub fn resolve(&self, offset: Offset, tail: Offset) -> Result<Offset, Rejection> {
        let incarnation = offset.incarnation();
        let inherits = |(_, end): &(StreamId, Offset)| {
            end.incarnation() == incarnation && offset.position() <= end.position()
        };
        let known = offset == Offset::ZERO
            || incarnation == self.incarnation
            || self.fork.iter().flat_map(|fork| &fork.ancestors).any(inherits);
        if known {
            Ok(self.offset_at(offset.position()))
        } else if incarnation > self.incarnation {
            Err(Rejection::OffsetBeyondTail { tail })
        } else {
            Err(Rejection::OffsetOfDeletedStream)
        }
    }

    /// The stream that holds the byte at `from`, and the end of its stretch; `tail` is this stream's.
    pub fn holder_of(&self, from: Offset, tail: Offset) -> (StreamId, Offset) {
        self.fork
            .iter()
            .flat_map(|fork| &fork.ancestors)
            .find(|(_, end)| from < *end)
            .map_or((self.id, tail), |(id, end)| (*id, (*end).min(tail)))
    }

    /// The streams that a fork of this one at `position` inherits from, oldest first.
    pub fn ancestors_up_to(&self, position: Offset) -> Vec<(StreamId, Offset)> {
        let mut chain = Vec::new();
        for (id, end) in self.fork.iter().flat_map(|fork| &fork.ancestors) {
            if chain.last().is_some_and(|(_, end): &(StreamId, Offset)| *end >= position) {
                return chain;
            }
            let until = Offset::new(position.position().min(end.position()));
            chain.push((*id, until.in_incarnation(end.incarnation())));
        }
        if position > self.own_start() {
            chain.push((self.id, position.in_incarnation(self.incarnation)));
        }
        chain
    }
}
