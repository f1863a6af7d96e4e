//! The scrub: checks every page, checksum and pointer of the index while it is in use, a slice at a time.
//!
//! Invariants
//! - A slice holds one read transaction, for a bounded number of bytes: a long one would make the file grow.
//! - What a slice compares is of one transaction. Only the numbers of records and of pages are of a whole round, and are
//!   compared only when nothing was committed during it.
//!
//! | module | what it is |
//! |---|---|
//! | here | a round, slice by slice; what rounds have found |
//! | `records` | the checks of one record |

mod records;

use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    counts::IndexTrees,
    dropped::DroppedRanges,
    env::NAMES,
    handle::{IndexHandle, ReadTxn},
    pages::{MetaPage, PageSet, PageTree, PageWalk, WalkStep},
};
use crate::store::StoreError;

/// What rounds have found.
#[derive(Default)]
pub(in crate::store::file) struct IndexHealth {
    /// Names may be missing: a path that is not found may exist.
    names: AtomicBool,
}

impl IndexHealth {
    /// Whether names may be missing.
    pub(in crate::store::file) fn names_may_miss(&self) -> bool {
        self.names.load(Ordering::Relaxed)
    }

    fn note_missing_names(&self) {
        self.names.store(true, Ordering::Relaxed);
    }
}

/// One round over the index.
#[derive(Default)]
pub(in crate::store::file) struct ScrubRound {
    /// The position in [`ORDER`].
    database: usize,
    /// The next key.
    from: Vec<u8>,
    /// The transaction of all slices so far; `None` when they are of several, or before the first.
    only: Option<u64>,
    begun: bool,
    seen: Option<PageSet>,
    /// Records of the database so far.
    records: u64,
    /// Records of finished databases, by their position in [`NAMES`].
    found: [u64; NAMES.len()],
    dropped: DroppedRanges,
    damaged: u64,
    /// Damaged pages among them.
    pages: u64,
    /// Only pages are checked, not what records say.
    pages_only: bool,
    /// Bytes read so far.
    bytes: u64,
}

/// The order of databases in a round: what names and protects streams first, their bytes last.
const ORDER: [usize; NAMES.len()] = [0, 1, 7, 2, 6, 8, 9, 5, 4, 11, 10, 3];

/// The state of one slice.
struct ScrubSlice<'s, 'r> {
    reading: &'s ReadTxn<'r>,
    round: &'s mut ScrubRound,
    health: &'s IndexHealth,
    report: &'s mut dyn FnMut(StoreError),
    left: u64,
}

impl IndexHandle {
    /// Checks about `most` bytes, and reports each damaged thing. Returns whether there is more to check in this round.
    ///
    /// # Errors
    /// When the index cannot be read. The round can go on.
    pub(in crate::store::file) fn scrub_slice(
        &self,
        round: &mut ScrubRound,
        most: u64,
        report: &mut dyn FnMut(StoreError),
    ) -> Result<bool, StoreError> {
        let reading = self.read()?;
        let trees = match reading.index().page_trees(&reading.txn) {
            Ok(Some(trees)) => trees,
            // Two commits have come in between: the next slice has a newer transaction.
            Ok(None) => return Ok(true),
            Err(error @ StoreError::Corrupt { .. }) => {
                round.damaged += 1;
                round.pages += 1;
                report(error);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        round.enter(&trees, &reading)?;
        let health = self.health();
        let more =
            ScrubSlice { reading: &reading, round, health, report, left: most }.run(&trees)?;
        if !more {
            self.finish(&reading, round, &trees.0, report)?;
        }
        Ok(more)
    }

    /// Compares numbers at the end of a round.
    fn finish(
        &self,
        reading: &ReadTxn<'_>,
        round: &mut ScrubRound,
        meta: &MetaPage,
        report: &mut dyn FnMut(StoreError),
    ) -> Result<(), StoreError> {
        let index = reading.index();
        let mut wrong = |what: &str| {
            round.damaged += 1;
            report(index.damaged(what));
        };
        for (name, sealed, counted) in index.differences(&reading.txn)? {
            if name == "paths" {
                self.health().note_missing_names();
            }
            wrong(&format!("the number of records in `{name}` ({counted} instead of {sealed})"));
        }
        if round.only == Some(reading.txn.id() as u64)
            && let Some(sealed) = reading.meta()?.records
        {
            for ((name, found), sealed) in NAMES.iter().zip(round.found).skip(1).zip(sealed) {
                if found != sealed {
                    if *name == "paths" {
                        self.health().note_missing_names();
                    }
                    wrong(&format!(
                        "`{name}`, which has {found} records and should have {sealed},"
                    ));
                }
            }
            if let Some(mut seen) = round.seen.take() {
                match index.pages.add_free(meta, &mut seen, u64::MAX) {
                    Ok(()) => {
                        if let Some(page) = seen.missing() {
                            wrong(&format!(
                                "the list of pages (page {page} is neither used nor free)"
                            ));
                        }
                    }
                    Err(error @ StoreError::Corrupt { .. }) => {
                        round.damaged += 1;
                        round.pages += 1;
                        report(error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Checks the pages on which others depend, as each opening does.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the first one that is damaged.
    pub(in crate::store::file) fn check_structure(&self) -> Result<(), StoreError> {
        let reading = self.read()?;
        reading.index().pages.check_structure(reading.txn.id() as u64)
    }

    /// Compares the numbers of records right after the opening, which costs nothing.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(in crate::store::file) fn check_counts(
        &self,
        report: &mut dyn FnMut(StoreError),
    ) -> Result<(), StoreError> {
        let reading = self.read()?;
        // Damage of the meta record is an error for each caller that needs it.
        for (name, sealed, counted) in reading.index().differences(&reading.txn).unwrap_or_default()
        {
            if name == "paths" {
                self.health().note_missing_names();
            }
            let what = format!("the number of records in `{name}` ({counted} instead of {sealed})");
            report(self.damaged(&what));
        }
        Ok(())
    }
}

impl ScrubRound {
    fn enter(&mut self, trees: &IndexTrees, reading: &ReadTxn<'_>) -> Result<(), StoreError> {
        let txn = trees.0.txn;
        if !self.begun {
            self.begun = true;
            self.only = Some(txn);
            let mut seen = PageSet::new(trees.0.last);
            // Damage there was reported when the trees were looked up.
            reading.index().pages.databases(&trees.0, &mut seen)?;
            self.seen = Some(seen);
        } else if self.only != Some(txn) {
            self.only = None;
            self.seen = None;
        }
        // Damage of its records is found in their turn.
        self.dropped = reading.dropped().unwrap_or_default();
        Ok(())
    }

    /// A round that checks pages only.
    pub(in crate::store::file) fn of_pages() -> Self {
        ScrubRound { pages_only: true, ..ScrubRound::default() }
    }

    /// Damaged pages so far: LMDB may end the process that meets one.
    pub(in crate::store::file) fn pages(&self) -> u64 {
        self.pages
    }

    /// Bytes that the round has read.
    pub(in crate::store::file) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Damaged records and pages so far.
    pub(in crate::store::file) fn damaged(&self) -> u64 {
        self.damaged
    }
}

impl ScrubSlice<'_, '_> {
    /// Returns whether the round goes on.
    fn run(&mut self, (meta, trees): &IndexTrees) -> Result<bool, StoreError> {
        while let Some(which) = ORDER.get(self.round.database).copied() {
            let name = NAMES[which];
            let tree = trees.iter().find(|(known, _)| known == name).map(|(_, tree)| *tree);
            let Some(tree) = tree else {
                self.wrong(self.reading.index().missing(&format!("the database `{name}`")));
                self.next_database(which);
                continue;
            };
            if self.database(name, meta, tree)? {
                return Ok(true);
            }
            self.next_database(which);
            if self.left == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn next_database(&mut self, which: usize) {
        self.round.found[which] = self.round.records;
        self.round.records = 0;
        self.round.database += 1;
        self.round.from.clear();
    }

    /// Goes on with a database; returns whether there is more of it.
    fn database(
        &mut self,
        name: &'static str,
        meta: &MetaPage,
        tree: PageTree,
    ) -> Result<bool, StoreError> {
        let index = self.reading.index();
        let mut walk = PageWalk::new(&index.pages, meta, tree);
        loop {
            let from = std::mem::take(&mut self.round.from);
            let next = match walk.leaf(&from)? {
                None => return Ok(false),
                Some(WalkStep::Damaged(damage)) => {
                    self.wrong_page(damage.error(&index.pages, name));
                    self.round.seen = None;
                    damage.high
                }
                Some(WalkStep::Leaf(page, next)) => {
                    // Each slice reads the branch pages to its first leaf page, and maybe that one, again.
                    for branch in walk.take_branches() {
                        if self.round.seen.as_ref().is_some_and(|seen| !seen.has(branch)) {
                            self.see(branch, 1, name);
                        }
                    }
                    if page.nodes().first().is_some_and(|node| page.key(node) >= from.as_slice()) {
                        self.see(page.number(), 1, name);
                    }
                    for node in page.nodes() {
                        let key = page.key(node);
                        if key < from.as_slice() {
                            continue;
                        }
                        if self.left == 0 {
                            self.round.from = key.to_vec();
                            return Ok(true);
                        }
                        let value = if self.round.pages_only {
                            index.pages.check_value(&page, node, meta.last)?.map(|()| None)
                        } else {
                            index.pages.value(&page, node, meta.last)?.map(Some)
                        };
                        self.round.records += 1;
                        let len =
                            value.as_ref().map_or(0, |value| value.as_ref().map_or(0, Vec::len));
                        let read = (key.len() + 8 + len) as u64;
                        self.round.bytes += read;
                        self.left = self.left.saturating_sub(read);
                        if let Some(first) = node.page() {
                            self.see(first, index.pages.pages_of(node.len()), name);
                        }
                        match value {
                            Ok(Some(value)) => self.record(name, key, &value)?,
                            Ok(None) => {}
                            Err(damage) => self.wrong_page(damage.error(&index.pages, name)),
                        }
                    }
                    next
                }
            };
            let Some(next) = next else { return Ok(false) };
            self.round.from = next;
            if self.left == 0 {
                return Ok(true);
            }
        }
    }

    /// Notes that pages are used, while nothing is committed.
    fn see(&mut self, first: u64, count: u64, name: &str) {
        let Some(mut seen) = self.round.seen.take() else { return };
        match seen.add(first, count) {
            Ok(()) => self.round.seen = Some(seen),
            Err(damage) => self.wrong_page(damage.error(&self.reading.index().pages, name)),
        }
    }

    fn wrong_page(&mut self, problem: StoreError) {
        self.round.pages += 1;
        self.wrong(problem);
    }

    /// Reports damage of the database that the round is at.
    fn wrong(&mut self, problem: StoreError) {
        self.round.damaged += 1;
        if ORDER.get(self.round.database).is_some_and(|which| NAMES[*which] == "paths") {
            self.health.note_missing_names();
        }
        (self.report)(problem);
    }
}
