//! One page and its nodes.

use std::ops::Range;

use super::{PAGE_HEADER, PageDamage, PageFile, PageTree, number};
use crate::store::StoreError;

const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
pub(super) const META: u16 = 8;
const NODE_HEADER: usize = 8;
/// The flag of a node whose value is on pages of its own.
const BIG: u16 = 1;
/// The flag of a node whose value is a database.
const DATABASE: u16 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::file::index) enum PageKind {
    Branch,
    Leaf,
}

/// A branch or leaf page whose nodes fill it without gaps, with keys in order.
pub(in crate::store::file::index) struct Page {
    pub(super) number: u64,
    bytes: Vec<u8>,
    pub(super) nodes: Vec<PageNode>,
}

/// A node: a record, or a key with the page of the keys from it on.
pub(in crate::store::file::index) struct PageNode {
    key: Range<usize>,
    /// Of a leaf page: where the value is, or the number of the page where it begins.
    value: Range<usize>,
    /// The length of a value.
    pub(super) len: usize,
    /// The page that a branch leads to, or that a large value is on.
    pub(super) page: Option<u64>,
}

impl PageNode {
    /// The page that a large value begins on.
    pub(in crate::store::file::index) fn page(&self) -> Option<u64> {
        self.page
    }

    /// The length of the value.
    pub(in crate::store::file::index) fn len(&self) -> usize {
        self.len
    }
}

impl Page {
    pub(in crate::store::file::index) fn number(&self) -> u64 {
        self.number
    }

    pub(in crate::store::file::index) fn key(&self, node: &PageNode) -> &[u8] {
        self.bytes.get(node.key.clone()).unwrap_or_default()
    }

    pub(in crate::store::file::index) fn nodes(&self) -> &[PageNode] {
        &self.nodes
    }

    /// The value of a node of a leaf page, if it is on this page.
    pub(super) fn value(&self, node: &PageNode) -> &[u8] {
        self.bytes.get(node.value.clone()).unwrap_or_default()
    }

    fn decode(bytes: Vec<u8>, number: u64, kind: PageKind, numbers: bool) -> Result<Self, String> {
        let short = |at: usize| {
            let short = bytes.get(at..at + 2).and_then(|two| two.try_into().ok());
            short.map_or(0, u16::from_le_bytes)
        };
        if super::number(&bytes, 0) != Some(number) {
            return Err("has the number of another page".to_owned());
        }
        let expected = if kind == PageKind::Branch { BRANCH } else { LEAF };
        let (flags, lower, upper) = (short(10), usize::from(short(12)), usize::from(short(14)));
        if flags != expected {
            return Err(format!("has the flags {flags:#x} and should have {expected:#x}"));
        }
        let bounds = PAGE_HEADER < lower && lower <= upper && upper <= bytes.len();
        if !bounds || !lower.is_multiple_of(2) {
            return Err(format!("has its free room from {lower} to {upper}"));
        }
        let mut nodes = Vec::with_capacity((lower - PAGE_HEADER) / 2);
        let mut ends = vec![0; bytes.len() / 2];
        for pointer in (PAGE_HEADER..lower).step_by(2) {
            let at = usize::from(short(pointer));
            if at < upper || at + NODE_HEADER > bytes.len() {
                return Err("has a node outside of its room".to_owned());
            }
            let low = u64::from(short(at)) | u64::from(short(at + 2)) << 16;
            let (flags, key) = (short(at + 4), usize::from(short(at + 6)));
            let key = at + NODE_HEADER..at + NODE_HEADER + key;
            let node = match kind {
                PageKind::Branch => {
                    let page = Some(low | u64::from(flags) << 32);
                    PageNode { value: key.end..key.end, len: 0, key, page }
                }
                PageKind::Leaf if flags & !(BIG | DATABASE) != 0 => {
                    return Err("has a node with an unknown flag".to_owned());
                }
                PageKind::Leaf => {
                    let len = low as usize;
                    let here = if flags & BIG == 0 { len } else { 8 };
                    let value = key.end..key.end.saturating_add(here);
                    let page = (flags & BIG != 0).then(|| super::number(&bytes, key.end));
                    PageNode { key, len, page: page.flatten(), value }
                }
            };
            if node.value.end > bytes.len() {
                return Err("has a node that ends outside of it".to_owned());
            }
            if let Some(end) = ends.get_mut(at / 2).filter(|_| at.is_multiple_of(2)) {
                *end = node.value.end.div_ceil(2) as u16;
            }
            nodes.push(node);
        }
        if !fills(&ends, upper, bytes.len(), nodes.len()) {
            return Err("does not list the nodes that it holds".to_owned());
        }
        let page = Page { number, bytes, nodes };
        if page.is_ordered(kind, numbers) { Ok(page) } else { Err("has keys out of order".into()) }
    }

    /// Whether the keys ascend; the first one of a branch page has no meaning.
    fn is_ordered(&self, kind: PageKind, numbers: bool) -> bool {
        let nodes = if kind == PageKind::Branch { self.nodes.get(1..) } else { self.nodes.get(..) };
        nodes.unwrap_or_default().is_sorted_by(|one, next| {
            let (one, next) = (self.key(one), self.key(next));
            if numbers { number(one, 0) < number(next, 0) } else { one < next }
        })
    }
}

/// Whether `count` nodes fill a page without gaps, from `upper` to its `length`: each begins where one before it ends, and
/// none twice. `ends` has for each pair of bytes at which pair the node ends that begins there, 0 where none does. Without
/// sorting the nodes, since every creation of a stream checks a page or two.
///
/// Measured: 0.54 -> 0.15 us for 60 nodes in random order, 1.04 -> 0.23 for 100 (docs/benchmarks.md).
fn fills(ends: &[u16], upper: usize, length: usize, count: usize) -> bool {
    let (mut at, mut found) = (upper, 0);
    while at < length && at.is_multiple_of(2) {
        let end = ends.get(at / 2).map_or(0, |end| usize::from(*end) * 2);
        if end <= at {
            return false;
        }
        (at, found) = (end, found + 1);
    }
    at == length && found == count
}

impl PageFile {
    /// A branch or leaf page.
    pub(super) fn page(
        &self,
        tree: &PageTree,
        number: u64,
        kind: PageKind,
    ) -> Result<Result<Page, PageDamage>, StoreError> {
        let bytes = self.read(number, self.page)?;
        Ok(bytes.and_then(|bytes| {
            let page = Page::decode(bytes, number, kind, tree.numbers);
            page.map_err(|found| PageDamage::new(number, found))
        }))
    }

    /// The number of pages that a large value takes.
    pub(in crate::store::file::index) fn pages_of(&self, len: usize) -> u64 {
        (len + PAGE_HEADER).div_ceil(self.page) as u64
    }

    /// The value of a node on a leaf page; `last` is the last page in use.
    pub(in crate::store::file::index) fn value(
        &self,
        page: &Page,
        node: &PageNode,
        last: u64,
    ) -> Result<Result<Vec<u8>, PageDamage>, StoreError> {
        match node.page {
            None => Ok(Ok(page.value(node).to_vec())),
            Some(first) => self.large_value(page, node, (first, last), node.len),
        }
    }

    /// Checks the page on which a large value begins, if it is one.
    pub(in crate::store::file::index) fn check_value(
        &self,
        page: &Page,
        node: &PageNode,
        last: u64,
    ) -> Result<Result<(), PageDamage>, StoreError> {
        let Some(first) = node.page else { return Ok(Ok(())) };
        Ok(self.large_value(page, node, (first, last), 0)?.map(drop))
    }

    /// The first `most` bytes of a large value.
    fn large_value(
        &self,
        page: &Page,
        node: &PageNode,
        (first, last): (u64, u64),
        most: usize,
    ) -> Result<Result<Vec<u8>, PageDamage>, StoreError> {
        let pages = self.pages_of(node.len);
        let end = first.checked_add(pages).filter(|end| first >= 2 && *end <= last + 1);
        if end.is_none() {
            let found = format!("has a value on page {first}, which is not in use");
            return Ok(Err(PageDamage::new(page.number, found)));
        }
        let bytes = self.read(first, PAGE_HEADER + most)?;
        Ok(bytes.and_then(|mut bytes| {
            let kind = bytes.get(10..12).map(|two| u16::from(two[0]) | u16::from(two[1]) << 8);
            let count = bytes.get(12..16).and_then(|four| four.try_into().ok());
            let whole = number(&bytes, 0) == Some(first)
                && kind == Some(OVERFLOW)
                && count.map(u32::from_le_bytes).map(u64::from) == Some(pages);
            if !whole {
                return Err(PageDamage::new(first, "is not the first of a large value"));
            }
            bytes.drain(..PAGE_HEADER);
            Ok(bytes)
        }))
    }
}

#[cfg(test)]
mod tests;
