//! The comparison: every load on every server, interleaved run by run (A B C A B C ...), so that
//! whatever else the machine does falls on all of them alike.

use crate::loads::{self, Bench, Load, Scale, disk};
use crate::machine::Machine;
use crate::process;
use crate::report;
use crate::results::{Cell, History, Outcome, Row, ServerFacts};
use crate::servers::{self, Host, Installed, Launch, Mode, Running, ServerKind};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Others may take this much of a processor during a run that counts, if it can be had.
const QUIET: f64 = 0.1;
/// How often a run is made at most.
const TRIES: usize = 4;

/// What to compare and how.
pub(crate) struct Options {
    pub(crate) scale: Scale,
    /// Prefixes of load keys; empty takes all.
    pub(crate) only: Vec<String>,
    /// Server keys; empty takes all.
    pub(crate) servers: Vec<String>,
    pub(crate) out: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) data: PathBuf,
    /// Bind client and server to a core each, if there are two.
    pub(crate) pinned: bool,
}

struct Contestant {
    kind: Box<dyn ServerKind>,
    installed: Result<Installed, String>,
}

/// Runs the comparison and writes `results.json`, `benchmarks.md` and its plots.
pub(crate) fn compare(options: &Options) -> Result<()> {
    let descriptors = process::raise_descriptor_limit()?;
    fs::create_dir_all(&options.data)?;
    fs::create_dir_all(&options.out)?;
    let loads = chosen(options)?;
    let contestants = install(options)?;
    let machine = Machine::read(&options.data, descriptors);
    if machine.disk_is_memory() {
        eprintln!("warning: {} is no disk; durable figures mean nothing", options.data.display());
    }
    let pinned = options.pinned && machine.cores > 1;
    let host = Host {
        data_root: options.data.clone(),
        server_core: pinned.then_some(0),
        cores: if pinned { 1 } else { machine.cores },
    };
    let start = Instant::now();
    let mut history =
        History { servers: facts(&contestants, options, &host)?, ..History::default() };
    if options.only.is_empty() || options.only.iter().any(|only| only == "disk") {
        eprintln!("disk: fdatasync");
        history.disk = disk::measure(&options.data, options.scale)?;
    }
    if pinned {
        process::pin_self(1)?;
    }
    for load in &loads {
        let row = run_row(load.as_ref(), &contestants, &host, options.scale, &history);
        eprintln!("{}", report::line(&history.servers, &row));
        history.rows.push(row);
        // After every row: a run takes long, and what is cut short is not lost.
        let run = report::Run {
            history: &history,
            machine: &machine,
            scale: options.scale,
            pinned,
            took: start.elapsed(),
        };
        report::write(&run, &options.out)?;
    }
    Ok(())
}

/// The rows asked for.
fn chosen(options: &Options) -> Result<Vec<Box<dyn Load>>> {
    let all = loads::all();
    let keys: Vec<String> = all.iter().map(|load| load.key()).collect();
    for only in &options.only {
        if only != "disk" && !keys.iter().any(|key| key.starts_with(only.as_str())) {
            bail!("--only {only}: no such load; there are disk, {}", keys.join(", "));
        }
    }
    let wanted = |load: &dyn Load| {
        let key = load.key();
        // A row named in full runs even if it is too long for --quick.
        if options.only.contains(&key) {
            return true;
        }
        // A row's whole name names that row alone, not those that begin alike.
        let begins = |only: &String| key.starts_with(only.as_str()) && !keys.contains(only);
        let named = options.only.is_empty() || options.only.iter().any(begins);
        named && !(options.scale.quick && load.full_only())
    };
    Ok(all.into_iter().filter(|load| wanted(load.as_ref())).collect())
}

fn install(options: &Options) -> Result<Vec<Contestant>> {
    let kinds = servers::all();
    for key in &options.servers {
        let known: Vec<&str> = kinds.iter().map(|kind| kind.key()).collect();
        ensure!(known.contains(&key.as_str()), "--servers {key}: there are {}", known.join(", "));
    }
    fs::create_dir_all(&options.cache)?;
    let cache = options.cache.canonicalize()?;
    let wanted = |key: &str| options.servers.is_empty() || options.servers.iter().any(|k| k == key);
    let chosen = kinds.into_iter().filter(|kind| wanted(kind.key()));
    Ok(chosen
        .map(|kind| {
            let installed = kind.install(&cache).map_err(|error| format!("{error:#}"));
            if let Err(reason) = &installed {
                eprintln!("{}: not taking part: {reason}", kind.key());
            }
            Contestant { kind, installed }
        })
        .collect())
}

/// Versions and start lines, the paths of this machine shortened.
fn facts(contestants: &[Contestant], options: &Options, host: &Host) -> Result<Vec<ServerFacts>> {
    let scratch = options.data.join("start-lines");
    fs::create_dir_all(&scratch)?;
    let line = |contestant: &Contestant, installed: &Installed, mode| -> Result<String> {
        let (data, config) = (Path::new("DATA"), scratch.as_path());
        let launch = Launch { port: 4437, mode, data, config, cores: host.cores };
        let command = contestant.kind.command(installed, &launch)?;
        let shorten = |text: &str| {
            let config = scratch.display().to_string();
            let name = Path::new(text).file_name().map(|name| name.to_string_lossy().into_owned());
            match text.starts_with('/') && !text.starts_with(&config) {
                true => name.unwrap_or_else(|| text.to_owned()),
                false => text.replace(&config, "CONFIG"),
            }
        };
        let env = command.get_envs().map(|(key, value)| {
            let value = shorten(&value.unwrap_or_default().to_string_lossy());
            format!("{}={value}", key.to_string_lossy())
        });
        let program = shorten(&command.get_program().to_string_lossy());
        let args = command.get_args().map(|arg| shorten(&arg.to_string_lossy()));
        Ok(env.chain([program]).chain(args).collect::<Vec<_>>().join(" "))
    };
    let mut all = Vec::new();
    for contestant in contestants {
        let abilities = contestant.kind.abilities();
        let modes = [(Mode::Durable, abilities.durable), (Mode::Memory, abilities.memory)];
        let mut commands = Vec::new();
        if let Ok(installed) = &contestant.installed {
            for (mode, _) in modes.iter().filter(|(_, able)| *able) {
                let text = line(contestant, installed, *mode)?;
                if !commands.contains(&text) {
                    commands.push(text);
                }
            }
        }
        let installed = contestant.installed.as_ref();
        all.push(ServerFacts {
            key: contestant.kind.key(),
            title: contestant.kind.title(),
            version: installed.map_or("not installed".into(), |it| it.version.clone()),
            commands,
            missing: installed.err().cloned(),
        });
    }
    fs::remove_dir_all(&scratch).context("removing the scratch directory")?;
    Ok(all)
}

/// All rounds of one load. A server that fails once sits out the remaining rounds of the row.
fn run_row(
    load: &dyn Load,
    contestants: &[Contestant],
    host: &Host,
    scale: Scale,
    history: &History,
) -> Row {
    let mut cells = vec![Cell::default(); contestants.len()];
    for _ in 0..load.rounds(scale) {
        for (contestant, cell) in contestants.iter().zip(&mut cells) {
            if cell.reason.is_some() {
                continue;
            }
            match quietest(|| run_once(load, contestant, host, scale, history)) {
                Ok(outcome) => cell.runs.push(outcome),
                Err(error) => cell.reason = Some(format!("{error:#}")),
            }
        }
    }
    Row {
        key: load.key(),
        group: load.group(),
        title: load.title(),
        unit: load.unit(),
        mode: load.mode(),
        cells,
    }
}

/// Runs once, and again while others took much of a processor meanwhile; the run with the least of that counts, whatever
/// its figure. A virtual machine's neighbours come and go within seconds, and would fall on some servers only.
fn quietest(mut run: impl FnMut() -> Result<Outcome>) -> Result<Outcome> {
    let disturbed = |outcome: &Outcome| outcome.others.unwrap_or_default();
    let mut best = run()?;
    for _ in 1..TRIES {
        if disturbed(&best) <= QUIET {
            break;
        }
        let again = run()?;
        if disturbed(&again) < disturbed(&best) {
            best = again;
        }
    }
    Ok(best)
}

fn run_once(
    load: &dyn Load,
    contestant: &Contestant,
    host: &Host,
    scale: Scale,
    history: &History,
) -> Result<Outcome> {
    let installed = match &contestant.installed {
        Ok(installed) => installed,
        Err(_) => bail!("not installed"),
    };
    if let Some(reason) = load.needs().refusal(contestant.kind.abilities(), load.mode()) {
        bail!(reason);
    }
    let server = Running::start(contestant.kind.as_ref(), installed, host, load.mode())?;
    let mut bench = Bench { server, scale, history };
    let outcome = load.run(&mut bench);
    outcome.with_context(|| match bench.server.ended() {
        Some(status) => {
            format!("the server ended ({status}), saying {:?}", bench.server.last_words())
        }
        None => "the server refused or erred".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Outcome, quietest};
    use anyhow::{Result, bail};

    /// Runs disturbed like this, one after the other, with their number as their figure.
    fn of(disturbances: &[f64]) -> Result<f64> {
        let mut runs = (1..).zip(disturbances);
        let outcome = quietest(|| match runs.next() {
            Some((run, others)) => {
                Ok(Outcome { others: Some(*others), ..Outcome::of(f64::from(run)) })
            }
            None => bail!("one run too many"),
        });
        Ok(outcome?.value)
    }

    #[test]
    fn the_quietest_run_counts() -> Result<()> {
        assert_eq!(of(&[0.1])?, 1.0);
        assert_eq!(of(&[0.5, 0.05])?, 2.0);
        assert_eq!(of(&[0.5, 0.3, 0.9, 0.4])?, 2.0);
        assert!(of(&[0.5, 0.3]).is_err());
        Ok(())
    }
}
