//! What is committed: one event of one stream is one record of the log.
//!
//! Everything a request changes is in its one event (bytes, producer state, `Stream-Seq`, closure), so a
//! crash keeps all of it or none (§5.2.1, §4.1).
//!
//! # Encoding
//! `u8` kind, `u64` time in milliseconds since 1970, then by kind (types as in `codec`):
//!
//! | kind | name | fields |
//! |---|---|---|
//! | 1 | created | text path; text content type; `u8` expiry kind (0 never, 1 TTL seconds, 2 milliseconds since 1970) and `u64` value; `u8` flags (1 closed, 2 expiry inherited, 4 public); option fork; payload |
//! | 2 | appended | `u8` flags (1 close); option producer (text id, `u64` epoch, `u64` seq); option text Stream-Seq; payload |
//! | 3 | touched | nothing |
//! | 4 | soft-deleted | nothing |
//! | 5 | deleted | nothing |
//! | 6 | created | as 1, with `u64` incarnation in front of the payload, and incarnations in the fork |
//! | 7 | trimmed | `u64` earliest position; `u64` position from which the stream keeps its own bytes; option `u64` messages before the earliest position |
//! | 8 | expiry changed | `u8` expiry kind and `u64` value, as in 1 |
//! | 9 | marked | nothing |
//! | 10 | created | as 6, with `u64` earliest position in front of the payload: a fork of a trimmed stream |
//!
//! A stream of incarnation 0 is created by kind 1, which format 1 wrote for every stream.
//!
//! A fork is: `u64` source id; text source path; `u64` position; option `u64` requested offset; `u64`
//! sub-offset; `u64` count of ancestors and for each `u64` id, `u64` end position. Where a fork has incarnations, `u64`
//! incarnation precedes the requested offset and each end position. The payload is what is left of the record. Kind
//! numbers are permanent.

mod fields;

use bytes::Bytes;

use crate::{
    ContentType, DecodeError, Expiry, Offset, Producer, StreamId, StreamPath, StreamSeq, Timestamp,
    count_messages,
    model::codec::{ByteReader, put_flags, put_option, put_text, put_u64},
};

pub(crate) use fields::{
    put_expiry, put_fork, put_producer, read_content_type, read_expiry, read_flags, read_fork,
    read_incarnation, read_offset, read_path, read_producer, read_stream_seq,
};

/// A committed fact about one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The stream came to be (§5.1, §4.2).
    Created(Box<Created>),
    /// Bytes, closure or both (§5.2, §5.3).
    Appended(Appended),
    /// A read pushed a sliding expiry back (§5.1).
    Touched {
        /// When.
        at: Timestamp,
    },
    /// Deleted while forks still need its data (§5.4).
    SoftDeleted {
        /// When.
        at: Timestamp,
    },
    /// Gone, with its data.
    Deleted {
        /// When.
        at: Timestamp,
    },
    /// The oldest bytes went away.
    Trimmed(Trimmed),
    /// The stream goes away by itself at another time than before.
    ExpiryChanged {
        /// When. A TTL begins here.
        at: Timestamp,
        /// The new expiry.
        expiry: Expiry,
    },
    /// Retention noted which position the tail has now; see [`TimeMark`](crate::TimeMark).
    Marked {
        /// When.
        at: Timestamp,
    },
}

/// Readers find nothing before a position any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// When.
    pub at: Timestamp,
    /// The earliest position that readers find from now on.
    pub before: Offset,
    /// From here on the stream keeps its own bytes: less than `before` while forks need older ones.
    pub kept: Offset,
    /// The stream's own messages before `before`, if that is known.
    pub messages: Option<u64>,
}

/// The creation of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// When.
    pub at: Timestamp,
    /// Where.
    pub path: StreamPath,
    /// Its type, for good.
    pub content_type: ContentType,
    /// When it goes away by itself.
    pub expiry: Expiry,
    /// The expiry came from the source of a fork, not from the request.
    pub expiry_inherited: bool,
    /// Its source, when it is a fork.
    pub fork: Option<ForkPoint>,
    /// The first number of its own offsets; see [`Offset`].
    pub incarnation: u64,
    /// Created closed.
    pub closed: bool,
    /// Readable without credentials. A version that does not know the flag refuses the record.
    pub public: bool,
    /// The earliest position that readers find: the source's, when it was trimmed.
    pub earliest: Offset,
    /// First bytes, in stored form.
    pub data: Bytes,
}

/// Where a fork leaves its source (§4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkPoint {
    /// The stream it was forked from.
    pub source: StreamId,
    /// That stream's path.
    pub source_path: StreamPath,
    /// The position at which the fork's own bytes begin, sub-offset included.
    pub position: Offset,
    /// `Stream-Fork-Offset` as asked for; `None` when the source's tail was meant.
    pub requested: Option<Offset>,
    /// `Stream-Fork-Sub-Offset` as asked for; 0 when absent.
    pub sub_offset: u64,
    /// The streams that hold the inherited bytes, oldest first: each one's bytes up to an end position.
    pub ancestors: Vec<(StreamId, Offset)>,
}

/// One accepted POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// When.
    pub at: Timestamp,
    /// The bytes, in stored form; empty for close-only.
    pub data: Bytes,
    /// The message terminators in `data`: the messages of an append to a JSON stream, and of no meaning for others. They are
    /// not stored; a decoder counts them again.
    pub terminators: u64,
    /// The producer's headers.
    pub producer: Option<Producer>,
    /// `Stream-Seq`.
    pub stream_seq: Option<StreamSeq>,
    /// Closes the stream.
    pub close: bool,
}

impl StreamEvent {
    /// The payload: bytes that the event adds to the stream.
    pub fn data(&self) -> Option<&Bytes> {
        match self {
            StreamEvent::Created(created) => Some(&created.data),
            StreamEvent::Appended(appended) => Some(&appended.data),
            StreamEvent::Touched { .. }
            | StreamEvent::SoftDeleted { .. }
            | StreamEvent::Deleted { .. }
            | StreamEvent::Trimmed(_)
            | StreamEvent::ExpiryChanged { .. }
            | StreamEvent::Marked { .. } => None,
        }
    }

    /// Appends the encoding without the payload; the payload follows it directly in the record.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        let (kind, at) = match self {
            StreamEvent::Created(created) if created.earliest > Offset::ZERO => (10, created.at),
            StreamEvent::Created(created) if created.incarnation == 0 => (1, created.at),
            StreamEvent::Created(created) => (6, created.at),
            StreamEvent::Appended(appended) => (2, appended.at),
            StreamEvent::Touched { at } => (3, *at),
            StreamEvent::SoftDeleted { at } => (4, *at),
            StreamEvent::Deleted { at } => (5, *at),
            StreamEvent::Trimmed(trimmed) => (7, trimmed.at),
            StreamEvent::ExpiryChanged { at, .. } => (8, *at),
            StreamEvent::Marked { at } => (9, *at),
        };
        out.push(kind);
        put_u64(out, at.millis());
        match self {
            StreamEvent::Created(created) => created.encode_fields(out),
            StreamEvent::Appended(appended) => appended.encode_fields(out),
            StreamEvent::Trimmed(trimmed) => trimmed.encode_fields(out),
            StreamEvent::ExpiryChanged { expiry, .. } => put_expiry(out, *expiry),
            StreamEvent::Touched { .. }
            | StreamEvent::SoftDeleted { .. }
            | StreamEvent::Deleted { .. }
            | StreamEvent::Marked { .. } => {}
        }
    }

    /// Decodes a whole record; the payload shares its memory.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`encode_head`](Self::encode_head) and a payload cannot give.
    pub fn decode(record: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = ByteReader::new(record);
        let kind = reader.u8("event kind")?;
        let at = Timestamp::from_millis(reader.u64("event time")?);
        let payload = |reader: &ByteReader<'_>| record.slice(record.len() - reader.remaining()..);
        let event = match kind {
            1 | 6 | 10 => {
                let created = Created::decode_fields(&mut reader, at, kind, payload)?;
                StreamEvent::Created(Box::new(created))
            }
            2 => StreamEvent::Appended(Appended::decode_fields(&mut reader, at, payload)?),
            3 => StreamEvent::Touched { at },
            4 => StreamEvent::SoftDeleted { at },
            5 => StreamEvent::Deleted { at },
            7 => StreamEvent::Trimmed(Trimmed::decode_fields(&mut reader, at)?),
            8 => StreamEvent::ExpiryChanged { at, expiry: read_expiry(&mut reader)? },
            9 => StreamEvent::Marked { at },
            _ => return Err(DecodeError { what: "event kind" }),
        };
        if event.data().is_none() {
            reader.finish("bytes after an event")?;
        }
        Ok(event)
    }
}

impl ForkPoint {
    /// The offset of an inherited position, as the stream has it that holds the bytes before it.
    pub(crate) fn inherited(&self, position: u64) -> Option<Offset> {
        let holder = self.ancestors.iter().find(|(_, end)| position <= end.position());
        holder.map(|(_, end)| Offset::new(position).in_incarnation(end.incarnation()))
    }
}

impl Created {
    /// Where the stream's own bytes begin, and where its first bytes end.
    pub(crate) fn range(&self) -> (Offset, Offset) {
        let start = self.fork.as_ref().map_or(Offset::ZERO, |fork| fork.position);
        let end = start.advance(self.data.len() as u64);
        let inherited = self.fork.as_ref().and_then(|fork| fork.inherited(end.position()));
        (start, inherited.unwrap_or(end.in_incarnation(self.incarnation)))
    }

    fn encode_fields(&self, out: &mut Vec<u8>) {
        put_text(out, self.path.as_str());
        put_text(out, self.content_type.as_str());
        put_expiry(out, self.expiry);
        put_flags(out, &[self.closed, self.expiry_inherited, self.public]);
        let trimmed = self.earliest > Offset::ZERO;
        let incarnations = self.incarnation != 0 || trimmed;
        put_option(out, self.fork.as_ref(), |out, fork| put_fork(out, fork, incarnations));
        if incarnations {
            put_u64(out, self.incarnation);
        }
        if trimmed {
            put_u64(out, self.earliest.position());
        }
    }

    fn decode_fields(
        reader: &mut ByteReader<'_>,
        at: Timestamp,
        kind: u8,
        payload: impl FnOnce(&ByteReader<'_>) -> Bytes,
    ) -> Result<Self, DecodeError> {
        let (incarnations, trimmed) = (kind != 1, kind == 10);
        let path = read_path(reader)?;
        let content_type = read_content_type(reader)?;
        let expiry = read_expiry(reader)?;
        let flags = read_flags(reader, 7, "created flags")?;
        let fork = reader.option("fork", |reader| read_fork(reader, incarnations))?;
        let incarnation = if incarnations { read_incarnation(reader)? } else { 0 };
        if kind == 6 && incarnation == 0 {
            return Err(DecodeError { what: "incarnation" });
        }
        let earliest =
            if trimmed { read_offset(reader, "earliest position")? } else { Offset::ZERO };
        if trimmed && earliest == Offset::ZERO {
            return Err(DecodeError { what: "earliest position" });
        }
        Ok(Created {
            at,
            path,
            content_type,
            expiry,
            expiry_inherited: flags & 2 != 0,
            fork,
            incarnation,
            closed: flags & 1 != 0,
            public: flags & 4 != 0,
            earliest,
            data: payload(reader),
        })
    }
}

impl Appended {
    fn encode_fields(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.close));
        put_option(out, self.producer.as_ref(), put_producer);
        put_option(out, self.stream_seq.as_ref(), |out, seq| put_text(out, seq.as_str()));
    }

    fn decode_fields(
        reader: &mut ByteReader<'_>,
        at: Timestamp,
        payload: impl FnOnce(&ByteReader<'_>) -> Bytes,
    ) -> Result<Self, DecodeError> {
        let close = read_flags(reader, 1, "appended flags")? == 1;
        let producer = reader.option("producer", read_producer)?;
        let stream_seq = reader.option("Stream-Seq", read_stream_seq)?;
        let data = payload(reader);
        let terminators = count_messages(&data) as u64;
        Ok(Appended { at, data, terminators, producer, stream_seq, close })
    }
}

impl Trimmed {
    fn encode_fields(&self, out: &mut Vec<u8>) {
        put_u64(out, self.before.position());
        put_u64(out, self.kept.position());
        put_option(out, self.messages, put_u64);
    }

    fn decode_fields(reader: &mut ByteReader<'_>, at: Timestamp) -> Result<Self, DecodeError> {
        let before = read_offset(reader, "earliest position")?;
        let kept = read_offset(reader, "position of the first kept byte")?;
        if kept > before {
            return Err(DecodeError { what: "position of the first kept byte" });
        }
        let messages =
            reader.option("trimmed messages", |reader| reader.u64("trimmed messages"))?;
        Ok(Trimmed { at, before, kept, messages })
    }
}
