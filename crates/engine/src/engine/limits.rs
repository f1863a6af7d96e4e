//! Every bound of the engine, with its unit and reason, and the guards that hold a share of one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use durable_streams_protocol::Rejection;

/// The bounds. All are enforced before the work they bound is begun.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one request body (413). One body is in memory at once, and in one log record.
    pub max_append: usize,
    /// Bytes of one catch-up response; longer reads go on at `Stream-Next-Offset`.
    pub max_read: usize,
    /// Live readers at once, long-poll and SSE together (429).
    pub max_live_readers: usize,
    /// Bytes of request bodies being received or made durable at once (429).
    pub max_inflight_append: usize,
    /// Streams (507). `None` is no bound.
    pub max_streams: Option<u64>,
    /// Payload bytes of all streams (507). `None` is no bound.
    pub max_total: Option<u64>,
}

impl Limits {
    /// The defaults. The server's configuration takes its own from here.
    pub const DEFAULT: Self = Limits {
        max_append: 16 << 20,
        max_read: 1 << 20,
        max_live_readers: 50_000,
        max_inflight_append: 256 << 20,
        max_streams: None,
        max_total: None,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A bounded count of units taken and given back.
#[derive(Clone, Debug)]
pub(super) struct Gauge(Arc<AtomicUsize>);

/// A share of a gauge, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    gauge: Gauge,
    units: usize,
}

impl Gauge {
    pub(super) fn new() -> Self {
        Gauge(Arc::new(AtomicUsize::new(0)))
    }

    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes `units` unless that would exceed `limit`.
    pub(super) fn take(
        &self,
        units: usize,
        limit: usize,
        refusal: Rejection,
    ) -> Result<Permit, Rejection> {
        let taken = self.0.fetch_add(units, Ordering::Relaxed);
        let permit = Permit { gauge: self.clone(), units };
        if taken.saturating_add(units) > limit { Err(refusal) } else { Ok(permit) }
    }
}

impl Permit {
    /// Takes `units` more unless that would exceed `limit`.
    pub(super) fn grow(&mut self, units: usize, limit: usize) -> bool {
        let taken = self.gauge.0.fetch_add(units, Ordering::Relaxed);
        self.units += units;
        taken.saturating_add(units) <= limit
    }

    /// How many units are held.
    pub fn units(&self) -> usize {
        self.units
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(self.units, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_come_back() {
        let gauge = Gauge::new();
        let first = gauge.take(3, 4, Rejection::TooManyAppends).unwrap();
        assert!(gauge.take(2, 4, Rejection::TooManyAppends).is_err());
        assert_eq!(gauge.taken(), 3, "a refusal takes nothing");
        drop(first);
        assert_eq!(gauge.taken(), 0);
    }
}
