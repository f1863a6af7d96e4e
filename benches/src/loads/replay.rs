//! Replay of a large stream from its start, by one client and by several.

use super::{Bench, Load, Needs, Scale, Unit, setup};
use crate::client::{Engine, Plan};
use crate::results::Outcome;
use crate::traffic::{Replay as Traffic, name};
use anyhow::{Result, ensure};

struct Replay {
    mib: usize,
    clients: usize,
    /// Out of segments.
    sealed: bool,
}

pub(super) fn add(loads: &mut Vec<Box<dyn Load>>) {
    for mib in [64, 1024] {
        for clients in [1, 8] {
            loads.push(Box::new(Replay { mib, clients, sealed: false }));
        }
    }
    for clients in [1, 8] {
        loads.push(Box::new(Replay { mib: 1024, clients, sealed: true }));
    }
}

impl Load for Replay {
    fn key(&self) -> String {
        let sealed = if self.sealed { "-sealed" } else { "" };
        format!("replay-{}m-{}{sealed}", self.mib, self.clients)
    }

    fn group(&self) -> &'static str {
        "Reads"
    }

    fn title(&self) -> String {
        let clients = if self.clients == 1 { "client" } else { "clients" };
        let sealed = if self.sealed { ", sealed" } else { "" };
        format!("replay of {} MiB, {} {clients}{sealed}", self.mib, self.clients)
    }

    fn unit(&self) -> Unit {
        Unit::MibPerSecond
    }

    fn needs(&self) -> Needs {
        Needs::StoredReads
    }

    fn full_only(&self) -> bool {
        self.mib > 64
    }

    fn rounds(&self, scale: Scale) -> usize {
        if self.mib > 64 { scale.rounds.min(3) } else { scale.rounds }
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Outcome> {
        let bytes = self.mib << 20;
        setup::stock(bench, 1, bytes)?;
        if self.sealed {
            bench.server.seal(bytes as u64)?;
        }
        let target = &bench.server.target;
        let traffic = Traffic::new(target, &name(setup::PREFIX, 0), self.clients, bytes as u64);
        let mut traffic = traffic.protocol(!bench.server.abilities().files);
        let mut engine = Engine::connect(target.addr, self.clients)?;
        let plan = Plan::closed(bench.scale.warm_up, bench.scale.window);
        let summary = engine.run(plan.charging(Some(bench.server.pid()?)), &mut traffic)?;
        ensure!(traffic.bytes > 0, "not a byte came within {:?}", bench.scale.window);
        let mib = traffic.bytes as f64 / f64::from(1 << 20);
        bench.outcome(mib / summary.elapsed.as_secs_f64(), &summary)
    }
}
