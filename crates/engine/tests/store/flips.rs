//! One flipped bit in any page or file of a data directory: it is reported, or its damage is contained, or it does no harm.
//!
//! `STORE_FLIPS=1000` flips that many bits, spread over all kinds of pages and files; `STORE_FLIPS=40..41` is one of them.
//! Each flip is tried in a process of its own kind, since reading a damaged index may end it.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader},
    ops::Range,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, Commit, EventPlace, FileStore, FileStoreOptions, LoadFor, Store, StoreError,
    file::{SegmentOptions, disk::RealDisk, offline, report_map_faults},
};
use durable_streams_protocol::{ContentType, Created, Expiry, ForkPoint, StreamEvent, StreamState};

use crate::{flip_places::Places, harness::*, workload::Rng};

const CHILD: &str = "STORE_FLIPS_CHILD";
const TEMPLATE: &str = "STORE_FLIPS_TEMPLATE";
const STREAMS: usize = 240;

fn name(n: usize) -> String {
    format!("stream/{n:03}/{}", "x".repeat(n * 11 % 640))
}

fn payload(n: usize) -> Vec<u8> {
    let len = if n.is_multiple_of(8) { 20_000 + n * 700 } else { 30 + n * 7 };
    (0..len).map(|at| (at * 31 + n * 7) as u8).collect()
}

/// The sealer's thread seals what it finds.
fn sealing(dir: &Path) -> FileStoreOptions {
    let segments = SegmentOptions {
        min: 30_000,
        keep: 100,
        size: 60_000,
        idle: Duration::ZERO,
        share: 1,
        arrays_from: 1,
        ..SegmentOptions::DEFAULT
    };
    FileStoreOptions { segments: Some(segments), ..options(dir) }
}

/// Streams of all sizes with producers, deadlines and forks, deleted ones among them; part of them in the log only.
fn write(dir: &Path) {
    let mut store = file(dir);
    let mut ids = Vec::new();
    for n in 0..STREAMS {
        let mut event = created(&name(n), "");
        event.data = Bytes::from(payload(n));
        if n % 5 == 1 {
            event.expiry = Expiry::Ttl(100_000 + n as u64);
        }
        if n % 7 == 3 {
            let source = load(&store, &name(n - 1)).unwrap().state;
            event.fork = Some(ForkPoint {
                source: source.core.id,
                source_path: source.core.path.clone(),
                position: source.tail,
                requested: None,
                sub_offset: 0,
                ancestors: source.core.ancestors_up_to(source.tail),
            });
        }
        ids.push(create(&store, event));
        if n % 40 == 39 {
            checkpoint(&store);
        }
        if n == STREAMS / 2 {
            // What there is leaves the index: large streams for files of their own, the others for shared ones.
            wait(store.close());
            drop(store);
            let sealer = FileStore::open_on(Arc::new(RealDisk), sealing(dir)).unwrap();
            assert!(sealer.seal().unwrap() > 500_000);
            drop(sealer);
            store = file(dir);
        }
    }
    for (n, id) in ids.iter().enumerate() {
        let mut event = appended(b"more");
        event.producer = Some(producer(&format!("producer-{n:03}"), 1, 0));
        commit(&store, *id, StreamEvent::Appended(event)).unwrap();
        if n % 60 == 59 {
            checkpoint(&store);
        }
    }
    let mut gone = Vec::new();
    for n in 0..20 {
        let mut event = created(&format!("gone/{n}"), "");
        event.data = Bytes::from(payload(8 * n));
        gone.push(create(&store, event));
    }
    checkpoint(&store);
    for id in gone {
        commit(&store, id, StreamEvent::Deleted { at: at(9) }).unwrap();
    }
    checkpoint(&store);
    let AnyStore::File(files) = &store else { panic!("a file store") };
    files.maintain();
    let json = ContentType::parse("application/json").unwrap();
    create(
        &store,
        Created {
            content_type: json,
            data: Bytes::from_static(b"1\x1e2\x1e"),
            ..created("json", "")
        },
    );
    checkpoint(&store);
    // These are in the log only, over several segments.
    for id in ids.iter().step_by(3) {
        append(&store, *id, &[7; 3000]);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

type Expected = Vec<(String, StreamState, Vec<u8>)>;

fn expected(template: &Path) -> &'static Expected {
    static EXPECTED: OnceLock<Expected> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let dir = tempdir();
        copy(template, dir.path());
        let store = file(dir.path());
        let paths = wait(store.list(None, usize::MAX)).unwrap();
        let all = paths.iter().map(|path| {
            let state = load(&store, path.as_str()).unwrap().state;
            let bytes = read_all(&store, &state, usize::MAX);
            (path.as_str().to_owned(), state, bytes)
        });
        let all: Expected = all.collect();
        assert!(all.len() > STREAMS);
        all
    })
}

/// Returns how many streams were refused.
///
/// # Errors
/// What was returned instead of what was written.
fn read(store: &AnyStore, expected: &Expected) -> Result<usize, String> {
    let mut refused = 0;
    for (name, state, bytes) in expected {
        let mut found = match wait(store.load(&path(name), LoadFor::Bytes)) {
            Ok(Some(found)) => found.state,
            Ok(None) => return Err(format!("{name:.20} is not found")),
            Err(StoreError::Corrupt { .. }) => {
                refused += 1;
                continue;
            }
            Err(error) => return Err(format!("{name:.20}: {error}")),
        };
        let looked_up = state.producers.keys().try_for_each(|producer| {
            let known = wait(store.producer(state.core.id, producer))?;
            found.producers.extend(known.map(|known| (producer.clone(), known)));
            Ok(())
        });
        match looked_up {
            Ok(()) => {}
            Err(StoreError::Corrupt { .. }) => {
                refused += 1;
                continue;
            }
            Err(error) => return Err(format!("{name:.20}: {error}")),
        }
        if found != *state {
            return Err(format!("{name:.20} has another state"));
        }
        let (mut from, mut all) = (state.core.own_start(), Vec::new());
        while from < found.tail {
            match wait(store.read(state.core.id, from, found.tail, 1 << 24)) {
                Ok(pieces) if !pieces.is_empty() => {
                    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
                    from = state.core.own_start().advance(all.len() as u64);
                }
                Ok(_) => return Err(format!("{name:.20} ends early")),
                Err(StoreError::Corrupt { .. }) => {
                    refused += 1;
                    break;
                }
                Err(error) => return Err(format!("{name:.20}: {error}")),
            }
        }
        // A damaged rest is refused; what comes before it is right.
        if !bytes.starts_with(&all) || (from == found.tail && bytes.len() != all.len()) {
            return Err(format!("{name:.20} has other bytes"));
        }
    }
    Ok(refused)
}

/// Opens a directory with a flipped bit, reads, scrubs, writes, reads again, opens again, and verifies.
fn try_out(dir: &Path, expected: &Expected) -> Result<&'static str, String> {
    let refuses = |error: StoreError| match error {
        StoreError::Corrupt { .. } | StoreError::Format { .. } => Ok("reported"),
        other => Err(format!("refused as {other}")),
    };
    // Without threads, so that what it says at first is without the help of a scrub.
    let store = match FileStore::open_on(Arc::new(RealDisk), options(dir)) {
        Ok(store) => AnyStore::File(store),
        Err(error) => return refuses(error),
    };
    let AnyStore::File(files) = &store else { panic!("a file store") };
    let mut noticed = read(&store, expected)?;
    noticed += files.scrub() as usize;
    noticed += read(&store, expected)?;
    drop(store);
    let store = match FileStore::open(sealing(dir)) {
        Ok(store) => AnyStore::File(store),
        Err(error) => return refuses(error),
    };
    let mut expected = expected.clone();
    for (name, state, bytes) in expected.iter_mut().step_by(4) {
        let Ok(Some(_)) = wait(store.load(&path(name), LoadFor::State)) else { continue };
        let (place, sink) = (EventPlace::behind(state), Arc::new(Sink::default()));
        let (id, event, epoch) = (state.core.id, appended(b"after"), store.epoch());
        let event = StreamEvent::Appended(event);
        let after = StreamState::fold(Some(state.clone()), id, &event).unwrap();
        let commit = Commit { id, event, place, epoch, version: 1, sink: sink.clone() };
        store.commit(commit).and_then(|_| sink.wait_for(1)).map_err(|error| error.to_string())?;
        bytes.extend_from_slice(b"after");
        *state = after;
    }
    let AnyStore::File(files) = &store else { panic!("a file store") };
    for _ in 0..3 {
        noticed += usize::from(files.checkpoint().is_err());
    }
    noticed += read(&store, &expected)?;
    drop(store);
    let store = match FileStore::open(options(dir)) {
        Ok(store) => AnyStore::File(store),
        Err(error) => return refuses(error),
    };
    noticed += read(&store, &expected)?;
    wait(store.close());
    drop(store);
    noticed += match offline::verify(&options(dir), &mut |_| {}) {
        Ok(report) => report.count as usize,
        Err(_) => 1,
    };
    Ok(if noticed > 0 { "contained" } else { "harmless" })
}

fn child(template: &Path, range: &str) {
    report_map_faults();
    let (from, to) = range.split_once("..").unwrap();
    let places = Places::of(template);
    for seed in from.parse::<u64>().unwrap()..to.parse().unwrap() {
        let (kind, file, at, bit) = places.choose(&mut Rng(seed), seed);
        let dir = tempdir();
        copy(template, dir.path());
        let path = dir.path().join(&file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        println!("FLIP\t{seed}\t{kind}\tbit {bit} of byte {at} of {file}");
        let verdict = try_out(dir.path(), expected(template));
        println!(
            "VERDICT\t{}",
            verdict.unwrap_or_else(|wrong| Box::leak(format!("silent: {wrong}").into_boxed_str()))
        );
    }
}

/// The longest that one flip may take; most take a fifth of a second.
const LONGEST: Duration = Duration::from_secs(60);

/// A process that tries out flips.
struct FlipProcess {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl FlipProcess {
    fn begin(seeds: Range<u64>, template: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "flips::a_flip_anywhere_is_reported_or_contained", "--nocapture"])
            .env(CHILD, format!("{}..{}", seeds.start, seeds.end))
            .env(TEMPLATE, template)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        FlipProcess { child, lines }
    }

    /// The next line that it prints. `None` when it has ended, or was killed since it printed nothing for too long.
    fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(LONGEST) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.child.kill().unwrap();
                None
            }
        }
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

#[test]
fn a_flip_anywhere_is_reported_or_contained() {
    if let (Ok(range), Some(template)) = (env::var(CHILD), env::var_os(TEMPLATE)) {
        return child(&PathBuf::from(template), &range);
    }
    let template = tempdir();
    write(template.path());
    let seeds = seeds("STORE_FLIPS", 56);
    let (mut next, mut table, mut silent) =
        (seeds.start, BTreeMap::<String, [u64; 4]>::new(), Vec::new());
    while next < seeds.end {
        let mut child = FlipProcess::begin(next..seeds.end, template.path());
        let mut flip = None::<(String, String)>;
        let mut note = |(kind, what): (String, String), verdict: &str| {
            let at =
                ["reported", "contained", "harmless"].iter().position(|known| *known == verdict);
            table.entry(kind.clone()).or_default()[at.unwrap_or(3)] += 1;
            if at.is_none() {
                silent.push(format!("{kind}: {what}: {verdict}"));
            }
        };
        while let Some(line) = child.line() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                [_, seed, kind, what] if line.contains("FLIP\t") => {
                    next = seed.parse::<u64>().unwrap() + 1;
                    flip = Some((kind.to_owned(), format!("STORE_FLIPS={seed}..{next}: {what}")));
                }
                ["VERDICT", verdict] => note(flip.take().unwrap(), verdict),
                _ => {}
            }
        }
        let status = child.end();
        if let Some(flip) = flip.take() {
            // The process ended: an operator sees its exit code and what it said. Other things are no report.
            let verdict = match (status.code(), status.signal()) {
                (Some(101), _) => "silent: an assertion failed",
                (_, Some(libc::SIGKILL)) => "silent: it did not come to an end",
                _ => "reported",
            };
            note(flip, verdict);
        } else {
            assert!(status.success() || next < seeds.end, "{status}");
        }
    }
    println!("| kind | reported | contained | harmless | silent |\n|---|---|---|---|---|");
    let mut all = [0; 4];
    for (kind, [reported, contained, harmless, silent]) in &table {
        println!("| {kind} | {reported} | {contained} | {harmless} | {silent} |");
        all.iter_mut().zip(&table[kind]).for_each(|(all, some)| *all += some);
    }
    println!("| all | {} | {} | {} | {} |", all[0], all[1], all[2], all[3]);
    assert!(silent.is_empty(), "{}", silent.join("\n"));
    assert_eq!(all.iter().sum::<u64>(), seeds.end - seeds.start);
    let few = seeds.end - seeds.start < 50;
    assert!(few || (all[0] > 0 && all[1] > 0), "nothing was noticed");
}
