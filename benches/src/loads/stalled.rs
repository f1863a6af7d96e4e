//! Readers that ask for a large stream and then take nothing: what each costs the server.

use super::{Bench, Load, Needs, Unit, setup};
use crate::client::{Method, request};
use crate::process;
use crate::results::Outcome;
use crate::traffic::name;
use anyhow::Result;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(15);

struct Stalled;

pub(super) fn add(loads: &mut Vec<Box<dyn Load>>) {
    loads.push(Box::new(Stalled));
}

impl Load for Stalled {
    fn key(&self) -> String {
        "stalled-readers".into()
    }

    fn group(&self) -> &'static str {
        "Memory"
    }

    fn title(&self) -> String {
        "resident per stalled reader of a large stream".into()
    }

    fn unit(&self) -> Unit {
        Unit::Kib
    }

    fn needs(&self) -> Needs {
        Needs::StoredReads
    }

    fn rounds(&self, _: super::Scale) -> usize {
        1
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Outcome> {
        let (mib, readers) = if bench.scale.quick { (64, 50) } else { (1024, 200) };
        setup::stock(bench, 1, mib << 20)?;
        let pid = bench.server.pid()?;
        let before = process::settled_memory(pid, SETTLE)?;
        let target = &bench.server.target;
        let path = format!("{}?offset=-1", target.path(&name(setup::PREFIX, 0)));
        let mut bytes = Vec::new();
        request(&mut bytes, Method::Get, target, &path, &[], b"");
        let mut stalled = Vec::new();
        for _ in 0..readers {
            let mut stream = TcpStream::connect(target.addr)?;
            stream.write_all(&bytes)?;
            stalled.push(stream);
        }
        let after = process::settled_memory(pid, SETTLE)?;
        drop(stalled);
        let each = after.saturating_sub(before) as f64 / f64::from(readers);
        Ok(Outcome::of(each).with_memory(pid))
    }
}
