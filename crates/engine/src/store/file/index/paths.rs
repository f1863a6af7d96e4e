//! The `paths` database: from path to stream, in byte order of paths.
//!
//! LMDB keys are at most 511 bytes and paths at most 1024, so a long path is split into pieces: see docs/storage.md,
//! "paths". A short path, the usual case, is one record in node 0.

use std::sync::atomic::Ordering;

use durable_streams_protocol::{StreamId, StreamPath};
use heed::{RoTxn, RwTxn};

use super::{
    env::IndexEnvironment,
    handle::WriteError,
    keys,
    pages::{PageWalk, WalkStep},
};
use crate::store::{StoreError, file::error::index_error};

/// The longest piece of a path in one key.
const PIECE: usize = 500;
/// The byte that ends the key of a link to the node of longer paths.
const LINK: u8 = 1;
const ROOT: u64 = 0;
/// The length of a record's value in format 1, which has no checksum.
pub(super) const UNSEALED: usize = 8;

fn key(node: u64, piece: &[u8], link: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + piece.len());
    key.extend_from_slice(&node.to_be_bytes());
    key.extend_from_slice(piece);
    if link {
        key.push(LINK);
    }
    key
}

/// Whether a key is a link: only links are longer than a piece can be.
pub(super) fn is_link(key: &[u8]) -> bool {
    key.len() == 8 + PIECE + 1
}

impl IndexEnvironment {
    pub(super) fn path_id(
        &self,
        txn: &RoTxn<'_>,
        path: &StreamPath,
    ) -> Result<Option<StreamId>, StoreError> {
        let failed = index_error("read", self.path());
        let mut node = ROOT;
        let mut rest = path.as_str().as_bytes();
        while rest.len() > PIECE {
            let (piece, following) = rest.split_at(PIECE);
            let link = key(node, piece, true);
            match self.paths.get(txn, &link).map_err(&failed)? {
                Some(value) => node = self.target(&link, value)?,
                None => return self.check_miss(txn, &link),
            }
            rest = following;
        }
        let name = key(node, rest, false);
        match self.paths.get(txn, &name).map_err(&failed)? {
            Some(value) => Ok(Some(StreamId(self.target(&name, value)?))),
            None => self.check_miss(txn, &name),
        }
    }

    /// The node or stream that a record leads to.
    fn target(&self, key: &[u8], value: &[u8]) -> Result<u64, StoreError> {
        let target = if value.len() == UNSEALED && !self.paths_sealed.load(Ordering::Acquire) {
            keys::number(value)
        } else {
            keys::open(key, value).and_then(keys::number)
        };
        target.ok_or_else(|| self.damaged("a record of `paths`"))
    }

    /// Checks that a key that was not found is not there: its neighbours are undamaged and on either side of it. A key
    /// in which a bit has changed misleads a search next to its record. One on a branch page misleads it into another
    /// leaf page; walking on from there finds the key, or keys out of order.
    fn check_miss(&self, txn: &RoTxn<'_>, key: &[u8]) -> Result<Option<StreamId>, StoreError> {
        let failed = index_error("read", self.path());
        let after = self.paths.get_greater_than_or_equal_to(txn, key).map_err(&failed)?;
        let before = self.paths.get_lower_than(txn, key).map_err(&failed)?;
        if after.is_some_and(|(after, _)| after <= key) || before.is_some_and(|(b, _)| b >= key) {
            return Err(self.damaged("the order of `paths`"));
        }
        for (neighbour, value) in after.into_iter().chain(before) {
            self.target(neighbour, value)?;
        }
        self.check_pages(txn, "paths", key)?;
        Ok(None)
    }

    /// Checks the pages on which a key of a database would be, since one that hides records has no effect on its neighbours.
    pub(super) fn check_pages(
        &self,
        txn: &RoTxn<'_>,
        table: &'static str,
        key: &[u8],
    ) -> Result<(), StoreError> {
        // A write transaction has pages that the file does not have yet; a reader has looked before.
        let Some((meta, tree)) = self.tree_of(txn, table)? else { return Ok(()) };
        match PageWalk::new(&self.pages, &meta, tree).leaf(key)? {
            Some(WalkStep::Damaged(damage)) => Err(damage.error(&self.pages, table)),
            // Its keys are in order, or the walk had found damage.
            Some(WalkStep::Leaf(page, _))
                if page.nodes().binary_search_by(|node| page.key(node).cmp(key)).is_ok() =>
            {
                Err(self.damaged(&format!("the order of `{table}`")))
            }
            Some(WalkStep::Leaf(..)) | None => Ok(()),
        }
    }

    fn put_target(&self, txn: &mut RwTxn<'_>, key: &[u8], target: u64) -> Result<(), WriteError> {
        let mut value = Vec::with_capacity(12);
        keys::seal(key, &target.to_be_bytes(), &mut value);
        Ok(self.paths.put(txn, key, &value)?)
    }

    pub(super) fn put_path(
        &self,
        txn: &mut RwTxn<'_>,
        path: &StreamPath,
        id: StreamId,
        next_node: &mut u64,
    ) -> Result<(), WriteError> {
        let mut node = ROOT;
        let mut rest = path.as_str().as_bytes();
        while rest.len() > PIECE {
            let (piece, following) = rest.split_at(PIECE);
            let link = key(node, piece, true);
            let known = self.paths.get(txn, &link)?;
            let known = known.map(|value| self.target(&link, value)).transpose()?;
            node = match known {
                Some(known) => known,
                None => {
                    let new = *next_node;
                    *next_node += 1;
                    self.put_target(txn, &link, new)?;
                    new
                }
            };
            rest = following;
        }
        self.put_target(txn, &key(node, rest, false), id.0)
    }

    /// Removes a path if it names `id`, and the nodes that are empty then.
    pub(super) fn remove_path(
        &self,
        txn: &mut RwTxn<'_>,
        path: &StreamPath,
        id: StreamId,
    ) -> Result<(), WriteError> {
        if self.path_id(txn, path)? != Some(id) {
            return Ok(());
        }
        let mut links = Vec::new();
        let mut node = ROOT;
        let mut rest = path.as_str().as_bytes();
        while rest.len() > PIECE {
            let (piece, following) = rest.split_at(PIECE);
            let link = key(node, piece, true);
            let Some(value) = self.paths.get(txn, &link)? else { return Ok(()) };
            node = self.target(&link, value)?;
            links.push((link, node));
            rest = following;
        }
        self.paths.delete(txn, &key(node, rest, false))?;
        while let Some((link, node)) = links.pop() {
            if self.paths.prefix_iter(txn, &node.to_be_bytes())?.next().is_some() {
                break;
            }
            self.paths.delete(txn, &link)?;
        }
        Ok(())
    }

    /// Calls `each` with paths after `after` in byte order, until it returns false.
    pub(super) fn each_path(
        &self,
        txn: &RoTxn<'_>,
        after: Option<&str>,
        each: &mut dyn FnMut(String, StreamId) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let after = after.map_or(&[][..], str::as_bytes);
        self.each_in_node(txn, ROOT, Vec::new(), after, each).map(|_| ())
    }

    /// Walks one node; `after` is the rest of the path to start after, empty for all. Returns false when `each` did.
    fn each_in_node(
        &self,
        txn: &RoTxn<'_>,
        node: u64,
        before: Vec<u8>,
        after: &[u8],
        each: &mut dyn FnMut(String, StreamId) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let failed = index_error("read", self.path());
        let (piece, rest) = after.split_at(after.len().min(PIECE));
        if !rest.is_empty()
            && let link = key(node, piece, true)
            && let Some(value) = self.paths.get(txn, &link).map_err(&failed)?
        {
            let before = [&before, piece].concat();
            if !self.each_in_node(txn, self.target(&link, value)?, before, rest, each)? {
                return Ok(false);
            }
        }
        // Past the record itself and, once its longer paths were walked, past its link.
        let from = key(node, piece, !rest.is_empty());
        let from = if after.is_empty() {
            std::ops::Bound::Included(from.as_slice())
        } else {
            std::ops::Bound::Excluded(from.as_slice())
        };
        let end = (node + 1).to_be_bytes();
        let range = (from, std::ops::Bound::Excluded(end.as_slice()));
        let mut walk = keys::Ascending::begin(from);
        for record in self.paths.range(txn, &range).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            if !walk.admits(key) {
                continue;
            }
            let mut path = before.clone();
            let go_on = if is_link(key) {
                path.extend_from_slice(key.get(8..8 + PIECE).unwrap_or(&[]));
                self.each_in_node(txn, self.target(key, value)?, path, &[], each)?
            } else {
                path.extend_from_slice(key.get(8..).unwrap_or(&[]));
                let path = String::from_utf8(path)
                    .map_err(|_| self.damaged("a path that is not UTF-8"))?;
                each(path, StreamId(self.target(key, value)?))?
            };
            if !go_on {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
