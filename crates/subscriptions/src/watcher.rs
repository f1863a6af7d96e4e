//! From a stream's change to the subscriptions that link it.
//!
//! The engine calls [`StreamWatcher::on_durable`] on its commit path for every append. That does a bounded
//! amount of work: one relaxed load without subscriptions, else three map lookups, and an insertion for a
//! path that a subscription may link. The driver matches the patterns later, off that path. A stream that
//! changes a hundred times before then is one entry.
//!
//! Measured: 2,000 patterns of 24 mixed `*` and `**` made one append take 21 s when the commit path matched.

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
    subscription::{
        DeliveryConfig, Glob, GlobIndex, MAX_FLOATING, Refusal, StreamHead, SubscriptionConfig,
    },
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::cell::SubscriptionKey;

/// Which subscriptions watch which streams, and the changes that they have not seen.
#[derive(Default)]
pub(super) struct StreamWatcher {
    /// Patterns and paths in `filter`.
    watched: AtomicUsize,
    /// Its lock is on the commit path and held for map operations only.
    filter: RwLock<WatchFilter>,
    globs: RwLock<GlobIndex<SubscriptionKey>>,
    dirty: Mutex<HashMap<StreamPath, Option<StreamHead>>>,
    /// Held while changes are handed on, so that a second caller returns only when they have been.
    routing: Mutex<()>,
    notify: Notify,
}

/// What the commit path looks up.
#[derive(Default)]
struct WatchFilter {
    paths: HashMap<StreamPath, HashSet<SubscriptionKey>>,
    /// Only their creation and deletion is a change: the server alone appends wakes to them.
    wake_streams: HashMap<StreamPath, HashSet<SubscriptionKey>>,
    /// First segments of patterns, with the number of patterns.
    first_segments: HashMap<Box<str>, usize>,
    /// Patterns that begin with a wildcard.
    wild: usize,
}

impl WatchFilter {
    fn may_watch(&self, path: &StreamPath, head: Option<StreamHead>) -> bool {
        self.wild > 0
            || self.paths.contains_key(path)
            || self.first_segments.contains_key(path.first_segment())
            || (is_created_or_deleted(head) && self.wake_streams.contains_key(path))
    }

    fn add_pattern(&mut self, pattern: &Glob) {
        match pattern.first_literal() {
            None => self.wild += 1,
            Some(name) => *self.first_segments.entry(name.into()).or_default() += 1,
        }
    }

    fn remove_pattern(&mut self, pattern: &Glob) {
        let Some(name) = pattern.first_literal() else {
            self.wild -= 1;
            return;
        };
        if let Some(count) = self.first_segments.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.first_segments.remove(name);
            }
        }
    }
}

impl StreamWatcher {
    /// Watches one stream.
    pub(super) fn watch_path(&self, path: &StreamPath, key: SubscriptionKey) {
        let added = insert(&mut self.filter.write().paths, path, key);
        self.watched.fetch_add(usize::from(added), Ordering::Relaxed);
    }

    /// Ends [`watch_path`](Self::watch_path).
    pub(super) fn unwatch_path(&self, path: &StreamPath, key: SubscriptionKey) {
        let removed = remove(&mut self.filter.write().paths, path, key);
        self.watched.fetch_sub(usize::from(removed), Ordering::Relaxed);
    }

    /// Watches what the configuration of a new subscription names.
    ///
    /// # Errors
    /// [`Refusal::TooMany`] when its pattern has no room beside those of the others; nothing is watched then.
    pub(super) fn watch_new(
        &self,
        config: &SubscriptionConfig,
        key: SubscriptionKey,
    ) -> Result<(), Refusal> {
        if let Some(pattern) = &config.pattern {
            let mut globs = self.globs.write();
            if !globs.has_room_for(pattern) {
                let what = "pattern segments from the first ** on, over all subscriptions,";
                return Err(Refusal::TooMany { what, limit: MAX_FLOATING });
            }
            globs.insert(pattern, key);
        }
        self.watch_rest(config, key);
        Ok(())
    }

    /// Watches what the configuration of a stored subscription names: pattern, streams and wake stream.
    pub(super) fn watch(&self, config: &SubscriptionConfig, key: SubscriptionKey) {
        if let Some(pattern) = &config.pattern {
            self.globs.write().insert(pattern, key);
        }
        self.watch_rest(config, key);
    }

    fn watch_rest(&self, config: &SubscriptionConfig, key: SubscriptionKey) {
        if let Some(pattern) = &config.pattern {
            self.filter.write().add_pattern(pattern);
            self.watched.fetch_add(1, Ordering::Relaxed);
        }
        if let DeliveryConfig::PullWake { wake_stream } = &config.delivery {
            let added = insert(&mut self.filter.write().wake_streams, wake_stream, key);
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
            self.globs.write().remove(pattern, &key);
            self.filter.write().remove_pattern(pattern);
            self.watched.fetch_sub(1, Ordering::Relaxed);
        }
        if let DeliveryConfig::PullWake { wake_stream } = &config.delivery {
            let removed = remove(&mut self.filter.write().wake_streams, wake_stream, key);
            self.watched.fetch_sub(usize::from(removed), Ordering::Relaxed);
        }
        for path in config.streams.iter().chain(explicit) {
            self.unwatch_path(path, key);
        }
    }

    /// The subscriptions that link the stream at a path, each once.
    pub(super) fn watchers(&self, path: &StreamPath) -> Vec<SubscriptionKey> {
        let mut keys: Vec<SubscriptionKey> =
            self.filter.read().paths.get(path).into_iter().flatten().copied().collect();
        self.globs.read().matches(path.as_str(), |key| keys.push(*key));
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Hands all changes to `deliver`, once for each subscription that they concern.
    pub(super) fn route(
        &self,
        mut deliver: impl FnMut(SubscriptionKey, &StreamPath, Option<StreamHead>),
    ) {
        let _routing = self.routing.lock();
        let dirty = std::mem::take(&mut *self.dirty.lock());
        for (path, head) in dirty {
            let mut keys = self.watchers(&path);
            if is_created_or_deleted(head) {
                let filter = self.filter.read();
                keys.extend(filter.wake_streams.get(&path).into_iter().flatten());
            }
            for key in keys {
                deliver(key, &path, head);
            }
        }
    }

    /// Waits until there may be changes.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Ends one [`changed`](Self::changed).
    pub(super) fn nudge(&self) {
        self.notify.notify_one();
    }
}

/// Deleted, or just created; wake streams are created empty.
fn is_created_or_deleted(head: Option<StreamHead>) -> bool {
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
        if !self.filter.read().may_watch(path, head) {
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

/// Whether the stream is one of the server's own, which no pattern links.
pub(super) fn is_reserved(path: &StreamPath) -> bool {
    path.first_segment() == StreamPath::RESERVED
}
