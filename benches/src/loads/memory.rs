//! What idle things cost: resident memory per SSE subscriber and per stream.

use super::live::join;
use super::{Bench, Load, Needs, Scale, Unit, setup};
use crate::client::{Engine, Plan};
use crate::process;
use crate::results::Outcome;
use crate::traffic::{Fan, Kind, Via, name};
use anyhow::Result;
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(10);
/// So long nobody touches a stream before it counts as idle: servers let go of what was used after a while.
const IDLE: Duration = Duration::from_secs(60);

enum Idle {
    Subscribers,
    Streams { count: usize },
}

pub(super) fn add(loads: &mut Vec<Box<dyn Load>>) {
    loads.push(Box::new(Idle::Subscribers));
    loads.push(Box::new(Idle::Streams { count: 10_000 }));
    loads.push(Box::new(Idle::Streams { count: 1_000_000 }));
}

impl Load for Idle {
    fn key(&self) -> String {
        match self {
            Self::Subscribers => "idle-sse".into(),
            Self::Streams { count } => format!("idle-streams-{count}"),
        }
    }

    fn group(&self) -> &'static str {
        "Memory"
    }

    fn title(&self) -> String {
        match self {
            Self::Subscribers => "resident per idle SSE subscriber".into(),
            Self::Streams { count } => format!("resident per idle stream, of {count}"),
        }
    }

    fn unit(&self) -> Unit {
        match self {
            Self::Subscribers => Unit::Kib,
            Self::Streams { .. } => Unit::Bytes,
        }
    }

    fn needs(&self) -> Needs {
        match self {
            Self::Subscribers => Needs::Live,
            Self::Streams { .. } => Needs::Store,
        }
    }

    fn full_only(&self) -> bool {
        matches!(self, Self::Streams { count } if *count > 10_000)
    }

    fn rounds(&self, scale: Scale) -> usize {
        if scale.quick || self.full_only() { 1 } else { scale.rounds.min(3) }
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Outcome> {
        match self {
            Self::Subscribers => subscribers(bench),
            Self::Streams { count } => streams(bench, *count),
        }
    }
}

fn subscribers(bench: &Bench<'_>) -> Result<Outcome> {
    let count = if bench.scale.quick { 1_000 } else { 10_000 };
    setup::create(bench, "text/plain", 1)?;
    let (target, stream) = (&bench.server.target, name(setup::PREFIX, 0));
    let pid = bench.server.pid()?;
    let tail = setup::tail(target, &stream)?;
    let before = process::settled_memory(pid, SETTLE)?;
    let mut fan = Fan::new(target, &stream, tail, Via::Sse, count)?;
    let mut engine = Engine::connect(target.addr, count + 1)?;
    let mut plan = Plan::closed(Duration::ZERO, bench.scale.window);
    plan.counted = 1;
    join(&mut engine, plan, &mut fan)?;
    let after = process::settled_memory(pid, SETTLE)?;
    Ok(Outcome::of(after.saturating_sub(before) as f64 / count as f64).with_memory(pid))
}

fn streams(bench: &Bench<'_>, count: usize) -> Result<Outcome> {
    let pid = bench.server.pid()?;
    let before = process::settled_memory(pid, SETTLE)?;
    setup::fill(bench, Kind::Binary, count, 1)?;
    std::thread::sleep(IDLE);
    let after = process::settled_memory(pid, SETTLE)?;
    let bytes = after.saturating_sub(before) as f64 * 1024.0;
    Ok(Outcome::of(bytes / count as f64).with_memory(pid))
}
