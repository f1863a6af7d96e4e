//! Housekeeping: removes streams that are due, and evicts idle cells.

use crate::store::Store;
use std::{
    sync::{Weak, atomic::Ordering},
    time::Duration,
};

use super::Engine;

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
            engine.clock_steps.check(&engine.clock);
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
        for cell in self.registry.idle_touched(turn, steady, IDLE_SECONDS) {
            if let Err(error) = self.store_touch(&cell, &mut cell.state.lock()) {
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
            let mut progress = 0;
            for path in &due {
                match self.sweep(path).await {
                    Ok(true) => {
                        progress += 1;
                        self.expired.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::debug!(path = path.as_str(), %error, "expired stream left for later")
                    }
                }
            }
            removed += progress;
            if due.len() < BATCH || progress == 0 {
                return removed;
            }
        }
    }
}
