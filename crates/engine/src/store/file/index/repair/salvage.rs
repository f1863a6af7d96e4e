//! Copies the whole records of an index into another one.

use std::{borrow::Cow, sync::atomic::Ordering};

use durable_streams_protocol::{ProducerId, ProducerState};

use super::decode_stream;
use crate::store::{
    StoreError,
    file::index::{
        env::NAMES,
        extents::{ExtentRecord, SegmentRecord},
        handle::{IndexHandle, ReadTxn},
        keys,
        pages::{PageWalk, WalkStep},
        paths::UNSEALED,
    },
};

/// Records with their keys.
type WholeRecords = Vec<(Vec<u8>, Vec<u8>)>;

impl IndexHandle {
    /// Copies the whole records into `to`, a new index, and the meta record. Deadlines and forks are left out, since they
    /// follow from the states. `progress` receives the number of records read, now and then.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the meta record is damaged, or a page on which all databases depend: that is not repaired.
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
            reading.copy_whole(which, to, &mut done, progress)?;
        }
        to.write(&|| Ok(()), |to, txn| Ok(to.put_meta(txn, &mut meta)?))
    }

    fn put_records(&self, which: usize, records: &WholeRecords) -> Result<(), StoreError> {
        self.write(&|| Ok(()), |index, txn| {
            for (key, value) in records {
                // A bit of a key in `purge` has changed: the stream of this id was not deleted.
                let there = NAMES[which] == "purge" && index.streams.get(txn, key)?.is_some();
                if !there {
                    index.tables()[which].put(txn, key, value)?;
                }
            }
            let mut meta = index.meta(txn)?;
            Ok(index.put_meta(txn, &mut meta)?)
        })
    }
}

impl ReadTxn<'_> {
    /// Copies the whole records of one database, from every page that is whole.
    fn copy_whole(
        &self,
        which: usize,
        to: &IndexHandle,
        done: &mut u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        const BYTES_PER_TXN: usize = 16 << 20;
        let (name, index) = (NAMES[which], self.index());
        let (meta, trees) =
            index.page_trees(&self.txn)?.ok_or_else(|| index.missing("its last meta page"))?;
        let tree = trees.into_iter().find(|(known, _)| known == name);
        let (_, tree) = tree.ok_or_else(|| index.missing(&format!("the database `{name}`")))?;
        let mut walk = PageWalk::new(&index.pages, &meta, tree);
        let (mut from, mut batch, mut bytes) = (Vec::new(), WholeRecords::new(), 0);
        loop {
            let next = match walk.leaf(&from)? {
                None => None,
                Some(WalkStep::Damaged(damage)) => damage.high,
                Some(WalkStep::Leaf(page, next)) => {
                    for node in page.nodes() {
                        *done += 1;
                        let key = page.key(node);
                        if let Ok(value) = index.pages.value(&page, node, meta.last)?
                            && let Some(value) = self.whole_value(name, key, &value)
                        {
                            bytes += key.len() + value.len();
                            batch.push((key.to_vec(), value.into_owned()));
                        }
                    }
                    next
                }
            };
            if next.is_none() || bytes >= BYTES_PER_TXN {
                progress(*done);
                to.put_records(which, &batch)?;
                batch.clear();
                bytes = 0;
            }
            let Some(next) = next else { return Ok(()) };
            from = next;
        }
    }

    /// The value of a record that is as it was written, as far as that can be told; with a checksum, which format 1 did
    /// not give to names.
    fn whole_value<'v>(&self, name: &str, key: &[u8], value: &'v [u8]) -> Option<Cow<'v, [u8]>> {
        let index = self.index();
        let whole = match name {
            "streams" => decode_stream(key, value).is_some(),
            "producers" => {
                let producer = key.get(8..).and_then(|name| std::str::from_utf8(name).ok());
                let known = keys::open(key, value).map(ProducerState::decode);
                producer.and_then(ProducerId::new).is_some() && matches!(known, Some(Ok(_)))
            }
            "purge" => matches!(key.len(), 8 | 16),
            "extents" => ExtentRecord::open(key, value).is_some(),
            "segment_files" => SegmentRecord::open(key, value).is_some(),
            "paths" if value.len() == UNSEALED && !index.paths_sealed.load(Ordering::Acquire) => {
                let mut sealed = Vec::new();
                keys::seal(key, value, &mut sealed);
                return Some(Cow::Owned(sealed));
            }
            "paths" => keys::open(key, value).is_some(),
            _ => keys::unpair(key).is_some() && keys::open(key, value).is_some(),
        };
        whole.then_some(Cow::Borrowed(value))
    }
}
