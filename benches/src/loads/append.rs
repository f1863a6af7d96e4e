//! Appends: one stream and many, binary and JSON, durable and in memory, closed and open loop, and
//! by idempotent producers.

use super::{Bench, Load, Needs, Scale, Unit, setup};
use crate::client::{Engine, Pace, Plan};
use crate::results::Outcome;
use crate::servers::Mode;
use crate::traffic::{Appends, Kind};
use anyhow::{Context as _, Result};

/// How requests fall due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rate {
    /// As fast as replies come.
    Closed,
    /// At a constant rate per second.
    Constant(u32),
    /// At the rate Electric reached at 256 connections in the same comparison.
    ElectricPeak,
}

struct Append {
    mode: Mode,
    kind: Kind,
    connections: usize,
    streams: usize,
    rate: Rate,
}

const PEAK_ROW: &str = "append-256c";

pub(super) fn add(loads: &mut Vec<Box<dyn Load>>) {
    use Kind::{Binary, JsonArray, JsonOne, Producer};
    for mode in [Mode::Durable, Mode::Memory] {
        let mut row = |kind, connections, streams, rate| {
            loads.push(Box::new(Append { mode, kind, connections, streams, rate }));
        };
        row(Binary, 1, 1, Rate::Closed);
        row(Binary, 64, 1, Rate::Closed);
        row(Binary, 256, 1, Rate::Closed);
        for streams in [100, 1_000, 10_000, 100_000, 1_000_000] {
            row(Binary, streams.min(256), streams, Rate::Closed);
        }
        row(JsonOne, 64, 1, Rate::Closed);
        row(JsonArray, 64, 1, Rate::Closed);
    }
    let mut durable = |kind, connections, rate| {
        let mode = Mode::Durable;
        loads.push(Box::new(Append { mode, kind, connections, streams: 1, rate }));
    };
    durable(Binary, 64, Rate::Constant(10_000));
    durable(Binary, 256, Rate::ElectricPeak);
    for producers in [1, 10, 100] {
        durable(Producer, producers, Rate::Closed);
    }
}

impl Append {
    /// Nothing for durable, which is the rule.
    fn mode_suffix(&self) -> &'static str {
        match self.mode {
            Mode::Durable => "",
            Mode::Memory => "-memory",
        }
    }
}

impl Load for Append {
    fn key(&self) -> String {
        let base = match (self.kind, self.rate) {
            (Kind::JsonOne, _) => "append-json-one".into(),
            (Kind::JsonArray, _) => "append-json-array".into(),
            (Kind::Producer, _) => format!("producers-{}", self.connections),
            (_, Rate::Constant(rate)) => format!("append-open-{rate}"),
            (_, Rate::ElectricPeak) => "append-open-peak".into(),
            _ if self.streams > 1 => format!("append-{}s", self.streams),
            _ => format!("append-{}c", self.connections),
        };
        base + self.mode_suffix()
    }

    fn group(&self) -> &'static str {
        match (self.kind, self.mode) {
            (Kind::Producer, _) => "Creates and producers, durable",
            (_, Mode::Durable) => "Appends, durable",
            (_, Mode::Memory) => "Appends, memory mode",
        }
    }

    fn title(&self) -> String {
        let connections = match self.connections {
            1 => "1 connection".into(),
            n => format!("{n} connections"),
        };
        match (self.kind, self.rate) {
            (Kind::JsonOne, _) => format!("JSON 256 B, {connections}"),
            (Kind::JsonArray, _) => format!("JSON array of 100 x 100 B, {connections}"),
            (Kind::Producer, _) => format!("idempotent producers: {}", self.connections),
            (_, Rate::Constant(rate)) => format!("open loop, {rate}/s, {connections}"),
            (_, Rate::ElectricPeak) => format!("open loop, Electric's peak rate, {connections}"),
            _ if self.streams > 1 => format!("{} streams, {connections}", self.streams),
            _ => format!("1 stream, {connections}"),
        }
    }

    fn unit(&self) -> Unit {
        if self.rate == Rate::Closed { Unit::PerSecond } else { Unit::MillisP99 }
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn needs(&self) -> Needs {
        if self.kind == Kind::Producer { Needs::Store } else { Needs::Writes }
    }

    fn full_only(&self) -> bool {
        self.streams >= 100_000
    }

    fn rounds(&self, scale: Scale) -> usize {
        if self.streams >= 100_000 { 1 } else { scale.rounds }
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Outcome> {
        setup::create(bench, self.kind.content_type(), self.streams)?;
        let per_second = match self.rate {
            Rate::Closed => None,
            Rate::Constant(rate) => Some(f64::from(rate)),
            Rate::ElectricPeak => {
                let peak = bench.history.median(PEAK_ROW, "electric");
                Some(peak.with_context(|| format!("needs {PEAK_ROW} of electric in this run"))?)
            }
        };
        let target = &bench.server.target;
        let mut traffic =
            Appends::new(target, setup::PREFIX, self.kind, self.connections, self.streams);
        let mut engine = Engine::connect(target.addr, self.connections)?;
        let mut plan = Plan::closed(bench.scale.warm_up, bench.scale.window);
        plan.pace = per_second.map(|per_second| Pace { connections: self.connections, per_second });
        let summary = engine.run(plan.charging(Some(bench.server.pid()?)), &mut traffic)?;
        drop(engine);
        setup::verify(bench, &traffic)?;
        match self.rate {
            Rate::Closed => bench.rate(&summary),
            _ => bench.outcome(summary.latency.value_at_quantile(0.99) as f64 / 1e6, &summary),
        }
    }
}
