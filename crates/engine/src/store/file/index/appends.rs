//! The `appends` database: where the appends of binary and text streams end.
//!
//! The lengths of a stream's newest appends are in its record of `streams`, which a checkpoint writes in any case. Once
//! they take more than [`INLINE`] bytes, they move here, into records that are keyed by where their first append begins
//! and follow one another without gaps.

use std::ops::Bound;

use durable_streams_protocol::{Offset, StreamId, StreamState};
use heed::{RoTxn, RwTxn};

use super::{
    env::IndexEnvironment,
    handle::{ReadTxn, WriteError},
    keys,
    streams::IndexedStream,
};
use crate::store::{
    StoreError,
    file::{
        append_ends::{AppendLens, EndsAround, put_len},
        error::index_error,
    },
};

/// The most bytes of lengths in a record of `streams`.
pub(super) const INLINE: usize = 128;
/// A record of `appends` is full from this size on, so that it stays on one page with others, bytes.
const FULL: usize = 1024;
/// A last record shorter than this is rewritten with the next lengths.
const EXTEND_BELOW: usize = 512;

/// The bytes of the appends whose lengths `lens` holds.
pub(super) fn total(lens: &[u8]) -> u64 {
    AppendLens(lens).fold(0, u64::saturating_add)
}

impl IndexEnvironment {
    /// Adds the lengths of appends, the first of which begins at `start`, where the last record ends.
    pub(super) fn put_appends(
        &self,
        txn: &mut RwTxn<'_>,
        id: StreamId,
        start: u64,
        lens: &[u8],
    ) -> Result<(), WriteError> {
        let (mut begin, mut record) = (start, Vec::with_capacity(FULL + 9));
        let last = self.appends.get_lower_than(txn, &keys::chunk(id, Offset::new(start)))?;
        if let Some((key, value)) = last
            && let Some((holder, at)) = keys::unpair(key)
            && holder == id.0
            && value.len() < EXTEND_BELOW
        {
            let contents = keys::open(key, value);
            match contents.filter(|lens| at.saturating_add(total(lens)) == start) {
                Some(contents) => {
                    record.extend_from_slice(contents);
                    begin = at;
                }
                // As for a damaged chunk: what follows goes into another record.
                None => tracing::error!(
                    stream = id.0,
                    position = at,
                    "the ends of appends of a stream are damaged in the index"
                ),
            }
        }
        let (mut end, mut value) = (start, Vec::with_capacity(FULL + 16));
        let mut put = |txn: &mut RwTxn<'_>, begin: u64, record: &[u8]| {
            let key = keys::chunk(id, Offset::new(begin));
            keys::seal(&key, record, &mut value);
            self.appends.put(txn, &key, &value)
        };
        for len in AppendLens(lens) {
            put_len(&mut record, len);
            end += len;
            if record.len() >= FULL {
                put(txn, begin, &record)?;
                begin = end;
                record.clear();
            }
        }
        if !record.is_empty() {
            put(txn, begin, &record)?;
        }
        Ok(())
    }

    /// The ends of a stream's appends around `limit`; `None` when the index does not know them.
    fn ends_around(
        &self,
        txn: &RoTxn<'_>,
        stream: &IndexedStream<'_>,
        limit: u64,
    ) -> Result<Option<EndsAround>, StoreError> {
        let state = &stream.state;
        let known_from = state.delimited_from.max(state.first_kept());
        let known = known_from.position()..state.tail.position();
        if state.core.content_type.is_json() || !known.contains(&limit) {
            return Ok(None);
        }
        let id = state.core.id;
        let inline = self.inline_start(state, stream.lens)?;
        if limit >= inline {
            return Ok(Some(EndsAround::find(inline, stream.lens, limit)));
        }
        let failed = index_error("read", self.path());
        let damaged = || self.damaged_appends(id);
        let at = keys::chunk(id, Offset::new(limit));
        let found = self.appends.get_lower_than_or_equal_to(txn, &at).map_err(&failed)?;
        let (key, value) = found.ok_or_else(damaged)?;
        let (holder, start) = keys::unpair(key).ok_or_else(damaged)?;
        let lens = keys::open(key, value).filter(|_| holder == id.0).ok_or_else(damaged)?;
        let around = EndsAround::find(start, lens, limit);
        // The records have no gaps, so the one that begins at `limit` or before holds an end after it.
        if around.next.is_some() { Ok(Some(around)) } else { Err(damaged()) }
    }

    /// Where the first append begins whose length is in the record of `streams`.
    pub(super) fn inline_start(&self, state: &StreamState, lens: &[u8]) -> Result<u64, StoreError> {
        let start = state.tail.position().checked_sub(total(lens));
        let start = start.filter(|start| *start >= state.delimited_from.position());
        start.ok_or_else(|| self.damaged_appends(state.core.id))
    }

    fn damaged_appends(&self, id: StreamId) -> StoreError {
        self.damaged(&format!("the record of the ends of appends of stream {}", id.0))
    }
}

impl ReadTxn<'_> {
    /// The ends of a stream's appends around `limit`; `None` when the index does not know them.
    pub(in crate::store::file) fn ends_around(
        &self,
        id: StreamId,
        limit: Offset,
    ) -> Result<Option<EndsAround>, StoreError> {
        let index = self.index();
        match index.stream(&self.txn, id)? {
            Some(stream) => index.ends_around(&self.txn, &stream, limit.position()),
            None => Ok(None),
        }
    }

    /// The lengths of the appends that lie from `start` to `end`; empty when they are not known, or not whole there.
    pub(in crate::store::file) fn lens_between(
        &self,
        id: StreamId,
        start: u64,
        end: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let Some(stream) = index.stream(&self.txn, id)? else { return Ok(Vec::new()) };
        let state = &stream.state;
        if state.core.content_type.is_json() {
            return Ok(Vec::new());
        }
        let (mut at, mut found) = (None, Vec::new());
        let mut add = |begin: u64, lens: &[u8]| {
            let mut next = begin;
            for len in AppendLens(lens) {
                if next >= start && next < end {
                    at = Some(at.map_or(next, |first: u64| first));
                    put_len(&mut found, len);
                }
                next += len;
            }
            next
        };
        let key = keys::chunk(id, Offset::new(start));
        let first = index.appends.get_lower_than_or_equal_to(&self.txn, &key).map_err(&failed)?;
        let first = first.and_then(|(key, _)| key.first_chunk::<16>().copied()).unwrap_or(key);
        let last = keys::chunk(id, Offset::new(end));
        let range = (Bound::Included(first.as_slice()), Bound::Excluded(last.as_slice()));
        for record in index.appends.range(&self.txn, &range).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            let (Some((holder, begin)), Some(lens)) = (keys::unpair(key), keys::open(key, value))
            else {
                return Ok(Vec::new());
            };
            if holder == id.0 {
                add(begin, lens);
            }
        }
        if let Ok(inline) = index.inline_start(state, stream.lens) {
            add(inline, stream.lens);
        }
        let whole = at == Some(start) && start + total(&found) == end;
        Ok(if whole { found } else { Vec::new() })
    }

    /// The lengths of all appends of a stream that are known and kept: from [`StreamState::delimited_from`] on, or from the
    /// first byte that it keeps.
    pub(in crate::store::file) fn append_lens(
        &self,
        state: &StreamState,
    ) -> Result<Vec<u8>, StoreError> {
        let (index, id) = (self.index(), state.core.id);
        let failed = index_error("read", index.path());
        let damaged = || index.damaged_appends(id);
        let newest = index.inline_lens(&self.txn, id)?.ok_or_else(damaged)?;
        let known_from = state.delimited_from.max(state.first_kept());
        let inline = index.inline_start(state, newest)?;
        let mut lens = Vec::new();
        let mut next = inline;
        if known_from.position() < inline {
            let at = keys::chunk(id, known_from);
            let first =
                index.appends.get_lower_than_or_equal_to(&self.txn, &at).map_err(&failed)?;
            let first = first.and_then(|(key, _)| keys::unpair(key));
            next = first.filter(|(holder, _)| *holder == id.0).ok_or_else(damaged)?.1;
            let first = keys::chunk(id, Offset::new(next));
            let end = keys::chunk(id, Offset::new(inline));
            let range = (Bound::Included(first.as_slice()), Bound::Excluded(end.as_slice()));
            for record in index.appends.range(&self.txn, &range).map_err(&failed)? {
                let (key, value) = record.map_err(&failed)?;
                let contents = keys::open(key, value).ok_or_else(damaged)?;
                if keys::unpair(key) != Some((id.0, next)) {
                    return Err(damaged());
                }
                lens.extend_from_slice(contents);
                next += total(contents);
            }
        }
        if next != inline {
            return Err(damaged());
        }
        let begin = inline - total(&lens);
        lens.extend_from_slice(newest);
        Ok(without_trimmed(lens, begin, known_from.position()))
    }
}

/// The lengths without those of the appends that end at `from` or before; the first append begins at `begin`.
fn without_trimmed(lens: Vec<u8>, begin: u64, from: u64) -> Vec<u8> {
    if begin >= from {
        return lens;
    }
    let (mut at, mut kept) = (begin, Vec::with_capacity(lens.len()));
    for len in AppendLens(&lens) {
        // A trim lies between appends, so none begins before `from` and ends after it.
        let part = (at + len).saturating_sub(at.max(from));
        at += len;
        if part > 0 {
            put_len(&mut kept, part);
        }
    }
    kept
}
