//! `capacity`: how long our server takes to open a data directory, and the memory it needs, by the number of
//! streams and bytes in it.
//!
//! For each number of streams: create them as fast as they are taken, fill them, wait until nothing moves,
//! stop, start; then append a little, kill, and start once more. The time to start is from the start of the
//! process to the first right answer about the last stream.
//!
//! With `--tiered` each stream has 256 bytes, and what is idle goes to an object store.

use crate::cli::CapacityArgs;
use crate::client::{Engine, Offset, Plan};
use crate::loads::tail;
use crate::process::{self, Memory};
use crate::servers::{self, Host, Installed, Mode, Ours, Running, ServerKind, TieredOurs};
use crate::traffic::{Appends, Creates, Kind, name};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const PREFIX: &str = "s";
/// Connections that create and fill.
const HANDS: usize = 64;
/// Bytes of one append that fills.
const FILL: usize = 256 << 10;
/// Streams that get the bytes.
const FILLED: usize = 1000;
/// How long creating or filling may take.
const BOUND: Duration = Duration::from_secs(3600);
/// Streams leave memory after 10 seconds without use, every shard is looked at within 4 more, and their memory goes
/// back to the system within 10 after that.
const IDLE: Duration = Duration::from_secs(26);

/// Runs and prints everything that was asked for.
pub(crate) fn capacity(args: &CapacityArgs) -> Result<()> {
    process::raise_descriptor_limit()?;
    let root = args
        .data
        .clone()
        .unwrap_or_else(|| servers::workspace().join("target").join("bench").join("data"));
    fs::create_dir_all(&root)?;
    let installed = match &args.program {
        Some(program) => {
            Installed { program: program.clone(), version: program.display().to_string() }
        }
        None => Ours.install(&root)?,
    };
    println!("{}", installed.version);
    println!(
        "{:>9} streams | what                     |   seconds | VmRSS MiB | RssAnon MiB | VmHWM MiB | disk MiB",
        ""
    );
    let cores = std::thread::available_parallelism()?.get();
    let host = Host { data_root: root, server_core: None, cores };
    let kind: &dyn ServerKind = if args.tiered { &TieredOurs } else { &Ours };
    for &streams in &args.streams {
        let server = Running::start(kind, &installed, &host, Mode::Durable)?;
        Run { server, streams, tiered: args.tiered }.run(args.gib)?;
    }
    Ok(())
}

struct Run<'a> {
    server: Running<'a>,
    streams: usize,
    tiered: bool,
}

impl Run<'_> {
    fn run(&mut self, gib: u64) -> Result<()> {
        self.print("empty", Duration::ZERO)?;
        let began = Instant::now();
        let (target, count) = (self.server.target.clone(), self.streams);
        let mut creates = Creates::new(&target, PREFIX, "application/octet-stream", count);
        let created =
            Engine::connect(target.addr, HANDS)?.run(Plan::to_the_end(BOUND), &mut creates);
        created.with_context(|| format!("creating {count} streams (got to {})", creates.done))?;
        self.print("created", began.elapsed())?;
        let began = Instant::now();
        let appends = (gib << 30) / FILL as u64;
        self.append(Kind::Bulk(FILL), FILLED.min(count), appends)?;
        if appends > 0 {
            self.print(&format!("filled with {gib} GiB"), began.elapsed())?;
        }
        if self.tiered {
            self.append_to_each()?;
            self.print("appended to", began.elapsed())?;
            self.wait_for_objects()?;
            self.print("all are objects", began.elapsed())?;
        }
        std::thread::sleep(IDLE);
        self.print("idle", IDLE)?;

        let last = name(PREFIX, self.streams - 1);
        let kept = tail(&target, &last)?;
        self.server.stop();
        self.start("started after a stop", &last, kept)?;
        std::thread::sleep(IDLE);
        self.print("idle", IDLE)?;

        // Not to the last stream when there are more.
        self.append(Kind::Binary, FILLED.min(count - 1), 10_000)?;
        self.server.kill();
        self.start("started after a kill", &last, kept)
    }

    /// Appends to the first streams.
    fn append(&self, kind: Kind, streams: usize, appends: u64) -> Result<()> {
        let target = &self.server.target;
        let connections = HANDS.min(streams);
        let mut traffic = Appends::new(target, PREFIX, kind, connections, streams).limited(appends);
        let mut engine = Engine::connect(target.addr, connections)?;
        engine.run(Plan::to_the_end(BOUND), &mut traffic).context("filling streams")?;
        Ok(())
    }

    /// One append to each stream.
    fn append_to_each(&self) -> Result<()> {
        let target = &self.server.target;
        let traffic = Appends::new(target, PREFIX, Kind::Binary, HANDS, self.streams);
        let mut engine = Engine::connect(target.addr, HANDS)?;
        engine.run(Plan::to_the_end(BOUND), &mut traffic.on_each(1))?;
        Ok(())
    }

    /// Waits until nearly all bytes are objects; what is too little for one stays.
    fn wait_for_objects(&self) -> Result<()> {
        let began = Instant::now();
        let (objects, bytes) = (TieredOurs::objects(&self.server.config()), self.streams * 256);
        while on_disk(&objects)?.bytes < (bytes - bytes / 20) as u64 {
            ensure!(began.elapsed() < BOUND, "the streams did not become objects");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Starts the server and times it up to the first right answer.
    fn start(&mut self, what: &str, last: &str, kept: Offset) -> Result<()> {
        let began = Instant::now();
        self.server.launch()?;
        let found = tail(&self.server.target, last)?;
        let took = began.elapsed();
        ensure!(found == kept, "{last} ended at {kept} and ends at {found} now");
        self.print(what, took)
    }

    fn print(&self, what: &str, took: Duration) -> Result<()> {
        let Memory { resident, peak, anonymous } = process::memory(self.server.pid()?)?;
        let mib = |kib: u64| kib as f64 / 1024.0;
        let disk = on_disk(&self.server.data())?;
        println!(
            "{:>9} streams | {what:<24} | {:>9.3} | {:>9.1} | {:>11.1} | {:>9.1} | {:>8.0}",
            self.streams,
            took.as_secs_f64(),
            mib(resident),
            mib(anonymous),
            mib(peak),
            disk.mib(),
        );
        if self.tiered {
            let objects = on_disk(&TieredOurs::objects(&self.server.config()))?;
            println!("{:>19} {} objects, {:.0} MiB", "", objects.files, objects.mib());
        }
        Ok(())
    }
}

/// Files and their bytes.
#[derive(Clone, Copy, Default)]
struct DiskUse {
    files: usize,
    bytes: u64,
}

impl DiskUse {
    fn mib(self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20)
    }
}

/// What is below `dir`. Files come and go meanwhile.
fn on_disk(dir: &Path) -> Result<DiskUse> {
    let mut found = DiskUse::default();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            let below = on_disk(&entry.path())?;
            found.files += below.files;
            found.bytes += below.bytes;
        } else {
            found.files += 1;
            found.bytes += metadata.len();
        }
    }
    Ok(found)
}
