//! Reading producers from the index, one record for each.

use std::ops::Bound;

use durable_streams_protocol::{ProducerId, ProducerState, StreamId, StreamState};

use super::{handle::ReadTxn, keys};
use crate::store::{StoreError, file::error::index_error};

impl ReadTxn<'_> {
    /// A stream's state without its producers, and how many they are.
    pub(in crate::store::file) fn state_and_producers(
        &self,
        id: StreamId,
    ) -> Result<Option<(StreamState, u64)>, StoreError> {
        let index = self.index();
        let Some(stream) = index.stream(&self.txn, id)? else { return Ok(None) };
        let counted = match stream.producers {
            Some(counted) => counted,
            // Format 1 did not count them.
            None => {
                let all = index.producers.prefix_iter(&self.txn, &keys::id(id));
                all.map_err(index_error("read", index.path()))?.count() as u64
            }
        };
        Ok(Some((stream.state, counted)))
    }

    /// Whether the index has a record of a producer.
    pub(in crate::store::file) fn has_producer(
        &self,
        id: StreamId,
        producer: &ProducerId,
    ) -> Result<bool, StoreError> {
        let index = self.index();
        let found = index.producers.get(&self.txn, &keys::producer(id, producer));
        found.map(|found| found.is_some()).map_err(index_error("read", index.path()))
    }

    /// The record of a producer.
    pub(in crate::store::file) fn producer(
        &self,
        id: StreamId,
        producer: &ProducerId,
    ) -> Result<Option<ProducerState>, StoreError> {
        let index = self.index();
        let key = keys::producer(id, producer);
        let found = index.producers.get(&self.txn, &key);
        match found.map_err(index_error("read", index.path()))? {
            Some(value) => self.decode(id, &key, value).map(|(_, known)| Some(known)),
            None => self.check_absent(id, &key).map(|()| None),
        }
    }

    /// Producers of a stream after `after`, in byte order; at most `max`.
    pub(in crate::store::file) fn producers(
        &self,
        id: StreamId,
        after: Option<&ProducerId>,
        max: usize,
    ) -> Result<Vec<(ProducerId, ProducerState)>, StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let (first, end) = (keys::id(id), keys::id(StreamId(id.0.wrapping_add(1))));
        let after = after.map(|after| keys::producer(id, after));
        let from = after.as_deref().map_or(Bound::Included(first.as_slice()), Bound::Excluded);
        let range = (from, Bound::Excluded(end.as_slice()));
        let mut walk = keys::Ascending::begin(from);
        let records = index.producers.range(&self.txn, &range).map_err(&failed)?;
        records
            .filter(|record| record.as_ref().map_or(true, |(key, _)| walk.admits(key)))
            .take(max)
            .map(|record| {
                let (key, value) = record.map_err(&failed)?;
                self.decode(id, key, value)
            })
            .collect()
    }

    fn decode(
        &self,
        id: StreamId,
        key: &[u8],
        value: &[u8],
    ) -> Result<(ProducerId, ProducerState), StoreError> {
        let name = key.get(8..).and_then(|name| std::str::from_utf8(name).ok());
        let known = keys::open(key, value).map(ProducerState::decode);
        match (name.and_then(ProducerId::new), known) {
            (Some(producer), Some(Ok(known))) => Ok((producer, known)),
            _ => Err(self.index().damaged(&format!("a producer of stream {}", id.0))),
        }
    }

    /// Checks that a record that was not found is not there, as for `paths`: its neighbours are undamaged and on either
    /// side of it. Otherwise a changed key would make a retry a new append.
    fn check_absent(&self, id: StreamId, key: &[u8]) -> Result<(), StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let after = index.producers.get_greater_than_or_equal_to(&self.txn, key);
        let after = after.map_err(&failed)?;
        let before = index.producers.get_lower_than(&self.txn, key).map_err(&failed)?;
        let whole = |(key, value): (&[u8], &[u8])| keys::open(key, value).is_some();
        let ordered = after.is_none_or(|(after, _)| after > key)
            && before.is_none_or(|(before, _)| before < key);
        if ordered && after.is_none_or(whole) && before.is_none_or(whole) {
            index.check_pages(&self.txn, "producers", key)
        } else {
            Err(index.damaged(&format!("a producer next to those of stream {}", id.0)))
        }
    }
}
