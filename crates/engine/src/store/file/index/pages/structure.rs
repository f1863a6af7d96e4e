//! The branch pages of all databases, and the list of free pages.
//!
//! They are few (a hundredth of the leaf pages), and a wrong one among them misleads every search, ends the process, or
//! has the next commit overwrite pages in use. So they are checked before the index is used.

use super::{MetaPage, Page, PageDamage, PageFile, PageKind, PageTree, number};
use crate::store::StoreError;

/// A list of free pages longer than this is left to the scrub.
const MOST_FREE: u64 = 16 << 20;

/// A database of the index, by name.
pub(in crate::store::file::index) type NamedTree = (String, PageTree);

/// Which pages were seen, one bit each.
pub(in crate::store::file::index) struct PageSet {
    bits: Vec<u64>,
    last: u64,
}

impl PageSet {
    /// One that notes nothing, for a tree of a few pages.
    pub(in crate::store::file::index) fn unknown() -> Self {
        PageSet { bits: Vec::new(), last: u64::MAX }
    }

    pub(in crate::store::file::index) fn new(last: u64) -> Self {
        PageSet { bits: vec![0; (last / 64 + 1) as usize], last }
    }

    /// Adds pages.
    ///
    /// # Errors
    /// What is wrong with that.
    pub(in crate::store::file::index) fn add(
        &mut self,
        first: u64,
        count: u64,
    ) -> Result<(), PageDamage> {
        for page in first..first.saturating_add(count) {
            if page < 2 || page > self.last {
                return Err(PageDamage::new(page, "is not in use"));
            }
            let Some(word) = self.bits.get_mut((page / 64) as usize) else { continue };
            if *word & 1 << (page % 64) != 0 {
                return Err(PageDamage::new(page, "is used twice, or free"));
            }
            *word |= 1 << (page % 64);
        }
        Ok(())
    }

    /// Whether a page was added.
    pub(in crate::store::file::index) fn has(&self, page: u64) -> bool {
        self.bits.get((page / 64) as usize).is_some_and(|word| word & 1 << (page % 64) != 0)
    }

    /// A page that was not added.
    pub(in crate::store::file::index) fn missing(&self) -> Option<u64> {
        (2..=self.last).find(|page| !self.has(*page))
    }
}

impl PageFile {
    /// Checks the meta pages, the free list, and the branch pages of all databases of a transaction that is the last one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the first page that is damaged.
    pub(in crate::store::file::index) fn check_structure(
        &self,
        txn: u64,
    ) -> Result<(), StoreError> {
        let meta = match self.meta(txn)? {
            Ok(Some(meta)) => meta,
            Ok(None) => return Ok(()),
            Err(damage) => return Err(damage.error(self, "the file")),
        };
        for other in self.meta_pages()? {
            let other = other.map_err(|damage| damage.error(self, "the file"))?;
            let near = other.txn.abs_diff(meta.txn) <= 1;
            if !near || (other.txn < meta.txn && other.last > meta.last) {
                let damage = PageDamage::new(txn % 2, "does not follow the other meta page");
                return Err(damage.error(self, "the file"));
            }
        }
        let mut seen = PageSet::new(meta.last);
        self.add_free(&meta, &mut seen, MOST_FREE)?;
        for (name, tree) in self.databases(&meta, &mut seen)? {
            self.each_page(&name, &tree, &mut seen, false, &mut |_| Ok(()))?;
        }
        Ok(())
    }

    /// Adds the free pages, and those of the list itself, which is left out if it is longer than `most` bytes.
    pub(in crate::store::file::index) fn add_free(
        &self,
        meta: &MetaPage,
        seen: &mut PageSet,
        most: u64,
    ) -> Result<(), StoreError> {
        const NAME: &str = "the list of free pages";
        let mut lists = Vec::new();
        self.each_page(NAME, &meta.free, seen, true, &mut |page| {
            for node in page.nodes() {
                if let Some(first) = node.page {
                    lists.push((first, self.pages_of(node.len)));
                }
            }
            Ok(())
        })?;
        let failed = |damage: PageDamage| damage.error(self, NAME);
        let long: u64 = lists.iter().map(|(_, pages)| pages * self.page as u64).sum();
        for (first, pages) in &lists {
            seen.add(*first, *pages).map_err(failed)?;
        }
        if long > most {
            return Ok(());
        }
        let mut own = PageSet::new(meta.last);
        self.each_page(NAME, &meta.free, &mut own, true, &mut |page| {
            for node in page.nodes() {
                let list = self.value(page, node, meta.last)?.map_err(failed)?;
                let count = number(&list, 0).unwrap_or(u64::MAX);
                let ids = list.get(8..).unwrap_or_default();
                // LMDB may reserve more room than it needs.
                if (ids.len() as u64 / 8) < count {
                    return Err(failed(PageDamage::new(
                        page.number,
                        "has a list of another length",
                    )));
                }
                for id in ids.chunks_exact(8).take(count as usize) {
                    seen.add(number(id, 0).unwrap_or(u64::MAX), 1).map_err(failed)?;
                }
            }
            Ok(())
        })
    }

    /// The named databases.
    pub(in crate::store::file::index) fn databases(
        &self,
        meta: &MetaPage,
        seen: &mut PageSet,
    ) -> Result<Vec<NamedTree>, StoreError> {
        const NAME: &str = "the list of databases";
        // Ten records are on one page.
        if meta.main.depth > 1 {
            return Err(
                PageDamage::new(meta.txn % 2, "has a damaged list of databases").error(self, NAME)
            );
        }
        let mut found = Vec::new();
        self.each_page(NAME, &meta.main, seen, true, &mut |page| {
            for node in page.nodes() {
                let name = String::from_utf8_lossy(page.key(node)).into_owned();
                let tree = PageTree::decode(page.value(node), false).ok_or_else(|| {
                    let found = format!("has a damaged record of `{name}`");
                    PageDamage::new(page.number, found).error(self, NAME)
                })?;
                found.push((name, tree));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Adds the pages of a tree to `seen`. Reads the branch pages and, if `leaves` is set, the leaf pages, for which it calls
    /// `each`.
    pub(super) fn each_page(
        &self,
        name: &str,
        tree: &PageTree,
        seen: &mut PageSet,
        leaves: bool,
        each: &mut dyn FnMut(&Page) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let failed = |damage: PageDamage| damage.error(self, name);
        let mut left: Vec<(u64, u16)> = tree.root.into_iter().map(|root| (root, 1)).collect();
        while let Some((number, level)) = left.pop() {
            seen.add(number, 1).map_err(failed)?;
            let is_leaf = level == tree.depth;
            if is_leaf && !leaves {
                continue;
            }
            let kind = if is_leaf { PageKind::Leaf } else { PageKind::Branch };
            let page = self.page(tree, number, kind)?.map_err(failed)?;
            if is_leaf {
                each(&page)?;
            } else {
                left.extend(page.nodes().iter().filter_map(|node| Some((node.page?, level + 1))));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
