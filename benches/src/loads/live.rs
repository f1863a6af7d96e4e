//! Live reads: the time from an append to its delivery, and deliveries per second at saturation.

use super::{Bench, Load, Needs, Scale, Unit, setup};
use crate::client::{Engine, Pace, Plan};
use crate::results::{Latency, Outcome};
use crate::traffic::{Fan, Via, name};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};

/// Messages under way to an average subscriber at saturation.
const WINDOW: u64 = 32;
/// How long the last messages may take to reach every subscriber.
const SETTLE: Duration = Duration::from_secs(20);

struct Live {
    via: Via,
    subscribers: usize,
    saturating: bool,
}

pub(super) fn add(loads: &mut Vec<Box<dyn Load>>) {
    for via in [Via::Sse, Via::LongPoll] {
        for subscribers in [1, 100, 1_000, 10_000] {
            loads.push(Box::new(Live { via, subscribers, saturating: false }));
        }
    }
    loads.push(Box::new(Live { via: Via::Sse, subscribers: 1_000, saturating: true }));
}

impl Load for Live {
    fn key(&self) -> String {
        match (self.saturating, self.via) {
            (true, _) => format!("live-saturated-{}", self.subscribers),
            (false, Via::Sse) => format!("live-sse-{}", self.subscribers),
            (false, Via::LongPoll) => format!("live-poll-{}", self.subscribers),
        }
    }

    fn group(&self) -> &'static str {
        if self.saturating { "Live fan-out" } else { "Live delivery latency" }
    }

    fn title(&self) -> String {
        let via = if self.via == Via::Sse { "SSE" } else { "long-poll" };
        let what = if self.saturating { ", deliveries at saturation" } else { "" };
        let (count, s) = (self.subscribers, if self.subscribers == 1 { "" } else { "s" });
        format!("{via}, {count} subscriber{s}{what}")
    }

    fn unit(&self) -> Unit {
        if self.saturating { Unit::PerSecond } else { Unit::MillisP99 }
    }

    fn needs(&self) -> Needs {
        Needs::Live
    }

    fn full_only(&self) -> bool {
        self.subscribers > 1_000
    }

    fn rounds(&self, scale: Scale) -> usize {
        if self.subscribers > 1_000 { scale.rounds.min(3) } else { scale.rounds }
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Outcome> {
        setup::create(bench, "text/plain", 1)?;
        let stream = name(setup::PREFIX, 0);
        let target = &bench.server.target;
        let tail = setup::tail(target, &stream)?;
        let mut fan = Fan::new(target, &stream, tail, self.via, self.subscribers)?;
        let mut engine = Engine::connect(target.addr, self.subscribers + 1)?;
        let pid = bench.server.pid()?;
        let mut plan = Plan::closed(bench.scale.warm_up, bench.scale.window).charging(Some(pid));
        plan.counted = 1;
        // Subscribers are in place before the first append falls due.
        join(&mut engine, plan, &mut fan)?;
        if self.saturating {
            fan = fan.saturating(WINDOW);
        } else {
            // Far from saturation. A delivery by long-poll is a response and a request, too.
            let deliveries = if self.via == Via::Sse { 50_000.0 } else { 10_000.0 };
            let per_second = (deliveries / self.subscribers as f64).clamp(1.0, 200.0);
            plan.pace = Some(Pace { connections: 1, per_second });
            plan.window = Some(bench.scale.window.max(Duration::from_secs(2)));
        }
        fan.resume();
        let summary = engine.run(plan, &mut fan)?;
        let (delivered, latency) = (fan.delivered, fan.latency.clone());
        settle(&mut engine, plan, &mut fan)?;
        ensure!(delivered > 0, "nothing was delivered within the window");
        let value = match self.saturating {
            true => delivered as f64 / summary.elapsed.as_secs_f64(),
            false => latency.value_at_quantile(0.99) as f64 / 1e6,
        };
        let mut outcome = bench.outcome(value, &summary)?;
        outcome.latency = Some(Latency::of(&latency));
        let per_delivery = |cpu: Duration| cpu.as_secs_f64() * 1e6 / delivered as f64;
        outcome.cpu_us_per_request = summary.server_cpu.map(per_delivery);
        Ok(outcome)
    }
}

/// Sends the subscriptions and, for SSE, waits until each has its response head.
pub(super) fn join(engine: &mut Engine, plan: Plan, fan: &mut Fan) -> Result<()> {
    fan.quiet();
    let silent = Plan {
        pace: None,
        warm_up: Duration::ZERO,
        window: Some(Duration::from_millis(300)),
        ..plan
    };
    let deadline = Instant::now() + SETTLE;
    loop {
        engine.run(silent, fan)?;
        if fan.is_joined() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not every subscriber was answered within {SETTLE:?}");
        }
    }
}

/// Appends no more and waits until all has arrived everywhere.
fn settle(engine: &mut Engine, plan: Plan, fan: &mut Fan) -> Result<()> {
    fan.quiet();
    let silent = Plan {
        pace: None,
        warm_up: Duration::ZERO,
        window: Some(Duration::from_millis(50)),
        ..plan
    };
    let deadline = Instant::now() + SETTLE;
    while !fan.all_delivered() {
        if Instant::now() > deadline {
            bail!("messages were missing {SETTLE:?} after the last append");
        }
        engine.run(silent, fan)?;
    }
    Ok(())
}
