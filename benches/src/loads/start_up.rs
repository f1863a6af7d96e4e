//! Start-up over existing streams: from the start of the process to the first right answer.

use super::{Bench, Load, Scale, Unit, setup};
use crate::results::Outcome;
use crate::traffic::{Kind, name};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// How long after it listens a server may still be loading.
const BOUND: Duration = Duration::from_secs(120);

struct StartUp {
    /// Streams of the full run; the quick one has a tenth.
    streams: usize,
}

pub(super) fn add(loads: &mut Vec<Box<dyn Load>>) {
    loads.push(Box::new(StartUp { streams: 18_000 }));
    loads.push(Box::new(StartUp { streams: 1_000_000 }));
}

impl Load for StartUp {
    fn key(&self) -> String {
        format!("start-up-{}", self.streams)
    }

    fn group(&self) -> &'static str {
        "Start-up"
    }

    fn title(&self) -> String {
        match self.streams {
            18_000 => "start to first answer, 18,000 streams (quick: 1,800)".into(),
            streams => format!("start to first answer, {streams} streams"),
        }
    }

    fn unit(&self) -> Unit {
        Unit::Seconds
    }

    fn full_only(&self) -> bool {
        self.streams > 18_000
    }

    fn rounds(&self, scale: Scale) -> usize {
        if scale.quick || self.full_only() { 1 } else { scale.rounds.min(3) }
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Outcome> {
        let streams = if bench.scale.quick { self.streams / 10 } else { self.streams };
        let appends = setup::fill(bench, Kind::Binary, streams, 1)?;
        let last = name(setup::PREFIX, streams - 1);
        bench.server.stop();
        let start = Instant::now();
        bench.server.launch()?;
        let tail = loop {
            match setup::tail(&bench.server.target, &last) {
                Ok(tail) => break tail,
                Err(error) => ensure!(start.elapsed() < BOUND, "not ready: {error:#}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = start.elapsed();
        let acked = appends.tail(streams - 1);
        ensure!(tail == acked, "after the restart {last} ends at {tail}, not {acked}");
        Ok(Outcome::of(took.as_secs_f64()).with_memory(bench.server.pid()?))
    }
}
