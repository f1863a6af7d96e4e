//! The size of LMDB's map: it grows when it is full, and has a limit where the use of the disk has one.

use std::sync::atomic::Ordering;

use super::{IndexHandle, PATIENCE};
use crate::store::{
    StoreError,
    file::{error::index_error, index::env::IndexEnvironment},
};

impl IndexHandle {
    /// Bytes that hold records, and bytes of the file that were ever used.
    pub(in crate::store::file) fn extent(&self) -> Result<(u64, u64), StoreError> {
        let used = self.used_size()?;
        let open = self.environment()?;
        let page = u64::from(open.env.unnamed_database_stat().page_size);
        Ok((used, (open.env.info().last_page_number as u64 + 1).saturating_mul(page)))
    }

    pub(super) fn grow(&self) -> Result<(), StoreError> {
        let open = self.open.write();
        // A reopened environment has a larger map.
        let Some(open) = &*open else { return Ok(()) };
        let info = open.env.info();
        let size = match self.most() {
            None => info.map_size.saturating_mul(2),
            Some(most) if info.map_size < most => info.map_size.saturating_mul(2).min(most),
            Some(_) => return Err(StoreError::Full { path: self.path.clone() }),
        };
        self.resize(open, size)
    }

    /// The largest map now.
    fn most(&self) -> Option<usize> {
        let (most, reserve) = self.limit?;
        let open = self.reserve_open.load(Ordering::Relaxed);
        Some(if open { most } else { most - reserve })
    }

    /// Runs a change that makes room in the end: it may use the part of a limited index that is kept for that.
    pub(in crate::store::file) fn with_reserve<T>(
        &self,
        change: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some((most, reserve)) = self.limit else { return change() };
        self.reserve_open.store(true, Ordering::Relaxed);
        let done = change();
        self.reserve_open.store(false, Ordering::Relaxed);
        let large = |open: &IndexEnvironment| open.env.info().map_size > most - reserve;
        // A long read is not waited for; the next call makes the map small again. LMDB keeps what is in use.
        if self.environment().is_ok_and(|open| large(&open))
            && let Some(open) = self.open.try_write_for(PATIENCE)
            && let Some(open) = open.as_ref().filter(|open| large(open))
        {
            self.resize(open, most - reserve)?;
        }
        done
    }

    /// The caller holds the lock exclusively.
    fn resize(&self, open: &IndexEnvironment, size: usize) -> Result<(), StoreError> {
        #[expect(unsafe_code, reason = "LMDB does not check for active transactions")]
        // SAFETY: every transaction holds the lock shared, and it is held exclusively here.
        let resized = unsafe { open.env.resize(size) };
        resized.map_err(index_error("grow", &self.path))
    }
}

/// A size of a map, in whole pages.
pub(super) fn map_bytes(bytes: u64) -> usize {
    const UNIT: usize = 64 << 10;
    usize::try_from(bytes).unwrap_or(usize::MAX / 2) / UNIT * UNIT
}
