//! LMDB's pages as they are in the file, with the checks that LMDB does not make.
//!
//! LMDB has no checksums, and follows what it finds on a page. What it writes is regular, though: the nodes of a page fill
//! it from the end without gaps, every page has its own number in its header, and every page is used once or is free. So
//! a changed bit in a header, a pointer or a page number shows, and with it a record that a search no longer finds.
//! Pages are read with `pread`, which needs no memory beyond one page, and fails where the map would raise SIGBUS.
//!
//! | module | what it is |
//! |---|---|
//! | here | the file; the pages that a transaction begins with |
//! | `page` | one page and its nodes |
//! | `walk` | the leaf pages of a database, in order of keys |
//! | `structure` | every branch page, and which pages are free, before the index is used |
//!
//! The format is that of LMDB 0.9 (`mdb.c`, `MDB_page`, `MDB_node`, `MDB_db`, `MDB_meta`) on a little-endian machine.

mod page;
mod structure;
#[cfg(test)]
mod tests;
mod walk;

use std::path::{Path, PathBuf};

pub(super) use self::{
    page::{Page, PageKind},
    structure::{NamedTree, PageSet},
    walk::{PageWalk, WalkStep},
};
use crate::store::{
    StoreError,
    file::{
        disk::{Disk, DiskFile, RealDisk},
        error::{corrupt, io_error},
    },
};

const PAGE_HEADER: usize = 16;
/// No page: the root of an empty database.
const NONE: u64 = u64::MAX;
/// The addresses of a process, bytes.
const LARGEST_MAP: u64 = 1 << 47;
/// More than any tree of LMDB can have.
const MOST_LEVELS: u16 = 32;

/// The index's file.
pub(super) struct PageFile {
    file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
    /// Bytes of a page.
    pub(super) page: usize,
}

/// What is wrong with a page, and which keys depend on it.
#[derive(Clone, Debug)]
pub(super) struct PageDamage {
    pub(super) page: u64,
    pub(super) found: String,
    /// Where a walk can go on: behind the keys that the page is responsible for. `None` when they are the last.
    pub(super) high: Option<Vec<u8>>,
}

/// A database as of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageTree {
    /// `None` when the database has no records.
    pub(super) root: Option<u64>,
    pub(super) depth: u16,
    /// Records, as LMDB counts them.
    pub(super) entries: u64,
    /// Keys are numbers of the machine, as in the list of free pages.
    numbers: bool,
}

/// What a transaction begins with: its meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MetaPage {
    pub(super) txn: u64,
    /// The last page in use.
    pub(super) last: u64,
    /// The free pages.
    pub(super) free: PageTree,
    /// The named databases.
    pub(super) main: PageTree,
}

impl PageDamage {
    fn new(page: u64, found: impl Into<String>) -> Self {
        PageDamage { page, found: found.into(), high: None }
    }

    /// As an error that names the place in the file.
    pub(super) fn error(&self, file: &PageFile, database: &str) -> StoreError {
        let what = format!(
            "page {} of `{database}` {}; restore a backup, or see what `repair` would drop",
            self.page, self.found
        );
        corrupt(&file.path, self.page.saturating_mul(file.page as u64), &what)
    }
}

impl PageTree {
    /// Reads `MDB_db`.
    fn decode(bytes: &[u8], numbers: bool) -> Option<Self> {
        let root = number(bytes, 40)?;
        let depth = u16::from_le_bytes(bytes.get(6..8)?.try_into().ok()?);
        let entries = number(bytes, 32)?;
        let whole = bytes.len() == 48 && depth <= MOST_LEVELS && (root == NONE) == (depth == 0);
        let root = (root != NONE).then_some(root);
        whole.then_some(PageTree { root, depth, entries, numbers })
    }
}

impl PageFile {
    pub(super) fn open(path: &Path, page: usize) -> Result<Self, StoreError> {
        let file = RealDisk.open_to_read(path).map_err(io_error("open", path))?;
        Ok(PageFile { file, path: path.to_owned(), page })
    }

    /// Checks what LMDB takes from the meta pages for the size of its map, before it does.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub(super) fn check_sizes(path: &Path) -> Result<(), StoreError> {
        let file = match RealDisk.open_to_read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(io_error("open", path))?,
        };
        let mut first = [0; PAGE_HEADER + 152];
        let read = file.read_at(0, &mut first).map_err(io_error("read", path))?;
        // LMDB refuses what is not a meta page, and begins an empty file.
        let size = first.get(40..44).and_then(|size| size.try_into().ok()).map(u32::from_le_bytes);
        let Some(size) = size.filter(|size| read == first.len() && size.is_power_of_two()) else {
            return Ok(());
        };
        for page in [0, 1] {
            let mut meta = [0; PAGE_HEADER + 152];
            let at = page * u64::from(size);
            file.read_at(at, &mut meta).map_err(io_error("read", path))?;
            let map = number(&meta, PAGE_HEADER + 16).unwrap_or_default();
            let used = number(&meta, PAGE_HEADER + 120).unwrap_or_default();
            let used = used.saturating_add(1).saturating_mul(u64::from(size));
            if map >= LARGEST_MAP || used >= LARGEST_MAP {
                let found = format!(
                    "meta page {page} says that the map has {map} bytes, of which {used} are in use; restore a backup"
                );
                return Err(corrupt(path, at, &found));
            }
        }
        Ok(())
    }

    /// Has the file read into memory in the background, if it has no more than `most` bytes.
    pub(super) fn read_ahead(&self, most: u64) {
        if self.file.len().is_ok_and(|len| len <= most) {
            self.file.read_ahead();
        }
    }

    /// Reads bytes from the start of a page on.
    fn read(&self, page: u64, len: usize) -> Result<Result<Vec<u8>, PageDamage>, StoreError> {
        let Some(at) = page.checked_mul(self.page as u64) else {
            return Ok(Err(PageDamage::new(page, "is beyond the end of the file")));
        };
        let mut bytes = vec![0; len];
        match self.file.read_at(at, &mut bytes) {
            Ok(read) if read == len => Ok(Ok(bytes)),
            Ok(_) => Ok(Err(PageDamage::new(page, "is beyond the end of the file"))),
            // EIO: the disk cannot read it.
            Err(error) => Err(io_error("read", &self.path)(error)),
        }
    }

    /// Both meta pages, each with what is wrong with it.
    fn meta_pages(&self) -> Result<[Result<MetaPage, PageDamage>; 2], StoreError> {
        let meta = |page| {
            let bytes = self.read(page, PAGE_HEADER + 152)?;
            Ok(bytes.and_then(|bytes| {
                decode_meta(&bytes, page, self.page)
                    .ok_or_else(|| PageDamage::new(page, "is not a whole meta page"))
            }))
        };
        Ok([meta(0)?, meta(1)?])
    }

    /// The meta page of a transaction; `None` when two later ones have overwritten it.
    pub(super) fn meta(
        &self,
        txn: u64,
    ) -> Result<Result<Option<MetaPage>, PageDamage>, StoreError> {
        let which = (txn % 2) as usize;
        let pages = self.meta_pages()?;
        let page = pages.into_iter().nth(which);
        Ok(page.transpose().map(|meta| meta.filter(|meta| meta.txn == txn)))
    }
}

fn decode_meta(bytes: &[u8], page: u64, size: usize) -> Option<MetaPage> {
    const MAGIC: u32 = 0xbeef_c0de;
    const VERSION: u32 = 1;
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let kind = u16::from_le_bytes(bytes.get(10..12)?.try_into().ok()?);
    let header = number(bytes, 0)? == page && kind == page::META;
    let known = word(PAGE_HEADER)? == MAGIC && word(PAGE_HEADER + 4)? == VERSION;
    // The page size is where the list of free pages has its key size.
    let sized = word(PAGE_HEADER + 24)? as usize == size;
    let tree = |at: usize, numbers| PageTree::decode(bytes.get(at..at + 48)?, numbers);
    let (free, main) = (tree(PAGE_HEADER + 24, true)?, tree(PAGE_HEADER + 72, false)?);
    let last = number(bytes, PAGE_HEADER + 120)?;
    let txn = number(bytes, PAGE_HEADER + 128)?;
    (header && known && sized).then_some(MetaPage { txn, last, free, main })
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
