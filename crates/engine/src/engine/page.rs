//! Where a page ends: with a whole append, or in JSON mode with a whole message (§9.1).
//!
//! A client may take what one response or one event holds for whole: editors apply each as an update, and text is decoded
//! response by response. What was whole in an append therefore stays whole.

use durable_streams_protocol::{
    MESSAGE_END, Offset, Rejection, StreamCore, count_messages, text_boundary,
};

use super::{
    errors::rejection,
    reader::{READ_PIECE, ReadSlice, check_offset, dropped::readable, read_lineage},
};
use crate::store::{AnyStore, AppendEnd, Store};

/// The last end of a message in a page of `max` bytes that begins at `from` and whose first piece is `first`; `None` when
/// no message ends in it.
pub(super) async fn page_of_messages(
    store: &AnyStore,
    core: &StreamCore,
    first: &ReadSlice,
    from: Offset,
    tail: Offset,
    max: usize,
) -> Result<Option<Offset>, Rejection> {
    let limit = from.advance(max as u64).min(tail);
    let mut before = limit;
    while before > first.end {
        let window = Offset::new(before.position().saturating_sub(READ_PIECE as u64));
        let window = window.max(first.end);
        let slice = read_lineage(store, core, window, before, READ_PIECE).await?;
        if let Some(end) = slice.last_message_end() {
            return Ok(Some(end));
        }
        before = window;
    }
    let mut within = first.clone();
    within.cut(within.end.position().saturating_sub(limit.position()) as usize);
    Ok(within.last_message_end())
}

/// Where the message ends in which the byte at `from` lies.
pub(super) async fn message_end(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
) -> Result<Offset, Rejection> {
    let mut at = from;
    while at < tail {
        let slice = read_lineage(store, core, at, tail, READ_PIECE).await?;
        let mut searched = 0;
        for chunk in &slice.chunks {
            if let Some(end) = memchr::memchr(MESSAGE_END, chunk) {
                return Ok(at.advance((searched + end + 1) as u64));
            }
            searched += chunk.len();
        }
        at = slice.end;
    }
    Ok(tail)
}

/// Where a page of about `max` bytes ends that begins at `from` and does not reach `tail`: at the last end of an append in
/// it, or else at the first one behind it. A fork's first own byte begins another append.
pub(super) async fn page_of_appends(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
    max: usize,
) -> Result<Offset, Rejection> {
    let limit = from.advance(max as u64);
    let mut at = from;
    while at < limit {
        let (holder, until) = core.holder_of(at, tail);
        if until <= limit {
            at = until;
            continue;
        }
        let within = limit.position() - at.position();
        return match store.append_end(holder, at, until, within).await.map_err(rejection)? {
            // The next append alone would be more than the page has room for.
            AppendEnd::At(end) if end > limit && at > from => Ok(at),
            AppendEnd::At(end) => Ok(end),
            AppendEnd::Unknown => page_of_bytes(store, core, from, limit).await,
            AppendEnd::Gone => Err(Rejection::NotFound),
        };
    }
    Ok(at)
}

/// Where the append ends in which the byte at `from` lies, or that begins there; `None` if that is not known.
///
/// # Errors
/// [`Rejection::NotFound`] when the stream is deleted or trimmed meanwhile; the store's errors.
pub(super) async fn end_of_append(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
) -> Result<Option<Offset>, Rejection> {
    if from >= tail {
        return Ok(Some(tail));
    }
    let (holder, until) = core.holder_of(from, tail);
    match store.append_end(holder, from, until, 0).await.map_err(rejection)? {
        AppendEnd::At(end) => Ok(Some(end)),
        AppendEnd::Unknown => Ok(None),
        AppendEnd::Gone => Err(Rejection::NotFound),
    }
}

/// A page of bytes whose appends are not known, as storage format 1 left them: text is not cut inside a character.
async fn page_of_bytes(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    limit: Offset,
) -> Result<Offset, Rejection> {
    if !core.content_type.is_text() {
        return Ok(limit);
    }
    let last = Offset::new(limit.position().saturating_sub(3)).max(from);
    let slice = read_lineage(store, core, last, limit, 3).await?;
    let cut = text_boundary(&slice.chunks.concat()) as u64;
    // A page of a few bytes may be less than one character.
    Ok(Some(Offset::new(limit.position() - cut)).filter(|end| *end > from).unwrap_or(limit))
}

/// The position `count` messages after `from`, or `None` if there are fewer up to `tail`.
///
/// # Errors
/// Those of [`Engine::plan`](super::Engine::plan).
pub(super) async fn skip_messages(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
    count: u64,
) -> Result<Option<Offset>, Rejection> {
    check_offset(store, core, from, tail).await?;
    let mut at = from;
    let mut left = count;
    while left > 0 && at < tail {
        let (begin, end) = readable(store, core, at, tail);
        at = begin;
        if at == tail {
            break;
        }
        let slice = read_lineage(store, core, at, end, READ_PIECE).await?;
        for chunk in &slice.chunks {
            let messages = count_messages(chunk) as u64;
            if messages >= left {
                let nth = (left as usize).saturating_sub(1);
                let end = memchr::memchr_iter(MESSAGE_END, chunk).nth(nth).unwrap_or(chunk.len());
                return Ok(Some(at.advance(end as u64 + 1)));
            }
            left -= messages;
            at = at.advance(chunk.len() as u64);
        }
    }
    Ok((left == 0).then_some(at))
}
