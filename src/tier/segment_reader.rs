//! Reads of segments that are objects: whole blocks, checked against the checksums of the segment's footer before
//! anything sees them, kept in memory, and read ahead of a reader that reads on.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use durable_streams_engine::store::file::segments::cold::{
    ColdError, ColdSegments, ColdStore, SealedFile,
};
use durable_streams_engine::store::file::segments::format::{
    HEADER, SegmentDamage, SegmentFooter, SegmentTrailer, TRAILER,
};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::block_cache::{BlockCache, CacheLook, CachedValue, ReadAhead};
use super::counters::TierCounters;
use super::failure::unavailable;
use super::object_cold_store::ObjectColdStore;

/// How often what does not match its checksum is read again: it may have changed on the way.
const TRIES: usize = 3;

/// Blocks of one read that are requested at once.
const AT_ONCE: usize = 4;

/// Most blocks that are read ahead of a reader.
const AHEAD: u64 = 8;

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

/// The object of a segment: its name, and what the index knows of it, so that no cached part is taken for one of another
/// object that had this name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SegmentObject {
    name: Arc<str>,
    file: SealedFile,
}

/// A part of an object: a block by its number, or the footer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct BlockKey {
    object: SegmentObject,
    block: Option<u64>,
}

#[derive(Clone)]
enum CachedPart {
    Block(Bytes),
    Footer(Arc<SegmentFooter>),
}

impl CachedValue for CachedPart {
    fn size(&self) -> usize {
        match self {
            Self::Block(bytes) => bytes.len(),
            Self::Footer(footer) => 4 * footer.block_crcs.len() + size_of::<SegmentFooter>(),
        }
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
        let footer = self.footer(&object, deadline).await?;
        if range.start < HEADER as u64 || range.end > footer.data_end() {
            return Err(ColdError::Damaged("the range is outside of the segment's data".into()));
        }
        let block_len = self.shared.store.options().cache_block as u64;
        let first = (range.start - HEADER as u64) / block_len;
        let last = (range.end - 1 - HEADER as u64) / block_len;
        self.read_ahead(&object, &footer, &range, last + 1);
        let blocks = stream::iter(first..=last)
            .map(|block| self.block(&object, &footer, block, deadline))
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
        let kept = |block| shared.cache.keeps(&BlockKey { object: object.clone(), block });
        if blocks.chain([None]).all(kept) {
            return Ok(waiting);
        }
        Err(unavailable("it did not answer a moment ago, and many reads wait for it"))
    }

    /// Begins to read what a reader that reads on will need. Does nothing while the object store is busy.
    fn read_ahead(
        &self,
        object: &SegmentObject,
        footer: &Arc<SegmentFooter>,
        range: &Range<u64>,
        next: u64,
    ) {
        let options = self.shared.store.options();
        let room = options.cache / (4 * options.cache_block);
        let (start, end) = ((object.clone(), range.start), (object.clone(), range.end));
        let ahead = self.shared.ahead.note(&start, end, AHEAD.min(room as u64).max(1));
        let blocks = (footer.data_end() - HEADER as u64).div_ceil(options.cache_block as u64);
        if room == 0 || self.shared.store.is_busy() {
            return;
        }
        let deadline = Instant::now() + options.read_timeout;
        for block in next..(next + ahead).min(blocks) {
            // Its read goes on by itself.
            drop(self.look(object, footer, block, deadline));
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
        footer: &Arc<SegmentFooter>,
        block: u64,
        deadline: Instant,
    ) -> Result<Bytes, ColdError> {
        let look = || self.look(object, footer, block, deadline);
        let counters = self.counters();
        match self.shared.cache.keeps(&BlockKey { object: object.clone(), block: Some(block) }) {
            true => counters.cache_hits.add(1),
            false => counters.cache_misses.add(1),
        }
        match wait(deadline, look).await? {
            CachedPart::Block(bytes) => Ok(bytes),
            CachedPart::Footer(_) => Err(misplaced()),
        }
    }

    fn look_for_footer(&self, object: &SegmentObject, deadline: Instant) -> CacheLook<CachedPart> {
        let key = BlockKey { object: object.clone(), block: None };
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
        footer: &Arc<SegmentFooter>,
        block: u64,
        deadline: Instant,
    ) -> CacheLook<CachedPart> {
        let key = BlockKey { object: object.clone(), block: Some(block) };
        let (shared, object, footer) = (self.shared.clone(), object.clone(), footer.clone());
        self.shared.cache.look(&key, || async move {
            let len = shared.store.options().cache_block as u64;
            let from = HEADER as u64 + block * len;
            let range = from..(from + len).min(footer.data_end());
            let read = || async {
                let bytes = shared.store.range(&object.name, range.clone(), deadline).await?;
                Ok(footer.check(range.start, &bytes).map(|()| bytes))
            };
            checked(&shared, deadline, read).await.map(CachedPart::Block)
        })
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

/// The footer of a segment, without its extents, which the index has. Fails when it is not the one that the index knows.
async fn read_footer(
    store: &ObjectColdStore,
    object: &SegmentObject,
    deadline: Instant,
) -> Result<Result<SegmentFooter, SegmentDamage>, ColdError> {
    let SealedFile { number, len, data, footer_crc } = object.file;
    let footer_at = HEADER as u64 + data;
    let Some(trailer_at) = len.checked_sub(TRAILER as u64).filter(|at| *at >= footer_at) else {
        return search_footer(store, object, deadline).await;
    };
    let found = store.range(&object.name, footer_at..len, deadline).await?;
    let (footer, trailer) = found.split_at((trailer_at - footer_at) as usize);
    let trailer = match SegmentTrailer::parse(trailer, number, len) {
        Ok(trailer) => trailer,
        Err(damage) => return Ok(Err(damage)),
    };
    if (trailer.footer_offset, trailer.footer_crc) != (footer_at, footer_crc) {
        let what = "it is another segment than the one that the index has";
        return Ok(Err(SegmentDamage { offset: trailer_at, what }));
    }
    Ok(SegmentFooter::parse(trailer, footer).map(without_extents))
}

/// The footer of a segment whose record `repair` has written again without a look at the object: the index knows neither
/// its size nor its checksum, and says so by a size that has no room for a footer.
async fn search_footer(
    store: &ObjectColdStore,
    object: &SegmentObject,
    deadline: Instant,
) -> Result<Result<SegmentFooter, SegmentDamage>, ColdError> {
    let size = store.size(&object.name, deadline).await?;
    let Some(at) = size.checked_sub(TRAILER as u64) else {
        return Err(ColdError::Damaged("the object is shorter than a segment".into()));
    };
    let found = store.range(&object.name, at..size, deadline).await?;
    let trailer = match SegmentTrailer::parse(&found, object.file.number, size) {
        Ok(trailer) => trailer,
        Err(damage) => return Ok(Err(damage)),
    };
    let range = trailer.footer_offset..trailer.footer_offset + trailer.footer_len;
    let found = store.range(&object.name, range, deadline).await?;
    Ok(SegmentFooter::parse(trailer, &found).map(without_extents))
}

/// The index has the extents.
fn without_extents(mut footer: SegmentFooter) -> SegmentFooter {
    footer.extents = Vec::new();
    footer
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
