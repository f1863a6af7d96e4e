//! Preparing a server for a load, and checking afterwards that it holds what it acknowledged.

use super::Bench;
use crate::client::{Engine, Head, Method, Next, Offset, Plan, Target, Traffic, request};
use crate::traffic::{Appends, Creates, Kind, Replay, name};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::time::{Duration, Instant};

/// The prefix of the streams of a comparison.
pub(super) const PREFIX: &str = "s";
/// Connections that prepare.
const HANDS: usize = 64;
/// Body size of the appends that fill a large stream.
const FILL: usize = 256 * 1024;
/// Streams whose whole content is read back after a load.
const READ_BACK: usize = 50;

/// Creates streams `0..count`.
pub(super) fn create(bench: &Bench<'_>, content_type: &str, count: usize) -> Result<()> {
    let target = &bench.server.target;
    let mut traffic = Creates::new(target, PREFIX, content_type, count);
    let mut engine = Engine::connect(target.addr, HANDS.min(count))?;
    let created = engine.run(Plan::to_the_end(bench.scale.setup_bound), &mut traffic);
    created.with_context(|| format!("creating {count} streams (got to {})", traffic.done))?;
    Ok(())
}

/// Creates `streams` streams and puts `appends` appends of `kind` on each.
pub(super) fn fill(
    bench: &Bench<'_>,
    kind: Kind,
    streams: usize,
    appends: usize,
) -> Result<Appends> {
    create(bench, kind.content_type(), streams)?;
    let target = &bench.server.target;
    let connections = HANDS.min(streams);
    let traffic = Appends::new(target, PREFIX, kind, connections, streams);
    let mut traffic = traffic.on_each(appends as u64);
    let mut engine = Engine::connect(target.addr, connections)?;
    let filled = engine.run(Plan::to_the_end(bench.scale.setup_bound), &mut traffic);
    filled.with_context(|| format!("filling {streams} streams"))?;
    Ok(traffic)
}

/// Makes streams of `bytes` each, as appends or, for a file server, as files.
pub(super) fn stock(bench: &Bench<'_>, streams: usize, bytes: usize) -> Result<()> {
    if bench.server.abilities().files {
        let dir = bench.server.data().join(bench.server.target.base.trim_matches('/'));
        fs::create_dir_all(&dir)?;
        for stream in 0..streams {
            fs::write(dir.join(name(PREFIX, stream)), vec![b'x'; bytes])?;
        }
        return Ok(());
    }
    let piece = bytes.min(FILL);
    ensure!(bytes.is_multiple_of(piece), "{bytes} bytes cannot be filled in pieces of {piece}");
    fill(bench, Kind::Bulk(piece), streams, bytes / piece)?;
    Ok(())
}

struct HeadOnce {
    request: Option<Vec<u8>>,
    tail: Offset,
    status: u16,
}

impl Traffic for HeadOnce {
    fn next(&mut self, _: usize, _: Instant, out: &mut Vec<u8>) -> Next {
        match self.request.take() {
            None => Next::Done,
            Some(bytes) => {
                out.extend_from_slice(&bytes);
                Next::Send
            }
        }
    }

    fn reply(&mut self, _: usize, head: &Head, _: u64) -> Result<(), String> {
        (self.status, self.tail) = (head.status, head.next_offset);
        Ok(())
    }
}

/// The tail a HEAD of `stream` names.
pub(crate) fn tail(target: &Target, stream: &str) -> Result<Offset> {
    let mut bytes = Vec::new();
    request(&mut bytes, Method::Head, target, &target.path(stream), &[], b"");
    let mut traffic = HeadOnce { request: Some(bytes), tail: Offset::NONE, status: 0 };
    let plan = Plan::to_the_end(Duration::from_secs(30));
    Engine::connect(target.addr, 1)?.run(plan, &mut traffic)?;
    ensure!(traffic.status == 200, "HEAD {stream}: status {}", traffic.status);
    Ok(traffic.tail)
}

/// Holds a server to what it acknowledged: the tail by HEAD and the whole content by GET, of a
/// sample of the streams.
pub(super) fn verify(bench: &Bench<'_>, appends: &Appends) -> Result<()> {
    if !bench.server.abilities().stores {
        return Ok(());
    }
    let target = &bench.server.target;
    let touched: Vec<usize> = appends.touched().collect();
    let step = touched.len().div_ceil(READ_BACK).max(1);
    for &stream in touched.iter().step_by(step) {
        let name = name(PREFIX, stream);
        let (said, acked) = (tail(target, &name)?, appends.tail(stream));
        if said != acked {
            bail!("after the load: HEAD {name} says {said}, the last append said {acked}");
        }
        let replay = Replay::new(target, &name, 1, appends.expected(stream));
        let mut replay = replay.once().of_objects(appends.kind().is_json());
        let plan = Plan::to_the_end(bench.scale.setup_bound);
        let read = Engine::connect(target.addr, 1)?.run(plan, &mut replay);
        read.with_context(|| format!("after the load: reading {name} back"))?;
    }
    Ok(())
}
