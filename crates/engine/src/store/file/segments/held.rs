//! Local files that stay although nothing needs them any more: a backup copies them, or a copy of the index has them uploaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::files::SegmentFiles;

/// Which files stay, and which are removed once they may go.
#[derive(Debug, Default)]
pub(super) struct HeldFiles {
    /// How many holds keep every file.
    all: usize,
    /// How many holds keep a file, besides those.
    some: BTreeMap<u64, usize>,
    /// Files that nothing but a hold needs.
    waiting: Vec<u64>,
}

impl HeldFiles {
    pub(super) fn holds_all(&self) -> bool {
        self.all > 0
    }

    /// Of files that are to be removed, those that may go now; the others wait.
    pub(super) fn free_of(&mut self, numbers: &[u64]) -> Vec<u64> {
        let (wait, free): (Vec<u64>, Vec<u64>) = numbers.iter().partition(|n| self.holds(**n));
        self.waiting.extend(wait);
        free
    }

    /// A file is needed again.
    pub(super) fn need(&mut self, number: u64) {
        self.waiting.retain(|waiting| *waiting != number);
    }

    fn holds(&self, number: u64) -> bool {
        self.all > 0 || self.some.contains_key(&number)
    }

    /// Keeps the file for one hold less.
    fn release(&mut self, number: u64) {
        if let Some(holds) = self.some.get_mut(&number) {
            *holds -= 1;
            if *holds == 0 {
                self.some.remove(&number);
            }
        }
    }

    /// Those that waited and may go now.
    fn take_free(&mut self) -> Vec<u64> {
        let waiting = std::mem::take(&mut self.waiting);
        self.free_of(&waiting)
    }
}

/// Keeps segment files from being removed, all or some.
pub struct SegmentHold {
    files: Arc<SegmentFiles>,
    /// `None` for all.
    only: Option<BTreeSet<u64>>,
}

impl SegmentHold {
    pub(super) fn all(files: Arc<SegmentFiles>) -> Self {
        files.held.lock().all += 1;
        SegmentHold { files, only: None }
    }

    /// Keeps only these of all files from now on. Only for a hold on all.
    pub(in crate::store::file) fn narrow(&mut self, numbers: BTreeSet<u64>) {
        self.change(|held, only| {
            if only.is_none() {
                held.all -= 1;
                numbers.iter().for_each(|number| *held.some.entry(*number).or_default() += 1);
                *only = Some(numbers);
            }
        });
    }

    /// Keeps one of those no longer.
    pub(in crate::store::file) fn release(&mut self, number: u64) {
        self.change(|held, only| {
            if only.as_mut().is_some_and(|only| only.remove(&number)) {
                held.release(number);
            }
        });
    }

    fn change(&mut self, change: impl FnOnce(&mut HeldFiles, &mut Option<BTreeSet<u64>>)) {
        let free = {
            let mut held = self.files.held.lock();
            change(&mut held, &mut self.only);
            held.take_free()
        };
        self.files.remove_local(&free);
    }
}

impl Drop for SegmentHold {
    fn drop(&mut self) {
        self.change(|held, only| match only.take() {
            None => held.all -= 1,
            Some(only) => only.into_iter().for_each(|number| held.release(number)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_once_no_hold_keeps_it() {
        let mut held = HeldFiles::default();
        assert_eq!(held.free_of(&[1]), [1]);
        held.all = 1;
        held.some = BTreeMap::from([(2, 2), (3, 1)]);
        assert!(held.free_of(&[1, 2, 3, 4]).is_empty());
        assert!(held.take_free().is_empty());
        held.need(4);
        held.all = 0;
        assert_eq!(held.take_free(), [1]);
        held.release(2);
        held.release(3);
        assert_eq!((held.take_free(), held.free_of(&[2, 5])), (vec![3], vec![5]));
        held.release(2);
        assert_eq!((held.take_free(), held.free_of(&[2])), (vec![2, 2], vec![2]));
        held.release(2);
        assert!(held.take_free().is_empty());
    }
}
