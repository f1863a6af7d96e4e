//! Streams at run time.
//!
//! Every operation finds its stream's cell, judges the command on the state decided so far, hands at most one
//! event to the store, and returns once the state it was judged on is durable. The request owns nothing that an
//! event needs, so a client that disconnects cannot leave half an append behind.
//!
//! Invariants
//! - A verdict on assigned state leaves the engine with its [`Ticket`]; a read sees durable state only.
//! - One cell per path is in the registry, so one lock orders all events of a stream.

mod append;
mod cell;
mod clock;
mod clock_steps;
mod create;
mod delete;
mod errors;
mod forks;
mod inspect;
mod last_messages;
mod lifecycle;
mod lifecycle_log;
mod limits;
mod list;
mod page;
mod reader;
mod registry;
mod retention;
mod stats;
mod sweep;
mod tail_watch;
mod ticket;
mod trim;
mod ttl;
mod usage;
mod wake_ring;

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

pub use clock::{Clock, ManualClock};
pub use inspect::{ByteLocation, InheritedRange, ProducerPage, StreamDetails};
pub use last_messages::LastMessages;
pub use limits::{EngineLimits, LimitPermit};
pub use list::{ListedStream, StreamPage, StreamSummary};
pub use reader::{FILE_PART, READ_PIECE, ReadPlan, ReadSlice};
pub use retention::RetentionRule;
pub use stats::EngineStats;
pub use tail_watch::{LiveFrame, TailWatch};
pub use ticket::{Judged, Ticket};
pub use usage::{ScopeQuota, ScopeUsage, UsageScope};

use cell::{CellContext, CellState, StreamCell};
use clock_steps::ClockSteps;
use lifecycle_log::LifecycleLog;
use limits::UnitGauge;
use registry::CellRegistry;
use ttl::touched;
use usage::UsageTotals;

use crate::store::{AnyStore, LoadFor, MemoryStore, Store, StoreError};
use durable_streams_protocol::{
    Offset, ReadFrom, Rejection, StreamCore, StreamPath, StreamState, Tail, Timestamp,
};

/// Is notified of every durable change that a reader could see.
///
/// The store's threads call it while appends wait, sometimes under a stream's lock: it must return quickly, must not
/// block, and must not call the engine.
pub trait StreamObserver: Send + Sync {
    /// The stream's tail or existence changed; a closure alone is not reported. `core` is `None` once it is deleted.
    fn on_durable(&self, path: &StreamPath, core: Option<&Arc<StreamCore>>, tail: Tail);
}

/// A stream as one request sees it.
#[derive(Clone, Debug)]
pub struct StreamView {
    /// What never changes: id, content type, expiry, fork lineage.
    pub core: Arc<StreamCore>,
    /// The durable tail when the request was judged.
    pub tail: Tail,
}

/// All streams of a server. One engine owns its store; share the engine as `Arc<Engine>`.
pub struct Engine {
    store: AnyStore,
    clock: Clock,
    clock_steps: ClockSteps,
    limits: ArcSwap<EngineLimits>,
    registry: CellRegistry,
    context: Arc<CellContext>,
    lifecycle: LifecycleLog,
    live_readers: UnitGauge,
    inflight: UnitGauge,
    evicted: AtomicU64,
    expired: AtomicU64,
    trimmed_bytes: AtomicU64,
    trimmed_messages: AtomicU64,
}

impl StreamView {
    /// Where a read of the stream begins.
    ///
    /// # Errors
    /// [`Rejection::OffsetTrimmed`], and those of [`StreamCore::resolve`].
    pub fn start(&self, from: ReadFrom) -> Result<Offset, Rejection> {
        match from {
            ReadFrom::Start => Ok(self.tail.earliest),
            ReadFrom::Now => Ok(self.tail.offset),
            ReadFrom::At(offset) => {
                let (earliest, at) =
                    (self.tail.earliest, self.core.resolve(offset, self.tail.offset)?);
                if at < earliest { Err(Rejection::OffsetTrimmed { earliest }) } else { Ok(at) }
            }
        }
    }
}

impl Engine {
    /// An engine on a store.
    pub fn new(store: AnyStore, clock: Clock, limits: EngineLimits) -> Self {
        let usage = UsageTotals::new(store.stats());
        let context = Arc::new(CellContext { usage, ..CellContext::default() });
        Engine {
            store,
            clock_steps: ClockSteps::new(&clock),
            clock,
            limits: ArcSwap::from_pointee(limits),
            registry: CellRegistry::new(context.clone()),
            context,
            lifecycle: LifecycleLog::default(),
            live_readers: UnitGauge::default(),
            inflight: UnitGauge::default(),
            evicted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            trimmed_bytes: AtomicU64::new(0),
            trimmed_messages: AtomicU64::new(0),
        }
    }

    /// An engine whose streams live in memory and end with the process.
    pub fn in_memory() -> Self {
        let store = AnyStore::Memory(MemoryStore::default());
        Self::new(store, Clock::System, EngineLimits::default())
    }

    /// Sets the observer. Only the first call has an effect.
    pub fn observe(&self, observer: Arc<dyn StreamObserver>) {
        let _ = self.context.observer.set(observer);
    }

    /// The wall clock, for times that other machines compare. It may step; waits go by
    /// [`steady_now`](Self::steady_now).
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The steady clock, for waits, leases and retries: see [`Clock::steady_now`].
    pub fn steady_now(&self) -> Timestamp {
        self.clock.steady_now()
    }

    /// The current limits. Drop the guard soon: [`set_limits`](Self::set_limits) keeps the old value alive for it.
    pub fn limits(&self) -> impl Deref<Target = Arc<EngineLimits>> {
        self.limits.load()
    }

    /// Replaces the limits for requests from now on. Permits taken under the old ones stay valid.
    pub fn set_limits(&self, limits: EngineLimits) {
        self.limits.store(Arc::new(limits));
    }

    /// Whether the store accepts commits now.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Poisoned`], [`StoreError::Closed`].
    pub fn writable(&self) -> Result<(), StoreError> {
        self.store.writable()
    }

    /// The store.
    pub fn store(&self) -> &AnyStore {
        &self.store
    }

    /// Counts at this moment.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            store: self.store.stats(),
            cells: self.registry.len(),
            live_readers: self.live_readers.taken(),
            inflight_append_bytes: self.inflight.taken(),
            evicted: self.evicted.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            trimmed_bytes: self.trimmed_bytes.load(Ordering::Relaxed),
            trimmed_messages: self.trimmed_messages.load(Ordering::Relaxed),
        }
    }

    /// A permit for one live reader; dropping it returns it.
    ///
    /// # Errors
    /// [`Rejection::TooManyReaders`].
    pub fn live_permit(&self) -> Result<LimitPermit, Rejection> {
        let limit = self.limits().max_live_readers;
        self.live_readers.take(1, limit, Rejection::TooManyReaders { limit })
    }

    /// Whether a body of `bytes` has room beside those of which bytes have arrived. Takes nothing: a client that
    /// announces a body and sends none of it holds none of the limit.
    ///
    /// # Errors
    /// [`Rejection::TooManyAppends`].
    pub fn append_room(&self, bytes: usize) -> Result<(), Rejection> {
        let fits = self.inflight.taken().saturating_add(bytes) <= self.limits().max_inflight_append;
        fits.then_some(()).ok_or(Rejection::TooManyAppends)
    }

    /// A permit for `bytes` of a request body that have arrived; dropping it returns it.
    ///
    /// # Errors
    /// [`Rejection::TooManyAppends`].
    pub fn append_permit(&self, bytes: usize) -> Result<LimitPermit, Rejection> {
        self.inflight.take(bytes, self.limits().max_inflight_append, Rejection::TooManyAppends)
    }

    /// Adds `bytes` that have arrived to the permit of their body.
    ///
    /// # Errors
    /// [`Rejection::TooManyAppends`].
    pub fn grow_append_permit(
        &self,
        permit: &mut LimitPermit,
        bytes: usize,
    ) -> Result<(), Rejection> {
        let granted = permit.grow(bytes, self.limits().max_inflight_append);
        granted.then_some(()).ok_or(Rejection::TooManyAppends)
    }

    /// `HEAD`: the stream, without counting as a read (§5.5).
    ///
    /// # Errors
    /// [`Rejection::NotFound`], [`Rejection::Gone`], the store's errors.
    pub async fn head(&self, path: &StreamPath) -> Result<StreamView, Rejection> {
        self.look(path, LoadFor::State, |_, state, now| view(state, now)).await
    }

    /// Opens a stream for reading; pushes a sliding expiry back (§5.1).
    ///
    /// # Errors
    /// [`Rejection::NotFound`], [`Rejection::Gone`], the store's errors.
    pub async fn open(&self, path: &StreamPath) -> Result<StreamView, Rejection> {
        let (view, ticket) = self
            .look(path, LoadFor::Bytes, |cell, state, now| {
                let view = view(state, now)?;
                Ok((view, self.touch(cell, state, now)))
            })
            .await?;
        touched(ticket).await;
        Ok(view)
    }

    /// Like [`open`](Self::open), for a live read: the watch begins before the tail is read.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], [`Rejection::Gone`], the store's errors.
    pub async fn open_live(&self, path: &StreamPath) -> Result<(StreamView, TailWatch), Rejection> {
        let (view, watch, ticket) = self
            .look(path, LoadFor::Bytes, |cell, state, now| {
                let view = view(state, now)?;
                let ticket = self.touch(cell, state, now);
                let mut watch = state.watch(view.core.id);
                // Also where there is no TTL: the stream may get one while it is read.
                state.hold(view.core.id);
                watch.hold_ttl(cell.clone(), self.clock.clone());
                Ok((view, watch, ticket))
            })
            .await?;
        touched(ticket).await;
        Ok((view, watch))
    }

    /// Makes every decided event durable and closes the store. Later commits fail with [`Rejection::ShuttingDown`].
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Runs `act` under the lock of a loaded cell. Without a stream the cell does not outlive the request.
    async fn look<T>(
        &self,
        path: &StreamPath,
        purpose: LoadFor,
        act: impl FnOnce(&Arc<StreamCell>, &mut CellState, Timestamp) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let cell = self.loaded(path, purpose).await?;
        let seen = self.on(&cell, act);
        if matches!(seen, Err(Rejection::NotFound)) {
            self.registry.forget_absent(cell);
        }
        seen
    }

    /// Runs `act` under the lock of a cell that was loaded before.
    fn on<T>(
        &self,
        cell: &Arc<StreamCell>,
        act: impl FnOnce(&Arc<StreamCell>, &mut CellState, Timestamp) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let now = self.clock.now();
        let mut state = cell.state.lock();
        if !state.loaded {
            return Err(reloading());
        }
        state.follow_clock(self, now);
        act(cell, &mut state, now)
    }

    /// The cell of a path, with its stream loaded.
    async fn loaded(
        &self,
        path: &StreamPath,
        purpose: LoadFor,
    ) -> Result<Arc<StreamCell>, Rejection> {
        let cell = self.registry.cell(path);
        cell.mark_used(self.clock.steady_now());
        if cell.state.lock().loaded {
            return Ok(cell);
        }
        let loading = cell.loading.lock().await;
        {
            let state = cell.state.lock();
            if state.loaded {
                drop(state);
                drop(loading);
                return Ok(cell);
            }
            if !state.can_load() {
                return Err(reloading());
            }
        }
        let epoch = self.store.epoch();
        let loaded = self.store.load(path, purpose).await.map_err(errors::rejection)?;
        cell.state.lock().install(loaded, epoch);
        drop(loading);
        Ok(cell)
    }
}

/// The durable stream, if a reader may see it at `now`.
fn view(state: &CellState, now: Timestamp) -> Result<StreamView, Rejection> {
    let core = state.durable.core.as_ref().ok_or(Rejection::NotFound)?;
    if state.durable.soft_deleted {
        return Err(Rejection::Gone);
    }
    // An expired stream stays invisible while its removal is not durable yet.
    let assigned = state.assigned.as_ref().filter(|assigned| assigned.core.id == core.id);
    let expired = match assigned {
        Some(_) => state.is_expired(now),
        None => state.durable.deadline.is_some_and(|deadline| deadline <= now),
    };
    if expired {
        return Err(if state.forks.is_empty() { Rejection::NotFound } else { Rejection::Gone });
    }
    Ok(StreamView { core: core.clone(), tail: state.durable.tail() })
}

/// Whether clients may use the assigned stream: it is neither deleted nor expired.
fn present(assigned: &StreamState, state: &CellState, now: Timestamp) -> Result<(), Rejection> {
    let expired = state.is_expired(now);
    if assigned.soft_deleted || (expired && !state.forks.is_empty()) {
        Err(Rejection::Gone)
    } else if expired {
        Err(Rejection::NotFound)
    } else {
        Ok(())
    }
}

/// The state that commands are judged on, if clients may use the stream.
fn here(state: &CellState, now: Timestamp) -> Result<&StreamState, Rejection> {
    let assigned = state.assigned.as_ref().ok_or(Rejection::NotFound)?;
    present(assigned, state, now)?;
    Ok(assigned)
}

/// The cell lost its state meanwhile; a retry finds it loaded again.
fn reloading() -> Rejection {
    errors::rejection(StoreError::Superseded)
}
