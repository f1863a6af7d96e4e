//! Streams and payload bytes as decided, which [`EngineLimits::max_streams`] and [`EngineLimits::max_total`] bound.
//!
//! The store counts what is durable. A limit compared with that would admit everything that is decided while a sync
//! is pending: with 100 creations at once, all of them.
//!
//! Invariants
//! - A change is counted before its event is handed to the store, and reverted when the event is lost or refused.
//! - Events become durable in the order in which they were decided, so no prefix of the log exceeds a limit.
//! - Once every decided event is durable or lost, the totals are those of the store.

mod count;
mod delta;
mod scopes;

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use durable_streams_protocol::{Rejection, StreamPath};

use super::EngineLimits;
use crate::store::StoreStats;

pub(super) use delta::UsageDelta;
use scopes::ScopedUsage;
pub use scopes::{ScopeQuota, ScopeUsage, UsageScope};

/// The totals of all decided events.
#[derive(Debug, Default)]
pub(super) struct UsageTotals {
    streams: AtomicU64,
    bytes: AtomicU64,
    /// Empty unless parts of the path space have quotas.
    scopes: OnceLock<ScopedUsage>,
}

/// A counted change; dropping it reverts it, [`keep`](Self::keep) makes it stand.
#[must_use]
pub(super) struct UsageChange<'t> {
    totals: &'t UsageTotals,
    path: &'t StreamPath,
    delta: UsageDelta,
}

impl UsageTotals {
    pub(super) fn new(stored: StoreStats) -> Self {
        let (streams, bytes) = (AtomicU64::new(stored.streams), AtomicU64::new(stored.bytes));
        UsageTotals { streams, bytes, scopes: OnceLock::new() }
    }

    /// Counts a change of the stream at a path if the limits and quotas allow what it adds.
    ///
    /// # Errors
    /// [`Rejection::TooManyStreams`], [`Rejection::StorageFull`], [`Rejection::QuotaExceeded`]; nothing is counted then.
    pub(super) fn change<'t>(
        &'t self,
        path: &'t StreamPath,
        delta: UsageDelta,
        limits: &EngineLimits,
    ) -> Result<UsageChange<'t>, Rejection> {
        if !add(&self.streams, delta.streams, limits.max_streams) {
            let limit = limits.max_streams.unwrap_or(u64::MAX);
            return Err(Rejection::TooManyStreams { limit });
        }
        if !add(&self.bytes, delta.bytes, limits.max_total) {
            add(&self.streams, -delta.streams, None);
            return Err(Rejection::StorageFull);
        }
        if let Some(scopes) = self.scopes.get()
            && let Err(refused) = scopes.change(path, delta)
        {
            self.add_all(delta.reverted());
            return Err(refused);
        }
        Ok(UsageChange { totals: self, path, delta })
    }

    /// Counts a change of a stream of the server's own, which no limit refuses.
    pub(super) fn count<'t>(&'t self, path: &'t StreamPath, delta: UsageDelta) -> UsageChange<'t> {
        self.add_all(delta);
        if let Some(scopes) = self.scopes.get() {
            scopes.count(path, delta);
        }
        UsageChange { totals: self, path, delta }
    }

    /// Reverts a change whose event is lost.
    pub(super) fn revert(&self, path: &StreamPath, delta: UsageDelta) {
        self.add_all(delta.reverted());
        if let Some(scopes) = self.scopes.get() {
            scopes.count(path, delta.reverted());
        }
    }

    fn add_all(&self, delta: UsageDelta) {
        add(&self.streams, delta.streams, None);
        add(&self.bytes, delta.bytes, None);
    }

    #[cfg(test)]
    pub(super) fn now(&self) -> (u64, u64) {
        (self.streams.load(Relaxed), self.bytes.load(Relaxed))
    }
}

impl UsageChange<'_> {
    /// The event is with the store. The caller reverts the returned delta if the event is lost.
    pub(super) fn keep(self) -> UsageDelta {
        let delta = self.delta;
        std::mem::forget(self);
        delta
    }
}

impl Drop for UsageChange<'_> {
    fn drop(&mut self) {
        self.totals.revert(self.path, self.delta);
    }
}

/// Adds `delta`; `false`, and no change, if it is an increase beyond `limit`.
fn add(total: &AtomicU64, delta: i64, limit: Option<u64>) -> bool {
    match limit {
        Some(limit) if delta > 0 => {
            let fits = |total: u64| total.checked_add_signed(delta).filter(|sum| *sum <= limit);
            total.fetch_update(Relaxed, Relaxed, fits).is_ok()
        }
        _ if delta == 0 => true,
        // Two's complement: adds a negative delta as well.
        _ => {
            total.fetch_add(delta as u64, Relaxed);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_streams: u64, max_total: u64) -> EngineLimits {
        let (max_streams, max_total) = (Some(max_streams), Some(max_total));
        EngineLimits { max_streams, max_total, ..EngineLimits::default() }
    }

    #[test]
    fn a_refused_or_dropped_change_leaves_the_totals() {
        let path = StreamPath::new("a").unwrap();
        let totals = UsageTotals::new(StoreStats { streams: 1, bytes: 90 });
        let limits = limits(2, 100);
        let full = totals.change(&path, UsageDelta::created(11), &limits).err();
        assert_eq!(full, Some(Rejection::StorageFull));
        assert_eq!(totals.now(), (1, 90));
        drop(totals.change(&path, UsageDelta::created(10), &limits).unwrap());
        assert_eq!(totals.now(), (1, 90));
        let kept = totals.change(&path, UsageDelta::created(10), &limits).unwrap().keep();
        assert_eq!(totals.now(), (2, 100));
        let refused = totals.change(&path, UsageDelta::created(0), &limits).err();
        assert_eq!(refused, Some(Rejection::TooManyStreams { limit: 2 }));
        assert!(
            totals.change(&path, UsageDelta::appended(0), &limits).is_ok(),
            "a close needs no room"
        );
        totals.revert(&path, kept);
        assert_eq!(totals.now(), (1, 90));
    }

    #[test]
    fn a_limit_below_the_totals_still_lets_them_shrink() {
        let path = StreamPath::new("a").unwrap();
        let totals = UsageTotals::new(StoreStats { streams: 5, bytes: 50 });
        let shrink = UsageDelta { streams: -1, bytes: -20 };
        let _ = totals.change(&path, shrink, &limits(1, 1)).unwrap().keep();
        assert_eq!(totals.now(), (4, 30));
    }
}
