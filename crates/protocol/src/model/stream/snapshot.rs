//! The stored form of a stream's state, producers apart: they are stored one by one, so that a stream
//! with many of them stays cheap to save.
//!
//! # Encoding
//! `u8` format (3); text path; text content type; `u8` expiry kind and `u64` value; `u8` flags (1 closed,
//! 2 expiry inherited, 4 soft-deleted, 8 public); option fork; `u64` tail; `u64` touched; option closing producer;
//! option text Stream-Seq; `u64` incarnation; `u64` events; `u64` position from which the ends of appends are known; `u64`
//! earliest position; `u64` position before which no own bytes are needed; option `u64` created; option `u64` last append;
//! option `u64` messages; option `u64` messages before the earliest position; `u8` count of time marks and for each `u64`
//! time, `u64` position, option `u64` messages. Types as in `codec`, parts as in `event`, the fork with incarnations.
//!
//! Format 2 has, from the earliest position on, only the position of the stream's first own byte and `u64` 0: no stream was
//! trimmed, and times and messages are not known. Format 1 ends after `Stream-Seq`, and its fork has no incarnations.
//!
//! A producer's state is `u64` epoch, `u64` last sequence number; its id is the key it is stored under.

use std::{collections::HashMap, sync::Arc};

use super::{Closure, StreamCore, StreamId, StreamState, TimeMark, retention::MARKS};
use crate::{
    DecodeError, Offset, ProducerState, Timestamp,
    model::codec::{ByteReader, put_flags, put_option, put_text, put_u64},
    model::event::{
        put_expiry, put_fork, put_producer, read_content_type, read_expiry, read_flags, read_fork,
        read_incarnation, read_offset, read_path, read_producer, read_stream_seq,
    },
};

const FORMAT: u8 = 3;
/// Streams were not trimmed; times and messages are not known.
const FORMAT_2: u8 = 2;
/// The format before that: nothing is known of the ends of appends, and events were not counted.
const FORMAT_1: u8 = 1;

impl StreamState {
    /// Appends the stored form, without producers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let core = &self.core;
        out.push(FORMAT);
        put_text(out, core.path.as_str());
        put_text(out, core.content_type.as_str());
        put_expiry(out, core.expiry);
        let closed = self.closed.is_some();
        put_flags(out, &[closed, core.expiry_inherited, self.soft_deleted, core.public]);
        put_option(out, core.fork.as_ref(), |out, fork| put_fork(out, fork, true));
        put_u64(out, self.tail.position());
        put_u64(out, self.touched.millis());
        put_option(out, self.closed.as_ref().and_then(|c| c.by.as_ref()), put_producer);
        put_option(out, self.stream_seq.as_ref(), |out, seq| put_text(out, seq.as_str()));
        put_u64(out, core.incarnation);
        put_u64(out, self.events);
        put_u64(out, self.delimited_from.position());
        put_u64(out, self.earliest.position());
        put_u64(out, self.kept.position());
        put_option(out, self.created.map(Timestamp::millis), put_u64);
        put_option(out, self.appended.map(Timestamp::millis), put_u64);
        put_option(out, self.messages, put_u64);
        put_option(out, self.messages_before, put_u64);
        // Never more than `MARKS`.
        let marks = self.marks.get(..MARKS).unwrap_or(&self.marks);
        out.push(marks.len() as u8);
        for mark in marks {
            put_u64(out, mark.at.millis());
            put_u64(out, mark.position.position());
            put_option(out, mark.messages, put_u64);
        }
    }

    /// The reverse of [`encode`](Self::encode); the producers are empty.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that `encode` cannot give.
    pub fn decode(id: StreamId, stored: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = ByteReader::new(stored);
        let format = reader.u8("snapshot format")?;
        if !(FORMAT_1..=FORMAT).contains(&format) {
            return Err(DecodeError { what: "snapshot format" });
        }
        let path = read_path(&mut reader)?;
        let content_type = read_content_type(&mut reader)?;
        let expiry = read_expiry(&mut reader)?;
        let flags = read_flags(&mut reader, 15, "snapshot flags")?;
        let fork = reader.option("fork", |reader| read_fork(reader, format != FORMAT_1))?;
        let tail = read_offset(&mut reader, "tail")?;
        let touched = Timestamp::from_millis(reader.u64("touched")?);
        let by = reader.option("closing producer", read_producer)?;
        if flags & 1 == 0 && by.is_some() {
            return Err(DecodeError { what: "closing producer" });
        }
        let stream_seq = reader.option("Stream-Seq", read_stream_seq)?;
        let (incarnation, events, delimited_from) = match format {
            FORMAT_1 => (0, 0, tail),
            _ => (
                read_incarnation(&mut reader)?,
                reader.u64("events")?,
                read_offset(&mut reader, "ends of appends")?,
            ),
        };
        let core = Arc::new(StreamCore {
            id,
            path,
            content_type,
            expiry,
            expiry_inherited: flags & 2 != 0,
            fork,
            incarnation,
            public: flags & 8 != 0,
        });
        let kept = match format {
            FORMAT_1 => KeptPart::default(),
            FORMAT_2 => {
                let earliest = read_offset(&mut reader, "earliest position")?;
                if earliest != core.own_start() || reader.u64("segment references")? != 0 {
                    return Err(DecodeError { what: "earliest position or segment references" });
                }
                KeptPart::default()
            }
            _ => KeptPart::decode(&mut reader, &core)?,
        };
        reader.finish("bytes after a snapshot")?;
        let tail = core.offset_at(tail.position());
        Ok(StreamState {
            earliest: kept.earliest,
            kept: kept.kept,
            created: kept.created,
            appended: kept.appended,
            messages: kept.messages,
            messages_before: kept.messages_before,
            marks: kept.marks,
            core,
            tail,
            events,
            delimited_from,
            closed: (flags & 1 != 0).then_some(Closure { by }),
            stream_seq,
            touched,
            soft_deleted: flags & 4 != 0,
            producers: HashMap::new(),
        })
    }
}

/// What a snapshot says of times, messages and trims.
#[derive(Default)]
struct KeptPart {
    earliest: Offset,
    kept: Offset,
    created: Option<Timestamp>,
    appended: Option<Timestamp>,
    messages: Option<u64>,
    messages_before: Option<u64>,
    marks: Vec<TimeMark>,
}

impl KeptPart {
    fn decode(reader: &mut ByteReader<'_>, core: &StreamCore) -> Result<Self, DecodeError> {
        let (earliest, kept) =
            (read_offset(reader, "earliest position")?, read_offset(reader, "first kept byte")?);
        if kept > earliest {
            return Err(DecodeError { what: "first kept byte" });
        }
        let mut part = KeptPart {
            earliest: core.offset_at(earliest.position()),
            kept,
            created: read_number(reader, "created")?.map(Timestamp::from_millis),
            appended: read_number(reader, "last append")?.map(Timestamp::from_millis),
            messages: read_number(reader, "messages")?,
            messages_before: read_number(reader, "trimmed messages")?,
            marks: Vec::new(),
        };
        let count = usize::from(reader.u8("time marks")?);
        if count > MARKS {
            return Err(DecodeError { what: "time marks" });
        }
        for _ in 0..count {
            let at = Timestamp::from_millis(reader.u64("time mark")?);
            let position = core.offset_at(read_offset(reader, "time mark")?.position());
            let messages = read_number(reader, "time mark")?;
            part.marks.push(TimeMark { at, position, messages });
        }
        Ok(part)
    }
}

fn read_number(
    reader: &mut ByteReader<'_>,
    what: &'static str,
) -> Result<Option<u64>, DecodeError> {
    reader.option(what, |reader| reader.u64(what))
}

impl ProducerState {
    /// The stored form.
    pub fn encode(self) -> [u8; 16] {
        let mut out = [0; 16];
        let (epoch, seq) = out.split_at_mut(8);
        epoch.copy_from_slice(&self.epoch.to_le_bytes());
        seq.copy_from_slice(&self.last_seq.to_le_bytes());
        out
    }

    /// The reverse of [`encode`](Self::encode).
    ///
    /// # Errors
    /// [`DecodeError`] when it is not 16 bytes.
    pub fn decode(stored: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = ByteReader::new(stored);
        let state = ProducerState {
            epoch: reader.u64("producer epoch")?,
            last_seq: reader.u64("producer sequence")?,
        };
        reader.finish("bytes after a producer")?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests;
