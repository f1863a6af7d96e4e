//! How long a data directory takes to open, and how much memory that needs, by number of streams; and how
//! many events a second are made durable.
//!
//! `cargo run --release --example store_open -- 10000 100000 1000000` (in a directory under `TMPDIR`)

use std::{
    error::Error,
    io::Write,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, Commit, CommitSink, EventPlace, FileStore, FileStoreOptions, Store, StoreError,
};
use durable_streams_protocol::{
    Appended, ContentType, Created, Expiry, StreamEvent, StreamId, StreamPath, Timestamp,
};
use parking_lot::{Condvar, Mutex};

/// Streams or events in flight at most.
const WINDOW: u64 = 10_000;

#[derive(Default)]
struct Sink {
    reached: Mutex<u64>,
    news: Condvar,
}

impl CommitSink for Sink {
    fn committed(&self, version: u64) {
        *self.reached.lock() = version;
        self.news.notify_all();
    }

    fn failed(&self, version: u64, error: StoreError) {
        panic!("event {version} failed: {error}");
    }
}

impl Sink {
    fn wait(&self, version: u64) {
        let mut reached = self.reached.lock();
        while *reached < version {
            self.news.wait(&mut reached);
        }
    }
}

/// Commits `count` events with a window in flight. Gives events a second.
fn run(
    store: &AnyStore,
    count: u64,
    mut event: impl FnMut(u64) -> (StreamId, EventPlace, StreamEvent),
) -> Result<f64, Box<dyn Error>> {
    let (sink, started) = (Arc::new(Sink::default()), Instant::now());
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for version in 1..=count {
        let (id, place, event) = event(version);
        runtime.block_on(store.throttle());
        let (epoch, sink_of_one) = (store.epoch(), sink.clone());
        store.commit(Commit { id, event, place, epoch, version, sink: sink_of_one })?;
        sink.wait(version.saturating_sub(WINDOW));
    }
    sink.wait(count);
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

fn create(store: &AnyStore, n: u64) -> Result<(StreamId, EventPlace, StreamEvent), Box<dyn Error>> {
    let created = Created {
        at: Timestamp::from_millis(1),
        path: StreamPath::new(&format!("tenant-{}/stream-{n}", n % 100))?,
        content_type: ContentType::default(),
        expiry: Expiry::Never,
        expiry_inherited: false,
        fork: None,
        incarnation: 0,
        closed: false,
        public: false,
        earliest: durable_streams_protocol::Offset::ZERO,
        data: Bytes::from_static(&[7; 100]),
    };
    let place = EventPlace::of_creation(&created);
    Ok((store.next_id(), place, StreamEvent::Created(Box::new(created))))
}

/// The append after `before` others, each of the size of `data` like the creation.
fn append(id: StreamId, before: u64, data: &Bytes) -> (StreamId, EventPlace, StreamEvent) {
    let place = EventPlace { events: 1 + before, position: (1 + before) * data.len() as u64 };
    let event = Appended {
        at: Timestamp::from_millis(2),
        data: data.clone(),
        terminators: 0,
        producer: None,
        stream_seq: None,
        close: false,
    };
    (id, place, StreamEvent::Appended(event))
}

/// Resident memory in MiB: in all, and without pages of files.
fn resident() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let mib = |name| field(name).unwrap_or(f64::NAN) / 1024.0;
    (mib("VmRSS:"), mib("RssAnon:"))
}

fn measure(streams: u64) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let options = || FileStoreOptions::new(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;

    let store = AnyStore::File(FileStore::open(options())?);
    let (mut failure, mut ids) = (None, Vec::new());
    let creates = run(&store, streams, |n| match create(&store, n) {
        Ok(made) => {
            ids.push(made.0);
            made
        }
        Err(error) => {
            failure = Some(error.to_string());
            let event = StreamEvent::Touched { at: Timestamp::default() };
            (store.next_id(), EventPlace::default(), event)
        }
    })?;
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    let data = Bytes::from_static(&[9; 100]);
    let round = streams.min(1000);
    let appends = run(&store, 300_000, |n| {
        let (which, before) = ((n - 1) % round, (n - 1) / round);
        append(ids[which as usize], before, &data)
    })?;
    let closing = Instant::now();
    runtime.block_on(store.close());
    let closing = closing.elapsed();
    drop(store);

    print!(
        "{streams:>9} streams: {creates:>7.0} creates/s, {appends:>7.0} appends/s, close {closing:>7.1?}, "
    );
    std::io::stdout().flush()?;
    // Opened by a process of its own, so that its memory is that of an opened store.
    let opened = Command::new(std::env::current_exe()?).arg("open").arg(dir.path()).status()?;
    if opened.success() { Ok(()) } else { Err("cannot open it again".into()) }
}

fn open(dir: &Path) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let store = FileStore::open(FileStoreOptions::new(dir))?;
    let opening = started.elapsed();
    // The opening's own background work is over soon.
    std::thread::sleep(Duration::from_millis(500));
    let (all, anon) = resident();
    let size = store.file_stats().index_bytes >> 20;
    println!(
        "index {size} MiB, open {opening:.1?}, resident {all:.1} MiB ({anon:.1} without files)"
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, dir] = arguments.as_slice()
        && command == "open"
    {
        return open(Path::new(dir));
    }
    for streams in arguments {
        measure(streams.parse()?)?;
    }
    Ok(())
}
