//! The loads: one small file each, all implementing [`Load`].

mod append;
mod catch_up;
mod create;
pub(crate) mod disk;
mod live;
mod memory;
mod read;
mod replay;
mod setup;
mod stalled;
mod start_up;

pub(crate) use setup::tail;

use crate::client::Summary;
use crate::process;
use crate::results::{History, Latency, Outcome};
use crate::servers::{Abilities, Mode, Running};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) quick: bool,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    /// Runs of each load on each server.
    pub(crate) rounds: usize,
    /// The longest any one preparation (creating streams, filling them) may take.
    pub(crate) setup_bound: Duration,
}

impl Scale {
    pub(crate) fn quick() -> Self {
        Self {
            quick: true,
            warm_up: Duration::from_millis(150),
            window: Duration::from_millis(500),
            rounds: 3,
            setup_bound: Duration::from_secs(20),
        }
    }

    pub(crate) fn full() -> Self {
        Self {
            quick: false,
            warm_up: Duration::from_secs(1),
            window: Duration::from_secs(4),
            rounds: 5,
            setup_bound: Duration::from_secs(400),
        }
    }
}

/// What a row's figure is, and which way is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Unit {
    PerSecond,
    MibPerSecond,
    /// Milliseconds at the 99th percentile.
    MillisP99,
    Seconds,
    Kib,
    Bytes,
}

impl Unit {
    pub(crate) fn higher_is_better(self) -> bool {
        matches!(self, Self::PerSecond | Self::MibPerSecond)
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::PerSecond => "/s",
            Self::MibPerSecond => "MiB/s",
            Self::MillisP99 => "ms p99",
            Self::Seconds => "s",
            Self::Kib => "KiB",
            Self::Bytes => "bytes",
        }
    }
}

/// What a server must be able to do for a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Needs {
    /// Answer appends, kept or not.
    Writes,
    /// Keep what is appended.
    Store,
    /// Serve small reads, from a store, a file or nothing.
    Reads,
    /// Serve large reads of stored bytes.
    StoredReads,
    Live,
}

impl Needs {
    /// Why a server cannot do a row, if it cannot.
    pub(crate) fn refusal(self, abilities: Abilities, mode: Mode) -> Option<&'static str> {
        let able = match self {
            Self::Writes => abilities.writes,
            Self::Store => abilities.writes && abilities.stores,
            Self::Reads => abilities.writes || abilities.files,
            Self::StoredReads => abilities.stores,
            Self::Live => abilities.live,
        };
        match mode {
            _ if !able && !abilities.writes => Some("serves files only"),
            _ if !able => Some("keeps nothing"),
            Mode::Durable if !abilities.durable => Some("has no durable mode"),
            Mode::Memory if !abilities.memory => Some("has no memory mode"),
            _ => None,
        }
    }
}

/// One run of one load against one fresh server.
pub(crate) struct Bench<'a> {
    pub(crate) server: Running<'a>,
    pub(crate) scale: Scale,
    /// What earlier runs gave, for loads that build on another's figure.
    pub(crate) history: &'a History,
}

impl Bench<'_> {
    /// The outcome of a run whose figure is replies per second.
    fn rate(&self, summary: &Summary) -> Result<Outcome> {
        self.outcome(summary.per_second(), summary)
    }

    /// An outcome with everything a run says beside its figure.
    fn outcome(&self, value: f64, summary: &Summary) -> Result<Outcome> {
        let memory = process::memory(self.server.pid()?)?;
        let per_request = |cpu: Duration| cpu.as_secs_f64() * 1e6 / summary.completed.max(1) as f64;
        Ok(Outcome {
            value,
            latency: Some(Latency::of(&summary.latency)),
            cpu_us_per_request: summary.server_cpu.map(per_request),
            resident_kib: Some(memory.resident),
            peak_kib: Some(memory.peak),
            client_busy: Some(summary.client_busy),
            others: summary.others,
        })
    }
}

/// One row of the comparison.
pub(crate) trait Load {
    /// Its name in `--only` and in the results: `group-detail`.
    fn key(&self) -> String;
    /// The table it belongs to.
    fn group(&self) -> &'static str;
    fn title(&self) -> String;
    fn unit(&self) -> Unit {
        Unit::PerSecond
    }
    fn mode(&self) -> Mode {
        Mode::Durable
    }
    fn needs(&self) -> Needs {
        Needs::Store
    }
    /// Too long for `--quick`.
    fn full_only(&self) -> bool {
        false
    }
    /// Rounds, where fewer than usual do: a figure that hardly varies, or a very long run.
    fn rounds(&self, scale: Scale) -> usize {
        scale.rounds
    }
    fn run(&self, bench: &mut Bench<'_>) -> Result<Outcome>;
}

/// Every load, in the order of the report.
pub(crate) fn all() -> Vec<Box<dyn Load>> {
    let mut loads: Vec<Box<dyn Load>> = Vec::new();
    append::add(&mut loads);
    create::add(&mut loads);
    read::add(&mut loads);
    replay::add(&mut loads);
    catch_up::add(&mut loads);
    live::add(&mut loads);
    memory::add(&mut loads);
    stalled::add(&mut loads);
    start_up::add(&mut loads);
    loads
}
