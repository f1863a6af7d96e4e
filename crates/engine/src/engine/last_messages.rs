//! Where a look at the end of a stream begins.

use durable_streams_protocol::{MESSAGE_END, Offset, Rejection, StreamCore, StreamPath, Tail};

use super::{Engine, page::end_of_append, reader::READ_PIECE, reader::read_lineage};

/// Bytes that are looked at, from the tail backwards, for the ends of messages.
const LOOK_BACK: u64 = 1 << 20;
/// Bytes from the tail at which a look at a stream without messages begins.
const LAST_BYTES: u64 = 64 << 10;

/// Where the last messages of a stream begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastMessages {
    /// The offset to read from.
    pub offset: Offset,
    /// The messages from there to the tail; `None` for streams that are not JSON.
    pub messages: Option<usize>,
    /// All that were asked for, or all that there are: `false` when the last MiB of the stream has fewer.
    pub complete: bool,
}

impl Engine {
    /// Where the last `count` messages of a JSON stream begin; for others, the end of an append about 64 KiB before the
    /// tail. Does not count as a use of the stream.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], [`Rejection::Gone`], the store's errors.
    pub async fn last_messages(
        &self,
        path: &StreamPath,
        count: usize,
    ) -> Result<LastMessages, Rejection> {
        let view = self.head(path).await?;
        let (core, tail) = (&view.core, view.tail);
        if core.content_type.is_json() {
            return self.last_of_json(core, tail, count).await;
        }
        let (earliest, tail) = (tail.earliest, tail.offset);
        let back = tail.position().saturating_sub(LAST_BYTES);
        let offset = match back {
            _ if back <= earliest.position() => earliest,
            _ => {
                let from = core.offset_at(back);
                match end_of_append(&self.store, core, from, tail).await {
                    Ok(end) => end.unwrap_or(from),
                    Err(Rejection::NotFound) => match self.gone_since(core, from).await {
                        Rejection::OffsetTrimmed { earliest } => earliest,
                        gone => return Err(gone),
                    },
                    Err(refused) => return Err(refused),
                }
            }
        };
        let offset = core.offset_at(offset.position());
        Ok(LastMessages { offset, messages: None, complete: true })
    }

    async fn last_of_json(
        &self,
        core: &StreamCore,
        Tail { offset: tail, earliest, .. }: Tail,
        count: usize,
    ) -> Result<LastMessages, Rejection> {
        let earliest = earliest.position();
        let floor = tail.position().saturating_sub(LOOK_BACK).max(earliest);
        // Positions behind messages, latest first.
        let mut ends: Vec<u64> = Vec::new();
        let mut before = tail.position();
        while before > floor && ends.len() <= count {
            let window = before.saturating_sub(READ_PIECE as u64).max(floor);
            let mut found = Vec::new();
            let mut at = window;
            while at < before {
                let (from, to) = (core.offset_at(at), core.offset_at(before));
                let slice = read_lineage(&self.store, core, from, to, READ_PIECE).await?;
                for chunk in &slice.chunks {
                    let ends = memchr::memchr_iter(MESSAGE_END, chunk);
                    found.extend(ends.map(|end| at + end as u64 + 1));
                    at += chunk.len() as u64;
                }
                if slice.chunks.is_empty() {
                    break;
                }
            }
            ends.extend(found.into_iter().rev());
            before = window;
        }
        let (start, messages, complete) = match ends.get(count) {
            Some(start) => (*start, count, true),
            None if floor == earliest => (earliest, ends.len(), true),
            None => match ends.last() {
                Some(first) => (*first, ends.len() - 1, false),
                None => (tail.position(), 0, false),
            },
        };
        Ok(LastMessages { offset: core.offset_at(start), messages: Some(messages), complete })
    }
}
