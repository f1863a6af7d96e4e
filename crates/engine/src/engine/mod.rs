//! The engine: streams at run time.
//!
//! Every operation finds its stream's cell, judges the command on the state decided so far, hands at most
//! one event to the store, and answers once the state it was judged on is durable. Nothing that an event
//! needs is owned by the request, so a client that leaves cannot leave half an append.

mod append;
mod cell;
mod clock;
mod create;
mod delete;
mod errors;
mod forks;
mod limits;
mod live;
mod reader;
mod registry;
mod relay;
mod sweep;
mod ticket;
mod touch;

use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

pub use clock::{Clock, ManualClock};
pub use limits::{Limits, Permit};
pub use live::{LiveFrame, TailWatch};
pub use reader::Slice;
pub use ticket::{Judged, Ticket};

use cell::{Inner, Observer, StreamCell};
use limits::Gauge;
use registry::Registry;
use touch::touched;

use crate::store::{AnyStore, MemoryStore, Purpose, StoreError, StoreStats};
use durable_streams_protocol::{
    Expiry, Offset, Rejection, StreamCore, StreamPath, StreamState, Tail, Timestamp,
};

/// Hears of every durable change that a reader could see. Called on hot paths, sometimes under a stream's
/// lock: must be quick, must not block, must not call the engine.
pub trait StreamObserver: Send + Sync {
    /// The stream's tail, closure or existence changed. `core` is `None` once it is deleted.
    fn on_durable(&self, path: &StreamPath, core: Option<&Arc<StreamCore>>, tail: Tail);
}

/// A stream as one request sees it: what never changes, and the durable tail at the time.
#[derive(Clone, Debug)]
pub struct View {
    /// What never changes.
    pub core: Arc<StreamCore>,
    /// Where it ends.
    pub tail: Tail,
}

/// Counts for metrics and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Streams and bytes in the store.
    pub store: StoreStats,
    /// Streams in memory.
    pub cells: usize,
    /// Live readers at this moment.
    pub live_readers: usize,
    /// Bytes of appends at this moment.
    pub inflight_append_bytes: usize,
    /// Streams that left memory since the start because nobody used them.
    pub evicted: u64,
    /// Streams removed since the start because their time was up.
    pub expired: u64,
}

/// All streams of a server. Shared by everything that serves them.
pub struct Engine {
    store: AnyStore,
    clock: Clock,
    limits: ArcSwap<Limits>,
    registry: Registry,
    observer: Observer,
    live_readers: Gauge,
    inflight: Gauge,
    evicted: AtomicU64,
    expired: AtomicU64,
}

impl Engine {
    /// An engine on a store.
    pub fn new(store: AnyStore, clock: Clock, limits: Limits) -> Self {
        let observer: Observer = Arc::new(OnceLock::new());
        Engine {
            store,
            clock,
            limits: ArcSwap::from_pointee(limits),
            registry: Registry::new(observer.clone()),
            observer,
            live_readers: Gauge::new(),
            inflight: Gauge::new(),
            evicted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }

    /// An engine whose streams live in memory and end with the process.
    pub fn in_memory() -> Self {
        let store = AnyStore::Memory(MemoryStore::default());
        Self::new(store, Clock::System, Limits::default())
    }

    /// Sets who hears of changes. Once; later calls do nothing.
    pub fn observe(&self, observer: Arc<dyn StreamObserver>) {
        let _ = self.observer.set(observer);
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The bounds in force. Not to be held for long.
    pub fn limits(&self) -> impl Deref<Target = Arc<Limits>> {
        self.limits.load()
    }

    /// Puts other bounds in force. What was taken under the former ones stays taken.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Whether an append could succeed now.
    ///
    /// # Errors
    /// Why not.
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
        }
    }

    /// A live reader's place; given back when dropped.
    ///
    /// # Errors
    /// [`Rejection::TooManyReaders`].
    pub fn live_permit(&self) -> Result<Permit, Rejection> {
        let limit = self.limits().max_live_readers;
        self.live_readers.take(1, limit, Rejection::TooManyReaders { limit })
    }

    /// Room for a request body of `bytes`; given back when dropped.
    ///
    /// # Errors
    /// [`Rejection::TooManyAppends`].
    pub fn append_permit(&self, bytes: usize) -> Result<Permit, Rejection> {
        self.inflight.take(bytes, self.limits().max_inflight_append, Rejection::TooManyAppends)
    }

    /// Doubles the room that a body of unknown length holds.
    ///
    /// # Errors
    /// [`Rejection::TooManyAppends`].
    pub fn grow_append_permit(&self, permit: &mut Permit) -> Result<(), Rejection> {
        let more = permit.units();
        let granted = permit.grow(more, self.limits().max_inflight_append);
        granted.then_some(()).ok_or(Rejection::TooManyAppends)
    }

    /// `HEAD`: the stream, without counting as a read (§5.5).
    ///
    /// # Errors
    /// [`Rejection::NotFound`], [`Rejection::Gone`], what the store reports.
    pub async fn head(&self, path: &StreamPath) -> Result<View, Rejection> {
        self.look(path, Purpose::Look, |_, inner, now| view(inner, now)).await
    }

    /// Opens a stream for reading; pushes a sliding expiry back (§5.1).
    ///
    /// # Errors
    /// [`Rejection::NotFound`], [`Rejection::Gone`], what the store reports.
    pub async fn open(&self, path: &StreamPath) -> Result<View, Rejection> {
        let (view, stored) = self
            .look(path, Purpose::Read, |cell, inner, now| {
                let view = view(inner, now)?;
                Ok((view, self.touch(cell, inner, now)))
            })
            .await?;
        touched(stored).await;
        Ok(view)
    }

    /// Like [`open`](Self::open), for a live read: the watch begins before the tail is looked at.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], [`Rejection::Gone`], what the store reports.
    pub async fn open_live(&self, path: &StreamPath) -> Result<(View, TailWatch), Rejection> {
        let (view, watch, stored) = self
            .look(path, Purpose::Read, |cell, inner, now| {
                let view = view(inner, now)?;
                let stored = self.touch(cell, inner, now);
                let mut watch = inner.watch(view.core.id);
                if matches!(view.core.expiry, Expiry::Ttl(_)) {
                    inner.keep(view.core.id);
                    watch.keep_alive(cell.clone(), self.clock.clone());
                }
                Ok((view, watch, stored))
            })
            .await?;
        touched(stored).await;
        Ok((view, watch))
    }

    /// Reads from `from` towards `tail`, about `max` bytes, whole messages in JSON mode.
    ///
    /// # Errors
    /// [`Rejection::OffsetBeyondTail`], [`Rejection::OffsetInsideMessage`]; [`Rejection::NotFound`] when
    /// the stream is deleted meanwhile; what the store reports.
    pub async fn read(
        &self,
        core: &StreamCore,
        from: Offset,
        tail: Offset,
        max: usize,
    ) -> Result<Slice, Rejection> {
        reader::read(&self.store, core, from, tail, max).await
    }

    /// Paths after `after` in byte order, at most `max`.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn list(
        &self,
        after: Option<&StreamPath>,
        max: usize,
    ) -> Result<Vec<StreamPath>, Rejection> {
        self.store.list(after, max).await.map_err(errors::rejection)
    }

    /// Makes everything durable that was decided, and closes the store.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Runs `act` under the lock of a loaded cell; nothing lives on if there is no stream.
    async fn look<T>(
        &self,
        path: &StreamPath,
        purpose: Purpose,
        act: impl FnOnce(&Arc<StreamCell>, &mut Inner, Timestamp) -> Result<T, Rejection>,
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
        act: impl FnOnce(&Arc<StreamCell>, &mut Inner, Timestamp) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let now = self.clock.now();
        let mut inner = cell.inner.lock();
        if inner.loaded { act(cell, &mut inner, now) } else { Err(reloading()) }
    }

    /// The cell of a path, with its stream in it.
    async fn loaded(
        &self,
        path: &StreamPath,
        purpose: Purpose,
    ) -> Result<Arc<StreamCell>, Rejection> {
        let cell = self.registry.cell(path);
        cell.touch(self.clock.now());
        if cell.inner.lock().loaded {
            return Ok(cell);
        }
        let loading = cell.loading.lock().await;
        {
            let inner = cell.inner.lock();
            if inner.loaded {
                drop(inner);
                drop(loading);
                return Ok(cell);
            }
            if !inner.can_load() {
                return Err(reloading());
            }
        }
        let epoch = self.store.epoch();
        let loaded = self.store.load(path, purpose).await.map_err(errors::rejection)?;
        cell.inner.lock().install(loaded, epoch);
        drop(loading);
        Ok(cell)
    }
}

/// The durable stream, if there is one to be seen at `now`.
fn view(inner: &Inner, now: Timestamp) -> Result<View, Rejection> {
    let core = inner.durable.core.as_ref().ok_or(Rejection::NotFound)?;
    if inner.durable.soft_deleted {
        return Err(Rejection::Gone);
    }
    // A stream that is being removed because its time is up is not there until that is durable, either.
    let assigned = inner.assigned.as_ref().filter(|state| state.core.id == core.id);
    let expired = match assigned {
        Some(_) => inner.is_expired(now),
        None => inner.durable.deadline.is_some_and(|deadline| deadline <= now),
    };
    if expired {
        return Err(if inner.forks.is_empty() { Rejection::NotFound } else { Rejection::Gone });
    }
    Ok(View { core: core.clone(), tail: inner.durable.tail() })
}

/// Whether a stream is there for clients: neither deleted nor expired.
fn present(state: &StreamState, inner: &Inner, now: Timestamp) -> Result<(), Rejection> {
    let expired = inner.is_expired(now);
    if state.soft_deleted || (expired && !inner.forks.is_empty()) {
        Err(Rejection::Gone)
    } else if expired {
        Err(Rejection::NotFound)
    } else {
        Ok(())
    }
}

/// The stream that commands are judged on, if it is there for clients.
fn here(inner: &Inner, now: Timestamp) -> Result<&StreamState, Rejection> {
    let state = inner.assigned.as_ref().ok_or(Rejection::NotFound)?;
    present(state, inner, now)?;
    Ok(state)
}

fn reloading() -> Rejection {
    errors::rejection(StoreError::Superseded)
}
