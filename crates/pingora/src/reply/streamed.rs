//! A body that is read while it is written: one piece is in memory, however long the body is.

use std::sync::Arc;

use bytes::Bytes;
use durable_streams_engine::{Engine, READ_PIECE, ReadPlan};
use durable_streams_protocol::{ArrayFramer, Rejection, StreamCore};

use super::compress::StreamEncoder;
use crate::answers::{AnswerBudget, AnswerPayer, AnswerRoom};

/// The body of a catch-up or long-poll response that is longer than one piece.
pub(crate) struct StreamedBody {
    core: Arc<StreamCore>,
    plan: ReadPlan,
    /// In JSON mode.
    framer: Option<ArrayFramer>,
    encoder: Option<StreamEncoder>,
    payer: AnswerPayer,
    /// Room for the piece that was read last, or the first one.
    room: Option<Box<AnswerRoom>>,
    /// The first piece was read with the plan.
    is_first: bool,
}

impl StreamedBody {
    pub(super) fn new(
        core: Arc<StreamCore>,
        plan: ReadPlan,
        framer: Option<ArrayFramer>,
        encoder: Option<StreamEncoder>,
        payer: AnswerPayer,
        room: Option<Box<AnswerRoom>>,
    ) -> Self {
        StreamedBody { core, plan, framer, encoder, payer, room, is_first: true }
    }

    /// The next piece as the client receives it, never empty; `None` at the end. It has room until the next call.
    ///
    /// # Errors
    /// [`Rejection::NotFound`] when the stream was deleted meanwhile; the store's errors.
    pub(crate) async fn next(
        &mut self,
        engine: &Engine,
        answers: &AnswerBudget,
    ) -> Result<Option<Bytes>, Rejection> {
        if !std::mem::take(&mut self.is_first) {
            self.room = None;
            if !self.plan.is_empty() {
                self.room = answers.room(READ_PIECE, self.payer).await;
            }
        }
        while let Some(chunks) = engine.next_piece(&self.core, &mut self.plan, READ_PIECE).await? {
            let piece = match &mut self.framer {
                Some(framer) => {
                    let length: usize = chunks.iter().map(Bytes::len).sum();
                    let mut framed = Vec::with_capacity(length + 2);
                    chunks.iter().for_each(|chunk| framer.put(&mut framed, chunk));
                    framed.into()
                }
                None => of_its_own(chunks),
            };
            let piece = match &mut self.encoder {
                Some(encoder) => encoder.put(piece).await?,
                None => piece,
            };
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        match self.encoder.take() {
            Some(encoder) => encoder.finish().await.map(Some),
            None => Ok(None),
        }
    }
}

/// The chunks as one piece that shares no memory with the store: a slow client must not keep an append in memory that
/// the store has dropped from its cache, of which it takes 64 KiB.
pub(super) fn of_its_own(mut chunks: Vec<Bytes>) -> Bytes {
    match chunks.pop() {
        Some(only) if chunks.is_empty() && only.is_unique() => only,
        Some(last) => {
            chunks.push(last);
            chunks.concat().into()
        }
        None => Bytes::new(),
    }
}
