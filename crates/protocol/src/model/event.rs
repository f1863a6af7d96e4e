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
//!
//! A stream of incarnation 0 is created by kind 1, which format 1 wrote for every stream.
//!
//! A fork is: `u64` source id; text source path; `u64` position; option `u64` requested offset; `u64`
//! sub-offset; `u64` count of ancestors and for each `u64` id, `u64` end position. Where a fork has incarnations, `u64`
//! incarnation precedes the requested offset and each end position. The payload is what is left of the record. Kind
//! numbers are permanent.

use bytes::Bytes;

use crate::{
    ContentType, DecodeError, Expiry, Offset, Producer, ProducerId, StreamId, StreamPath,
    StreamSeq, Timestamp,
    model::codec::{ByteReader, put_option, put_text, put_u64},
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
            | StreamEvent::Deleted { .. } => None,
        }
    }

    /// Appends the encoding without the payload; the payload follows it directly in the record.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        let (kind, at) = match self {
            StreamEvent::Created(created) if created.incarnation == 0 => (1, created.at),
            StreamEvent::Created(created) => (6, created.at),
            StreamEvent::Appended(appended) => (2, appended.at),
            StreamEvent::Touched { at } => (3, *at),
            StreamEvent::SoftDeleted { at } => (4, *at),
            StreamEvent::Deleted { at } => (5, *at),
        };
        out.push(kind);
        put_u64(out, at.millis());
        match self {
            StreamEvent::Created(created) => created.encode_fields(out),
            StreamEvent::Appended(appended) => appended.encode_fields(out),
            StreamEvent::Touched { .. }
            | StreamEvent::SoftDeleted { .. }
            | StreamEvent::Deleted { .. } => {}
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
            1 | 6 => {
                let created = Created::decode_fields(&mut reader, at, kind == 6, payload)?;
                StreamEvent::Created(Box::new(created))
            }
            2 => StreamEvent::Appended(Appended::decode_fields(&mut reader, at, payload)?),
            3 => StreamEvent::Touched { at },
            4 => StreamEvent::SoftDeleted { at },
            5 => StreamEvent::Deleted { at },
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
        out.push(
            u8::from(self.closed)
                | u8::from(self.expiry_inherited) << 1
                | u8::from(self.public) << 2,
        );
        let incarnations = self.incarnation != 0;
        put_option(out, self.fork.as_ref(), |out, fork| put_fork(out, fork, incarnations));
        if incarnations {
            put_u64(out, self.incarnation);
        }
    }

    fn decode_fields(
        reader: &mut ByteReader<'_>,
        at: Timestamp,
        incarnations: bool,
        payload: impl FnOnce(&ByteReader<'_>) -> Bytes,
    ) -> Result<Self, DecodeError> {
        let path = read_path(reader)?;
        let content_type = read_content_type(reader)?;
        let expiry = read_expiry(reader)?;
        let flags = read_flags(reader, 7, "created flags")?;
        let fork = reader.option("fork", |reader| read_fork(reader, incarnations))?;
        let incarnation = if incarnations { read_incarnation(reader)? } else { 0 };
        if incarnations && incarnation == 0 {
            return Err(DecodeError { what: "incarnation" });
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
        Ok(Appended { at, data: payload(reader), producer, stream_seq, close })
    }
}

/// Flags of which none but `known` may be set: a bit that this version does not know has a meaning it would miss.
pub(crate) fn read_flags(
    reader: &mut ByteReader<'_>,
    known: u8,
    what: &'static str,
) -> Result<u8, DecodeError> {
    let flags = reader.u8(what)?;
    if flags & !known == 0 { Ok(flags) } else { Err(DecodeError { what }) }
}

/// A position that has a text form.
pub(crate) fn read_offset(
    reader: &mut ByteReader<'_>,
    what: &'static str,
) -> Result<Offset, DecodeError> {
    let offset = Offset::new(reader.u64(what)?);
    if offset <= Offset::MAX { Ok(offset) } else { Err(DecodeError { what }) }
}

pub(crate) fn put_expiry(out: &mut Vec<u8>, expiry: Expiry) {
    let (kind, value) = match expiry {
        Expiry::Never => (0, 0),
        Expiry::Ttl(seconds) => (1, seconds),
        Expiry::At(time) => (2, time.millis()),
    };
    out.push(kind);
    put_u64(out, value);
}

pub(crate) fn read_expiry(reader: &mut ByteReader<'_>) -> Result<Expiry, DecodeError> {
    match (reader.u8("expiry kind")?, reader.u64("expiry value")?) {
        (0, 0) => Ok(Expiry::Never),
        (1, seconds) => Ok(Expiry::Ttl(seconds)),
        (2, millis) => Ok(Expiry::At(Timestamp::from_millis(millis))),
        _ => Err(DecodeError { what: "expiry" }),
    }
}

pub(crate) fn put_producer(out: &mut Vec<u8>, producer: &Producer) {
    put_text(out, producer.id.as_str());
    put_u64(out, producer.epoch);
    put_u64(out, producer.seq);
}

pub(crate) fn read_producer(reader: &mut ByteReader<'_>) -> Result<Producer, DecodeError> {
    let id =
        ProducerId::new(reader.text("producer id")?).ok_or(DecodeError { what: "producer id" })?;
    Ok(Producer { id, epoch: reader.u64("producer epoch")?, seq: reader.u64("producer seq")? })
}

pub(crate) fn read_stream_seq(reader: &mut ByteReader<'_>) -> Result<StreamSeq, DecodeError> {
    StreamSeq::new(reader.text("Stream-Seq")?).ok_or(DecodeError { what: "Stream-Seq" })
}

pub(crate) fn read_path(reader: &mut ByteReader<'_>) -> Result<StreamPath, DecodeError> {
    StreamPath::system(reader.text("path")?).map_err(|_| DecodeError { what: "path" })
}

pub(crate) fn read_content_type(reader: &mut ByteReader<'_>) -> Result<ContentType, DecodeError> {
    let text = reader.text("content type")?;
    let content_type = ContentType::parse(text).filter(|parsed| parsed.as_str() == text);
    content_type.ok_or(DecodeError { what: "content type" })
}

fn put_offset(out: &mut Vec<u8>, offset: Offset, incarnation: bool) {
    if incarnation {
        put_u64(out, offset.incarnation());
    }
    put_u64(out, offset.position());
}

fn read_any_offset(
    reader: &mut ByteReader<'_>,
    incarnation: bool,
    what: &'static str,
) -> Result<Offset, DecodeError> {
    let incarnation = if incarnation { read_incarnation(reader)? } else { 0 };
    let offset = read_offset(reader, what)?.in_incarnation(incarnation);
    if offset.incarnation() == incarnation { Ok(offset) } else { Err(DecodeError { what }) }
}

/// A first number of offsets, of sixteen digits at most.
pub(crate) fn read_incarnation(reader: &mut ByteReader<'_>) -> Result<u64, DecodeError> {
    read_offset(reader, "incarnation").map(Offset::position)
}

pub(crate) fn put_fork(out: &mut Vec<u8>, fork: &ForkPoint, incarnations: bool) {
    put_u64(out, fork.source.0);
    put_text(out, fork.source_path.as_str());
    put_u64(out, fork.position.position());
    put_option(out, fork.requested, |out, offset| put_offset(out, offset, incarnations));
    put_u64(out, fork.sub_offset);
    put_u64(out, fork.ancestors.len() as u64);
    for (id, end) in &fork.ancestors {
        put_u64(out, id.0);
        put_offset(out, *end, incarnations);
    }
}

pub(crate) fn read_fork(
    reader: &mut ByteReader<'_>,
    incarnations: bool,
) -> Result<ForkPoint, DecodeError> {
    let source = StreamId(reader.u64("fork source")?);
    let source_path = read_path(reader)?;
    let position = read_offset(reader, "fork position")?;
    let requested =
        reader.option("fork offset", |r| read_any_offset(r, incarnations, "fork offset"))?;
    let sub_offset = reader.u64("fork sub-offset")?;
    let count = reader.u64("fork ancestors")?;
    let mut ancestors = Vec::new();
    for _ in 0..count {
        let id = StreamId(reader.u64("fork ancestor")?);
        ancestors.push((id, read_any_offset(reader, incarnations, "fork ancestor")?));
    }
    let mut fork = ForkPoint { source, source_path, position, requested, sub_offset, ancestors };
    fork.position = fork.inherited(position.position()).unwrap_or(position);
    Ok(fork)
}
