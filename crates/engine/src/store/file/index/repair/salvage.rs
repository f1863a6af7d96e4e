//! Copies the whole records of an index into another one.

use std::{borrow::Cow, sync::atomic::Ordering};

use durable_streams_protocol::{ProducerId, ProducerState};

use super::decode_stream;
use crate::store::{
    StoreError,
    file::{
        error::index_error,
        index::{
            env::NAMES,
            handle::{IndexHandle, ReadTxn},
            keys,
            paths::UNSEALED,
        },
    },
};

impl IndexHandle {
    /// Copies the whole records into `to`, a new index, and the meta record. Deadlines and forks are left out, since they
    /// follow from the states. `progress` receives the number of records read, now and then.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the meta record is damaged, or LMDB cannot walk a database to its end: that is not
    /// repaired.
    pub(in crate::store::file) fn salvage(
        &self,
        to: &IndexHandle,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        let reading = self.read()?;
        let mut meta = reading.meta()?;
        let mut done = 0;
        for (which, name) in NAMES.into_iter().enumerate() {
            if matches!(name, "meta" | "deadlines" | "forks") {
                continue;
            }
            match reading.copy_whole(which, to, &mut done, progress) {
                // Names follow from the states.
                Err(StoreError::Corrupt { .. }) if name == "paths" => {}
                copied => copied?,
            }
        }
        to.write(&|| Ok(()), |to, txn| Ok(to.put_meta(txn, &mut meta)?))
    }
}

impl ReadTxn<'_> {
    /// Copies the whole records of one database.
    fn copy_whole(
        &self,
        which: usize,
        to: &IndexHandle,
        done: &mut u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        const BYTES_PER_TXN: usize = 16 << 20;
        let failed = index_error("read", self.index().path());
        let (name, table) = (NAMES[which], self.index().tables()[which]);
        let mut records = table.iter(&self.txn).map_err(&failed)?;
        loop {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < BYTES_PER_TXN
                && let Some(record) = records.next()
            {
                let (key, value) = record.map_err(&failed)?;
                *done += 1;
                if let Some(value) = self.whole_value(name, key, value)? {
                    bytes += key.len() + value.len();
                    batch.push((key, value));
                }
            }
            progress(*done);
            if batch.is_empty() {
                return Ok(());
            }
            to.write(&|| Ok(()), |to, txn| {
                for (key, value) in &batch {
                    to.tables()[which].put(txn, key, value)?;
                }
                Ok(())
            })?;
        }
    }

    /// The value of a record that is as it was written, as far as that can be told; with a checksum, which format 1 did
    /// not give to names.
    fn whole_value<'v>(
        &self,
        name: &str,
        key: &[u8],
        value: &'v [u8],
    ) -> Result<Option<Cow<'v, [u8]>>, StoreError> {
        let index = self.index();
        let whole = match name {
            "streams" => decode_stream(key, value).is_some(),
            "producers" => {
                let producer = key.get(8..).and_then(|name| std::str::from_utf8(name).ok());
                let known = keys::open(key, value).map(ProducerState::decode);
                producer.and_then(ProducerId::new).is_some() && matches!(known, Some(Ok(_)))
            }
            "purge" => {
                let there = index.streams.get(&self.txn, key);
                key.len() == 8 && there.map_err(index_error("read", index.path()))?.is_none()
            }
            "paths" if value.len() == UNSEALED && !index.paths_sealed.load(Ordering::Acquire) => {
                let mut sealed = Vec::new();
                keys::seal(key, value, &mut sealed);
                return Ok(Some(Cow::Owned(sealed)));
            }
            "paths" => keys::open(key, value).is_some(),
            _ => keys::unpair(key).is_some() && keys::open(key, value).is_some(),
        };
        Ok(whole.then_some(Cow::Borrowed(value)))
    }
}
