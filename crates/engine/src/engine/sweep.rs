//! Housekeeping: streams whose time is up are removed, cells that nobody uses leave memory.

use std::{
    sync::{Weak, atomic::Ordering},
    time::Duration,
};

use super::Engine;

/// How often housekeeping runs.
const EVERY: Duration = Duration::from_millis(250);
/// Seconds without use after which a cell leaves memory.
const IDLE_SECONDS: u32 = 10;
/// Streams looked at in one go.
const BATCH: usize = 256;

impl Engine {
    /// Runs until the engine is dropped. Needs a tokio runtime with time.
    pub async fn housekeeping(engine: Weak<Engine>) {
        let mut turn = 0;
        loop {
            tokio::time::sleep(EVERY).await;
            let Some(engine) = engine.upgrade() else { return };
            // Four of 64 shards at a time: every cell is looked at every four seconds, no lock for long.
            for _ in 0..4 {
                engine.evict_idle(turn);
                turn = turn.wrapping_add(1);
            }
            engine.sweep_due().await;
        }
    }

    /// Lets the idle cells of one shard leave memory; the store hears of their last touch first.
    fn evict_idle(&self, turn: usize) {
        let now = self.clock.now();
        for cell in self.registry.idle_touched(turn, now, IDLE_SECONDS) {
            if let Err(error) = self.store_touch(&cell, &mut cell.inner.lock()) {
                tracing::debug!(path = %cell.path, %error, "an idle stream stays in memory");
            }
        }
        let evicted = self.registry.evict_idle(turn, now, IDLE_SECONDS);
        self.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
    }

    /// Removes every stream whose time is up. Returns how many.
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
                    Err(error) => tracing::debug!(%path, %error, "expired stream left for later"),
                }
            }
            removed += progress;
            if due.len() < BATCH || progress == 0 {
                return removed;
            }
        }
    }
}
