//! Creates per second.

use super::{Bench, Load, setup};
use crate::client::{Engine, Plan};
use crate::results::Outcome;
use crate::traffic::Creates;
use anyhow::Result;

/// More than any server makes in a window; Electric and thesampaton stop near their descriptor
/// limit, so the window of this row is bounded by a count as well.
const COUNT: usize = 10_000;
const CONNECTIONS: usize = 64;

struct Create;

pub(super) fn add(loads: &mut Vec<Box<dyn Load>>) {
    loads.push(Box::new(Create));
}

impl Load for Create {
    fn key(&self) -> String {
        "create".into()
    }

    fn group(&self) -> &'static str {
        "Creates and producers, durable"
    }

    fn title(&self) -> String {
        format!("creates, {CONNECTIONS} connections")
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Outcome> {
        let count = if bench.scale.quick { COUNT / 4 } else { COUNT };
        let target = &bench.server.target;
        let octets = "application/octet-stream";
        let mut traffic = Creates::new(target, setup::PREFIX, octets, count);
        let mut engine = Engine::connect(target.addr, CONNECTIONS)?;
        let plan = Plan::to_the_end(bench.scale.setup_bound).charging(Some(bench.server.pid()?));
        let summary = engine.run(plan, &mut traffic)?;
        bench.rate(&summary)
    }
}
