//! Reads a range of a stream's bytes, joined over its fork lineage (§4.2).
//!
//! A range is planned first: its end is found and its first piece is read. The rest is read piece by piece as the
//! transport asks for it, so that a reader holds one piece at most, however long the range is. What the client does not
//! take of a piece may be put back, and is read again later.

mod cold;
pub(super) mod dropped;
mod file_parts;
mod read_plan;

use std::time::Duration;

use bytes::Bytes;
use durable_streams_protocol::{MESSAGE_END, Offset, Rejection, StreamCore, is_message_boundary};

pub use self::read_plan::ReadPlan;
use self::{
    cold::check_cold,
    dropped::{follows_dropped, readable},
    file_parts::begin_to_send,
};
use super::{
    Engine,
    errors::rejection,
    page::{message_end, page_of_appends, page_of_messages},
};
use crate::store::{AnyStore, Store};

/// Bytes of a plan's first piece at most, and of each look that searches for the end of a page.
pub const READ_PIECE: usize = 64 << 10;
/// Bytes of a file that are sent at a time at most; they are not held in memory.
pub const FILE_PART: usize = 4 << 20;

/// How often a trim or a deletion is looked for that the store has made, and the pause between two looks.
const LOOKS_FOR_LOSS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(1);

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

    /// Drops the last `bytes` bytes. The end is a position then: it may lie before the fork point.
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

    /// The position after the last message that is whole in these bytes.
    pub(super) fn last_message_end(&self) -> Option<Offset> {
        let mut unfinished = 0;
        for chunk in self.chunks.iter().rev() {
            match memchr::memrchr(MESSAGE_END, chunk) {
                Some(at) => unfinished += chunk.len() - at - 1,
                None => {
                    unfinished += chunk.len();
                    continue;
                }
            }
            return Some(Offset::new(self.end.position() - unfinished as u64));
        }
        None
    }
}

impl Engine {
    /// Plans a read from `from` to `tail`, or of a page of about `page` bytes, which ends where an append ends, or in JSON
    /// mode a message. The first piece is read, the rest comes by [`next_piece`](Self::next_piece).
    ///
    /// # Errors
    /// [`Rejection::OffsetBeyondTail`], [`Rejection::OffsetInsideMessage`]; [`Rejection::NotFound`] when
    /// the stream is deleted meanwhile, [`Rejection::OffsetTrimmed`] when it is trimmed; the store's errors.
    pub fn plan(
        &self,
        core: &StreamCore,
        from: Offset,
        tail: Offset,
        page: Option<usize>,
    ) -> impl Future<Output = Result<ReadPlan, Rejection>> + Send {
        self.plan_as(core, from, tail, page, false)
    }

    /// The same for a caller that can send files. Where the range begins in one, nothing is read: that part of it, at most
    /// [`FILE_PART`] bytes, is what [`next_file_part`](Self::next_file_part) returns first. JSON is read where it
    /// begins behind another message, whose end is looked at, or where it is a page.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan).
    pub fn plan_to_send(
        &self,
        core: &StreamCore,
        from: Offset,
        tail: Offset,
        page: Option<usize>,
    ) -> impl Future<Output = Result<ReadPlan, Rejection>> + Send {
        self.plan_as(core, from, tail, page, true)
    }

    async fn plan_as(
        &self,
        core: &StreamCore,
        from: Offset,
        tail: Offset,
        page: Option<usize>,
        sends_files: bool,
    ) -> Result<ReadPlan, Rejection> {
        let mut plan = match plan(&self.store, core, from, tail, page, sends_files).await {
            // Boxed: rare.
            Err(Rejection::NotFound) => return Err(Box::pin(self.gone_since(core, from)).await),
            plan => plan?,
        };
        plan.end = core.offset_at(plan.end.position());
        Ok(plan)
    }

    /// Why bytes of a stream that a reader has seen are not there: a trim or a deletion since.
    pub(super) async fn gone_since(&self, core: &StreamCore, from: Offset) -> Rejection {
        for _ in 0..LOOKS_FOR_LOSS {
            match self.head(&core.path).await {
                Ok(view) if view.core.id == core.id && view.tail.earliest > from => {
                    return Rejection::OffsetTrimmed { earliest: view.tail.earliest };
                }
                // The store knows of it before the stream's cell does.
                Ok(view) if view.core.id == core.id => tokio::time::sleep(PAUSE).await,
                _ => break,
            }
        }
        Rejection::NotFound
    }

    /// The next piece of a planned read of the stream `core`, `max` bytes at most; `None` at its end.
    ///
    /// # Errors
    /// [`Rejection::NotFound`] when the stream is deleted meanwhile, [`Rejection::OffsetTrimmed`] when it is trimmed; the
    /// store's errors.
    pub async fn next_piece(
        &self,
        core: &StreamCore,
        plan: &mut ReadPlan,
        max: usize,
    ) -> Result<Option<Vec<Bytes>>, Rejection> {
        match next_piece(&self.store, core, plan, max).await {
            Err(Rejection::NotFound) => Err(Box::pin(self.gone_since(core, plan.next)).await),
            piece => piece,
        }
    }

    /// Reads a page of about `max` bytes at once: see [`plan`](Self::plan).
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan).
    pub async fn read(
        &self,
        core: &StreamCore,
        from: Offset,
        tail: Offset,
        max: usize,
    ) -> Result<ReadSlice, Rejection> {
        let mut plan = self.plan(core, from, tail, Some(max)).await?;
        let mut slice = plan.take_first();
        while let Some(chunks) = self.next_piece(core, &mut plan, READ_PIECE).await? {
            slice.chunks.extend(chunks);
        }
        slice.end = core.offset_at(plan.end().position());
        Ok(slice)
    }

    /// Whether a read of a stream with this tail may begin at `from`, and whether the object store answers where it would
    /// begin with bytes that are there.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan).
    pub async fn check_offset(
        &self,
        core: &StreamCore,
        from: Offset,
        tail: Offset,
    ) -> Result<(), Rejection> {
        let mut checked = check_offset(&self.store, core, from, tail).await;
        if checked.is_ok() && from < tail && self.store.reads_objects() {
            checked = Box::pin(check_cold(&self.store, core, from, tail)).await;
        }
        match checked {
            Err(Rejection::NotFound) => Err(Box::pin(self.gone_since(core, from)).await),
            checked => checked,
        }
    }
}

/// Plans a read from `from` to `tail`, or to the end of a page of about `page` bytes: more only when one append, or one
/// JSON message, is longer than that. Dropped bytes are passed at the beginning, and otherwise end the range.
///
/// # Errors
/// [`Rejection::OffsetBeyondTail`], [`Rejection::OffsetInsideMessage`]; [`Rejection::NotFound`] when the
/// stream is deleted meanwhile; the store's errors.
async fn plan(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
    page: Option<usize>,
    sends_files: bool,
) -> Result<ReadPlan, Rejection> {
    if from > tail {
        return Err(Rejection::OffsetBeyondTail { tail });
    }
    if from == tail {
        return Ok(ReadPlan { next: tail, end: tail, ..ReadPlan::default() });
    }
    let asked = from;
    let (from, tail) = readable(store, core, from, tail);
    if from == tail {
        return Ok(ReadPlan { next: tail, end: tail, ..ReadPlan::default() });
    }
    let inside = from > Offset::ZERO && from == asked && !follows_dropped(store, core, from);
    // A page that reaches the tail needs no search for its end.
    let page = page.map(|page| page.max(1)).filter(|page| from.advance(*page as u64) < tail);
    if !core.content_type.is_json() {
        let end = match page {
            None => tail,
            // Boxed, like the others: they are larger than what a small read needs, whose future has room for them.
            Some(page) => Box::pin(page_of_appends(store, core, from, tail, page)).await?,
        };
        if sends_files {
            return Box::pin(begin_to_send(store, core, from, end)).await;
        }
        let slice = read_lineage(store, core, from, end, READ_PIECE).await?;
        return Ok(ReadPlan { next: slice.end, first: slice.chunks, end, part: None });
    }
    if sends_files && page.is_none() && !inside {
        return Box::pin(begin_to_send(store, core, from, tail)).await;
    }
    let room = page.map_or(READ_PIECE, |page| page.min(READ_PIECE));
    let mut slice = if inside {
        Box::pin(read_from_boundary(store, core, from, tail, room)).await?
    } else {
        read_lineage(store, core, from, tail, room).await?
    };
    let end = match page {
        None => tail,
        Some(page) => {
            match Box::pin(page_of_messages(store, core, &slice, from, tail, page)).await? {
                Some(end) => end,
                None => {
                    // One message is larger than the page. The first piece is read again: kept, it would be held during
                    // the search.
                    slice = ReadSlice { chunks: Vec::new(), end: from };
                    Box::pin(message_end(store, core, from.advance(page as u64), tail)).await?
                }
            }
        }
    };
    slice.cut(slice.end.position().saturating_sub(end.position()) as usize);
    Ok(ReadPlan { next: slice.end, first: slice.chunks, end, part: None })
}

/// The next piece of a planned read, `None` at its end.
///
/// # Errors
/// [`Rejection::NotFound`] when the stream is deleted meanwhile; the store's errors.
async fn next_piece(
    store: &AnyStore,
    core: &StreamCore,
    plan: &mut ReadPlan,
    max: usize,
) -> Result<Option<Vec<Bytes>>, Rejection> {
    if !plan.first.is_empty() {
        let mut first = plan.take_first();
        // What is too much is read again: kept, it would be held while the client stalls.
        first.cut(first.len().saturating_sub(max));
        plan.next = first.end;
        return Ok(Some(first.chunks));
    }
    if plan.next >= plan.end {
        return Ok(None);
    }
    plan.part = None;
    let slice = read_lineage(store, core, plan.next, plan.end, max).await?;
    plan.next = slice.end;
    Ok(Some(slice.chunks))
}

/// Whether a read may begin at `from`.
///
/// # Errors
/// Those of [`plan`].
pub(super) async fn check_offset(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
) -> Result<(), Rejection> {
    if from > tail {
        return Err(Rejection::OffsetBeyondTail { tail });
    }
    let passes =
        || readable(store, core, from, tail).0 > from || follows_dropped(store, core, from);
    if core.content_type.is_json() && from > Offset::ZERO && from < tail && !passes() {
        read_from_boundary(store, core, from, tail, 0).await?;
    }
    Ok(())
}

/// Reads like [`read_lineage`] from an offset inside a JSON stream, whose byte in front shows whether a message begins
/// there.
async fn read_from_boundary(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
    max: usize,
) -> Result<ReadSlice, Rejection> {
    let before = Offset::new(from.position().saturating_sub(1));
    let mut slice = match read_lineage(store, core, before, tail, max.saturating_add(1)).await {
        // The byte was trimmed: a stream's first bytes begin a message.
        Err(Rejection::NotFound) => return read_lineage(store, core, from, tail, max).await,
        read => read?,
    };
    let byte = slice.chunks.first().and_then(|chunk| chunk.first()).copied();
    if !is_message_boundary(byte) {
        return Err(Rejection::OffsetInsideMessage);
    }
    slice.skip_first();
    Ok(slice)
}

/// Reads `max` bytes or up to the tail, whichever is less, from each stream of the lineage in turn.
pub(super) async fn read_lineage(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
    max: usize,
) -> Result<ReadSlice, Rejection> {
    go_on(store, core, ReadSlice { chunks: Vec::new(), end: from }, tail, max.max(1)).await
}

/// Reads on behind a slice until it has `max` bytes, or up to the tail.
async fn go_on(
    store: &AnyStore,
    core: &StreamCore,
    mut slice: ReadSlice,
    tail: Offset,
    max: usize,
) -> Result<ReadSlice, Rejection> {
    let mut room = max.saturating_sub(slice.len());
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
