//! `load`: one load against a running server, for profiling it.

use crate::cli::{LoadArgs, LoadKind};
use crate::client::{Engine, Offset, Pace, Plan, Summary, Target, Traffic};
use crate::process;
use crate::results::Latency;
use crate::traffic::{Appends, Creates, Fan, Gets, Heads, Kind, Replay, Via, name};
use anyhow::{Context as _, Result, ensure};
use std::net::ToSocketAddrs as _;
use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_millis(500);
const SETUP_BOUND: Duration = Duration::from_secs(600);
const FILL: usize = 256 * 1024;

/// Prepares fresh streams on the server, runs the load and prints what it came to.
pub(crate) fn aim(args: &LoadArgs) -> Result<()> {
    process::raise_descriptor_limit()?;
    if let Some(core) = args.core {
        process::pin_self(core)?;
    }
    let target = Target { headers: args.header.clone(), ..target(&args.url)? };
    // A prefix of this process, so that a server can be aimed at again.
    let prefix = format!("bench{}-", std::process::id());
    let mut plan = Plan::closed(WARM_UP, Duration::from_secs_f64(args.seconds));
    plan.pace = args.rate.map(|per_second| Pace { connections: args.connections, per_second });
    let plan = plan.charging(args.pid);
    let aim = Aim { args, target, prefix, plan };
    match args.load {
        LoadKind::Append => aim.append(Kind::Binary),
        LoadKind::JsonOne => aim.append(Kind::JsonOne),
        LoadKind::JsonArray => aim.append(Kind::JsonArray),
        LoadKind::Producers => aim.append(Kind::Producer),
        LoadKind::Create => {
            let octets = "application/octet-stream";
            aim.drive(Creates::new(&aim.target, &aim.prefix, octets, 9_000_000)).map(drop)
        }
        LoadKind::Get | LoadKind::Head | LoadKind::Replay => aim.read(),
        LoadKind::Sse | LoadKind::LongPoll | LoadKind::Saturate => aim.live(),
    }
}

struct Aim<'a> {
    args: &'a LoadArgs,
    target: Target,
    prefix: String,
    plan: Plan,
}

impl Aim<'_> {
    fn create(&self, content_type: &str, count: usize) -> Result<()> {
        let mut creates = Creates::new(&self.target, &self.prefix, content_type, count);
        let mut engine = Engine::connect(self.target.addr, 64.min(count))?;
        engine.run(Plan::to_the_end(SETUP_BOUND), &mut creates).context("creating streams")?;
        Ok(())
    }

    /// Runs `traffic` on the asked number of connections and prints the summary.
    fn drive<T: Traffic>(&self, mut traffic: T) -> Result<(T, Summary)> {
        let mut engine = Engine::connect(self.target.addr, self.args.connections)?;
        let summary = engine.run(self.plan, &mut traffic)?;
        print(&summary, self.args.pid);
        Ok((traffic, summary))
    }

    fn append(&self, kind: Kind) -> Result<()> {
        let args = self.args;
        self.create(kind.content_type(), args.streams)?;
        let (connections, streams) = (args.connections, args.streams);
        let appends = Appends::new(&self.target, &self.prefix, kind, connections, streams);
        self.drive(appends).map(drop)
    }

    /// Makes one stream of the asked length; returns its tail.
    fn fill(&self) -> Result<Offset> {
        let bytes = self.args.bytes;
        let piece = bytes.min(FILL);
        ensure!(bytes > 0 && bytes.is_multiple_of(piece), "--bytes: use a multiple of {FILL}");
        let kind = Kind::Bulk(piece);
        self.create(kind.content_type(), 1)?;
        let appends = Appends::new(&self.target, &self.prefix, kind, 1, 1);
        let mut appends = appends.limited((bytes / piece) as u64);
        let mut engine = Engine::connect(self.target.addr, 1)?;
        engine.run(Plan::to_the_end(SETUP_BOUND), &mut appends).context("filling the stream")?;
        Ok(appends.tail(0))
    }

    fn read(&self) -> Result<()> {
        let tail = self.fill()?;
        let (args, target, stream) = (self.args, &self.target, name(&self.prefix, 0));
        let length = args.bytes as u64;
        match args.load {
            LoadKind::Head => self.drive(Heads::new(target, &stream, Some(tail))).map(drop),
            LoadKind::Get => {
                let gets = Gets::new(target, &self.prefix, 1, length, false, true);
                self.drive(gets).map(drop)
            }
            _ => {
                let replay = Replay::new(target, &stream, args.connections, length);
                let (replay, summary) = self.drive(replay)?;
                let mib = replay.bytes as f64 / f64::from(1 << 20);
                println!("{:.0} MiB/s", mib / summary.elapsed.as_secs_f64());
                Ok(())
            }
        }
    }

    fn live(&self) -> Result<()> {
        self.create("text/plain", 1)?;
        let (args, stream) = (self.args, name(&self.prefix, 0));
        let via = if args.load == LoadKind::LongPoll { Via::LongPoll } else { Via::Sse };
        // `-1` is the start, and the stream is empty: the first message is the first delivery.
        let start = Offset::new(b"-1").context("an offset")?;
        let mut fan = Fan::new(&self.target, &stream, start, via, args.connections)?;
        let mut plan = self.plan;
        plan.counted = 1;
        if args.load == LoadKind::Saturate {
            plan.pace = None;
            fan = fan.saturating(32);
        } else {
            plan.pace = Some(Pace { connections: 1, per_second: args.rate.unwrap_or(20.0) });
        }
        let mut engine = Engine::connect(self.target.addr, args.connections + 1)?;
        let silent =
            Plan { pace: None, warm_up: Duration::ZERO, window: Some(WARM_UP), pid: None, ..plan };
        fan.quiet();
        let start = Instant::now();
        engine.run(silent, &mut fan)?;
        while !fan.is_joined() && start.elapsed() < SETUP_BOUND {
            engine.run(silent, &mut fan)?;
        }
        fan.resume();
        let summary = engine.run(plan, &mut fan)?;
        print(&summary, args.pid);
        let per_second = fan.delivered as f64 / summary.elapsed.as_secs_f64();
        println!("{per_second:.0} deliveries/s, delivered after (us) {}", micros(&fan.latency));
        Ok(())
    }
}

fn micros(latency: &hdrhistogram::Histogram<u64>) -> String {
    let Latency { p50, p90, p99, p999, max } = Latency::of(latency);
    format!("p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  p99.9 {p999:.0}  max {max:.0}")
}

fn print(summary: &Summary, pid: Option<u32>) {
    println!("{:.0} replies/s, after (us) {}", summary.per_second(), micros(&summary.latency));
    if let Some(cpu) = summary.server_cpu {
        let each = cpu.as_secs_f64() * 1e6 / summary.completed.max(1) as f64;
        println!("{each:.2} us of server processor time per reply");
    }
    if let Some(memory) = pid.and_then(|pid| process::memory(pid).ok()) {
        println!("server resident {} KiB, peak {} KiB", memory.resident, memory.peak);
    }
    println!("client busy {:.0}%", summary.client_busy * 100.0);
}

/// Takes `http://HOST:PORT/BASE` apart.
fn target(url: &str) -> Result<Target> {
    let rest = url.strip_prefix("http://").context("--url must begin with http://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let addr = authority
        .to_socket_addrs()
        .with_context(|| format!("--url: {authority:?} is not HOST:PORT"))?
        .next()
        .context("--url: the host has no address")?;
    let path = path.trim_matches('/');
    let base = if path.is_empty() { "/".into() } else { format!("/{path}/") };
    Ok(Target { addr, base, headers: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let of = |url: &str| target(url).map(|it| (it.addr.to_string(), it.base)).unwrap();
        let addr = || "127.0.0.1:4437".to_owned();
        assert_eq!(of("http://127.0.0.1:4437/v1/stream/"), (addr(), "/v1/stream/".into()));
        assert_eq!(of("http://127.0.0.1:4437"), (addr(), "/".into()));
        assert!(target("https://127.0.0.1:4437/").is_err());
        assert!(target("http://127.0.0.1/").is_err());
    }
}
