//! From a stream's change to the subscriptions that it concerns.
//!
//! The hook that the engine calls on every append does as little as can be: one relaxed load while there
//! are no subscriptions, a walk over the path's segments when there are, and one cell in a map when
//! somebody watches. The rest is done by whoever drains that map. A stream that changes a hundred times
//! before that is one cell.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use durable_streams_engine::StreamObserver;
use durable_streams_protocol::{
    Offset, StreamCore, StreamPath, Tail,
    subscription::{DeliveryConfig, GlobIndex, StreamHead, SubscriptionConfig},
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::cell::SubscriptionKey;

/// See the module.
#[derive(Default)]
pub(super) struct StreamWatcher {
    /// Patterns and paths in the index.
    watched: AtomicUsize,
    index: RwLock<WatchIndex>,
    dirty: Mutex<HashMap<StreamPath, Option<StreamHead>>>,
    /// Held while news is handed on, so that who waits for it finds all that was there before.
    routing: Mutex<()>,
    notify: Notify,
}

#[derive(Default)]
struct WatchIndex {
    globs: GlobIndex<SubscriptionKey>,
    paths: HashMap<StreamPath, HashSet<SubscriptionKey>>,
    /// Wake streams. What is appended to them is our own; only their coming and going is news.
    wake_streams: HashMap<StreamPath, HashSet<SubscriptionKey>>,
}

impl StreamWatcher {
    /// Watches one stream.
    pub(super) fn watch_path(&self, path: &StreamPath, key: SubscriptionKey) {
        let added = insert(&mut self.index.write().paths, path, key);
        self.watched.fetch_add(usize::from(added), Ordering::Relaxed);
    }

    /// Ends [`watch_path`](Self::watch_path).
    pub(super) fn unwatch_path(&self, path: &StreamPath, key: SubscriptionKey) {
        let removed = remove(&mut self.index.write().paths, path, key);
        self.watched.fetch_sub(usize::from(removed), Ordering::Relaxed);
    }

    /// Watches what a configuration names: pattern, explicit streams and the wake stream.
    pub(super) fn watch(&self, config: &SubscriptionConfig, key: SubscriptionKey) {
        if let Some(pattern) = &config.pattern {
            self.index.write().globs.insert(pattern, key);
            self.watched.fetch_add(1, Ordering::Relaxed);
        }
        if let DeliveryConfig::PullWake { wake_stream } = &config.delivery {
            let added = insert(&mut self.index.write().wake_streams, wake_stream, key);
            self.watched.fetch_add(usize::from(added), Ordering::Relaxed);
        }
        for path in &config.streams {
            self.watch_path(path, key);
        }
    }

    /// Ends watching for a subscription that linked `explicit` streams.
    pub(super) fn unwatch<'a>(
        &self,
        config: &'a SubscriptionConfig,
        explicit: impl Iterator<Item = &'a StreamPath>,
        key: SubscriptionKey,
    ) {
        if let Some(pattern) = &config.pattern {
            self.index.write().globs.remove(pattern, &key);
            self.watched.fetch_sub(1, Ordering::Relaxed);
        }
        if let DeliveryConfig::PullWake { wake_stream } = &config.delivery {
            let removed = remove(&mut self.index.write().wake_streams, wake_stream, key);
            self.watched.fetch_sub(usize::from(removed), Ordering::Relaxed);
        }
        for path in config.streams.iter().chain(explicit) {
            self.unwatch_path(path, key);
        }
    }

    /// Who watches a path.
    pub(super) fn watchers(&self, path: &StreamPath) -> Vec<SubscriptionKey> {
        let index = self.index.read();
        let mut keys: Vec<SubscriptionKey> =
            index.paths.get(path).into_iter().flatten().copied().collect();
        index.globs.matches(path.as_str(), |key| keys.push(*key));
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Hands all news to `deliver`, once for each watcher.
    pub(super) fn route(
        &self,
        mut deliver: impl FnMut(SubscriptionKey, &StreamPath, Option<StreamHead>),
    ) {
        let _routing = self.routing.lock();
        let dirty = std::mem::take(&mut *self.dirty.lock());
        for (path, head) in dirty {
            for key in self.watchers(&path) {
                deliver(key, &path, head);
            }
            if is_coming_or_going(head) {
                for key in self.index.read().wake_streams.get(&path).into_iter().flatten() {
                    deliver(*key, &path, head);
                }
            }
        }
    }

    /// Waits until there may be news.
    pub(super) async fn news(&self) {
        self.notify.notified().await;
    }

    /// Ends one [`news`](Self::news).
    pub(super) fn nudge(&self) {
        self.notify.notify_one();
    }

    fn is_watched(&self, path: &StreamPath, head: Option<StreamHead>) -> bool {
        let index = self.index.read();
        let mut watched = index.paths.contains_key(path)
            || (is_coming_or_going(head) && index.wake_streams.contains_key(path));
        if !watched {
            index.globs.matches(path.as_str(), |_| watched = true);
        }
        watched
    }
}

/// Deleted, or just created; wake streams are created empty.
fn is_coming_or_going(head: Option<StreamHead>) -> bool {
    head.is_none_or(|head| head.tail == Offset::ZERO)
}

fn insert(
    map: &mut HashMap<StreamPath, HashSet<SubscriptionKey>>,
    path: &StreamPath,
    key: SubscriptionKey,
) -> bool {
    map.entry(path.clone()).or_default().insert(key)
}

fn remove(
    map: &mut HashMap<StreamPath, HashSet<SubscriptionKey>>,
    path: &StreamPath,
    key: SubscriptionKey,
) -> bool {
    let Some(keys) = map.get_mut(path) else { return false };
    let removed = keys.remove(&key);
    if keys.is_empty() {
        map.remove(path);
    }
    removed
}

impl StreamObserver for StreamWatcher {
    fn on_durable(&self, path: &StreamPath, core: Option<&Arc<StreamCore>>, tail: Tail) {
        if self.watched.load(Ordering::Relaxed) == 0 || is_reserved(path) {
            return;
        }
        let head = core.filter(|_| !tail.gone);
        let head = head.map(|core| StreamHead { stream: core.id, tail: tail.offset });
        if !self.is_watched(path, head) {
            return;
        }
        let first = {
            let mut dirty = self.dirty.lock();
            dirty.insert(path.clone(), head);
            dirty.len() == 1
        };
        if first {
            self.notify.notify_one();
        }
    }
}

/// The server's own streams are nobody's work.
pub(super) fn is_reserved(path: &StreamPath) -> bool {
    path.first_segment() == StreamPath::RESERVED
}
