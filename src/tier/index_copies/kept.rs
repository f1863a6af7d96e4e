//! Which copies of the index there are, and which objects wait until no copy that is kept may reference them.
//!
//! Invariants
//! - A copy is deleted only once two later ones are whole, and its manifest goes first.
//! - The object of a segment that no stream has bytes of any more is deleted only once two copies that were begun after
//!   that are whole: then no copy that is kept references it. What lists show plays no part in that.

use std::collections::{BTreeMap, BTreeSet};

use durable_streams_engine::store::file::segments::cold::{ColdError, ColdStore as _};

use super::manifest::{CopyName, FOLDER};
use crate::tier::claim;
use crate::tier::object_cold_store::ObjectColdStore;

/// Copies that are kept.
const KEPT: usize = 2;

/// Interrupted copies whose parts are remembered for deletion; the next start finds the others.
const MOST_BROKEN: usize = 64;

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
    /// The numbers of the last copies that became whole since the start; the newest one last.
    published: Vec<u64>,
    /// Segments whose objects are to be deleted, and how many copies were begun before no stream had bytes of them.
    doomed: BTreeMap<u64, u64>,
}

impl KeptCopies {
    /// Looks, once, which copies an earlier run has left.
    pub(super) async fn look(
        &mut self,
        store: &ObjectColdStore,
        identity: &str,
    ) -> Result<(), ColdError> {
        if self.looked {
            return Ok(());
        }
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
        let mut owners = BTreeMap::<u64, bool>::new();
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
                self.whole.insert(copy)
            } else {
                self.broken.insert(copy)
            };
        }
        self.looked = true;
        Ok(())
    }

    /// Begins a copy; returns its number.
    pub(super) fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    /// Notes that a copy is not to become whole: what is there of it is deleted.
    pub(super) fn gave_up(&mut self, name: CopyName) {
        if self.broken.len() < MOST_BROKEN {
            self.broken.insert(name);
        }
    }

    /// Notes that a copy is whole.
    pub(super) fn publish(&mut self, name: CopyName) {
        self.whole.insert(name);
        self.published.push(name.number);
        if self.published.len() > KEPT {
            self.published.remove(0);
        }
    }

    /// The newest whole copy.
    pub(super) fn newest(&self) -> Option<CopyName> {
        self.whole.last().copied()
    }

    /// Deletes copies beyond those that are kept, or all, and the parts of interrupted ones.
    pub(super) async fn delete_old(
        &mut self,
        store: &ObjectColdStore,
        all: bool,
    ) -> Result<(), ColdError> {
        let kept = if all { 0 } else { KEPT };
        while self.whole.len() > kept {
            let Some(oldest) = self.whole.pop_first() else { break };
            self.broken.insert(oldest);
        }
        while let Some(broken) = self.broken.first().copied() {
            // It may be there, with other bytes or after a lost answer.
            store.delete(&broken.manifest()).await?;
            delete_parts(store, broken).await?;
            self.broken.remove(&broken);
        }
        Ok(())
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
    fn publish(copies: &mut KeptCopies, number: u64) {
        copies.publish(name(number));
        if copies.whole.len() > KEPT {
            assert_eq!(copies.next_doomed(true), None, "an older copy is there");
            copies.whole.pop_first();
        }
        copies.broken.clear();
    }

    #[test]
    fn an_object_waits_for_two_copies_that_were_begun_after_its_segment_was_free() {
        let mut copies = KeptCopies { looked: true, ..KeptCopies::default() };
        let first = copies.begin();
        // While the first copy is under way, which may reference it.
        copies.doom(7, 10);
        publish(&mut copies, first);
        assert_eq!(copies.next_doomed(true), None);
        let second = copies.begin();
        copies.doom(8, 10);
        publish(&mut copies, second);
        assert_eq!(copies.next_doomed(true), None, "the first copy is kept");
        let broken = copies.begin();
        copies.gave_up(name(broken));
        assert_eq!(copies.next_doomed(true), None);
        let third = copies.begin();
        publish(&mut copies, third);
        assert_eq!(copies.next_doomed(true), Some(7));
        copies.deleted(7);
        assert_eq!(copies.next_doomed(true), None, "the second copy is kept");
        let fourth = copies.begin();
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
}
