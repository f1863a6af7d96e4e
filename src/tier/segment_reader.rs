//! Reads of segments that are objects: whole blocks, checked against the checksums of the segment's footer before
//! anything sees them, kept in memory, and read ahead of a reader that reads on.
//!
//! A footer that is not in memory is requested beside the blocks that need it, so that a first read waits for one answer.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use durable_streams_engine::store::file::segments::cold::{
    ColdError, ColdSegments, ColdStore, SealedFile,
};
use durable_streams_engine::store::file::segments::format::{HEADER, SegmentDamage, SegmentFooter};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::block_cache::{BlockCache, CacheLook, ReadAhead, RunResult};
use super::cached_part::{BlockKey, CachedPart, SegmentObject};
use super::counters::TierCounters;
use super::failure::unavailable;
use super::object_cold_store::ObjectColdStore;
use super::options::TierOptions;
use super::segment_footer::{data_end, read_footer};

/// How often what does not match its checksum is read again: it may have changed on the way.
const TRIES: usize = 3;

/// Blocks of one read that are requested at once.
const AT_ONCE: usize = 4;

/// Most blocks that are read ahead of a reader.
const AHEAD: u64 = 32;

/// Reads that wait for an object store which does not answer. Further ones fail at once: each holds memory for its answer,
/// of which reads that need no object store have to have some left.
const WAIT_IN_VAIN: usize = 64;

/// The object store as the engine and its segments need it: reads of segments are checked and cached.
#[derive(Clone)]
pub struct SegmentReader {
    shared: Arc<ReaderShared>,
}

struct ReaderShared {
    store: Arc<ObjectColdStore>,
    cache: BlockCache<BlockKey, CachedPart>,
    ahead: ReadAhead<(SegmentObject, u64)>,
    /// Reads that wait for the object store.
    waiting: AtomicUsize,
}

/// One of the reads that wait.
struct WaitingRead<'r>(&'r AtomicUsize);

impl Drop for WaitingRead<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SegmentReader {
    pub(super) fn new(store: Arc<ObjectColdStore>, runtime: Handle) -> Self {
        let cache = BlockCache::new(store.options().cache, runtime);
        let (ahead, waiting) = (ReadAhead::new(), AtomicUsize::new(0));
        SegmentReader { shared: Arc::new(ReaderShared { store, cache, ahead, waiting }) }
    }

    /// What is counted.
    pub fn counters(&self) -> &TierCounters {
        self.shared.store.counters()
    }

    /// Bytes of blocks in memory.
    pub fn cached_bytes(&self) -> usize {
        self.shared.cache.bytes()
    }

    /// Creates the object of a segment from the bytes of its file.
    pub(super) async fn create_segment(
        &self,
        name: &str,
        parts: Vec<Bytes>,
    ) -> Result<(), ColdError> {
        self.shared.store.put_parts(name, parts).await
    }

    async fn read(&self, object: SegmentObject, range: Range<u64>) -> Result<Bytes, ColdError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let _waiting = self.begin_wait(&object, &range)?;
        let deadline = Instant::now() + self.shared.store.options().read_timeout;
        let data_end = match data_end(&object.file) {
            Some(end) => end,
            None => self.footer(&object, deadline).await?.data_end(),
        };
        if range.start < HEADER as u64 || range.end > data_end {
            return Err(ColdError::Damaged("the range is outside of the segment's data".into()));
        }
        let block_len = self.shared.store.options().cache_block as u64;
        let first = (range.start - HEADER as u64) / block_len;
        let last = (range.end - 1 - HEADER as u64) / block_len;
        if first < last {
            self.begin_runs(&object, data_end, first..last + 1, deadline);
        }
        self.read_ahead(&object, data_end, &range, last + 1);
        let blocks = stream::iter(first..=last)
            .map(|block| self.block(&object, data_end, block, deadline))
            .buffered(AT_ONCE);
        let mut blocks = std::pin::pin!(blocks);
        let part = |block: u64, bytes: &Bytes| {
            let at = HEADER as u64 + block * block_len;
            let (from, to) = (range.start.max(at) - at, range.end.min(at + block_len) - at);
            bytes.slice(from as usize..to as usize)
        };
        if first == last {
            return Ok(part(first, &blocks.try_next().await?.unwrap_or_default()));
        }
        let mut all = BytesMut::with_capacity((range.end - range.start) as usize);
        let mut block = first;
        while let Some(bytes) = blocks.try_next().await? {
            all.extend_from_slice(&part(block, &bytes));
            block += 1;
        }
        Ok(all.freeze())
    }

    /// Counts a read among those that wait.
    ///
    /// # Errors
    /// While the object store does not answer, when many wait for it and the read needs it, too.
    fn begin_wait(
        &self,
        object: &SegmentObject,
        range: &Range<u64>,
    ) -> Result<WaitingRead<'_>, ColdError> {
        let shared = &*self.shared;
        let before = shared.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = WaitingRead(&shared.waiting);
        if before < WAIT_IN_VAIN || !shared.store.reads_fail() {
            return Ok(waiting);
        }
        let block_len = shared.store.options().cache_block as u64;
        let place = |at: u64| at.saturating_sub(HEADER as u64) / block_len;
        let blocks = (place(range.start)..=place(range.end - 1)).map(Some);
        let kept = |block| shared.cache.keeps(&BlockKey::new(object, block));
        if blocks.chain([None]).all(kept) {
            return Ok(waiting);
        }
        Err(unavailable("it did not answer a moment ago, and many reads wait for it"))
    }

    /// Begins to read what a reader that reads on will need. Does nothing while the object store is busy.
    fn read_ahead(&self, object: &SegmentObject, data_end: u64, range: &Range<u64>, next: u64) {
        let options = self.shared.store.options();
        let room = options.cache / (4 * options.cache_block);
        let (start, end) = ((object.clone(), range.start), (object.clone(), range.end));
        let ahead = self.shared.ahead.note(&start, end, AHEAD.min(room as u64).max(1));
        let blocks = (data_end - HEADER as u64).div_ceil(options.cache_block as u64);
        if room == 0 || self.shared.store.is_busy() {
            return;
        }
        let known = |block| self.shared.cache.knows(&BlockKey::of(object, block));
        let known = (next..next + ahead).take_while(|block| known(*block)).count() as u64;
        // Not a request for each block that was read: for some at a time.
        let least = TierOptions::RUN.min(ahead / 2).max(1);
        if known + least <= ahead {
            let end = (next + ahead).min(next + known + TierOptions::RUN).min(blocks);
            let deadline = Instant::now() + options.read_timeout;
            self.begin_runs(object, data_end, next + known..end, deadline);
        }
    }

    /// Begins to read the blocks that are neither there nor being read, some at a time. Their reads go on by themselves.
    fn begin_runs(
        &self,
        object: &SegmentObject,
        data_end: u64,
        blocks: Range<u64>,
        deadline: Instant,
    ) {
        let known = |block| self.shared.cache.knows(&BlockKey::of(object, block));
        let mut next = blocks.start;
        while next < blocks.end {
            if known(next) {
                next += 1;
                continue;
            }
            let end = (next + TierOptions::RUN).min(blocks.end);
            let end = (next..end).find(|block| known(*block)).unwrap_or(end);
            let keys = (next..end).map(|block| BlockKey::of(object, block)).collect();
            let (reader, object) = (self.clone(), object.clone());
            self.shared.cache.begin_run(keys, |count| async move {
                reader.read_run(&object, data_end, next, count as u64, deadline).await
            });
            next = end;
        }
    }

    async fn footer(
        &self,
        object: &SegmentObject,
        deadline: Instant,
    ) -> Result<Arc<SegmentFooter>, ColdError> {
        match wait(deadline, || self.look_for_footer(object, deadline)).await? {
            CachedPart::Footer(footer) => Ok(footer),
            CachedPart::Block(_) => Err(misplaced()),
        }
    }

    async fn block(
        &self,
        object: &SegmentObject,
        data_end: u64,
        block: u64,
        deadline: Instant,
    ) -> Result<Bytes, ColdError> {
        let look = || self.look(object, data_end, block, deadline);
        let counters = self.counters();
        match self.shared.cache.keeps(&BlockKey::of(object, block)) {
            true => counters.cache_hits.add(1),
            false => counters.cache_misses.add(1),
        }
        match wait(deadline, look).await? {
            CachedPart::Block(bytes) => Ok(bytes),
            CachedPart::Footer(_) => Err(misplaced()),
        }
    }

    fn look_for_footer(&self, object: &SegmentObject, deadline: Instant) -> CacheLook<CachedPart> {
        let key = BlockKey::of_footer(object);
        let (shared, object) = (self.shared.clone(), object.clone());
        self.shared.cache.look(&key, || async move {
            let read = || read_footer(&shared.store, &object, deadline);
            let footer = checked(&shared, deadline, read).await?;
            Ok(CachedPart::Footer(Arc::new(footer)))
        })
    }

    fn look(
        &self,
        object: &SegmentObject,
        data_end: u64,
        block: u64,
        deadline: Instant,
    ) -> CacheLook<CachedPart> {
        let key = BlockKey::of(object, block);
        let (reader, object) = (self.clone(), object.clone());
        self.shared.cache.look(&key, || async move {
            let range = reader.shared.place(data_end, block, 1);
            let read = || async {
                let (footer, bytes) = reader.with_footer(&object, range.clone(), deadline).await?;
                let checked = footer.check(range.start, &bytes);
                Ok(checked.map(|()| footer.restored(range.start, bytes)))
            };
            checked(&reader.shared, deadline, read).await.map(CachedPart::Block)
        })
    }

    /// Bytes of an object, unchecked, and the footer that has their checksums.
    async fn with_footer(
        &self,
        object: &SegmentObject,
        range: Range<u64>,
        deadline: Instant,
    ) -> Result<(Arc<SegmentFooter>, Bytes), ColdError> {
        let bytes = self.shared.store.range(&object.name, range, deadline);
        tokio::try_join!(self.footer(object, deadline), bytes)
    }

    /// Reads consecutive blocks in one request. A block that does not match its checksum is not kept; a reader that needs it
    /// reads it again by itself.
    async fn read_run(
        &self,
        object: &SegmentObject,
        data_end: u64,
        first: u64,
        count: u64,
        deadline: Instant,
    ) -> RunResult<CachedPart> {
        let shared = &*self.shared;
        let whole = shared.place(data_end, first, count);
        let (footer, bytes) = self.with_footer(object, whole.clone(), deadline).await?;
        let part = |block| {
            let Range { start, end } = shared.place(data_end, block, 1);
            let part = bytes.get((start - whole.start) as usize..(end - whole.start) as usize);
            let part = part.unwrap_or_default();
            if footer.check(start, part).is_ok() {
                // A copy: kept in memory, it must not keep the others.
                let part = footer.restored(start, Bytes::copy_from_slice(part));
                return Ok(CachedPart::Block(part));
            }
            shared.store.counters().damaged_blocks.add(1);
            Err(unavailable("a block does not match its checksum"))
        };
        Ok((first..first + count).map(part).collect())
    }
}

impl ReaderShared {
    /// Where blocks are in a segment whose data ends there.
    fn place(&self, data_end: u64, first: u64, count: u64) -> Range<u64> {
        let len = self.store.options().cache_block as u64;
        let from = HEADER as u64 + first * len;
        from..(from + count * len).min(data_end)
    }
}

/// Waits for a part. A read that another reader has begun may end in that reader's time; then this one begins its own.
async fn wait(
    deadline: Instant,
    look: impl Fn() -> CacheLook<CachedPart>,
) -> Result<CachedPart, ColdError> {
    loop {
        let (read, begun) = match look() {
            CacheLook::Kept(part) => return Ok(part),
            CacheLook::Pending { read, begun } => (read, begun),
        };
        match timeout_at(deadline, read).await {
            Err(_) => return Err(unavailable("the object store is slow")),
            Ok(Err(ColdError::Unavailable { .. })) if !begun && Instant::now() < deadline => {}
            Ok(ended) => return ended,
        }
    }
}

fn misplaced() -> ColdError {
    ColdError::Damaged("the footer and a block are in each other's place".into())
}

/// Reads until what was read matches its checksum.
async fn checked<T, F>(
    shared: &ReaderShared,
    deadline: Instant,
    mut read: impl FnMut() -> F,
) -> Result<T, ColdError>
where
    F: Future<Output = Result<Result<T, SegmentDamage>, ColdError>>,
{
    let mut tries = 0;
    loop {
        tries += 1;
        match read().await? {
            Ok(found) => return Ok(found),
            Err(damage) => {
                shared.store.counters().damaged_blocks.add(1);
                if tries == TRIES || Instant::now() >= deadline {
                    return Err(ColdError::Damaged(damage.to_string()));
                }
            }
        }
    }
}

impl ColdStore for SegmentReader {
    fn put(&self, name: &str, file: PathBuf) -> BoxFuture<'_, Result<(), ColdError>> {
        self.shared.store.put(name, file)
    }

    fn get(&self, name: &str, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ColdError>> {
        self.shared.store.get(name, range)
    }

    fn delete(&self, name: &str) -> BoxFuture<'_, Result<(), ColdError>> {
        self.shared.store.delete(name)
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<(String, u64)>, ColdError>> {
        self.shared.store.list(prefix, after)
    }
}

impl ColdSegments for SegmentReader {
    fn get_segment(
        &self,
        name: &str,
        file: SealedFile,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, ColdError>> {
        let object = SegmentObject { name: Arc::from(name), file };
        Box::pin(async move {
            let counted = self.counters().reads.begin();
            let read = self.read(object, range).await;
            counted.end(&read);
            read
        })
    }
}
