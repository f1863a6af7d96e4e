//! Reads a range of a stream's bytes: joined over its fork lineage (§4.2), bounded, and cut at message
//! boundaries in JSON mode (§9.1).

use bytes::Bytes;
use durable_streams_protocol::{MESSAGE_END, Offset, Rejection, StreamCore, is_message_boundary};

use super::errors::rejection;
use crate::store::{AnyStore, Store};

/// Bytes read at a time to find the end of a message, at least: with a small `max` a long message would take
/// many reads, each followed by another scan of all bytes so far.
const MESSAGE_WINDOW: usize = 64 << 10;

/// A range of a stream's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSlice {
    /// The bytes in stored form: shared with the store, not copied.
    pub chunks: Vec<Bytes>,
    /// The position after them.
    pub end: Offset,
}

impl ReadSlice {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether the first byte is `byte`.
    pub fn starts_with(&self, byte: u8) -> bool {
        self.chunks.first().and_then(|chunk| chunk.first()) == Some(&byte)
    }

    /// Drops the first byte; the end stays.
    pub fn skip_first(&mut self) {
        if let Some(first) = self.chunks.first_mut() {
            let _ = (!first.is_empty()).then(|| first.split_to(1));
        }
        self.chunks.retain(|chunk| !chunk.is_empty());
    }

    /// Drops the last `bytes` bytes.
    pub fn cut(&mut self, bytes: usize) {
        self.end = Offset::new(self.end.position() - bytes as u64);
        let mut left = bytes;
        while let Some(last) = self.chunks.last_mut().filter(|_| left > 0) {
            let dropped = left.min(last.len());
            last.truncate(last.len() - dropped);
            left -= dropped;
            if last.is_empty() {
                self.chunks.pop();
            }
        }
    }
}

/// Reads from `from` towards `tail`, about `max` bytes: less only at the tail, more only when one JSON
/// message is longer than that.
///
/// # Errors
/// [`Rejection::OffsetBeyondTail`], [`Rejection::OffsetInsideMessage`]; [`Rejection::NotFound`] when the
/// stream is deleted meanwhile; the store's errors.
pub(super) async fn read(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
    max: usize,
) -> Result<ReadSlice, Rejection> {
    if from > tail {
        return Err(Rejection::OffsetBeyondTail { tail });
    }
    if from == tail {
        return Ok(ReadSlice { chunks: Vec::new(), end: tail });
    }
    if !core.content_type.is_json() {
        return read_lineage(store, core, from, tail, max).await;
    }
    if from > Offset::ZERO {
        // The byte in front shows whether a message begins at `from`.
        let before = Offset::new(from.position() - 1);
        let mut slice = read_lineage(store, core, before, tail, max.saturating_add(1)).await?;
        let first = slice.chunks.first_mut().filter(|chunk| !chunk.is_empty());
        let byte = first.map(|chunk| chunk.split_to(1)).and_then(|byte| byte.first().copied());
        if !is_message_boundary(byte) {
            return Err(Rejection::OffsetInsideMessage);
        }
        slice.chunks.retain(|chunk| !chunk.is_empty());
        return whole_messages(store, core, slice, tail, max).await;
    }
    let slice = read_lineage(store, core, from, tail, max).await?;
    whole_messages(store, core, slice, tail, max).await
}

/// Reads `max` bytes or up to the tail, whichever is less, from each stream of the lineage in turn.
async fn read_lineage(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
    max: usize,
) -> Result<ReadSlice, Rejection> {
    let mut slice = ReadSlice { chunks: Vec::new(), end: from };
    let mut room = max.max(1);
    while slice.end < tail && room > 0 {
        let (holder, until) = core.holder_of(slice.end, tail);
        let pieces = store.read(holder, slice.end, until, room).await.map_err(rejection)?;
        let read: usize = pieces.iter().map(Bytes::len).sum();
        if read == 0 {
            return Err(Rejection::NotFound);
        }
        slice.end = slice.end.advance(read as u64);
        room = room.saturating_sub(read);
        slice.chunks.extend(pieces);
    }
    Ok(slice)
}

/// Ends a slice at its last message boundary; without one, reads on to the first one behind it.
async fn whole_messages(
    store: &AnyStore,
    core: &StreamCore,
    mut slice: ReadSlice,
    tail: Offset,
    max: usize,
) -> Result<ReadSlice, Rejection> {
    loop {
        let mut unfinished = 0;
        for chunk in slice.chunks.iter().rev() {
            match memchr::memrchr(MESSAGE_END, chunk) {
                Some(at) => {
                    unfinished += chunk.len() - at - 1;
                    slice.cut(unfinished);
                    return Ok(slice);
                }
                None => unfinished += chunk.len(),
            }
        }
        if slice.end >= tail {
            return Ok(slice);
        }
        let more = read_lineage(store, core, slice.end, tail, max.max(MESSAGE_WINDOW)).await?;
        slice.end = more.end;
        slice.chunks.extend(more.chunks);
    }
}
