//! The `dropped` database: ranges of bytes that `repair` has removed from streams because they were damaged.
//!
//! Positions in a stream never change, so a reader that comes to a dropped range goes on behind it.

use std::collections::BTreeMap;

use durable_streams_protocol::{Offset, StreamId};
use heed::RwTxn;

use super::{
    env::IndexEnvironment,
    handle::{ReadTxn, WriteError},
    keys,
};
use crate::store::{StoreError, file::error::index_error};

/// The dropped ranges of all streams: by stream and start, the end. Nothing but `repair` adds any.
#[derive(Default)]
pub(in crate::store::file) struct DroppedRanges(BTreeMap<(u64, u64), u64>);

impl DroppedRanges {
    /// The first dropped range of a stream that ends after `from` and begins before `to`.
    pub(in crate::store::file) fn next(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
    ) -> Option<(Offset, Offset)> {
        if self.0.is_empty() {
            return None;
        }
        let of_stream = self.0.range((id.0, 0)..(id.0, to.position()));
        // Ranges do not overlap, so their ends are in order, too.
        let mut ranges = of_stream.map(|((_, start), end)| (*start, *end));
        let (start, end) = ranges.find(|(_, end)| *end > from.position())?;
        Some((Offset::new(start), Offset::new(end)))
    }

    /// Where the dropped range ends that the byte at `position` is in.
    pub(super) fn past(&self, id: StreamId, position: u64) -> Option<u64> {
        let ((_, _), end) = self.0.range((id.0, 0)..=(id.0, position)).next_back()?;
        (*end > position).then_some(*end)
    }
}

impl ReadTxn<'_> {
    /// The dropped ranges of all streams.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a record does not match its checksum.
    pub(in crate::store::file) fn dropped(&self) -> Result<DroppedRanges, StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let mut ranges = BTreeMap::new();
        for record in index.dropped.iter(&self.txn).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            let at = keys::unpair(key);
            let end = keys::open(key, value).and_then(keys::number);
            let (at, end) = at.zip(end).ok_or_else(|| index.damaged("a record of `dropped`"))?;
            ranges.insert(at, end);
        }
        Ok(DroppedRanges(ranges))
    }
}

impl IndexEnvironment {
    /// Removes a stream's bytes from `start` to `end`, which need not be there or be whole; chunks that reach into the
    /// range keep the rest.
    pub(super) fn drop_bytes(
        &self,
        txn: &mut RwTxn<'_>,
        id: StreamId,
        start: u64,
        end: u64,
    ) -> Result<(), WriteError> {
        let mut touched = Vec::new();
        for record in self.chunks.prefix_iter(txn, &keys::id(id))? {
            let (key, value) = record?;
            let Some((_, at)) = keys::unpair(key) else { continue };
            let len = value.len().saturating_sub(4) as u64;
            if at < end && at + len > start {
                touched.push((key.to_vec(), at, keys::open(key, value).map(<[u8]>::to_vec)));
            }
        }
        for (key, at, contents) in touched {
            self.chunks.delete(txn, &key)?;
            let Some(contents) = contents else { continue };
            let before = start.saturating_sub(at).min(contents.len() as u64) as usize;
            let after = end.saturating_sub(at).min(contents.len() as u64) as usize;
            let (before, after) = (&contents[..before], &contents[after..]);
            for (at, rest) in [(at, before), (end, after)] {
                if !rest.is_empty() {
                    self.put_chunk(txn, id, at, rest)?;
                }
            }
        }
        self.cut_extents(txn, id, start, end)?;
        let mut within = Vec::new();
        for record in self.dropped.prefix_iter(txn, &keys::id(id))? {
            let (key, _) = record?;
            if keys::unpair(key).is_some_and(|(_, at)| (start..end).contains(&at)) {
                within.push(key.to_vec());
            }
        }
        for key in within {
            self.dropped.delete(txn, &key)?;
        }
        let key = keys::chunk(id, Offset::new(start));
        let mut value = Vec::new();
        keys::seal(&key, &end.to_be_bytes(), &mut value);
        Ok(self.dropped.put(txn, &key, &value)?)
    }

    fn put_chunk(
        &self,
        txn: &mut RwTxn<'_>,
        id: StreamId,
        start: u64,
        contents: &[u8],
    ) -> Result<(), WriteError> {
        let key = keys::chunk(id, Offset::new(start));
        let mut value = Vec::with_capacity(contents.len() + 4);
        keys::seal(&key, contents, &mut value);
        Ok(self.chunks.put(txn, &key, &value)?)
    }
}
