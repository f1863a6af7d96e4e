//! Reading streams from the index: state, forks, deadlines.

use std::ops::Bound;

use durable_streams_protocol::{StreamId, StreamPath, StreamState, Timestamp};

use super::{env::IndexEnvironment, handle::ReadTxn, keys};
use crate::store::{DeadlineCursor, StoreError, file::error::index_error};

/// A record of `streams`.
pub(super) struct IndexedStream<'v> {
    /// The state without its producers.
    pub(super) state: StreamState,
    /// Lengths of the newest appends; `appends` has those of the older ones.
    pub(super) lens: &'v [u8],
    /// The number of its records in `producers`; format 1 did not count them.
    pub(super) producers: Option<u64>,
}

/// Begins a record that has more than the state. A record of format 1 is the state alone, which begins with its own
/// format, 1.
const FORMAT: u8 = 2;

impl<'v> IndexedStream<'v> {
    /// Replaces `out` with the contents of a record.
    pub(super) fn encode(state: &StreamState, lens: &[u8], producers: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&[FORMAT, u8::try_from(lens.len()).unwrap_or(u8::MAX)]);
        out.extend_from_slice(lens);
        out.extend_from_slice(&producers.to_le_bytes());
        state.encode(out);
    }

    /// The lengths in a record, and what follows them; `None` for one of format 1.
    fn split(contents: &'v [u8]) -> Option<(&'v [u8], &'v [u8])> {
        let [FORMAT, len, rest @ ..] = contents else { return None };
        rest.split_at_checked(usize::from(*len))
    }

    pub(super) fn decode(id: StreamId, contents: &'v [u8]) -> Option<Self> {
        let Some((lens, rest)) = Self::split(contents) else {
            let state = StreamState::decode(id, contents).ok()?;
            return Some(IndexedStream { state, lens: &[], producers: None });
        };
        let (producers, state) = rest.split_first_chunk()?;
        let producers = Some(u64::from_le_bytes(*producers));
        Some(IndexedStream { state: StreamState::decode(id, state).ok()?, lens, producers })
    }
}

impl IndexEnvironment {
    /// The lengths in a stream's record, without decoding the state.
    pub(super) fn inline_lens<'t>(
        &self,
        txn: &'t heed::RoTxn<'_>,
        id: StreamId,
    ) -> Result<Option<&'t [u8]>, StoreError> {
        let key = keys::id(id);
        let value = self.streams.get(txn, &key).map_err(index_error("read", self.path()))?;
        let contents = value.and_then(|value| keys::open(&key, value));
        Ok(contents.map(|stored| IndexedStream::split(stored).map_or(&[][..], |(lens, _)| lens)))
    }

    /// A stream's record.
    pub(super) fn stream<'t>(
        &self,
        txn: &'t heed::RoTxn<'_>,
        id: StreamId,
    ) -> Result<Option<IndexedStream<'t>>, StoreError> {
        let key = keys::id(id);
        let value = self.streams.get(txn, &key).map_err(index_error("read", self.path()))?;
        let Some(value) = value else { return Ok(None) };
        let stream = keys::open(&key, value).and_then(|stored| IndexedStream::decode(id, stored));
        match stream {
            Some(stream) => Ok(Some(stream)),
            None => Err(self.damaged(&format!("the state of stream {}", id.0))),
        }
    }
}

impl ReadTxn<'_> {
    /// The states of the next `max` streams from id `from` on, without their producers, and the id to go on with. Damaged
    /// ones are left out.
    pub(in crate::store::file) fn states_from(
        &self,
        from: u64,
        max: usize,
    ) -> Result<(Vec<StreamState>, Option<u64>), StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let (first, mut states, mut seen) = (from.to_be_bytes(), Vec::new(), 0);
        let range = (Bound::Included(&first[..]), Bound::Unbounded);
        let mut walk = keys::Ascending::begin(range.0);
        for record in index.streams.range(&self.txn, &range).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            let Some(id) = keys::number(key).filter(|_| walk.admits(key)) else { continue };
            if seen == max {
                return Ok((states, Some(id)));
            }
            seen += 1;
            let stored = keys::open(key, value);
            let stream = stored.and_then(|stored| IndexedStream::decode(StreamId(id), stored));
            states.extend(stream.map(|stream| stream.state));
        }
        Ok((states, None))
    }

    pub(in crate::store::file) fn path_id(
        &self,
        path: &StreamPath,
    ) -> Result<Option<StreamId>, StoreError> {
        self.index().path_id(&self.txn, path)
    }

    /// A stream's state without its producers.
    pub(in crate::store::file) fn state(
        &self,
        id: StreamId,
    ) -> Result<Option<StreamState>, StoreError> {
        Ok(self.index().stream(&self.txn, id)?.map(|stream| stream.state))
    }

    /// Streams that were forked from one.
    pub(in crate::store::file) fn forks(
        &self,
        source: StreamId,
    ) -> Result<Vec<StreamId>, StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let mut forks = Vec::new();
        for record in index.forks.prefix_iter(&self.txn, &keys::id(source)).map_err(&failed)? {
            let (key, _) = record.map_err(&failed)?;
            let (_, fork) =
                keys::unpair(key).ok_or_else(|| index.damaged("a record of `forks`"))?;
            forks.push(StreamId(fork));
        }
        Ok(forks)
    }

    /// Calls `each` with streams whose deadline is not after `now`, earliest first, until it returns false.
    pub(in crate::store::file) fn each_due(
        &self,
        now: Timestamp,
        each: &mut dyn FnMut(StreamId) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let end = keys::deadline(now, StreamId(u64::MAX));
        let range = (Bound::Unbounded, Bound::Included(end.as_slice()));
        for record in index.deadlines.range(&self.txn, &range).map_err(&failed)? {
            let (key, _) = record.map_err(&failed)?;
            let (_, id) =
                keys::unpair(key).ok_or_else(|| index.damaged("a record of `deadlines`"))?;
            if !each(StreamId(id))? {
                break;
            }
        }
        Ok(())
    }

    /// At most `max` streams that expire, in the order of their deadlines from `from` on, and where to go on.
    pub(in crate::store::file) fn deadlines_from(
        &self,
        from: DeadlineCursor,
        max: usize,
    ) -> Result<(Vec<StreamId>, Option<DeadlineCursor>), StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let from = keys::deadline(from.deadline, from.id);
        let range = (Bound::Included(from.as_slice()), Bound::Unbounded);
        let (mut ids, mut walk) = (Vec::new(), keys::Ascending::begin(range.0));
        for record in index.deadlines.range(&self.txn, &range).map_err(&failed)? {
            let (key, _) = record.map_err(&failed)?;
            if !walk.admits(key) {
                continue;
            }
            let (at, id) =
                keys::unpair(key).ok_or_else(|| index.damaged("a record of `deadlines`"))?;
            if ids.len() == max {
                let (deadline, id) = (Timestamp::from_millis(at), StreamId(id));
                return Ok((ids, Some(DeadlineCursor { deadline, id })));
            }
            ids.push(StreamId(id));
        }
        Ok((ids, None))
    }

    /// Calls `each` with paths after `after` in byte order, until it returns false.
    pub(in crate::store::file) fn each_path(
        &self,
        after: Option<&str>,
        each: &mut dyn FnMut(String, StreamId) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.index().each_path(&self.txn, after, each)
    }
}
