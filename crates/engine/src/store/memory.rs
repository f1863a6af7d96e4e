//! The store in memory: maps. Commits are as durable as memory is when they return.

mod chunks;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use durable_streams_protocol::{
    Offset, ProducerId, ProducerState, StreamEvent, StreamId, StreamPath, StreamState, Timestamp,
};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use self::chunks::StreamChunks;
use super::{
    AppendEnd, Commit, Committed, DeadlineCursor, DiskStats, LoadFor, LoadedStream, LogEpoch,
    Store, StoreError, StoreStats, StoredPage, StoredStream, UsedAfter,
};

const SHARDS: usize = 64;

/// The store in memory; nothing survives the process.
pub struct MemoryStore {
    streams: Box<[RwLock<FxHashMap<StreamId, MemoryStream>>]>,
    index: Mutex<MemoryIndex>,
    last_id: AtomicU64,
    bytes: AtomicU64,
}

struct MemoryStream {
    state: StreamState,
    chunks: StreamChunks,
}

/// Finds streams by something other than the id. Few events change it, so one lock is enough.
#[derive(Default)]
struct MemoryIndex {
    paths: BTreeMap<StreamPath, StreamId>,
    /// Deadline and stream; soft-deleted streams without forks are due at once.
    deadlines: BTreeSet<(Timestamp, StreamId)>,
    forks: FxHashMap<StreamId, BTreeSet<StreamId>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore {
            streams: (0..SHARDS).map(|_| RwLock::default()).collect(),
            index: Mutex::default(),
            // Entity tags carry ids, and clients may keep them for longer than this store lives: after a restart
            // an id that a client may know must not name another stream.
            last_id: AtomicU64::new(fastrand::u64(..1 << 21) << 32),
            bytes: AtomicU64::new(0),
        }
    }
}

impl MemoryStore {
    fn shard(&self, id: StreamId) -> &RwLock<FxHashMap<StreamId, MemoryStream>> {
        let at = id.0 as usize % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "reduced to the number of shards")]
        &self.streams[at]
    }

    fn change(&self, id: StreamId, event: &StreamEvent) {
        let mut shard = self.shard(id).write();
        let Some(stream) = shard.get_mut(&id) else { return };
        if let StreamEvent::Appended(appended) = event {
            stream.chunks.push(stream.state.tail, appended.data.clone());
            self.bytes.fetch_add(appended.data.len() as u64, Ordering::Relaxed);
        }
        let before = stream.state.due_at();
        stream.state.apply(event);
        if matches!(event, StreamEvent::Trimmed(_)) {
            let freed = stream.chunks.trim(stream.state.first_kept());
            self.bytes.fetch_sub(freed, Ordering::Relaxed);
        }
        let after = stream.state.due_at();
        drop(shard);
        if before != after {
            let mut index = self.index.lock();
            before.map(|deadline| index.deadlines.remove(&(deadline, id)));
            after.map(|deadline| index.deadlines.insert((deadline, id)));
        }
    }

    fn delete(&self, id: StreamId) {
        let mut index = self.index.lock();
        let Some(stream) = self.shard(id).write().remove(&id) else { return };
        let core = &stream.state.core;
        if index.paths.get(&core.path) == Some(&id) {
            index.paths.remove(&core.path);
        }
        if let Some(deadline) = stream.state.due_at() {
            index.deadlines.remove(&(deadline, id));
        }
        if let Some(fork) = &core.fork
            && let Some(siblings) = index.forks.get_mut(&fork.source)
        {
            siblings.remove(&id);
            if siblings.is_empty() {
                index.forks.remove(&fork.source);
            }
        }
        self.bytes.fetch_sub(stream.chunks.len(), Ordering::Relaxed);
    }
}

impl Store for MemoryStore {
    fn next_id(&self) -> StreamId {
        StreamId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn epoch(&self) -> LogEpoch {
        LogEpoch(0)
    }

    async fn load(
        &self,
        path: &StreamPath,
        _: LoadFor,
    ) -> Result<Option<LoadedStream>, StoreError> {
        let index = self.index.lock();
        let Some(&id) = index.paths.get(path) else { return Ok(None) };
        let forks = index.forks.get(&id).map(|forks| forks.iter().copied().collect());
        let shard = self.shard(id).read();
        Ok(shard.get(&id).map(|stream| LoadedStream {
            state: without_producers(&stream.state),
            producers: stream.state.producers.len() as u64,
            forks: forks.unwrap_or_default(),
        }))
    }

    async fn producer(
        &self,
        id: StreamId,
        producer: &ProducerId,
    ) -> Result<Option<ProducerState>, StoreError> {
        let shard = self.shard(id).read();
        Ok(shard.get(&id).and_then(|stream| stream.state.producers.get(producer).copied()))
    }

    async fn producers(
        &self,
        id: StreamId,
        after: Option<&ProducerId>,
        max: usize,
    ) -> Result<Vec<(ProducerId, ProducerState)>, StoreError> {
        let shard = self.shard(id).read();
        let all = shard.get(&id).into_iter().flat_map(|stream| &stream.state.producers);
        let following = all.filter(|(id, _)| after.is_none_or(|after| *id > after));
        let mut page: Vec<_> = following.map(|(id, known)| (id.clone(), *known)).collect();
        page.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        page.truncate(max);
        Ok(page)
    }

    fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let Commit { id, event, .. } = commit;
        match &event {
            StreamEvent::Created(created) => {
                let state = StreamState::created(id, created);
                let mut index = self.index.lock();
                index.paths.insert(created.path.clone(), id);
                if let Some(fork) = &created.fork {
                    index.forks.entry(fork.source).or_default().insert(id);
                }
                if let Some(deadline) = state.due_at() {
                    index.deadlines.insert((deadline, id));
                }
                let mut chunks = StreamChunks::default();
                chunks.push(state.core.own_start(), created.data.clone());
                self.bytes.fetch_add(created.data.len() as u64, Ordering::Relaxed);
                self.shard(id).write().insert(id, MemoryStream { state, chunks });
            }
            StreamEvent::Deleted { .. } => self.delete(id),
            StreamEvent::Appended(_)
            | StreamEvent::Touched { .. }
            | StreamEvent::SoftDeleted { .. }
            | StreamEvent::Trimmed(_)
            | StreamEvent::ExpiryChanged { .. }
            | StreamEvent::Marked { .. } => self.change(id, &event),
        }
        Ok(Committed::Now)
    }

    fn commit_pair(&self, first: Commit, second: Commit) -> Result<Committed, StoreError> {
        self.commit(first)?;
        self.commit(second)
    }

    async fn throttle(&self) {}

    async fn read(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let shard = self.shard(id).read();
        let found = shard.get(&id).map(|stream| stream.chunks.read(from, to, max));
        Ok(found.unwrap_or_default())
    }

    async fn append_end(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        within: u64,
    ) -> Result<AppendEnd, StoreError> {
        let limit = from.advance(within);
        if to <= limit {
            return Ok(AppendEnd::At(to));
        }
        let shard = self.shard(id).read();
        let Some(stream) = shard.get(&id) else { return Ok(AppendEnd::Gone) };
        let state = &stream.state;
        if state.core.content_type.is_json() {
            return Ok(AppendEnd::Unknown);
        }
        let kept = from.position() >= state.first_kept().position();
        let end = kept.then(|| stream.chunks.append_end(from, to, limit)).flatten();
        Ok(end.map_or(AppendEnd::Gone, AppendEnd::At))
    }

    async fn due(&self, now: Timestamp, max: usize) -> Result<Vec<StreamPath>, StoreError> {
        let index = self.index.lock();
        let due = index.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        let due = due.filter_map(|(_, id)| {
            let shard = self.shard(*id).read();
            let state = &shard.get(id)?.state;
            state.is_due(index.forks.contains_key(id), now).then(|| state.core.path.clone())
        });
        Ok(due.take(max).collect())
    }

    async fn used_after(
        &self,
        time: Timestamp,
        from: DeadlineCursor,
        max: usize,
    ) -> Result<UsedAfter, StoreError> {
        let mut found = UsedAfter::default();
        let index = self.index.lock();
        for (examined, (deadline, id)) in
            index.deadlines.range((from.deadline, from.id)..).enumerate()
        {
            if examined == max {
                found.next = Some(DeadlineCursor { deadline: *deadline, id: *id });
                break;
            }
            let shard = self.shard(*id).read();
            let state = shard.get(id).map(|stream| &stream.state);
            found.paths.extend(
                state
                    .filter(|state| state.is_used_after(time))
                    .map(|state| state.core.path.clone()),
            );
        }
        Ok(found)
    }

    async fn list(
        &self,
        after: Option<&StreamPath>,
        max: usize,
    ) -> Result<Vec<StreamPath>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let index = self.index.lock();
        let paths = index.paths.range((from, Bound::Unbounded)).map(|(path, _)| path.clone());
        Ok(paths.take(max).collect())
    }

    async fn list_states(
        &self,
        from: Bound<&StreamPath>,
        prefix: &str,
        max: usize,
    ) -> Result<StoredPage, StoreError> {
        let index = self.index.lock();
        let inside = index.paths.range::<StreamPath, _>((from, Bound::Unbounded));
        let mut inside = inside.take_while(|(path, _)| path.as_str().starts_with(prefix));
        let mut streams = Vec::new();
        for (path, id) in inside.by_ref().take(max) {
            let shard = self.shard(*id).read();
            let Some(stream) = shard.get(id) else { continue };
            let state = without_producers(&stream.state);
            let forks = index.forks.get(id).map_or(0, BTreeSet::len);
            streams.push(StoredStream { path: path.clone(), state: Ok(state), forks });
        }
        Ok(StoredPage { streams, more: inside.next().is_some() })
    }

    async fn state_of(&self, id: StreamId) -> Result<Option<StreamState>, StoreError> {
        Ok(self.shard(id).read().get(&id).map(|stream| without_producers(&stream.state)))
    }

    fn writable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn stats(&self) -> StoreStats {
        StoreStats {
            streams: self.index.lock().paths.len() as u64,
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn disk_stats(&self) -> Option<DiskStats> {
        None
    }

    async fn close(&self) {}
}

/// A copy of a state for a cell, which looks producers up one by one.
fn without_producers(state: &StreamState) -> StreamState {
    StreamState {
        core: state.core.clone(),
        tail: state.tail,
        events: state.events,
        delimited_from: state.delimited_from,
        closed: state.closed.clone(),
        stream_seq: state.stream_seq.clone(),
        touched: state.touched,
        soft_deleted: state.soft_deleted,
        earliest: state.earliest,
        kept: state.kept,
        created: state.created,
        appended: state.appended,
        messages: state.messages,
        messages_before: state.messages_before,
        marks: state.marks.clone(),
        producers: HashMap::new(),
    }
}
