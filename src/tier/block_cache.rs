//! Blocks of objects in memory, as many as a budget of bytes allows, and the reads of those that are under way: a
//! reader of a block that is being read waits for it, and makes no request of its own.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::Arc;

use durable_streams_engine::store::file::segments::cold::ColdError;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::failure::unavailable;

/// What one entry costs besides its bytes.
const OVERHEAD: usize = 200;

/// A value that is being read, which any number of readers await.
pub(super) type PendingRead<V> = Shared<BoxFuture<'static, Result<V, ColdError>>>;

/// What one read of several values returns: a result for each, or why there are none.
pub(super) type RunResult<V> = Result<Vec<Result<V, ColdError>>, ColdError>;

/// Values with a size in bytes.
pub(super) trait CachedValue: Clone + Send + Sync + 'static {
    /// Bytes in memory.
    fn size(&self) -> usize;
}

/// A cache of values that are read from far away.
pub(super) struct BlockCache<K, V> {
    state: Arc<Mutex<CacheState<K, V>>>,
    runtime: Handle,
}

struct CacheState<K, V> {
    kept: LruCache<K, V>,
    pending: HashMap<K, PendingRead<V>>,
    bytes: usize,
    most: usize,
}

/// What the cache knows of a value.
pub(super) enum CacheLook<V> {
    /// It is there.
    Kept(V),
    /// It is being read.
    Pending {
        read: PendingRead<V>,
        /// Whether this look has begun it.
        begun: bool,
    },
}

impl<K: Hash + Eq + Clone + Send + 'static, V: CachedValue> BlockCache<K, V> {
    /// A cache of `most` bytes, whose reads run on `runtime`.
    pub(super) fn new(most: usize, runtime: Handle) -> Self {
        let kept = LruCache::unbounded();
        let state = CacheState { kept, pending: HashMap::new(), bytes: 0, most };
        BlockCache { state: Arc::new(Mutex::new(state)), runtime }
    }

    /// The value, or its read that is under way, which `read` begins where there is none.
    ///
    /// A read goes on when all readers that wait for it have left, since its bytes are on their way.
    pub(super) fn look<F>(&self, key: &K, read: impl FnOnce() -> F) -> CacheLook<V>
    where
        F: Future<Output = Result<V, ColdError>> + Send + 'static,
    {
        let mut state = self.state.lock();
        if let Some(kept) = state.kept.get(key) {
            return CacheLook::Kept(kept.clone());
        }
        if let Some(pending) = state.pending.get(key) {
            return CacheLook::Pending { read: pending.clone(), begun: false };
        }
        let (shared, keys, read) = (self.state.clone(), vec![key.clone()], read());
        let task = self.runtime.spawn(async move {
            // Also when the read panics.
            let mut ended = EndOfRead { state: shared, keys, values: Vec::new() };
            let result = read.await;
            ended.values = result.iter().cloned().map(Some).collect();
            result
        });
        let pending = task
            .map(|ended| ended.unwrap_or_else(|_| Err(unavailable("stopped"))))
            .boxed()
            .shared();
        state.pending.insert(key.clone(), pending.clone());
        CacheLook::Pending { read: pending, begun: true }
    }

    /// Begins one read of the first of `keys`, up to one that is there or being read; `read` takes their number and returns a
    /// result for each. Does nothing where the first one is there or being read.
    pub(super) fn begin_run<F>(&self, mut keys: Vec<K>, read: impl FnOnce(usize) -> F)
    where
        F: Future<Output = RunResult<V>> + Send + 'static,
    {
        let mut state = self.state.lock();
        keys.truncate(keys.iter().take_while(|key| !state.knows(key)).count());
        if keys.is_empty() {
            return;
        }
        let (shared, keys_of_task, read) = (self.state.clone(), keys.clone(), read(keys.len()));
        let task = self.runtime.spawn(async move {
            let mut ended = EndOfRead { state: shared, keys: keys_of_task, values: Vec::new() };
            let result = read.await.map(Arc::new);
            let values = result.iter().flat_map(|all| all.iter());
            ended.values = values.map(|value| value.clone().ok()).collect();
            result
        });
        let run = task.map(|ended| ended.unwrap_or_else(|_| Err(unavailable("stopped"))));
        let run = run.boxed().shared();
        for (at, key) in keys.into_iter().enumerate() {
            let one = move |run: Result<Arc<Vec<Result<V, ColdError>>>, ColdError>| {
                let value = run?.get(at).cloned();
                value.unwrap_or_else(|| Err(unavailable("stopped")))
            };
            state.pending.insert(key, run.clone().map(one).boxed().shared());
        }
    }

    /// Whether a value is there.
    pub(super) fn keeps(&self, key: &K) -> bool {
        self.state.lock().kept.contains(key)
    }

    /// Whether a value is there or being read.
    pub(super) fn knows(&self, key: &K) -> bool {
        self.state.lock().knows(key)
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

impl<K: Hash + Eq, V: CachedValue> CacheState<K, V> {
    fn knows(&self, key: &K) -> bool {
        self.kept.contains(key) || self.pending.contains_key(key)
    }

    fn keep(&mut self, key: K, value: V) {
        self.bytes += value.size() + OVERHEAD;
        if let Some((_, old)) = self.kept.push(key, value) {
            self.bytes -= old.size() + OVERHEAD;
        }
        while self.bytes > self.most {
            let Some((_, old)) = self.kept.pop_lru() else { break };
            self.bytes -= old.size() + OVERHEAD;
        }
    }
}

/// Takes a read out of those under way when it ends, and keeps what it has brought.
struct EndOfRead<K: Hash + Eq, V: CachedValue> {
    state: Arc<Mutex<CacheState<K, V>>>,
    keys: Vec<K>,
    /// One for each key, unless the read has failed.
    values: Vec<Option<V>>,
}

impl<K: Hash + Eq, V: CachedValue> Drop for EndOfRead<K, V> {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        self.keys.iter().for_each(|key| drop(state.pending.remove(key)));
        for (key, value) in self.keys.drain(..).zip(self.values.drain(..)) {
            if let Some(value) = value {
                state.keep(key, value);
            }
        }
    }
}

/// Where readers that read on are expected to begin next, and how far to read ahead of them.
pub(super) struct ReadAhead<K: Hash + Eq> {
    expected: Mutex<LruCache<K, u64>>,
}

/// Readers that are remembered.
const READERS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

impl<K: Hash + Eq> ReadAhead<K> {
    pub(super) fn new() -> Self {
        ReadAhead { expected: Mutex::new(LruCache::new(READERS)) }
    }

    /// Notes a read from `start` to `end`, and returns how many blocks to read ahead: none for a reader that has not
    /// read on, then one, two, four and so on up to `most`.
    pub(super) fn note(&self, start: &K, end: K, most: u64) -> u64 {
        let mut expected = self.expected.lock();
        let ahead = expected.pop(start).map_or(0, |ahead| (ahead * 2).clamp(1, most));
        expected.put(end, ahead);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures_util::future::join_all;

    use super::*;

    impl CachedValue for Bytes {
        fn size(&self) -> usize {
            self.len()
        }
    }

    fn cache(most: usize) -> BlockCache<u32, Bytes> {
        BlockCache::new(most, Handle::current())
    }

    async fn get(cache: &BlockCache<u32, Bytes>, key: u32, reads: &Arc<AtomicUsize>) -> Bytes {
        let reads = reads.clone();
        let looked = cache.look(&key, || async move {
            reads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(Bytes::from(vec![key as u8; 1000]))
        });
        match looked {
            CacheLook::Kept(bytes) => bytes,
            CacheLook::Pending { read, .. } => read.await.unwrap(),
        }
    }

    #[tokio::test]
    async fn readers_of_one_block_share_one_read() {
        let (cache, reads) = (cache(1 << 20), Arc::default());
        let all = join_all((0..100).map(|n| get(&cache, n % 4, &reads))).await;
        assert!(all.iter().zip(0..).all(|(bytes, n): (_, u32)| bytes[..] == [(n % 4) as u8; 1000]));
        assert_eq!(reads.load(Ordering::Relaxed), 4);
        get(&cache, 3, &reads).await;
        assert_eq!(reads.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn it_keeps_what_was_used_last_within_its_budget() {
        let (cache, reads) = (cache(3 * (1000 + OVERHEAD)), Arc::default());
        for key in [0, 1, 2, 0, 3, 0, 2] {
            get(&cache, key, &reads).await;
            assert!(cache.bytes() <= 3 * (1000 + OVERHEAD));
        }
        // 3 has replaced 1.
        assert_eq!(reads.load(Ordering::Relaxed), 4);
        get(&cache, 1, &reads).await;
        assert_eq!(reads.load(Ordering::Relaxed), 5);
        let (none, reads) = (self::cache(0), Arc::default());
        for _ in 0..2 {
            get(&none, 1, &reads).await;
        }
        assert_eq!((reads.load(Ordering::Relaxed), none.bytes()), (2, 0));
    }

    #[tokio::test]
    async fn a_read_that_fails_or_panics_is_not_kept() {
        let cache = cache(1 << 20);
        for panics in [false, true] {
            let looked = cache.look(&1, || async move {
                assert!(!panics, "meant");
                Err(ColdError::NotFound)
            });
            let CacheLook::Pending { read, begun: true } = looked else { panic!() };
            assert!(read.await.is_err());
            assert!(!cache.knows(&1));
        }
        let reads = Arc::default();
        get(&cache, 1, &reads).await;
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_read_goes_on_when_its_readers_have_left() {
        let (cache, reads) = (cache(1 << 20), Arc::default());
        drop(tokio::time::timeout(std::time::Duration::ZERO, get(&cache, 1, &reads)).await);
        while cache.bytes() == 0 {
            tokio::task::yield_now().await;
        }
        get(&cache, 1, &reads).await;
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn who_reads_on_is_read_ahead_of() {
        let ahead = ReadAhead::new();
        let mut at = 0;
        let mut next = || {
            at += 10;
            ahead.note(&(at - 10), at, 8)
        };
        assert_eq!([next(), next(), next(), next(), next(), next()], [0, 1, 2, 4, 8, 8]);
        assert_eq!(ahead.note(&7, 9, 8), 0);
    }
}
