//! What a rule says of one stream: from where it keeps its bytes.

use std::time::Duration;

use durable_streams_protocol::{MESSAGE_END, Offset, Rejection, StreamState, Tail, Timestamp};

use super::rule::{RetentionRule, SLACK};
use crate::{
    engine::{
        Engine,
        errors::rejection,
        page::skip_messages,
        reader::{READ_PIECE, read_lineage},
    },
    store::{AppendEnd, Store},
};

/// Messages that one look passes at most; the next look goes on there.
const MESSAGES_PER_LOOK: u64 = 16_384;

/// Where a stream is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct KeptFrom {
    pub(in crate::engine) from: Offset,
    /// Its own messages before that, if they were counted.
    pub(in crate::engine) messages: Option<u64>,
}

impl Engine {
    /// From where a rule keeps the bytes of a stream: its earliest position when nothing is to go.
    pub(in crate::engine) async fn kept_by(
        &self,
        state: &StreamState,
        rule: &RetentionRule,
        now: Timestamp,
    ) -> Result<KeptFrom, Rejection> {
        let present = KeptFrom { from: state.earliest, messages: state.messages_before };
        let candidates = [
            rule.keep_for.and_then(|time| young(state, time, now)),
            match rule.keep_bytes {
                Some(bytes) => self.last_bytes(state, bytes).await?,
                None => None,
            },
            match rule.keep_messages {
                Some(messages) => self.last_of(state, messages).await?,
                None => None,
            },
        ];
        // What exceeds any of them goes.
        let latest = candidates.into_iter().flatten().max_by_key(|kept| kept.from);
        Ok(latest.filter(|kept| kept.from > state.earliest).unwrap_or(present))
    }

    /// Where the last `bytes` begin, or the message or append that they begin in; `None` while there are not many more.
    async fn last_bytes(
        &self,
        state: &StreamState,
        bytes: u64,
    ) -> Result<Option<KeptFrom>, Rejection> {
        let tail = state.tail.position();
        let excess = tail.saturating_sub(state.earliest.position()).saturating_sub(bytes);
        if excess <= bytes / u64::from(SLACK) {
            return Ok(None);
        }
        let core = &state.core;
        let at = core.offset_at(tail - bytes);
        let from = if core.content_type.is_json() {
            self.message_start(state, at).await?
        } else {
            let tail = Tail { offset: state.tail, earliest: state.earliest, ..Tail::default() };
            self.trim_position(core, at, tail).await?
        };
        Ok(Some(KeptFrom { from, messages: None }))
    }

    /// Where the JSON message begins that the byte at `at` is in.
    async fn message_start(&self, state: &StreamState, at: Offset) -> Result<Offset, Rejection> {
        let (core, floor) = (&state.core, state.earliest);
        let mut before = at;
        while before > floor {
            let window = before.position().saturating_sub(READ_PIECE as u64);
            let window = core.offset_at(window).max(floor);
            let slice = read_lineage(&self.store, core, window, before, READ_PIECE).await?;
            let bytes = slice.chunks.concat();
            if let Some(end) = memchr::memrchr(MESSAGE_END, &bytes) {
                return Ok(core.offset_at(window.position() + end as u64 + 1));
            }
            before = window;
        }
        Ok(floor)
    }

    /// Where the last `keep` messages begin; `None` while there are not many more, or they were not counted.
    async fn last_of(&self, state: &StreamState, keep: u64) -> Result<Option<KeptFrom>, Rejection> {
        let (core, Some(all)) = (&state.core, state.messages) else { return Ok(None) };
        // What a fork inherits is not among its own messages.
        let first = state.earliest.max(core.own_start());
        let known = state.messages_before.map(|before| (first, before));
        if known.is_some_and(|(_, before)| all - before.min(all) <= keep + keep / u64::from(SLACK))
        {
            return Ok(None);
        }
        let mark =
            state.mark_before_last(keep).and_then(|mark| Some((mark.position, mark.messages?)));
        let base = mark.into_iter().chain(known).max_by_key(|(position, _)| *position);
        let Some((position, before)) = base else { return Ok(None) };
        let steps = all.saturating_sub(keep).saturating_sub(before).min(MESSAGES_PER_LOOK);
        let from = match steps {
            0 => position,
            steps if core.content_type.is_json() => {
                let found = skip_messages(&self.store, core, position, state.tail, steps).await?;
                let Some(found) = found else { return Ok(None) };
                core.offset_at(found.position())
            }
            steps => match self.skip_appends(state, position, steps).await? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        Ok(Some(KeptFrom { from, messages: Some(before + steps) }))
    }

    /// The end of the `count`th append behind `from`, which is not inherited; `None` if that is not known.
    async fn skip_appends(
        &self,
        state: &StreamState,
        from: Offset,
        count: u64,
    ) -> Result<Option<Offset>, Rejection> {
        let mut at = from;
        for _ in 0..count {
            if at >= state.tail {
                return Ok(None);
            }
            let end = self.store.append_end(state.core.id, at, state.tail, 0).await;
            let AppendEnd::At(end) = end.map_err(rejection)? else { return Ok(None) };
            at = end;
        }
        Ok(Some(state.core.offset_at(at.position())))
    }
}

/// Where the bytes begin that are not known to be older than `time`.
fn young(state: &StreamState, time: Duration, now: Timestamp) -> Option<KeptFrom> {
    let until = now.millis().checked_sub(millis(time))?;
    let mark = state.mark_until(Timestamp::from_millis(until))?;
    Some(KeptFrom { from: mark.position, messages: mark.messages })
}

/// Whether the tail has moved since the last mark, by so much or so long ago that a rule will need to know.
pub(super) fn is_mark_due(state: &StreamState, rule: &RetentionRule, now: Timestamp) -> bool {
    let last = state.marks.last();
    if last.map_or(state.earliest, |mark| mark.position) >= state.tail {
        return false;
    }
    let of_time = rule.keep_for.is_some_and(|time| {
        let pause = millis(time / SLACK);
        last.is_none_or(|mark| now.millis() >= mark.at.millis().saturating_add(pause))
    });
    // Without a count of what was trimmed, messages are counted from a mark.
    let of_messages = rule.keep_messages.is_some_and(|keep| {
        let since = last.and_then(|mark| mark.messages);
        let new = state.messages.map(|all| all - since.unwrap_or(0).min(all));
        state.messages_before.is_none() && new.is_some_and(|new| new > keep / u64::from(SLACK))
    });
    of_time || of_messages
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
