//! A store under test: commits that wait, events in short, and a model of what must be there.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, AppendEnd, Commit, CommitSink, Committed, EventPlace, FileStore, FileStoreOptions,
    LoadFor, LoadedStream, LogEpoch, MemoryStore, Store, StoreError, file::SegmentOptions,
};
use durable_streams_protocol::{
    Appended, ContentType, Created, Expiry, ForkPoint, Offset, Producer, ProducerId, StreamEvent,
    StreamId, StreamPath, StreamSeq, StreamState, Timestamp, count_messages,
};
use parking_lot::{Condvar, Mutex};

pub use super::wait::wait;

/// A directory in memory where there is one, since simulations sync a lot.
pub fn tempdir() -> tempfile::TempDir {
    // scripts/mutants kills tests, and removes the folder that it has named.
    let named = std::env::var_os("TEST_MEMORY_DIR");
    let memory = named.as_deref().map_or(Path::new("/dev/shm"), Path::new);
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

/// Seeds to run: as many as the variable says, or the range that it gives, or `usual`.
pub fn seeds(variable: &str, usual: u64) -> Range<u64> {
    let Ok(asked) = std::env::var(variable) else { return 0..usual };
    match asked.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => 0..asked.parse().unwrap(),
    }
}

/// Options for tests: small, and no checkpoint unless asked for.
pub fn options(dir: &Path) -> FileStoreOptions {
    FileStoreOptions {
        map_size: 64 << 20,
        checkpoint_interval: Duration::from_secs(3600),
        wal_segment: 64 << 10,
        segments: None,
        ..FileStoreOptions::new(dir)
    }
}

/// The same, and nearly everything is sealed, in tiny segments.
pub fn sealing(dir: &Path) -> FileStoreOptions {
    let segments = SegmentOptions {
        min: 300,
        keep: 50,
        size: 1000,
        idle: Duration::ZERO,
        share: 1,
        ahead: 400,
        arrays_from: 1,
        ..SegmentOptions::DEFAULT
    };
    FileStoreOptions { segments: Some(segments), ..options(dir) }
}

pub fn memory() -> AnyStore {
    AnyStore::Memory(MemoryStore::default())
}

pub fn file(dir: &Path) -> AnyStore {
    AnyStore::File(FileStore::open(options(dir)).unwrap())
}

/// Folds the log into the index, for a store that has both.
pub fn checkpoint(store: &AnyStore) {
    if let AnyStore::File(file) = store {
        file.checkpoint().unwrap();
    }
}

/// Removes what was deleted and trimmed, for a store that does so later.
pub fn maintain(store: &AnyStore) {
    if let AnyStore::File(file) = store {
        file.maintain();
    }
}

/// Gives back memory, for a store that keeps some.
pub fn rest(store: &AnyStore) {
    if let AnyStore::File(file) = store {
        file.release_idle_memory();
    }
}

/// Records what became of commits.
#[derive(Default)]
pub struct Sink {
    told: Mutex<Vec<Result<u64, (u64, StoreError)>>>,
    news: Condvar,
}

impl CommitSink for Sink {
    fn committed(&self, version: u64) {
        self.told.lock().push(Ok(version));
        self.news.notify_all();
    }

    fn failed(&self, version: u64, error: StoreError) {
        self.told.lock().push(Err((version, error)));
        self.news.notify_all();
    }
}

impl Sink {
    pub fn told(&self) -> Vec<Result<u64, (u64, StoreError)>> {
        self.told.lock().clone()
    }

    /// Waits until a version is committed, or one fails.
    pub fn wait_for(&self, version: u64) -> Result<(), StoreError> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut told = self.told.lock();
        loop {
            for news in told.iter() {
                match news {
                    Ok(committed) if *committed >= version => return Ok(()),
                    Err((failed, error)) if *failed == version => return Err(error.clone()),
                    _ => {}
                }
            }
            assert!(!self.news.wait_until(&mut told, deadline).timed_out(), "no news of {version}");
        }
    }
}

/// Commits one event and waits until it is durable.
pub fn commit(store: &AnyStore, id: StreamId, event: StreamEvent) -> Result<(), StoreError> {
    commit_at(store, store.epoch(), id, event)
}

pub fn commit_at(
    store: &AnyStore,
    epoch: LogEpoch,
    id: StreamId,
    event: StreamEvent,
) -> Result<(), StoreError> {
    let sink = Arc::new(Sink::default());
    let place = place(store, id, &event);
    let commit = Commit { id, event, place, epoch, version: 1, sink: sink.clone() };
    match store.commit(commit)? {
        Committed::Now => Ok(()),
        Committed::Queued => sink.wait_for(1),
    }
}

/// Where the next event of a stream belongs, all others being durable.
pub fn place(store: &AnyStore, id: StreamId, event: &StreamEvent) -> EventPlace {
    thread_local! {
        static PATHS: RefCell<HashMap<StreamId, StreamPath>> = RefCell::default();
    }
    if let StreamEvent::Created(created) = event {
        PATHS.with_borrow_mut(|paths| paths.insert(id, created.path.clone()));
        return EventPlace::of_creation(created);
    }
    let state = |path: &StreamPath| {
        let found = wait(store.load(path, LoadFor::State)).ok().flatten();
        found.map(|found| found.state).filter(|state| state.core.id == id)
    };
    let known = PATHS.with_borrow(|paths| paths.get(&id).cloned());
    let found = known.as_ref().and_then(state).or_else(|| {
        let paths = wait(store.list(None, usize::MAX)).unwrap_or_default();
        paths.iter().find_map(state)
    });
    found.as_ref().map_or_else(EventPlace::default, EventPlace::behind)
}

pub fn path(text: &str) -> StreamPath {
    StreamPath::new(text).unwrap()
}

pub fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub fn created(text: &str, data: &str) -> Created {
    Created {
        at: at(1),
        path: path(text),
        content_type: ContentType::default(),
        expiry: Expiry::Never,
        expiry_inherited: false,
        fork: None,
        incarnation: 0,
        closed: false,
        public: false,
        earliest: Offset::ZERO,
        data: Bytes::copy_from_slice(data.as_bytes()),
    }
}

pub fn appended(data: &[u8]) -> Appended {
    Appended {
        at: at(2),
        data: Bytes::copy_from_slice(data),
        terminators: count_messages(data) as u64,
        producer: None,
        stream_seq: None,
        close: false,
    }
}

pub fn producer(id: &str, epoch: u64, seq: u64) -> Producer {
    Producer { id: ProducerId::new(id).unwrap(), epoch, seq }
}

pub fn stream_seq(text: &str) -> StreamSeq {
    StreamSeq::new(text).unwrap()
}

pub fn fork_of(source: &LoadedStream, position: u64) -> ForkPoint {
    let position = Offset::new(position);
    ForkPoint {
        source: source.state.core.id,
        source_path: source.state.core.path.clone(),
        position,
        requested: None,
        sub_offset: 0,
        ancestors: source.state.core.ancestors_up_to(position),
    }
}

/// Creates a stream and gives its id.
pub fn create(store: &AnyStore, created: Created) -> StreamId {
    let id = store.next_id();
    commit(store, id, StreamEvent::Created(Box::new(created))).unwrap();
    id
}

pub fn append(store: &AnyStore, id: StreamId, data: &[u8]) {
    commit(store, id, StreamEvent::Appended(appended(data))).unwrap();
}

/// The stream at a path, with all its producers.
pub fn load(store: &AnyStore, text: &str) -> Option<LoadedStream> {
    let mut found = wait(store.load(&path(text), LoadFor::State)).unwrap()?;
    add_producers(store, &mut found);
    Some(found)
}

/// Adds a stream's producers to its state, in small pages.
pub fn add_producers(store: &AnyStore, found: &mut LoadedStream) {
    let (id, counted) = (found.state.core.id, found.producers);
    let mut after = None;
    loop {
        let page = wait(store.producers(id, after.as_ref(), 3)).unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (producer, known) in page {
            assert_eq!(wait(store.producer(id, &producer)).unwrap(), Some(known), "{producer:?}");
            found.state.producers.insert(producer, known);
        }
    }
    assert_eq!(found.state.producers.len() as u64, counted, "producers of {:?}", found.state.core);
}

/// All own bytes that a stream keeps, read in windows of `window` bytes.
pub fn read_all(store: &AnyStore, state: &StreamState, window: usize) -> Vec<u8> {
    let mut at = state.first_kept();
    let mut all = Vec::new();
    while at < state.tail {
        let pieces = wait(store.read(state.core.id, at, state.tail, window)).unwrap();
        let got: usize = pieces.iter().map(Bytes::len).sum();
        assert!(got > 0, "nothing at {at} although the tail is {}", state.tail);
        assert!(got <= window, "{got} bytes in a window of {window}");
        pieces.iter().for_each(|piece| all.extend_from_slice(piece));
        at = at.advance(got as u64);
    }
    all
}

/// Compares what a store answers about pages of whole appends with the ends of all appends, the last one the tail.
pub fn check_ends(
    store: &AnyStore,
    id: StreamId,
    ends: &[u64],
    froms: impl Iterator<Item = u64>,
    withins: &[u64],
) {
    let tail = *ends.last().unwrap();
    for from in froms.filter(|from| *from < tail) {
        for within in withins {
            let limit = from.saturating_add(*within);
            let last = ends.iter().rev().find(|end| **end > from && **end <= limit);
            let expected = last.or(ends.iter().find(|end| **end > limit)).copied().map(Offset::new);
            let found = wait(store.append_end(id, Offset::new(from), Offset::new(tail), *within));
            let expected = expected.map_or(AppendEnd::Unknown, AppendEnd::At);
            assert_eq!(found.unwrap(), expected, "{within} bytes from {from} of {tail}");
        }
    }
}

/// What must be there: the same events, folded by the protocol itself.
#[derive(Clone, Default)]
pub struct Model {
    pub streams: BTreeMap<StreamId, (StreamState, Vec<u8>)>,
    /// Where the appends of each stream end.
    pub ends: BTreeMap<StreamId, Vec<u64>>,
}

impl Model {
    pub fn apply(&mut self, id: StreamId, event: &StreamEvent) {
        let (state, mut bytes) = self.streams.remove(&id).unzip();
        if let Some(state) = StreamState::fold(state, id, event) {
            let bytes = bytes.get_or_insert_default();
            bytes.extend_from_slice(event.data().map_or(&[], |data| data));
            if event.data().is_some_and(|data| !data.is_empty()) {
                self.ends.entry(id).or_default().push(state.tail.position());
            }
            self.streams.insert(id, (state, std::mem::take(bytes)));
        } else {
            self.ends.remove(&id);
        }
    }

    /// Compares what the store knows of the ends of a stream's appends with the appends made.
    fn check_ends(&self, store: &AnyStore, state: &StreamState) -> Result<(), String> {
        let Some(ends) = self.ends.get(&state.core.id) else { return Ok(()) };
        let (start, tail) = (state.first_kept().position(), state.tail.position());
        if start == tail {
            return Ok(());
        }
        let json = state.core.content_type.is_json();
        for (part, within) in [(0, 0), (1, 200), (2, 1), (3, 20_000), (4, 50), (5, 200)] {
            let from = start + (tail - start) * part / 6;
            let limit = from + within;
            let last = ends.iter().rev().find(|end| **end > from && **end <= limit);
            let expected = last.or(ends.iter().find(|end| **end > limit)).copied().map(Offset::new);
            let expected = expected.filter(|_| !json || tail <= limit);
            let expected = expected.map_or(AppendEnd::Unknown, AppendEnd::At);
            let found =
                wait(store.append_end(state.core.id, Offset::new(from), state.tail, within));
            same(&format!("append's end {within} after {from}"), &found.unwrap(), &expected)?;
        }
        Ok(())
    }

    /// What a fork inherits is there from its earliest position on, whatever was trimmed of its source.
    fn check_inherited(&self, store: &AnyStore, fork: &StreamState) -> Result<(), String> {
        let mut at = fork.earliest;
        while at < fork.core.own_start() {
            let (holder, until) = fork.core.holder_of(at, fork.tail);
            let pieces = wait(store.read(holder, at, until, 5000)).unwrap().concat();
            let (source, bytes) = &self.streams[&holder];
            let from = (at.position() - source.core.own_start().position()) as usize;
            if pieces.is_empty() || pieces != bytes[from..from + pieces.len()] {
                return Err(format!("what {} inherits at {at} differs", fork.core.path));
            }
            at = at.advance(pieces.len() as u64);
        }
        Ok(())
    }

    pub fn forks(&self, source: StreamId) -> Vec<StreamId> {
        let of = |state: &StreamState| state.core.fork.as_ref().map(|fork| fork.source);
        let forks = self.streams.iter().filter(|(_, (state, _))| of(state) == Some(source));
        forks.map(|(id, _)| *id).collect()
    }

    /// Compares everything a store shows with what must be there.
    pub fn check(&self, store: &AnyStore) -> Result<(), String> {
        let mut paths: Vec<_> =
            self.streams.values().map(|(state, _)| state.core.path.clone()).collect();
        paths.sort();
        same("list", &wait(store.list(None, usize::MAX)).unwrap(), &paths)?;
        same("number of streams", &store.stats().streams, &(paths.len() as u64))?;
        for (id, (state, bytes)) in &self.streams {
            let path = &state.core.path;
            // What is loaded to be read may be kept in memory.
            let purpose = if id.0 % 3 == 0 { LoadFor::State } else { LoadFor::Bytes };
            let Some(mut loaded) = wait(store.load(path, purpose)).unwrap() else {
                return Err(format!("{path} is gone"));
            };
            loaded.forks.sort_unstable();
            add_producers(store, &mut loaded);
            same("state", &loaded.state, state)?;
            same(&format!("forks of {path}"), &loaded.forks, &self.forks(*id))?;
            let trimmed = state.first_kept().position() - state.core.own_start().position();
            if read_all(store, state, 5000) != bytes[trimmed as usize..] {
                return Err(format!("the bytes of {path} differ"));
            }
            self.check_inherited(store, state)?;
            self.check_ends(store, state)?;
        }
        for now in [0, 500, 1_000_000_000] {
            let mut due = wait(store.due(at(now), usize::MAX)).unwrap();
            due.sort();
            let is_due = |state: &StreamState| {
                if state.soft_deleted {
                    self.forks(state.core.id).is_empty()
                } else {
                    state.is_expired(at(now))
                }
            };
            let mut expected: Vec<_> = self.streams.values().map(|(state, _)| state).collect();
            expected.retain(|state| is_due(state));
            let mut expected: Vec<_> = expected.iter().map(|s| s.core.path.clone()).collect();
            expected.sort();
            same(&format!("due at {now}"), &due, &expected)?;
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Result<(), String> {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what}: there is {got:?}\n  but should be {expected:?}"))
}
