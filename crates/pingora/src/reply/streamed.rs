//! A body that is read while it is written: a piece is in memory, however long the body is.

use std::sync::Arc;

use bytes::Bytes;
use durable_streams_auth::ByteMeter;
use durable_streams_engine::{Engine, FILE_PART, READ_PIECE, ReadPlan, store::FilePart};
use durable_streams_protocol::{ArrayFramer, MESSAGE_END, Rejection, StreamCore};

use super::{compress::StreamEncoder, piece_size::PieceSize, rights::pace};
use crate::answers::{AnswerBudget, AnswerPayer, AnswerRoom, StreamedResponse};

/// Bytes that a stalled reader holds at most; with its connection less than 64 KiB.
const HELD: usize = 48 << 10;
/// Bytes that are read at a time at most.
const MOST: usize = 512 << 10;
/// Bytes that are read where none lie in a file before files are looked for again: a look takes a turn of the readers'
/// threads, and behind what an object store has local segments may follow.
const BETWEEN_LOOKS: usize = 1 << 20;
/// Chunks smaller than this on average are copied into one: a copy costs less than their places in a vectored write.
const WORTH_A_PLACE: usize = 16 << 10;

/// The body of a catch-up or long-poll response that is longer than one piece.
pub(crate) struct StreamedBody {
    core: Arc<StreamCore>,
    plan: ReadPlan,
    size: PieceSize,
    /// In JSON mode.
    framer: Option<ArrayFramer>,
    encoder: Option<StreamEncoder>,
    is_encoded: bool,
    payer: AnswerPayer,
    /// Room for the piece that was read last, or the first one.
    room: Option<Box<AnswerRoom>>,
    /// The first piece was read with the plan.
    is_first: bool,
    counted: StreamedResponse,
    /// What its bytes are taken from.
    meter: Option<Arc<ByteMeter>>,
    /// Bytes that are read before what comes next is looked for in files again.
    until_look: usize,
}

impl StreamedBody {
    pub(super) fn new(
        core: Arc<StreamCore>,
        plan: ReadPlan,
        framer: Option<ArrayFramer>,
        encoder: Option<StreamEncoder>,
        payer: AnswerPayer,
        room: Option<Box<AnswerRoom>>,
        counted: StreamedResponse,
    ) -> Self {
        let is_encoded = encoder.is_some();
        let is_first = !plan.is_in_file();
        let size = PieceSize::new(HELD, MOST);
        StreamedBody {
            core,
            plan,
            size,
            framer,
            encoder,
            is_encoded,
            payer,
            room,
            is_first,
            counted,
            meter: None,
            until_look: 0,
        }
    }

    /// Whether so many responses are under way that each yields to other tasks after a piece.
    pub(crate) fn is_one_of_many(&self) -> bool {
        self.counted.is_one_of_many()
    }

    /// Whether its first bytes are there.
    pub(crate) fn begins_at_once(&self) -> bool {
        self.meter.is_none() && (self.is_first || self.plan.is_in_file())
    }

    /// Slows the body down to a rate of bytes.
    pub(super) fn meter(&mut self, meter: Option<&Arc<ByteMeter>>) {
        self.meter = meter.cloned();
    }

    /// Whether the body has a content encoding. Its pieces cannot be read again.
    pub(crate) fn is_encoded(&self) -> bool {
        self.is_encoded
    }

    /// The next piece, if it lies in a file and the client receives those very bytes. The first byte of a JSON body begins the
    /// array, and the last one ends it: they lie in none.
    ///
    /// # Errors
    /// The store's errors.
    pub(crate) async fn next_file(
        &mut self,
        engine: &Engine,
    ) -> Result<Option<FilePart>, Rejection> {
        // The first piece was read with the plan.
        let begins = self.framer.as_ref().is_some_and(|framer| !framer.has_begun());
        let read = self.is_first || self.is_encoded || begins;
        if read || self.meter.is_some() || self.until_look > 0 || self.is_at_end_of_array() {
            return Ok(None);
        }
        let mut most = self.counted.piece(FILE_PART).max(HELD);
        if self.framer.is_some() {
            most = most.min(usize::try_from(self.plan.len().saturating_sub(1)).unwrap_or(most));
        }
        // Boxed: rare, and replies that never come here have no room for it.
        let part = Box::pin(engine.next_file_part(&self.core, &mut self.plan, most)).await?;
        match part {
            // What a file has takes no room in memory.
            Some(_) => self.room = None,
            None => self.until_look = BETWEEN_LOOKS,
        }
        if let (Some(part), Some(framer)) = (&part, &mut self.framer) {
            framer.pass(part.len());
        }
        Ok(part)
    }

    /// The next piece as the client receives it, never empty; `None` at the end. It has room until the next call, and
    /// may share memory with the store.
    ///
    /// # Errors
    /// [`Rejection::NotFound`] when the stream was deleted meanwhile; the store's errors.
    pub(crate) async fn next(
        &mut self,
        engine: &Engine,
        answers: &AnswerBudget,
    ) -> Result<Option<Vec<Bytes>>, Rejection> {
        // Boxed: rare. Before the room, so that a client that is slowed down takes none from others meanwhile.
        if let Some(meter) = &self.meter {
            let size = if self.is_first { READ_PIECE } else { HELD };
            let bytes = usize::try_from(self.plan.len()).unwrap_or(size).min(size);
            Box::pin(pace(meter, engine, bytes)).await;
        }
        if self.plan.is_in_file()
            && let Some(framer) = self.framer.as_mut().filter(|framer| !framer.has_begun())
        {
            let mut bracket = Vec::new();
            framer.begin(&mut bracket);
            return Ok(Some(vec![bracket.into()]));
        }
        if self.is_at_end_of_array() {
            self.plan.skip_last();
            let chunks = self.framed(vec![Bytes::from_static(&[MESSAGE_END])]);
            return Ok(Some(chunks));
        }
        let size = match std::mem::take(&mut self.is_first) {
            true => READ_PIECE,
            false => self.make_room(answers).await,
        };
        while let Some(chunks) = engine.next_piece(&self.core, &mut self.plan, size).await? {
            let read = chunks.iter().map(Bytes::len).sum();
            self.until_look = self.until_look.saturating_sub(read);
            let chunks = self.framed(chunks);
            let Some(encoder) = &mut self.encoder else { return Ok(Some(chunks)) };
            let encoded = encoder.put(joined(chunks)).await?;
            if !encoded.is_empty() {
                return Ok(Some(vec![encoded]));
            }
        }
        match self.encoder.take() {
            Some(encoder) => encoder.finish().await.map(|last| Some(vec![last])),
            None => Ok(None),
        }
    }

    /// Whether only the terminator of the last message is left, which needs no read: files have everything before it.
    fn is_at_end_of_array(&self) -> bool {
        self.framer.is_some() && !self.is_first && !self.is_encoded && self.plan.len() == 1
    }

    /// Takes room for the next piece, and returns its size.
    async fn make_room(&mut self, answers: &AnswerBudget) -> usize {
        self.room = None;
        let most = self.counted.piece(MOST).max(HELD);
        let (size, left) = (self.size.bytes().min(most), self.plan.len());
        let size = usize::try_from(left).unwrap_or(size).min(size);
        if size > HELD && !self.is_encoded && self.meter.is_none() {
            self.room = answers.room_at_once(size, self.payer);
            if self.room.is_some() {
                return size;
            }
        }
        if left > 0 {
            self.room = answers.room(size.min(HELD), self.payer).await;
        }
        HELD
    }

    /// As the client receives them.
    fn framed(&mut self, chunks: Vec<Bytes>) -> Vec<Bytes> {
        let length: usize = chunks.iter().map(Bytes::len).sum();
        if let Some(framer) = &mut self.framer {
            let mut framed = Vec::with_capacity(length + 1);
            chunks.iter().for_each(|chunk| framer.put(&mut framed, chunk));
            return vec![framed.into()];
        }
        if chunks.len() > 1 && chunks.len() * WORTH_A_PLACE > length {
            return vec![chunks.concat().into()];
        }
        chunks
    }

    /// What is left of a piece of which the client took `taken` bytes, to be written next; `None` when it took all. It
    /// shares no memory with the store: a slow client must not keep an append in memory that the store has dropped
    /// from its cache. What is more than a stalled reader may hold is put back.
    pub(crate) fn rest(&mut self, mut chunks: Vec<Bytes>, taken: usize) -> Option<Bytes> {
        if self.is_encoded {
            return Some(joined(chunks));
        }
        let length: usize = chunks.iter().map(Bytes::len).sum();
        if taken == length {
            self.size.took_all(taken);
            return None;
        }
        self.size.stalled();
        let kept = (length - taken).min(HELD);
        let rest = copy(&chunks, taken, kept);
        chunks.clear();
        let back = (length - taken - kept) as u64;
        if back > 0 {
            self.plan.put_back(back);
            if let Some(framer) = &mut self.framer {
                framer.put_back(back);
            }
        }
        if let Some(room) = &mut self.room {
            room.shrink(HELD);
        }
        Some(rest)
    }
}

/// `count` bytes after the first `skip`.
fn copy(chunks: &[Bytes], mut skip: usize, count: usize) -> Bytes {
    let mut out = Vec::with_capacity(count);
    for chunk in chunks {
        let from = skip.min(chunk.len());
        skip -= from;
        let part = chunk.get(from..).unwrap_or_default();
        out.extend_from_slice(part.get(..count - out.len()).unwrap_or(part));
    }
    out.into()
}

/// All chunks as one.
pub(super) fn joined(mut chunks: Vec<Bytes>) -> Bytes {
    match chunks.len() {
        0 | 1 => chunks.pop().unwrap_or_default(),
        _ => chunks.concat().into(),
    }
}
