//! Compares Durable Streams servers under identical load; see `docs/benchmarks.md`.

mod aim;
mod capacity;
mod cli;
mod client;
mod compare;
mod loads;
mod machine;
mod process;
mod report;
mod responder;
mod results;
mod servers;
mod traffic;

use anyhow::Result;
use clap::Parser as _;
use cli::{Cli, Command, CompareArgs};
use loads::Scale;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Compare(args) => compare(args),
        Command::Load(args) => aim::aim(&args),
        Command::Capacity(args) => capacity::capacity(&args),
        Command::Respond { addr } => responder::respond(addr),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: CompareArgs) -> Result<()> {
    let mut scale = if args.quick { Scale::quick() } else { Scale::full() };
    scale.rounds = args.rounds.unwrap_or(scale.rounds).max(1);
    scale.window = args.window_ms.map_or(scale.window, Duration::from_millis);
    let ours = servers::workspace().join("target").join("bench");
    compare::compare(&compare::Options {
        scale,
        only: args.only,
        servers: args.servers,
        out: args.out.unwrap_or_else(|| ours.join("report")),
        cache: ours.join("peers"),
        data: args.data.unwrap_or_else(|| ours.join("data")),
        pinned: !args.unpinned,
    })
}
