//! Which copies of the index there are, and which objects wait until no copy that is kept may reference them.
//!
//! Invariants
//! - A copy is deleted only once two later ones are whole, and its manifest goes first.
//! - The object of a segment that no stream has bytes of any more is deleted only once two copies that were begun after
//!   that are whole: then no copy that is kept references it. What lists show plays no part in that.
//! - Rounds delete such objects while a copy is under way. It references none of them: it was begun after the two whole
//!   ones, and those after the durable index had lost the segment. For that, a copy is begun here before the index is read
//!   for it, a segment is noted here after the index has lost it, and one copy is under way at a time.
//! - Only what makes the copies deletes copies. A look at the object store that ends after the first copy was begun counts
//!   for nothing: it may have seen a part of that.

use std::collections::{BTreeMap, BTreeSet};

use durable_streams_engine::store::file::segments::cold::{ColdError, ColdStore as _};

use super::manifest::{CopyName, FOLDER};
use crate::tier::claim;
use crate::tier::object_cold_store::ObjectColdStore;

/// Copies that are kept.
const KEPT: usize = 2;

/// Interrupted copies whose parts are remembered for deletion; the next start finds the others.
const MOST_BROKEN: usize = 64;

/// What an earlier run of this server has left.
#[derive(Debug, Default)]
pub(in crate::tier) struct FoundCopies {
    whole: BTreeSet<CopyName>,
    broken: BTreeSet<CopyName>,
}

/// The copies of this server in the object store.
#[derive(Debug, Default)]
pub(in crate::tier) struct KeptCopies {
    /// The object store was looked at.
    looked: bool,
    /// Whole copies; the newest one is the last.
    whole: BTreeSet<CopyName>,
    /// Those that are to be deleted, the manifest first.
    broken: BTreeSet<CopyName>,
    /// Copies that were begun since the start.
    begun: u64,
    /// The one that is neither whole nor given up.
    under_way: Option<CopyName>,
    /// Since that was begun, an object was missing.
    lost_object: bool,
    /// The numbers of the last copies that became whole since the start; the newest one last.
    published: Vec<u64>,
    /// Segments whose objects are to be deleted, and how many copies were begun before no stream had bytes of them.
    doomed: BTreeMap<u64, u64>,
}

impl KeptCopies {
    /// Whether the copies that an earlier run has left are known.
    pub(in crate::tier) fn has_looked(&self) -> bool {
        self.looked
    }

    /// Notes what the first look has found.
    pub(in crate::tier) fn note_found(&mut self, found: FoundCopies) {
        if !self.looked {
            self.looked = true;
            self.whole.extend(found.whole);
            self.broken.extend(found.broken);
        }
    }

    /// Begins a copy with the claim of this epoch; returns its name.
    pub(super) fn begin(&mut self, epoch: u64) -> CopyName {
        // One that was cut off, and may have a manifest.
        if let Some(left) = self.under_way {
            self.gave_up(left);
        }
        self.begun += 1;
        let name = CopyName { epoch, number: self.begun };
        self.under_way = Some(name);
        self.lost_object = false;
        name
    }

    /// How many copies were begun since the start.
    #[cfg(test)]
    pub(in crate::tier) fn begun(&self) -> u64 {
        self.begun
    }

    /// Notes that a copy is not to become whole: what is there of it is deleted.
    pub(super) fn gave_up(&mut self, name: CopyName) {
        self.under_way = None;
        if self.broken.len() < MOST_BROKEN {
            self.broken.insert(name);
        }
    }

    /// Notes that a copy is whole.
    pub(super) fn publish(&mut self, name: CopyName) {
        self.under_way = None;
        self.whole.insert(name);
        self.published.push(name.number);
        if self.published.len() > KEPT {
            self.published.remove(0);
        }
    }

    /// Notes that the index has named an object that is not there, and does so no more.
    pub(in crate::tier) fn note_lost_object(&mut self) {
        self.lost_object = true;
    }

    /// Whether that has happened since the last copy was begun, which may take the object for there.
    pub(super) fn has_lost_object(&self) -> bool {
        self.lost_object
    }

    /// The newest whole copy.
    pub(super) fn newest(&self) -> Option<CopyName> {
        self.whole.last().copied()
    }

    /// A copy that is to be deleted, of those beyond the ones that are kept, or of all, and of interrupted ones.
    pub(super) fn next_old(&mut self, all: bool) -> Option<CopyName> {
        let kept = if all { 0 } else { KEPT };
        while self.whole.len() > kept {
            self.broken.extend(self.whole.pop_first());
        }
        self.broken.first().copied()
    }

    /// Notes that nothing is left of a copy.
    pub(super) fn deleted_copy(&mut self, name: CopyName) {
        self.broken.remove(&name);
    }

    /// Notes that no stream has bytes of a segment any more.
    pub(in crate::tier) fn doom(&mut self, segment: u64, most: usize) {
        if self.doomed.len() < most {
            self.doomed.entry(segment).or_insert(self.begun);
        }
    }

    /// Objects that are to be deleted, now or after later copies.
    pub(in crate::tier) fn doomed(&self) -> usize {
        self.doomed.len()
    }

    /// A segment whose object may go now; `copies`: whether there are copies at all.
    pub(in crate::tier) fn next_doomed(&self, copies: bool) -> Option<u64> {
        let begun_after = match (copies, self.published.as_slice()) {
            (false, _) => {
                let none = self.looked && self.whole.is_empty() && self.broken.is_empty();
                return self.doomed.keys().next().copied().filter(|_| none);
            }
            (true, [oldest, _]) if self.whole.len() <= KEPT && self.broken.is_empty() => *oldest,
            (true, _) => return None,
        };
        let mut free = self.doomed.iter().filter(|(_, begun)| **begun < begun_after);
        free.next().map(|(segment, _)| *segment)
    }

    /// Notes that the object of a segment is gone.
    pub(in crate::tier) fn deleted(&mut self, segment: u64) {
        self.doomed.remove(&segment);
    }
}

/// Looks which copies of a server the object store has.
pub(in crate::tier) async fn look(
    store: &ObjectColdStore,
    identity: &str,
) -> Result<FoundCopies, ColdError> {
    let mut found = BTreeMap::<CopyName, bool>::new();
    let mut after = None::<String>;
    loop {
        let page = store.list(FOLDER, after.as_deref()).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (copy, manifest) in page.iter().filter_map(|(name, _)| CopyName::of_object(name)) {
            *found.entry(copy).or_default() |= manifest;
        }
    }
    let (mut copies, mut owners) = (FoundCopies::default(), BTreeMap::<u64, bool>::new());
    for (copy, manifest) in found {
        let own = match owners.get(&copy.epoch) {
            Some(own) => *own,
            None => {
                let owner = claim::identity_of(store, copy.epoch).await?;
                let own = owner.as_deref() == Some(identity);
                owners.insert(copy.epoch, own);
                own
            }
        };
        if !own {
            continue;
        }
        // The list may be late.
        let whole = manifest || store.small(&copy.manifest()).await?.is_some();
        if whole {
            copies.whole.insert(copy)
        } else {
            copies.broken.insert(copy)
        };
    }
    Ok(copies)
}

/// Deletes what is there of a copy.
pub(super) async fn delete(store: &ObjectColdStore, copy: CopyName) -> Result<(), ColdError> {
    // It may be there, with other bytes or after a lost answer.
    store.delete(&copy.manifest()).await?;
    delete_parts(store, copy).await
}

async fn delete_parts(store: &ObjectColdStore, copy: CopyName) -> Result<(), ColdError> {
    let mut after = None::<String>;
    loop {
        let page = store.list(&copy.parts(), after.as_deref()).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for (name, _) in &page {
            store.delete(name).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> CopyName {
        CopyName { epoch: 1, number }
    }

    /// Publishes a copy, and deletes those that are not kept.
    fn publish(copies: &mut KeptCopies, name: CopyName) {
        copies.publish(name);
        if copies.whole.len() > KEPT {
            assert_eq!(copies.next_doomed(true), None, "an older copy is there");
            copies.whole.pop_first();
        }
        copies.broken.clear();
    }

    #[test]
    fn an_object_waits_for_two_copies_that_were_begun_after_its_segment_was_free() {
        let mut copies = KeptCopies { looked: true, ..KeptCopies::default() };
        let first = copies.begin(1);
        // While the first copy is under way, which may reference it.
        copies.doom(7, 10);
        publish(&mut copies, first);
        assert_eq!(copies.next_doomed(true), None);
        let second = copies.begin(1);
        copies.doom(8, 10);
        publish(&mut copies, second);
        assert_eq!(copies.next_doomed(true), None, "the first copy is kept");
        let broken = copies.begin(1);
        copies.gave_up(broken);
        assert_eq!(copies.next_doomed(true), None);
        let third = copies.begin(1);
        publish(&mut copies, third);
        let fourth = copies.begin(1);
        assert_eq!(copies.next_doomed(true), Some(7), "also while a copy is under way");
        copies.deleted(7);
        assert_eq!(copies.next_doomed(true), None, "the second copy is kept");
        publish(&mut copies, fourth);
        assert_eq!(copies.next_doomed(true), Some(8));
    }

    #[test]
    fn without_copies_objects_go_at_once_but_not_before_old_copies_are_known() {
        let mut copies = KeptCopies::default();
        copies.doom(7, 1);
        copies.doom(8, 1);
        assert_eq!(copies.next_doomed(false), None);
        copies.looked = true;
        copies.whole.insert(name(1));
        assert_eq!(
            copies.next_doomed(false),
            None,
            "a copy that may reference it is to be deleted first"
        );
        copies.whole.clear();
        assert_eq!(copies.next_doomed(false), Some(7));
        copies.deleted(7);
        assert_eq!(copies.next_doomed(false), None, "no more are remembered than the bound");
    }

    #[test]
    fn a_copy_that_was_cut_off_is_deleted_and_a_late_look_counts_for_nothing() {
        let mut copies = KeptCopies::default();
        let early = FoundCopies { whole: [name(1)].into(), broken: [name(2)].into() };
        copies.note_found(early);
        let first = copies.begin(2);
        let late = FoundCopies { broken: [first].into(), ..FoundCopies::default() };
        copies.note_found(late);
        assert_eq!(copies.next_old(false), Some(name(2)));
        copies.deleted_copy(name(2));
        assert_eq!(copies.next_old(false), None, "parts of the copy that is under way");
        copies.note_lost_object();
        assert!(copies.has_lost_object());
        let second = copies.begin(2);
        assert!(!copies.has_lost_object());
        assert_eq!(copies.next_old(false), Some(first));
        copies.publish(second);
        assert_eq!(copies.newest(), Some(second));
    }
}
