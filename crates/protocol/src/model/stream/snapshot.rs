//! The stored form of a stream's state, producers apart: they are stored one by one, so that a stream
//! with many of them stays cheap to save.
//!
//! # Encoding
//! `u8` format (2); text path; text content type; `u8` expiry kind and `u64` value; `u8` flags (1 closed,
//! 2 expiry inherited, 4 soft-deleted, 8 public); option fork; `u64` tail; `u64` touched; option closing producer;
//! option text Stream-Seq; `u64` incarnation; `u64` events; `u64` position from which the ends of appends are known; `u64`
//! earliest position; `u64` count of segment references. Types as in `codec`, parts as in `event`, the fork with
//! incarnations.
//!
//! The last two are room for retention and for bytes outside the index: the earliest position is where the stream's
//! own bytes begin, and the count is 0. Format 1 ends after `Stream-Seq`, and its
//! fork has no incarnations.
//!
//! A producer's state is `u64` epoch, `u64` last sequence number; its id is the key it is stored under.

use std::{collections::HashMap, sync::Arc};

use super::{Closure, StreamCore, StreamId, StreamState};
use crate::{
    DecodeError, ProducerState, Timestamp,
    model::codec::{ByteReader, put_option, put_text, put_u64},
    model::event::{
        put_expiry, put_fork, put_producer, read_content_type, read_expiry, read_flags, read_fork,
        read_incarnation, read_offset, read_path, read_producer, read_stream_seq,
    },
};

const FORMAT: u8 = 2;
/// The format before: nothing is known of the ends of appends, and events were not counted.
const FORMAT_1: u8 = 1;

impl StreamState {
    /// Appends the stored form, without producers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let core = &self.core;
        out.push(FORMAT);
        put_text(out, core.path.as_str());
        put_text(out, core.content_type.as_str());
        put_expiry(out, core.expiry);
        out.push(
            u8::from(self.closed.is_some())
                | u8::from(core.expiry_inherited) << 1
                | u8::from(self.soft_deleted) << 2
                | u8::from(core.public) << 3,
        );
        put_option(out, core.fork.as_ref(), |out, fork| put_fork(out, fork, true));
        put_u64(out, self.tail.position());
        put_u64(out, self.touched.millis());
        put_option(out, self.closed.as_ref().and_then(|c| c.by.as_ref()), put_producer);
        put_option(out, self.stream_seq.as_ref(), |out, seq| put_text(out, seq.as_str()));
        put_u64(out, core.incarnation);
        put_u64(out, self.events);
        put_u64(out, self.delimited_from.position());
        put_u64(out, core.own_start().position());
        put_u64(out, 0);
    }

    /// The reverse of [`encode`](Self::encode); the producers are empty.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that `encode` cannot give.
    pub fn decode(id: StreamId, stored: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = ByteReader::new(stored);
        let format = reader.u8("snapshot format")?;
        if format != FORMAT && format != FORMAT_1 {
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
        if format != FORMAT_1 {
            let earliest = read_offset(&mut reader, "earliest position")?;
            if earliest != core.own_start() || reader.u64("segment references")? != 0 {
                return Err(DecodeError { what: "earliest position or segment references" });
            }
        }
        reader.finish("bytes after a snapshot")?;
        let tail = core.offset_at(tail.position());
        Ok(StreamState {
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
