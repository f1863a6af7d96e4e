//! Every limit of the engine, with its unit and status, and the permits that hold a share of one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use durable_streams_protocol::Rejection;

use super::RetentionRule;

/// The limits. Each is enforced before the work that it bounds begins; the status is what a client gets beyond it.
#[derive(Clone, Debug)]
pub struct EngineLimits {
    /// Bytes of one request body (413). One body is in memory at once, and in one log record.
    pub max_append: usize,
    /// Bytes of one catch-up or long-poll response, about; the client goes on at `Stream-Next-Offset`. `None`: the
    /// response reaches the tail.
    pub max_read: Option<usize>,
    /// Live readers at once, long-poll and SSE together (429).
    pub max_live_readers: usize,
    /// Bytes of request bodies being received or made durable at once (429).
    pub max_inflight_append: usize,
    /// Streams, soft-deleted ones included (507). `None` is no limit.
    pub max_streams: Option<u64>,
    /// Payload bytes of all streams, without what forks inherit (507). `None` is no limit.
    pub max_total: Option<u64>,
    /// Producers that one stream remembers (507). `None` is no limit.
    pub max_producers: Option<u64>,
    /// What streams keep; see [`Engine::retention`](crate::Engine::retention).
    pub retention: Vec<RetentionRule>,
    /// Bytes of lifecycle events that are kept, and up to twice as many. `None`: there is no lifecycle stream; see
    /// [`Engine::keep_lifecycle`](crate::Engine::keep_lifecycle).
    pub lifecycle: Option<u64>,
}

impl EngineLimits {
    /// The defaults. The server's configuration takes its own from here.
    pub const DEFAULT: Self = EngineLimits {
        max_append: 16 << 20,
        max_read: None,
        max_live_readers: 50_000,
        max_inflight_append: 256 << 20,
        max_streams: None,
        max_total: None,
        max_producers: None,
        retention: Vec::new(),
        lifecycle: None,
    };
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A count of units in use, shared with the permits that hold them.
#[derive(Clone, Debug, Default)]
pub(super) struct UnitGauge(Arc<AtomicUsize>);

/// A share of a limit; dropping it returns the share.
#[derive(Debug)]
pub struct LimitPermit {
    gauge: UnitGauge,
    units: usize,
}

impl UnitGauge {
    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes `units` unless that would exceed `limit`.
    pub(super) fn take(
        &self,
        units: usize,
        limit: usize,
        refusal: Rejection,
    ) -> Result<LimitPermit, Rejection> {
        let taken = self.0.fetch_add(units, Ordering::Relaxed);
        let permit = LimitPermit { gauge: self.clone(), units };
        if taken.saturating_add(units) > limit { Err(refusal) } else { Ok(permit) }
    }
}

impl LimitPermit {
    /// Takes `units` more unless that would exceed `limit`.
    pub(super) fn grow(&mut self, units: usize, limit: usize) -> bool {
        let taken = self.gauge.0.fetch_add(units, Ordering::Relaxed);
        self.units += units;
        taken.saturating_add(units) <= limit
    }

    /// Units held: bytes of a body, or one reader.
    pub fn units(&self) -> usize {
        self.units
    }
}

impl Drop for LimitPermit {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(self.units, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_permits_return_their_units() {
        let gauge = UnitGauge::default();
        let first = gauge.take(3, 4, Rejection::TooManyAppends).unwrap();
        assert!(gauge.take(2, 4, Rejection::TooManyAppends).is_err());
        assert_eq!(gauge.taken(), 3, "a refusal keeps no units");
        drop(first);
        assert_eq!(gauge.taken(), 0);
        assert!(gauge.take(4, 4, Rejection::TooManyAppends).is_ok(), "all of the limit");
    }
}
