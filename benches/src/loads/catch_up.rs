//! Many small streams, each read once: from a warm server, and from one just started over files that are out of the page
//! cache, with the streams in its index and in segments.

use super::{Bench, Load, Scale, setup};
use crate::client::{Engine, Plan};
use crate::results::Outcome;
use crate::traffic::{Gets, Kind};
use anyhow::{Context as _, Result};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::{self, File};
use std::path::Path;

const BYTES: usize = 1024;
const CONNECTIONS: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum CatchUp {
    Hot,
    Cold,
    /// Cold, and the streams were idle for so long that they are sealed.
    Sealed,
}

pub(super) fn add(loads: &mut Vec<Box<dyn Load>>) {
    for state in [CatchUp::Hot, CatchUp::Cold, CatchUp::Sealed] {
        loads.push(Box::new(state));
    }
}

impl Load for CatchUp {
    fn key(&self) -> String {
        let state = match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
            Self::Sealed => "sealed",
        };
        format!("catch-up-{state}")
    }

    fn group(&self) -> &'static str {
        "Reads"
    }

    fn title(&self) -> String {
        let state = match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
            Self::Sealed => "cold and sealed",
        };
        format!("catch-up of small streams (1 KiB each), {state}")
    }

    fn rounds(&self, scale: Scale) -> usize {
        if scale.quick { 1 } else { scale.rounds.min(3) }
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Outcome> {
        let streams = if bench.scale.quick { 2_000 } else { 10_000 };
        setup::fill(bench, Kind::Bulk(BYTES), streams, 1)?;
        if *self == Self::Sealed {
            bench.server.seal((streams * BYTES) as u64)?;
        }
        if *self != Self::Hot {
            bench.server.stop();
            evict(&bench.server.data())?;
            bench.server.launch()?;
        }
        let target = &bench.server.target;
        let mut traffic = Gets::new(target, setup::PREFIX, streams, BYTES as u64, true, true);
        let mut engine = Engine::connect(target.addr, CONNECTIONS)?;
        let plan = Plan::to_the_end(bench.scale.setup_bound).charging(Some(bench.server.pid()?));
        let summary = engine.run(plan, &mut traffic)?;
        bench.rate(&summary)
    }
}

/// Writes the files below `dir` to disk and drops them, and only them, from the page cache.
fn evict(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            evict(&entry.path())?;
        } else {
            let file = File::open(entry.path())?;
            file.sync_all()?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
    }
    Ok(())
}
