//! The stores that every test here runs on: on files, events become durable some time after they are
//! decided. Crashes are simulated in tests/store.

use std::{any::Any, sync::Arc, time::Duration};

use durable_streams_engine::store::{FileStoreOptions, file::Durability};
use durable_streams_engine::{Clock, Engine, EngineLimits, ManualClock};
use durable_streams_protocol::Timestamp;

pub(crate) use crate::support::{Opened, StoreKind};

/// A new, empty store.
pub(crate) fn open(kind: StoreKind) -> Opened {
    kind.open_with(|options: &mut FileStoreOptions| {
        // Small, so that segments, checkpoints and cold reads have their part.
        options.durability = Durability::Os;
        options.checkpoint_interval = Duration::from_millis(5);
        options.wal_segment = 1 << 16;
        options.cache = 64;
        options.map_size = 1 << 24;
    })
}

/// An engine on a new store, with small windows, and the clock that it goes by. Keep the rest as long.
pub(crate) fn engine(
    kind: StoreKind,
    max_read: usize,
) -> (Arc<Engine>, ManualClock, Box<dyn Any + Send>) {
    let clock = ManualClock::at(Timestamp::from_millis(1_800_000_000_000));
    let limits = EngineLimits { max_read: Some(max_read), ..EngineLimits::default() };
    let (store, keep) = open(kind).into_parts();
    (Arc::new(Engine::new(store, Clock::Manual(clock.clone()), limits)), clock, keep)
}
