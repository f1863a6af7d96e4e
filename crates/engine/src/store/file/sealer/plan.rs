//! What of a stream is to be sealed: which of its chunks are many, or old, and where a whole append or message ends.

use std::ops::Range;

use durable_streams_protocol::{MESSAGE_END, Offset, StreamId, StreamState, Timestamp};

use crate::store::{
    MessageForm, StoreError,
    file::{index::handle::ReadTxn, options::SegmentOptions},
};

/// A stream that has extents is sealed again, after it was idle, once it has this many bytes in chunks: each extent costs
/// a record and, when it is read, a read of its file.
const SEAL_AGAIN: u64 = 16 << 10;
/// Bytes in which the end of a message is searched for at a time.
const SEARCH: u64 = 64 << 10;

/// A range of a stream's chunks that is to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealPlan {
    pub(super) id: StreamId,
    pub(super) start: u64,
    pub(super) end: u64,
    /// It shares a file with other streams.
    pub(super) shares: bool,
    /// How its messages are to be written.
    pub(super) form: MessageForm,
}

/// What a step of the walk has found.
pub(super) struct SealStep {
    pub(super) plans: Vec<SealPlan>,
    /// The first stream of the next step; `None` at the end.
    pub(super) next: Option<u64>,
}

/// How messages of a range are to be written: commas serve only what is sent as it is.
pub(super) fn form(is_json: bool, options: &SegmentOptions, range: Range<u64>) -> MessageForm {
    let is_sent = range.end - range.start >= options.arrays_from;
    if is_sent && is_json { MessageForm::Array } else { MessageForm::Stored }
}

impl ReadTxn<'_> {
    /// Plans for the next `max` streams from id `from` on.
    pub(super) fn seal_plans(
        &self,
        from: u64,
        max: usize,
        options: &SegmentOptions,
        now: Timestamp,
    ) -> Result<SealStep, StoreError> {
        let (states, next) = self.states_from(from, max)?;
        let mut plans = Vec::new();
        for state in states {
            match self.plan(&state, options, now) {
                Ok(plan) => plans.extend(plan),
                // Reads of this stream report the damage; other streams are sealed.
                Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(SealStep { plans, next })
    }

    /// The plan for one stream, if it is there and something of it is due.
    pub(super) fn seal_plan(
        &self,
        id: StreamId,
        options: &SegmentOptions,
        now: Timestamp,
    ) -> Result<Option<SealPlan>, StoreError> {
        self.state(id)?.map_or(Ok(None), |state| self.plan(&state, options, now))
    }

    fn plan(
        &self,
        state: &StreamState,
        options: &SegmentOptions,
        now: Timestamp,
    ) -> Result<Option<SealPlan>, StoreError> {
        let (id, tail) = (state.core.id, state.tail.position());
        let own = state.own_len();
        let idle = now.millis().saturating_sub(state.touched.millis());
        let idle = u128::from(idle) >= options.idle.as_millis();
        let is_json = state.core.content_type.is_json();
        if own == 0 || (own < options.min && !idle) {
            return Ok(None);
        }
        let Some(run) = self.first_chunks(id, options.size)? else { return Ok(None) };
        let most = run.start.saturating_add(options.size).min(run.end);
        // Chunks behind a gap wait for those before it, so those before it go, however few they are.
        let end = if run.gap { most } else { most.min(tail.saturating_sub(options.keep)) };
        let shares = end.saturating_sub(run.start) < options.min && !run.gap;
        if !shares {
            let end = self.unit_end(state, run.start, end)?;
            let form = |end| form(is_json, options, run.start..end);
            return Ok(end.map(|end| SealPlan {
                id,
                start: run.start,
                end,
                shares,
                form: form(end),
            }));
        }
        let worth = tail - run.start >= SEAL_AGAIN.min(options.min)
            || self.extent_at(id, run.start.saturating_sub(1))?.is_none();
        let whole = idle && run.end == tail && worth;
        let form = form(is_json, options, run.start..tail);
        Ok(whole.then_some(SealPlan { id, start: run.start, end: tail, shares, form }))
    }

    /// The end of the last whole append or message at or before `end`; the first one after it when there is none.
    fn unit_end(
        &self,
        state: &StreamState,
        start: u64,
        end: u64,
    ) -> Result<Option<u64>, StoreError> {
        let (id, tail) = (state.core.id, state.tail.position());
        if end <= start || end >= tail {
            return Ok(Some(end).filter(|end| *end > start));
        }
        if !state.core.content_type.is_json() {
            // Nothing is known of appends that format 1 stored.
            if end <= state.delimited_from.position() {
                return Ok(Some(end));
            }
            let around = self.ends_around(id, Offset::new(end))?;
            return Ok(around.and_then(|around| around.page_end(start)));
        }
        let mut to = end;
        while to > start {
            let from = start.max(to.saturating_sub(SEARCH));
            let bytes = self.bytes(id, Offset::new(from), Offset::new(to), SEARCH as usize)?;
            if let Some(at) = memchr::memrchr(MESSAGE_END, &bytes) {
                return Ok(Some(from + at as u64 + 1));
            }
            to = from;
        }
        let mut from = end;
        while from < tail {
            let bytes = self.bytes(id, Offset::new(from), state.tail, SEARCH as usize)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            if let Some(at) = memchr::memchr(MESSAGE_END, &bytes) {
                return Ok(Some(from + at as u64 + 1));
            }
            from += bytes.len() as u64;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
