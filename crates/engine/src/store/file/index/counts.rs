//! The numbers of records that the meta record seals, and how LMDB's own numbers differ from them.
//!
//! A damaged page may hide records, or a damaged number of LMDB's may say so. Each commit changes the sealed numbers by what
//! it puts and removes, so that a difference stays until `repair` ends it.

use heed::{RoTxn, RwTxn};
use parking_lot::Mutex;

use super::{
    env::{IndexEnvironment, NAMES},
    keys::{self, COUNTED, IndexMeta},
    pages::{MetaPage, NamedTree, PageDamage, PageSet, PageTree},
};
use crate::store::{StoreError, file::error::index_error};

#[derive(Default)]
pub(super) struct RecordCounts {
    /// What the meta record has beyond what LMDB counts, as the present write transaction has found it.
    beyond: Mutex<[i64; COUNTED]>,
    /// The last transaction whose pages were looked up.
    known: Mutex<Option<KnownTrees>>,
}

/// What the databases of a transaction begin with.
#[derive(Clone)]
struct KnownTrees {
    meta: MetaPage,
    trees: Vec<NamedTree>,
}

/// The meta page of a transaction, and its databases.
pub(super) type IndexTrees = (MetaPage, Vec<NamedTree>);

impl IndexEnvironment {
    /// Writes the meta record, with the number of records in each database.
    pub(super) fn put_meta(
        &self,
        txn: &mut RwTxn<'_>,
        meta: &mut IndexMeta,
    ) -> Result<(), heed::Error> {
        let mut records = self.records(txn)?;
        for (records, beyond) in records.iter_mut().zip(*self.counts.beyond.lock()) {
            *records = records.saturating_add_signed(beyond);
        }
        meta.records = Some(records);
        let mut value = Vec::with_capacity(128);
        keys::seal(keys::META, &meta.encode(), &mut value);
        self.meta.put(txn, keys::META, &value)
    }

    /// The number of records in each database but `meta`, as LMDB counts them.
    pub(super) fn records(&self, txn: &RoTxn<'_>) -> Result<[u64; COUNTED], heed::Error> {
        let [_, counted @ ..] = self.tables();
        let mut records = [0; COUNTED];
        for (records, table) in records.iter_mut().zip(counted) {
            *records = table.len(txn)?;
        }
        Ok(records)
    }

    /// Compares LMDB's numbers with the sealed ones, at the begin of a transaction that may write.
    pub(super) fn note_counts(&self, txn: &RoTxn<'_>) -> Result<(), StoreError> {
        // Damage of the meta record is an error for each caller that needs it.
        let sealed = self.meta(txn).ok().and_then(|meta| meta.records);
        let found = self.records(txn).map_err(index_error("read", self.path()))?;
        let mut beyond = [0; COUNTED];
        for (beyond, (sealed, found)) in
            beyond.iter_mut().zip(sealed.unwrap_or(found).into_iter().zip(found))
        {
            *beyond = sealed.wrapping_sub(found) as i64;
        }
        *self.counts.beyond.lock() = beyond;
        Ok(())
    }

    /// Databases whose sealed number of records is not the one that LMDB has: name, sealed, found.
    pub(super) fn differences(
        &self,
        txn: &RoTxn<'_>,
    ) -> Result<Vec<(&'static str, u64, u64)>, StoreError> {
        let Some(sealed) = self.meta(txn)?.records else { return Ok(Vec::new()) };
        let found = self.records(txn).map_err(index_error("read", self.path()))?;
        let [_, names @ ..] = NAMES;
        let all = names.into_iter().zip(sealed.into_iter().zip(found));
        Ok(all
            .filter(|(_, (sealed, found))| sealed != found)
            .map(|(name, (sealed, found))| (name, sealed, found))
            .collect())
    }

    /// Where a database begins as of a read transaction; `None` when the file has it no more, or the transaction writes.
    pub(super) fn tree_of(
        &self,
        txn: &RoTxn<'_>,
        name: &str,
    ) -> Result<Option<(MetaPage, PageTree)>, StoreError> {
        let id = txn.id() as u64;
        let mut known = self.counts.known.lock();
        if known.as_ref().is_none_or(|known| known.meta.txn != id) {
            let damaged = |damage: PageDamage| damage.error(&self.pages, "the file");
            let Some(meta) = self.pages.meta(id)?.map_err(damaged)? else { return Ok(None) };
            let trees = self.pages.databases(&meta, &mut PageSet::unknown())?;
            *known = Some(KnownTrees { meta, trees });
        }
        let Some(known) = &*known else { return Ok(None) };
        let tree = known.trees.iter().find(|(known, _)| known == name);
        Ok(tree.map(|(_, tree)| (known.meta, *tree)))
    }

    /// All databases as of a read transaction; see [`tree_of`](Self::tree_of).
    pub(super) fn page_trees(&self, txn: &RoTxn<'_>) -> Result<Option<IndexTrees>, StoreError> {
        if self.tree_of(txn, "meta")?.is_none() {
            return Ok(None);
        }
        let known = self.counts.known.lock().clone();
        let known = known.filter(|known| known.meta.txn == txn.id() as u64);
        Ok(known.map(|known| (known.meta, known.trees)))
    }
}
