//! A data event that is too large to be made in memory: one append of up to `limits.max_append`, written in pieces.
//!
//! A piece is read, and parts of it are encoded and written. While a client stalls, only the part that is being written is
//! in memory, [`BUFFER`] bytes: the rest of the piece is read again later.

use std::pin::pin;

use bytes::Bytes;
use durable_streams_engine::{ReadPlan, StreamView, TailWatch};
use durable_streams_protocol::{
    DataEncoder, Offset, Rejection, SseEncoding, SseRead, encode_control, text_boundary,
};

use super::{piece_size::PieceSize, streamed::joined};
use crate::{
    DurableStreams,
    write::{EventChunk, PATIENCE, ReplyWriter, cut_off},
};

/// Bytes of the stream that are read at a time for a client that stalls; as base64 they are [`FULL`].
const LEAST: usize = 18 << 10;
/// Bytes of the stream that are read at a time at most.
const MOST: usize = 256 << 10;
/// Bytes that are encoded at a time.
const PART: usize = 1 << 10;
/// Bytes of the event that are written as soon as there are as many. One part more may come to them.
const FULL: usize = 24 << 10;
const BUFFER: usize = FULL + PART * DataEncoder::MAX_GROWTH + 64;

/// An event that is to be written in pieces.
pub(super) struct LargeEvent<'v> {
    pub(super) view: &'v StreamView,
    pub(super) from: Offset,
    pub(super) plan: ReadPlan,
}

impl DurableStreams {
    /// Writes a large event and the control event that must follow it. Returns the number of their bytes.
    ///
    /// # Errors
    /// The client can no longer be written to, or the stream's bytes have gone: the connection is cut, so that no client
    /// takes half an event for a whole one.
    pub(super) async fn write_large(
        &self,
        event: LargeEvent<'_>,
        watch: &mut TailWatch,
        sse: &mut SseRead,
        out: &mut impl ReplyWriter,
    ) -> pingora_core::Result<usize> {
        let LargeEvent { view, from, mut plan } = event;
        let before = watch.tail();
        let encoding = SseEncoding::of(&view.core.content_type);
        let mut beginning = Vec::new();
        let mut encoder = DataEncoder::begin(&mut beginning, encoding, plan.len());
        let mut held = false;
        if encoding == SseEncoding::Text {
            if self.ends_with_cr(view, from).await.map_err(cut_off)? {
                encoder.after_cr();
            }
            let unfinished = self.unfinished(view, plan.end()).await.map_err(cut_off)?;
            let at_tail = plan.end() == before.offset;
            if !(at_tail && before.closed) {
                plan.cut(unfinished);
                held = unfinished > 0 && at_tail;
            }
        }
        let mut written = 0;
        let mut size = PieceSize::new(LEAST, MOST);
        while let Some(chunks) =
            self.engine.next_piece(&view.core, &mut plan, size.bytes()).await.map_err(cut_off)?
        {
            let mut piece = joined(chunks);
            let mut at = 0;
            while at < piece.len() {
                let chunk = EventChunk::new(BUFFER, |out| {
                    out.append(&mut beginning);
                    while at < piece.len() && out.len() < FULL {
                        let part = piece.get(at..piece.len().min(at + PART)).unwrap_or_default();
                        encoder.put(out, part);
                        at += part.len();
                    }
                });
                // Base64 of a byte or two comes with the next piece.
                if chunk.is_empty() {
                    continue;
                }
                let encoded = chunk.len();
                let mut writing = pin!(out.event(chunk));
                match tokio::time::timeout(PATIENCE, writing.as_mut()).await {
                    Ok(done) => {
                        done?;
                        size.took_all(encoded);
                    }
                    Err(_) => {
                        plan.put_back((piece.len() - at) as u64);
                        piece = Bytes::new();
                        size.stalled();
                        writing.await?;
                    }
                }
                written += encoded;
            }
        }
        // What came meanwhile belongs to the next event, and this one's control event says so.
        let tail = watch.tail();
        held &= tail.offset == before.offset;
        let end = view.core.offset_at(plan.end().position());
        let control = sse.sent(end, held, tail, self.engine.steady_now());
        let end = EventChunk::new(256, |out| {
            out.append(&mut beginning);
            encoder.end(out);
            encode_control(out, &control);
        });
        written += end.len();
        out.event(end).await?;
        Ok(written)
    }

    /// How many bytes before `end` are the beginning of a character.
    async fn unfinished(&self, view: &StreamView, end: Offset) -> Result<u64, Rejection> {
        let last = Offset::new(end.position().saturating_sub(3));
        let slice = self.engine.read(&view.core, last, end, 3).await?;
        Ok(text_boundary(&slice.chunks.concat()) as u64)
    }
}
