//! What the engine needs of a store.

use std::ops::Bound;

use bytes::Bytes;
use durable_streams_protocol::{
    Offset, ProducerId, ProducerState, StreamId, StreamPath, StreamState, Timestamp,
};

use super::{
    commit::{Commit, Committed, EventPlace, LogEpoch},
    error::StoreError,
    file_part::{FilePart, MessageForm, StoredPiece},
    stats::{DiskStats, StoreStats},
};

/// Makes events durable, and returns what is.
///
/// # Contract
/// - Events of one stream become durable in the order in which they were committed, all of an event or none of it.
/// - [`commit`](Self::commit) queues and returns; [`committed`](super::CommitSink::committed) of the commit's sink is
///   called once the event, and every event before it, is durable. Neither blocks on I/O, and `commit` takes no lock of
///   the caller.
/// - [`load`](Self::load), [`producer`](Self::producer), [`read`](Self::read), [`due`](Self::due) and
///   [`list`](Self::list) return durable state only, and all durable state from the moment its sink was called.
/// - When queued events are lost to an error (a full disk), the log epoch advances: every queued event fails, and a
///   commit with an older epoch is refused as [`StoreError::Superseded`]. So no event becomes durable whose predecessor
///   did not. The caller loads the stream again and decides again.
/// - After a failed sync nothing is accepted any more ([`StoreError::Poisoned`]); reads go on.
/// - The bytes of a deleted stream stay readable until reads that began before have ended; its path is free at once.
pub trait Store: Send + Sync + 'static {
    /// An id that no stream has had.
    fn next_id(&self) -> StreamId;

    /// The present log epoch.
    fn epoch(&self) -> LogEpoch;

    /// The stream at a path, soft-deleted ones included.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn load(
        &self,
        path: &StreamPath,
        purpose: LoadFor,
    ) -> impl Future<Output = Result<Option<LoadedStream>, StoreError>> + Send;

    /// The stream at a path whose state is damaged, if it can be deleted all the same: no fork needs its bytes.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it cannot be deleted, and [`StoreError::Io`].
    fn damaged(
        &self,
        _path: &StreamPath,
    ) -> impl Future<Output = Result<Option<DamagedStream>, StoreError>> + Send {
        std::future::ready(Ok(None))
    }

    /// What stream `id` remembers of a producer.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn producer(
        &self,
        id: StreamId,
        producer: &ProducerId,
    ) -> impl Future<Output = Result<Option<ProducerState>, StoreError>> + Send;

    /// The producers of stream `id` after `after` in byte order of their ids; at most `max`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn producers(
        &self,
        id: StreamId,
        after: Option<&ProducerId>,
        max: usize,
    ) -> impl Future<Output = Result<Vec<(ProducerId, ProducerState)>, StoreError>> + Send;

    /// Queues an event. Commits of one stream become durable in call order.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], [`StoreError::Poisoned`], [`StoreError::Closed`]; the event is not queued.
    fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;

    /// Queues two events of different streams that become durable together: beside each other in the order of all events,
    /// and after a crash both are there or neither. The second may use room that is kept for events like the first.
    ///
    /// # Errors
    /// As [`commit`](Self::commit); neither is queued then.
    fn commit_pair(&self, first: Commit, second: Commit) -> Result<Committed, StoreError>;

    /// Waits while more is committed than the store can put away. Callers await it before `commit`, without any lock.
    /// It returns at once almost always.
    fn throttle(&self) -> impl Future<Output = ()> + Send;

    /// Own bytes of stream `id` from `from`, at most to `to` and at most `max`: whole pieces of memory, shared, not
    /// copied. Empty only when there are none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn read(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Bytes>, StoreError>> + Send;

    /// The part of a file that has own bytes of stream `id` in this form, from `from`, at most to `to` and at most `max`, for a
    /// caller that can send it without a copy. It is in memory (the page cache), so sending it does not wait for a disk. `None` where
    /// those bytes are to be [`read`](Self::read).
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn file_part(
        &self,
        _id: StreamId,
        _from: Offset,
        _to: Offset,
        _max: usize,
        _form: MessageForm,
    ) -> impl Future<Output = Result<Option<FilePart>, StoreError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Own bytes of stream `id` from `from` to at most `to`: a [`file_part`](Self::file_part) in this form of at most
    /// `part` bytes, or what [`read`](Self::read) returns of at most `max` bytes.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn read_or_part(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
        _part: usize,
        _form: MessageForm,
    ) -> impl Future<Output = Result<StoredPiece, StoreError>> + Send
    where
        Self: Sync,
    {
        async move { self.read(id, from, to, max).await.map(StoredPiece::Bytes) }
    }

    /// The first range of stream `id` that ends after `from` and begins before `to` and whose bytes `repair` has dropped
    /// because they were damaged: readers go on behind it.
    fn dropped(&self, _id: StreamId, _from: Offset, _to: Offset) -> Option<(Offset, Offset)> {
        None
    }

    /// Where a page of whole appends ends that begins at `from` and has about `within` bytes: the end of the last append
    /// of stream `id` that ends after `from` and at most `within` bytes after it, or else the end of the first append
    /// that ends later. `to` bounds the result and counts as an append's end: it is the durable tail, or the position
    /// where a fork leaves the stream, `from` being less.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn append_end(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        within: u64,
    ) -> impl Future<Output = Result<AppendEnd, StoreError>> + Send;

    /// Paths of streams that [`StreamState::is_due`], at most `max`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn due(
        &self,
        now: Timestamp,
        max: usize,
    ) -> impl Future<Output = Result<Vec<StreamPath>, StoreError>> + Send;

    /// Examines streams that expire, in the order of their deadlines from `from` on, at most `max` of them. Returns those
    /// with a TTL that were last used after `time`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn used_after(
        &self,
        time: Timestamp,
        from: DeadlineCursor,
        max: usize,
    ) -> impl Future<Output = Result<UsedAfter, StoreError>> + Send;

    /// Paths after `after` in byte order, soft-deleted streams included; at most `max`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn list(
        &self,
        after: Option<&StreamPath>,
        max: usize,
    ) -> impl Future<Output = Result<Vec<StreamPath>, StoreError>> + Send;

    /// Streams from `from` on whose paths begin with `prefix`, in byte order, at most `max`: their states, without their
    /// producers, from one moment. For the list of the administration API, which reads many and keeps none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`]; a stream whose own record is damaged is in the list, with the error.
    fn list_states(
        &self,
        from: Bound<&StreamPath>,
        prefix: &str,
        max: usize,
    ) -> impl Future<Output = Result<StoredPage, StoreError>> + Send;

    /// The state of a stream by its id, without its producers.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn state_of(
        &self,
        id: StreamId,
    ) -> impl Future<Output = Result<Option<StreamState>, StoreError>> + Send;

    /// Where a stream's own bytes lie. `None` for a store without an index, and for a stream that it does not have yet.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    fn places(
        &self,
        _id: StreamId,
    ) -> impl Future<Output = Result<Option<BytePlaces>, StoreError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Whether the store can be used now.
    ///
    /// # Errors
    /// Why not: [`StoreError::Full`], [`StoreError::Poisoned`], [`StoreError::Closed`], or the index's failure.
    fn writable(&self) -> Result<(), StoreError>;

    /// Totals of what the store holds.
    fn stats(&self) -> StoreStats;

    /// Counters of log and index; `None` for a store without them.
    fn disk_stats(&self) -> Option<DiskStats>;

    /// Writes what is queued and ends background work. Commits are refused from now on.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A place among the streams that expire, in the order of their deadlines; the default is before all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadlineCursor {
    pub(super) deadline: Timestamp,
    pub(super) id: StreamId,
}

impl Default for DeadlineCursor {
    fn default() -> Self {
        DeadlineCursor { deadline: Timestamp::default(), id: StreamId(0) }
    }
}

/// Some of the streams that were last used after a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsedAfter {
    /// Their paths.
    pub paths: Vec<StreamPath>,
    /// Where to go on; `None` at the end.
    pub next: Option<DeadlineCursor>,
}

/// Where a stream's own bytes lie on disk. Those behind both positions are in the log, and in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BytePlaces {
    /// Up to which position sealed segments have them; `None` when nothing of the stream is sealed.
    pub sealed_to: Option<Offset>,
    /// Up to which position the index has those that are not sealed.
    pub indexed_to: Offset,
}

/// What a store knows of the end of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendEnd {
    /// It is there.
    At(Offset),
    /// Appends are not known there: those of JSON streams, whose messages delimit themselves, and those that format 1 stored.
    Unknown,
    /// The bytes there were trimmed, or deleted with their stream, since the caller looked.
    Gone,
}

/// What a stream is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadFor {
    /// Only its state.
    State,
    /// Its bytes will be read next.
    Bytes,
}

/// A stream that can only be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedStream {
    /// Its id.
    pub id: StreamId,
    /// Where its deletion belongs.
    pub place: EventPlace,
}

/// Streams in the order of their paths.
#[derive(Clone, Debug, Default)]
pub struct StoredPage {
    /// The streams.
    pub streams: Vec<StoredStream>,
    /// There may be more streams.
    pub more: bool,
}

/// One stream of a [`StoredPage`].
#[derive(Clone, Debug)]
pub struct StoredStream {
    /// Its path.
    pub path: StreamPath,
    /// Its durable state without its producers, or why it cannot be read.
    pub state: Result<StreamState, StoreError>,
    /// The number of its forks.
    pub forks: usize,
}

/// A stream as stored.
#[derive(Clone, Debug)]
pub struct LoadedStream {
    /// Its durable state, with some of its producers or none: [`Store::producer`] has all.
    pub state: StreamState,
    /// How many producers it has.
    pub producers: u64,
    /// Streams whose `Created` event names this one as source and that are not deleted.
    pub forks: Vec<StreamId>,
}
