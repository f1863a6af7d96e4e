//! The parts that events and snapshots have in common.

use crate::{
    ContentType, DecodeError, Expiry, ForkPoint, Offset, Producer, ProducerId, StreamId,
    StreamPath, StreamSeq, Timestamp,
    model::codec::{ByteReader, put_option, put_text, put_u64},
};

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
