//! Any history of one client at a time, step by step against the model.

use std::sync::Arc;

use durable_streams_engine::store::{AnyStore, Store};
use durable_streams_engine::{Engine, ManualClock, TailWatch};
use durable_streams_protocol::{
    Append, ContentType, Create, Offset, ReadFrom, Rejection, StreamPath,
};
use proptest::prelude::*;

use crate::{
    model::{Code, Model, Stream},
    ops::{Op, PATHS, Place, history},
    stores::{StoreKind, engine},
};

/// Engine and model side by side.
struct Pair {
    engine: Arc<Engine>,
    clock: ManualClock,
    _dir: Box<dyn std::any::Any + Send>,
    model: Model,
    /// Live readers, each with the stream it watches.
    watches: Vec<(usize, TailWatch)>,
    appends: Vec<(&'static str, Append, Vec<u8>)>,
}

fn path(text: &str) -> StreamPath {
    StreamPath::new(text).unwrap()
}

fn code<T>(result: Result<T, Rejection>) -> Result<T, Code> {
    result.map_err(|rejection| rejection.code())
}

impl Pair {
    fn new(kind: StoreKind, max_read: usize) -> Self {
        let (engine, clock, _dir) = engine(kind, max_read);
        let model = Model { now: engine.now().millis(), ..Model::default() };
        Pair { engine, clock, _dir, model, watches: Vec::new(), appends: Vec::new() }
    }

    async fn step(&mut self, op: Op) {
        match op {
            Op::Create(at, create, body) => self.create(at, create, body).await,
            Op::Fork(at, mut create, place, body) => {
                let fork = create.fork.as_mut().unwrap();
                let source = self.model.at(fork.source.as_str());
                let bytes = source.map_or(&[][..], |id| &self.model.streams[id].bytes);
                fork.offset = place.map(|place| place.resolve(bytes));
                if let (Some(at), Ok(view)) = (fork.offset, self.engine.head(&fork.source).await) {
                    fork.offset = Some(view.core.offset_at(at.position()));
                }
                // Half of the forks leave the type to the source.
                if fork.sub_offset != 2 {
                    create.content_type = None;
                }
                self.create(at, create, body).await;
            }
            Op::Append(at, mut append, body) => {
                // A type of the stream's own, unless the step was made to have none or the text type.
                if let (Some(id), Some(Ok(given))) = (self.model.at(at), &append.content_type)
                    && given.as_str() != "text/plain"
                {
                    append.content_type =
                        ContentType::parse(&self.model.streams[id].content_type).map(Ok);
                }
                self.appends.push((at, append.clone(), body.clone()));
                self.append(at, append, body).await;
            }
            Op::Retry(back) => {
                if let Some((at, append, body)) = self.appends.iter().rev().nth(back).cloned() {
                    self.append(at, append, body).await;
                }
            }
            Op::Delete(at) => {
                let done = code(self.engine.delete(&path(at)).await);
                assert_eq!(done, self.model.delete(at), "delete");
            }
            Op::Read(at, place, max) => self.read(at, place, max).await,
            Op::Head(at) => {
                let seen = code(self.engine.head(&path(at)).await);
                let expected = self.model.visible(at).map(|id| self.model.streams[id].tail());
                assert_eq!(seen.map(|view| view.tail.offset.position()), expected, "head");
            }
            Op::Trim(at, place) => {
                let bytes = self.model.at(at).map_or(&[][..], |id| &self.model.streams[id].bytes);
                let before = place.resolve(bytes);
                let view = self.engine.head(&path(at)).await;
                let known = view.map_or(before, |view| view.core.offset_at(before.position()));
                let done = code(self.engine.trim(&path(at), known).await);
                let expected = self.model.trim(at, before.position() as usize);
                assert_eq!(done.map(Offset::position), expected, "trim");
            }
            Op::ChangeExpiry(at, expiry) => {
                let done = code(self.engine.change_expiry(&path(at), expiry).await);
                assert_eq!(done, self.model.change_expiry(at, expiry), "change_expiry");
            }
            Op::Watch(at) => {
                let seen = code(self.engine.open_live(&path(at)).await);
                let expected = self.model.watch(at);
                assert_eq!(seen.as_ref().err(), expected.as_ref().err(), "open_live");
                if let (Ok((_, watch)), Ok(id)) = (seen, expected) {
                    self.watches.push((id, watch));
                }
            }
            Op::Unwatch => {
                for (id, watch) in self.watches.drain(..) {
                    drop(watch);
                    self.model.unwatch(id);
                }
            }
            Op::Advance(millis) => self.advance(millis),
            Op::Sweep => {
                self.engine.sweep_due().await;
                self.model.sweep();
            }
            Op::Idle => self.idle().await,
        }
    }

    fn advance(&mut self, millis: u64) {
        self.clock.advance_millis(millis);
        self.model.now += millis;
    }

    async fn create(&mut self, at: &str, create: Create, body: Vec<u8>) {
        let done = code(self.engine.create(&path(at), &create, body.clone().into()).await);
        assert_eq!(done, self.model.create(at, &create, &body), "create");
    }

    async fn append(&mut self, at: &str, append: Append, body: Vec<u8>) {
        let done = code(self.engine.append(&path(at), &append, body.clone().into()).await);
        assert_eq!(done, self.model.append(at, &append, &body), "append");
    }

    /// Reads one window, then all the rest by following the end of each.
    async fn read(&mut self, at: &str, place: Place, max: usize) {
        let view = code(self.engine.open(&path(at)).await);
        let expected = self.model.open(at);
        assert_eq!(view.as_ref().err(), expected.as_ref().err(), "open");
        let (Ok(view), Ok(id)) = (view, expected) else { return };
        let stream = &self.model.streams[id];
        assert_eq!(view.tail.offset.position(), stream.tail(), "tail");
        assert_eq!(view.tail.closed, stream.closed.is_some(), "closed");
        assert_eq!(view.core.content_type.as_str(), stream.content_type);
        assert_eq!(view.tail.earliest.position(), stream.earliest as u64, "earliest");
        let mut from = place.resolve(&stream.bytes);
        if from < view.tail.earliest {
            let asked = ReadFrom::At(view.core.offset_at(from.position()));
            assert_eq!(code(view.start(asked)), Err("offset-trimmed"));
            from = view.start(ReadFrom::Start).unwrap();
        }
        let begin = from.position() as usize;
        let mut read = Vec::new();
        loop {
            let window = code(self.engine.read(&view.core, from, view.tail.offset, max).await);
            if begin > stream.bytes.len() {
                assert_eq!(window, Err("offset-beyond-tail"));
                return;
            }
            if !stream.boundary(begin) {
                assert_eq!(window, Err("offset-inside-message"));
                return;
            }
            let slice = window.unwrap();
            let bytes = slice.chunks.concat();
            assert_eq!(
                slice.end,
                from.advance(bytes.len() as u64),
                "a window ends where its bytes end"
            );
            assert!(stream.boundary(slice.end.position() as usize), "a window ends at a boundary");
            let at_tail = from == view.tail.offset;
            assert_eq!(bytes.is_empty(), at_tail, "a window is empty at the tail only");
            if stream.json() {
                let first = bytes.iter().position(|b| *b == durable_streams_protocol::MESSAGE_END);
                assert!(
                    at_tail || bytes.len() <= max || first.unwrap() >= max,
                    "larger than asked for"
                );
            } else {
                let end = stream.page_end(from.position() as usize, max);
                assert_eq!(slice.end.position() as usize, end, "a window ends with an append");
            }
            read.extend(bytes);
            from = slice.end;
            if at_tail {
                break;
            }
        }
        assert_eq!(read, &stream.bytes[begin..], "what is read is what was written");
    }

    /// Time without a request, with housekeeping at work. To look at a stream that is due is a use of it, so turns go
    /// on until none is but those that a live reader keeps.
    async fn idle(&mut self) {
        let mut busy = true;
        while busy {
            self.advance(11_000);
            let due = self.due().await;
            busy = due.iter().any(|path| !self.model.keeps(path.as_str()));
            self.model.sweep();
            let work = tokio::spawn(Engine::housekeeping(Arc::downgrade(&self.engine)));
            // A soft deletion changes no count, so it has to be waited for by itself.
            for _ in 0..4000 {
                if self.due().await.is_empty() {
                    break;
                }
                // The runtime's clock jumps while the store's threads are at work, so they get time in truth, too: a
                // sync takes as long as the disk takes.
                std::thread::sleep(std::time::Duration::from_millis(1));
                tokio::time::sleep(std::time::Duration::from_millis(260)).await;
            }
            assert_eq!(self.due().await, [], "housekeeping leaves nothing that is due");
            let watched = self.watches.len();
            let there = self.model.streams.iter().filter(|stream| !stream.removed).count();
            self.until(|engine| {
                let stats = engine.stats();
                stats.store.streams == there as u64 && (busy || stats.cells <= watched)
            })
            .await;
            work.abort();
            let _ = work.await;
            let cells = self.engine.stats().cells;
            assert!(busy || cells <= watched, "{cells} cells stay for {watched} live readers");
        }
    }

    async fn due(&self) -> Vec<StreamPath> {
        self.engine.store().due(self.engine.now(), PATHS.len()).await.unwrap()
    }

    /// Waits for what a store does on its own threads. The runtime's clock only jumps, so no time passes in truth but
    /// for the short sleep; the caller asserts what it waited for.
    async fn until(&self, done: impl Fn(&Engine) -> bool) {
        for _ in 0..4_000 {
            if done(&self.engine) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(260)).await;
            if !matches!(self.engine.store(), AnyStore::Memory(_)) {
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
        }
    }

    /// What must hold after every step.
    async fn check(&mut self) {
        for (id, watch) in &mut self.watches {
            let stream = &self.model.streams[*id];
            let tail = watch.tail();
            assert_eq!(tail.gone, stream.removed || stream.soft, "a live reader hears of deletion");
            if !tail.gone {
                assert_eq!(
                    (tail.offset.position(), tail.closed),
                    (stream.tail(), stream.closed.is_some())
                );
            }
        }
        let there = || self.model.streams.iter().filter(|stream| !stream.removed);
        let streams = there().count() as u64;
        let bytes = there().map(Stream::own_len).sum::<u64>();
        let held = |engine: &Engine| {
            let stats = engine.stats().store;
            (stats.streams, stats.bytes)
        };
        self.until(|engine| held(engine) == (streams, bytes)).await;
        assert_eq!(held(&self.engine), (streams, bytes), "streams, bytes");
        let mut names: Vec<_> = there().map(|stream| stream.path.as_str()).collect();
        names.sort_unstable();
        let listed = self.engine.list(None, 100).await.unwrap();
        assert_eq!(listed.iter().map(StreamPath::as_str).collect::<Vec<_>>(), names, "list");
    }
}

fn run(kind: StoreKind, max_read: usize, history: Vec<Op>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let mut pair = Pair::new(kind, max_read);
        for op in history {
            pair.step(op).await;
            pair.check().await;
        }
        for at in PATHS {
            pair.read(at, Place::Boundary(0), max_read).await;
        }
        // Whatever happened, everything can be deleted and then nothing is left.
        pair.watches.clear();
        for _ in PATHS {
            for at in PATHS {
                let _ = pair.engine.delete(&path(at)).await;
            }
        }
        pair.advance(1_000_000);
        pair.engine.sweep_due().await;
        let empty = |engine: &Engine| {
            let stats = engine.stats().store;
            (stats.streams, stats.bytes) == (0, 0)
        };
        pair.until(empty).await;
        let stats = pair.engine.stats().store;
        assert_eq!((stats.streams, stats.bytes), (0, 0), "deleting everything leaves nothing");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_what_the_model_says(history in history(), max_read in 1usize..40) {
        run(StoreKind::Memory, max_read, history);
    }
}

proptest! {
    // Fewer, because each opens a data directory.
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_on_files_is_what_the_model_says(history in history(), max_read in 1usize..40) {
        run(StoreKind::File, max_read, history);
    }
}

/// The largest window that can be asked for is no special case.
#[tokio::test]
async fn a_window_may_be_as_large_as_a_number_can_be() {
    let (engine, _, _dir) = engine(StoreKind::Memory, 10);
    let create =
        Create { content_type: ContentType::parse("application/json"), ..Create::default() };
    engine.create(&path("a"), &create, "[1,2]".into()).await.unwrap();
    let view = engine.open(&path("a")).await.unwrap();
    let slice =
        engine.read(&view.core, Offset::new(2), view.tail.offset, usize::MAX).await.unwrap();
    assert_eq!(slice.chunks.concat(), b"2\x1e");
}
