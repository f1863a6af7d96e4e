//! The servers under measurement: how each is installed, what it can do and how it is started.

mod bare;
mod caddy;
mod electric;
mod epoll;
mod nginx;
mod node;
mod ours;
mod running;
mod thesampaton;

pub(crate) use ours::{Ours, TieredOurs};
pub(crate) use running::{Host, Running};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a server promises for an acknowledged append.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// It survives a crash of the machine.
    Durable,
    /// It may be lost with the process or the machine.
    Memory,
}

/// What a server can be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    pub(crate) durable: bool,
    pub(crate) memory: bool,
    /// Takes creates and appends, and answers with protocol headers.
    pub(crate) writes: bool,
    /// Keeps what was appended (a ceiling answers without keeping anything).
    pub(crate) stores: bool,
    /// Long-poll and SSE.
    pub(crate) live: bool,
    /// Serves files of its directory: a load puts its data there instead of appending it.
    pub(crate) files: bool,
}

impl Abilities {
    /// A whole Durable Streams server.
    const SERVER: Self =
        Self { durable: true, memory: true, writes: true, stores: true, live: true, files: false };
    /// Answers every request out of nothing.
    const CEILING: Self = Self { stores: false, live: false, ..Self::SERVER };
}

/// An installed server.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) program: PathBuf,
    pub(crate) version: String,
}

/// How one instance is to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) port: u16,
    pub(crate) mode: Mode,
    /// An empty directory on a real disk, for data.
    pub(crate) data: &'a Path,
    /// An empty directory for configuration files.
    pub(crate) config: &'a Path,
    /// Processors the server may use.
    pub(crate) cores: usize,
}

/// One kind of server.
pub(crate) trait ServerKind {
    /// Its name in `--servers` and in the results.
    fn key(&self) -> &'static str;
    /// What the report calls it.
    fn title(&self) -> &'static str;
    fn abilities(&self) -> Abilities {
        Abilities::SERVER
    }
    /// The path its streams lie under.
    fn base(&self) -> &'static str {
        "/v1/stream/"
    }
    /// Makes it ready to start, downloading or building what is missing.
    fn install(&self, cache: &Path) -> Result<Installed>;
    /// The command that runs it in the foreground.
    fn command(&self, installed: &Installed, launch: &Launch<'_>) -> Result<Command>;
    /// The same for a server that moves old data to files of another kind, which here is to count as old at once.
    fn sealing_command(&self, _: &Installed, _: &Launch<'_>) -> Result<Option<Command>> {
        Ok(None)
    }
    /// Bytes in those files.
    fn sealed_bytes(&self, _data: &Path) -> u64 {
        0
    }
}

/// Every kind, in the order of the report's columns.
pub(crate) fn all() -> Vec<Box<dyn ServerKind>> {
    vec![
        Box::new(Ours),
        Box::new(electric::Electric),
        Box::new(thesampaton::Thesampaton),
        Box::new(node::Node),
        Box::new(caddy::Caddy),
        Box::new(bare::Bare),
        Box::new(epoll::Epoll),
        Box::new(nginx::Nginx { caches_files: true }),
        Box::new(nginx::Nginx { caches_files: false }),
    ]
}

/// The directory of the harness's own executable: its siblings are built there too.
fn build_dir() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().context("the harness has no directory")?.to_owned())
}

/// The workspace this harness was built from.
pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Builds a binary of the workspace with the release profile and returns its path.
fn build(package: &str, binary: &str) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace()).args(["build", "--release", "--package", package]);
    run_quietly(cargo.args(["--bin", binary]))?;
    let program = build_dir()?.join(binary);
    if !program.exists() {
        bail!("{} is missing: run the harness with --release", program.display());
    }
    Ok(program)
}

/// Runs `cargo install` into a directory of its own under `cache`, unless it has been.
fn cargo_install(cache: &Path, krate: &str, version: &str, binary: &str) -> Result<Installed> {
    let root = cache.join(format!("{krate}-{version}"));
    let program = root.join("bin").join(binary);
    if !program.exists() {
        let mut cargo = Command::new("cargo");
        cargo.args(["install", krate, "--version", version, "--locked", "--root"]).arg(&root);
        run_quietly(cargo.arg("--target-dir").arg(cache.join("build").join(krate)))?;
    }
    Ok(Installed { program, version: format!("crate {krate} {version}") })
}

/// Runs a preparing command to its end; its output is shown only if it fails.
fn run_quietly(command: &mut Command) -> Result<String> {
    eprintln!("+ {command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {:?}", command.get_program()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = errors.trim().lines().rev().take(2).collect();
        let program = command.get_program().to_string_lossy().into_owned();
        bail!("{program} failed: {}", tail.into_iter().rev().collect::<Vec<_>>().join(" / "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
