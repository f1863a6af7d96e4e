//! Housekeeping: removes streams that are due, and evicts idle cells.

use crate::store::Store;
use std::{
    sync::{Weak, atomic::Ordering},
    time::Duration,
};

use durable_streams_protocol::StreamPath;

use super::{Engine, delete::Swept, ttl::touched};

/// Between two runs of housekeeping.
const INTERVAL: Duration = Duration::from_millis(250);
/// Seconds without use after which a cell is evicted.
const IDLE_SECONDS: u32 = 10;
/// Due streams that the sweeper takes from the store at a time.
const BATCH: usize = 256;

impl Engine {
    /// Removes due streams and evicts idle cells, until the engine is dropped. Spawn it once per engine, on a
    /// tokio runtime with time.
    pub async fn housekeeping(engine: Weak<Engine>) {
        let (mut turn, mut first) = (0, true);
        loop {
            tokio::time::sleep(INTERVAL).await;
            let Some(engine) = engine.upgrade() else { return };
            engine.keep_lifecycle().await;
            engine.sweep_future_uses().await;
            // Four of 64 shards at a time: each is visited every four seconds, and no lock is held for long.
            for _ in 0..4 {
                engine.evict_idle(turn);
                turn = turn.wrapping_add(1);
            }
            let removed = engine.sweep_due().await;
            if std::mem::take(&mut first) && removed > 0 {
                tracing::warn!(
                    streams = removed,
                    "removed streams whose time ran out while the server was stopped, by the system clock"
                );
            }
        }
    }

    /// Evicts the idle cells of one shard. Commits their last use first; such a cell leaves in a later turn.
    fn evict_idle(&self, turn: usize) {
        let steady = self.clock.steady_now();
        let now = self.clock.now();
        for cell in self.registry.idle_touched(turn, (steady, now), IDLE_SECONDS) {
            let mut state = cell.state.lock();
            state.follow_clock(self, now);
            if let Err(error) = self.store_touch(&cell, &mut state) {
                tracing::debug!(path = cell.path.as_str(), %error, "an idle stream stays in memory");
            }
        }
        let evicted = self.registry.evict_idle(turn, steady, IDLE_SECONDS);
        self.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
    }

    /// Removes every stream that is due. Returns how many.
    pub async fn sweep_due(&self) -> usize {
        let mut removed = 0;
        loop {
            let due = match self.store.due(self.clock.now(), BATCH).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::error!(%error, "cannot look for expired streams");
                    return removed;
                }
            };
            let progress = self.sweep_each(&due).await;
            removed += progress;
            if due.len() < BATCH || progress == 0 {
                return removed;
            }
        }
    }
    /// Removes those of the streams that are due, and commits the last use of the others. Returns how many were removed,
    /// once all of that is durable.
    pub(super) async fn sweep_each(&self, paths: &[StreamPath]) -> usize {
        let (mut removed, mut last) = (0, None);
        for path in paths {
            match self.sweep(path).await {
                Ok(Swept::Removed) => removed += 1,
                Ok(Swept::Kept(ticket)) => last = ticket.or(last),
                Err(error) => {
                    tracing::debug!(path = path.as_str(), %error, "a stream that expires is left for later")
                }
            }
        }
        self.expired.fetch_add(removed as u64, Ordering::Relaxed);
        // Events become durable in the order in which they were decided.
        touched(last).await;
        removed
    }
}
