//! The leaf pages of a database, in order of keys.

use super::{MOST_LEVELS, MetaPage, Page, PageDamage, PageFile, PageKind, PageTree};
use crate::store::StoreError;

/// A walk over one database as of one transaction; it keeps the branch pages that it came by.
pub(in crate::store::file::index) struct PageWalk<'f> {
    file: &'f PageFile,
    tree: PageTree,
    last: u64,
    /// By level, the root's first.
    branches: Vec<Page>,
    /// Branch pages read since they were taken.
    read: Vec<u64>,
}

/// What a walk has come to.
pub(in crate::store::file::index) enum WalkStep {
    /// A leaf page, and where the next one begins; `None` after the last one.
    Leaf(Page, Option<Vec<u8>>),
    /// A page that is damaged. The walk can go on after its keys.
    Damaged(PageDamage),
}

impl<'f> PageWalk<'f> {
    pub(in crate::store::file::index) fn new(
        file: &'f PageFile,
        meta: &MetaPage,
        tree: PageTree,
    ) -> Self {
        PageWalk { file, tree, last: meta.last, branches: Vec::new(), read: Vec::new() }
    }

    /// The leaf page where a key is, or would be. `None` when the database has no records.
    pub(in crate::store::file::index) fn leaf(
        &mut self,
        key: &[u8],
    ) -> Result<Option<WalkStep>, StoreError> {
        let Some(mut number) = self.tree.root else { return Ok(None) };
        let (mut low, mut high): (Vec<u8>, Option<Vec<u8>>) = (Vec::new(), None);
        for level in 0..usize::from(self.tree.depth.min(MOST_LEVELS)) {
            let leaf = level + 1 == usize::from(self.tree.depth);
            let kind = if leaf { PageKind::Leaf } else { PageKind::Branch };
            let known = self.branches.get(level).is_some_and(|page| !leaf && page.number == number);
            if !known {
                self.branches.truncate(level);
                let page = match self.read(number, kind, &low, high.as_deref())? {
                    Ok(page) => page,
                    Err(damage) => {
                        return Ok(Some(WalkStep::Damaged(PageDamage { high, ..damage })));
                    }
                };
                if leaf {
                    return Ok(Some(WalkStep::Leaf(page, high)));
                }
                self.read.push(number);
                self.branches.push(page);
            }
            let Some(page) = self.branches.get(level) else { break };
            let above = page.nodes().get(1..).unwrap_or_default();
            let at = above.partition_point(|node| page.key(node) <= key);
            if let Some(node) = at.checked_sub(1).and_then(|at| above.get(at)) {
                low = page.key(node).to_vec();
            }
            if let Some(next) = above.get(at) {
                high = Some(page.key(next).to_vec());
            }
            let child = page.nodes().get(at).and_then(|node| node.page);
            number = child.unwrap_or(super::NONE);
        }
        Ok(None)
    }

    /// The branch pages that were read since the last call.
    pub(in crate::store::file::index) fn take_branches(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.read)
    }

    /// Reads a page whose keys are from `low` on, below `high`.
    fn read(
        &self,
        number: u64,
        kind: PageKind,
        low: &[u8],
        high: Option<&[u8]>,
    ) -> Result<Result<Page, PageDamage>, StoreError> {
        if number < 2 || number > self.last {
            return Ok(Err(PageDamage::new(number, "is not in use")));
        }
        let page = self.file.page(&self.tree, number, kind)?;
        Ok(page.and_then(|page| {
            let keys = match kind {
                PageKind::Branch => page.nodes().get(1..),
                PageKind::Leaf => page.nodes().get(..),
            };
            let keys = keys.unwrap_or_default();
            let first = keys.first().is_none_or(|node| page.key(node) >= low);
            let last = keys.last().is_none_or(|node| high.is_none_or(|high| page.key(node) < high));
            if first && last {
                Ok(page)
            } else {
                Err(PageDamage::new(number, "has keys that belong to another page"))
            }
        }))
    }
}

#[cfg(test)]
mod tests;
