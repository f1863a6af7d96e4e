//! One of the two stores. An enum, not a trait object: reads and commits are hot.

use std::ops::Bound;

use bytes::Bytes;
use durable_streams_protocol::{
    Offset, ProducerId, ProducerState, StreamId, StreamPath, StreamState, Timestamp,
};

use super::{
    AppendEnd, BytePlaces, Commit, Committed, DamagedStream, DeadlineCursor, DiskStats, FilePart,
    FileStore, LoadFor, LoadedStream, LogEpoch, MemoryStore, MessageForm, Store, StoreError,
    StoreStats, StoredPage, StoredPiece, UsedAfter,
};

/// Any of the stores.
pub enum AnyStore {
    /// In memory; nothing survives the process.
    Memory(MemoryStore),
    /// On disk; what is acknowledged survives.
    File(FileStore),
}

impl AnyStore {
    /// Whether bytes of streams may be in an object store.
    pub(crate) fn reads_objects(&self) -> bool {
        match self {
            AnyStore::Memory(_) => false,
            AnyStore::File(store) => store.reads_objects(),
        }
    }
}

/// Calls a method on whichever store it is.
macro_rules! each {
    ($any:expr, $store:ident => $call:expr) => {
        match $any {
            AnyStore::Memory($store) => $call,
            AnyStore::File($store) => $call,
        }
    };
}

impl Store for AnyStore {
    fn next_id(&self) -> StreamId {
        each!(self, store => store.next_id())
    }

    fn epoch(&self) -> LogEpoch {
        each!(self, store => store.epoch())
    }

    async fn load(
        &self,
        path: &StreamPath,
        purpose: LoadFor,
    ) -> Result<Option<LoadedStream>, StoreError> {
        each!(self, store => store.load(path, purpose).await)
    }

    async fn damaged(&self, path: &StreamPath) -> Result<Option<DamagedStream>, StoreError> {
        each!(self, store => store.damaged(path).await)
    }

    async fn producer(
        &self,
        id: StreamId,
        producer: &ProducerId,
    ) -> Result<Option<ProducerState>, StoreError> {
        each!(self, store => store.producer(id, producer).await)
    }

    async fn producers(
        &self,
        id: StreamId,
        after: Option<&ProducerId>,
        max: usize,
    ) -> Result<Vec<(ProducerId, ProducerState)>, StoreError> {
        each!(self, store => store.producers(id, after, max).await)
    }

    fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        each!(self, store => store.commit(commit))
    }

    fn commit_pair(&self, first: Commit, second: Commit) -> Result<Committed, StoreError> {
        each!(self, store => store.commit_pair(first, second))
    }

    async fn throttle(&self) {
        each!(self, store => store.throttle().await)
    }

    async fn read(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        each!(self, store => store.read(id, from, to, max).await)
    }

    async fn file_part(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
        form: MessageForm,
    ) -> Result<Option<FilePart>, StoreError> {
        each!(self, store => store.file_part(id, from, to, max, form).await)
    }

    async fn read_or_part(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
        part: usize,
        form: MessageForm,
    ) -> Result<StoredPiece, StoreError> {
        each!(self, store => store.read_or_part(id, from, to, max, part, form).await)
    }

    fn dropped(&self, id: StreamId, from: Offset, to: Offset) -> Option<(Offset, Offset)> {
        each!(self, store => store.dropped(id, from, to))
    }

    async fn append_end(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        within: u64,
    ) -> Result<AppendEnd, StoreError> {
        each!(self, store => store.append_end(id, from, to, within).await)
    }

    async fn due(&self, now: Timestamp, max: usize) -> Result<Vec<StreamPath>, StoreError> {
        each!(self, store => store.due(now, max).await)
    }

    async fn used_after(
        &self,
        time: Timestamp,
        from: DeadlineCursor,
        max: usize,
    ) -> Result<UsedAfter, StoreError> {
        each!(self, store => store.used_after(time, from, max).await)
    }

    async fn list(
        &self,
        after: Option<&StreamPath>,
        max: usize,
    ) -> Result<Vec<StreamPath>, StoreError> {
        each!(self, store => store.list(after, max).await)
    }

    async fn list_states(
        &self,
        from: Bound<&StreamPath>,
        prefix: &str,
        max: usize,
    ) -> Result<StoredPage, StoreError> {
        each!(self, store => store.list_states(from, prefix, max).await)
    }

    async fn state_of(&self, id: StreamId) -> Result<Option<StreamState>, StoreError> {
        each!(self, store => store.state_of(id).await)
    }

    async fn places(&self, id: StreamId) -> Result<Option<BytePlaces>, StoreError> {
        each!(self, store => store.places(id).await)
    }

    fn writable(&self) -> Result<(), StoreError> {
        each!(self, store => store.writable())
    }

    fn stats(&self) -> StoreStats {
        each!(self, store => store.stats())
    }

    fn disk_stats(&self) -> Option<DiskStats> {
        each!(self, store => store.disk_stats())
    }

    async fn close(&self) {
        each!(self, store => store.close().await)
    }
}
