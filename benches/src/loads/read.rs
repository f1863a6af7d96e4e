//! Hot small reads, out of memory and out of segments, and HEAD.

use super::{Bench, Load, Needs, setup};
use crate::client::{Engine, Plan};
use crate::results::Outcome;
use crate::traffic::{Gets, Heads, name};
use anyhow::Result;

const CONNECTIONS: usize = 64;

enum Read {
    /// `sealed`: the server has sealed the stream and was started again since.
    Get {
        bytes: usize,
        sealed: bool,
    },
    Head,
}

pub(super) fn add(loads: &mut Vec<Box<dyn Load>>) {
    loads.push(Box::new(Read::Get { bytes: 1024, sealed: false }));
    loads.push(Box::new(Read::Get { bytes: 64 * 1024, sealed: false }));
    loads.push(Box::new(Read::Get { bytes: 64 * 1024, sealed: true }));
    loads.push(Box::new(Read::Head));
}

impl Load for Read {
    fn key(&self) -> String {
        match self {
            Self::Get { bytes, sealed: false } => format!("read-{}k", bytes / 1024),
            Self::Get { bytes, sealed: true } => format!("read-{}k-sealed", bytes / 1024),
            Self::Head => "read-head".into(),
        }
    }

    fn group(&self) -> &'static str {
        "Reads"
    }

    fn title(&self) -> String {
        match self {
            Self::Get { bytes, sealed } => {
                let state = if *sealed { "sealed" } else { "hot" };
                format!("GET {} KiB, {state}, {CONNECTIONS} connections", bytes / 1024)
            }
            Self::Head => format!("HEAD, {CONNECTIONS} connections"),
        }
    }

    fn needs(&self) -> Needs {
        Needs::Reads
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Outcome> {
        let bytes = match self {
            Self::Get { bytes, .. } => *bytes,
            Self::Head => 1024,
        };
        setup::stock(bench, 1, bytes)?;
        if let Self::Get { sealed: true, .. } = self {
            bench.server.seal(bytes as u64)?;
        }
        let target = &bench.server.target;
        let protocol = !bench.server.abilities().files;
        let mut engine = Engine::connect(target.addr, CONNECTIONS)?;
        let plan = Plan::closed(bench.scale.warm_up, bench.scale.window);
        let plan = plan.charging(Some(bench.server.pid()?));
        let summary = match self {
            Self::Get { .. } => {
                let mut traffic =
                    Gets::new(target, setup::PREFIX, 1, bytes as u64, false, protocol);
                engine.run(plan, &mut traffic)?
            }
            Self::Head => {
                let stream = name(setup::PREFIX, 0);
                let tail = protocol.then(|| setup::tail(target, &stream)).transpose()?;
                engine.run(plan, &mut Heads::new(target, &stream, tail))?
            }
        };
        bench.rate(&summary)
    }
}
