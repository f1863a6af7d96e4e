//! One subscription at run time, and the map of all.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use durable_streams_engine::Engine;
use durable_streams_protocol::{
    Rejection, StreamPath,
    subscription::{
        Attempt, Live, Refusal, Subscription, SubscriptionEvent, SubscriptionId, decode_log,
    },
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use super::{
    Shared,
    log::{Log, LogName},
};

/// Names a subscription for as long as the process runs; one that is created anew has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u64);

/// See the module.
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) id: SubscriptionId,
    /// `None` while it is created, when that failed, and once it is deleted.
    slot: AsyncMutex<Option<Slot>>,
    /// What became of streams, not looked at yet.
    inbox: Mutex<HashMap<StreamPath, Option<Live>>>,
    /// In the queue of the driver.
    pub(super) queued: AtomicBool,
    /// Somebody waits for a slot to post in.
    pub(super) waiting: AtomicBool,
}

/// What the lock of a subscription guards.
pub(super) struct Slot {
    pub(super) state: Subscription,
    log: Log,
    /// The attempt that is under way.
    pub(super) under_way: Option<Attempt>,
    /// The last answer of the webhook took long.
    pub(super) slow: bool,
    /// The wake stream has appeared: what could not be announced can be now.
    pub(super) announce_now: bool,
    /// A commit failed, so the log may say more than the state.
    stale: bool,
}

impl Slot {
    pub(super) fn new(state: Subscription, log: Log) -> Self {
        Slot { state, log, under_way: None, slow: false, announce_now: false, stale: false }
    }
}

impl Slot {
    /// Notes a log that this subscription's has replaced.
    pub(super) fn supersedes(&mut self, name: &LogName) {
        self.log.replaces(name);
    }

    /// Deletes replaced logs.
    pub(super) async fn tidy(&mut self, engine: &Engine) -> Result<(), Rejection> {
        self.log.delete_older(engine).await
    }
}

impl Entry {
    /// Notes what became of a stream.
    pub(super) fn tell(&self, path: &StreamPath, live: Option<Live>) {
        self.inbox.lock().insert(path.clone(), live);
    }

    /// The lock itself, for creation and deletion.
    pub(super) async fn slot(&self) -> MutexGuard<'_, Option<Slot>> {
        self.slot.lock().await
    }

    pub(super) fn take_inbox(&self) -> HashMap<StreamPath, Option<Live>> {
        std::mem::take(&mut *self.inbox.lock())
    }
}

impl Shared {
    /// Commits events and folds them in.
    pub(super) async fn commit(
        &self,
        slot: &mut Slot,
        events: &[SubscriptionEvent],
    ) -> Result<(), Refusal> {
        if events.is_empty() {
            return Ok(());
        }
        if let Err(error) = slot.log.commit(&self.engine, events).await {
            slot.stale = true;
            return Err(unavailable(error));
        }
        events.iter().for_each(|event| slot.state.apply(event));
        if slot.log.is_long() {
            let events = slot.state.rewritten();
            if let Err(error) = slot.log.rewrite(&self.engine, slot.state.id(), &events).await {
                tracing::warn!(subscription = %slot.state.id(), %error, "log not rewritten");
            }
        }
        Ok(())
    }

    /// Reads the state back after a failed commit.
    pub(super) async fn refresh(&self, slot: &mut Slot) -> Result<(), Refusal> {
        if !slot.stale {
            return Ok(());
        }
        let bytes = slot.log.read(&self.engine).await.map_err(unavailable)?;
        let events = decode_log(&bytes).map_err(|_| unavailable(Rejection::Damaged))?;
        let mut state =
            Subscription::replay(events).ok_or_else(|| unavailable(Rejection::Damaged))?;
        let known: Vec<StreamPath> = slot.state.linked_paths().cloned().collect();
        for path in known.iter().chain(&state.linked_paths().cloned().collect::<Vec<_>>()) {
            state.observe(path, self.live(path).await?);
        }
        slot.state = state;
        slot.stale = false;
        Ok(())
    }

    /// What is at a path now.
    pub(super) async fn live(&self, path: &StreamPath) -> Result<Option<Live>, Refusal> {
        match self.engine.head(path).await {
            Ok(view) => Ok(Some(Live { stream: view.core.id, tail: view.tail.offset })),
            Err(Rejection::NotFound | Rejection::Gone) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Deletes the log of a slot.
    pub(super) async fn erase(&self, slot: &mut Slot) -> Result<(), Refusal> {
        slot.log.delete(&self.engine).await.map_err(unavailable)
    }
}

/// Trouble of ours, for a client.
pub(super) fn unavailable(error: Rejection) -> Refusal {
    Refusal::Unavailable(error.to_string())
}

/// All subscriptions.
#[derive(Default)]
pub(super) struct Registry {
    maps: RwLock<Maps>,
    next: AtomicU64,
}

#[derive(Default)]
struct Maps {
    by_id: HashMap<SubscriptionId, Arc<Entry>>,
    by_key: HashMap<Key, Arc<Entry>>,
}

impl Registry {
    /// The subscription of a name.
    pub(super) fn find(&self, id: &SubscriptionId) -> Option<Arc<Entry>> {
        self.maps.read().by_id.get(id).cloned()
    }

    /// The subscription of a key.
    pub(super) fn get(&self, key: Key) -> Option<Arc<Entry>> {
        self.maps.read().by_key.get(&key).cloned()
    }

    /// The entry of a name, made if there is none and there are fewer than `limit`.
    pub(super) fn claim(&self, id: &SubscriptionId, limit: usize) -> Result<Arc<Entry>, Refusal> {
        let mut maps = self.maps.write();
        if let Some(entry) = maps.by_id.get(id) {
            return Ok(entry.clone());
        }
        if maps.by_id.len() >= limit {
            return Err(Refusal::TooMany { what: "subscriptions", limit });
        }
        let key = Key(self.next.fetch_add(1, Ordering::Relaxed));
        let entry = Arc::new(Entry {
            key,
            id: id.clone(),
            slot: AsyncMutex::new(None),
            inbox: Mutex::default(),
            queued: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
        });
        maps.by_id.insert(id.clone(), entry.clone());
        maps.by_key.insert(key, entry.clone());
        Ok(entry)
    }

    /// Removes an entry; a successor of the same name stays.
    pub(super) fn remove(&self, entry: &Entry) {
        let mut maps = self.maps.write();
        maps.by_key.remove(&entry.key);
        if maps.by_id.get(&entry.id).is_some_and(|found| found.key == entry.key) {
            maps.by_id.remove(&entry.id);
        }
    }

    /// Whether the entry is still the one of its name.
    pub(super) fn holds(&self, entry: &Entry) -> bool {
        self.maps.read().by_key.contains_key(&entry.key)
    }

    pub(super) fn len(&self) -> usize {
        self.maps.read().by_id.len()
    }

    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.maps.read().by_key.values().cloned().collect()
    }
}
