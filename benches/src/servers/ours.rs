//! This repository's server.

use super::{Installed, Launch, Mode, ServerKind, build, run_quietly, workspace};
use anyhow::Result;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Ours;

impl ServerKind for Ours {
    fn key(&self) -> &'static str {
        "ours"
    }

    fn title(&self) -> &'static str {
        "durable-streams-server (this one)"
    }

    fn install(&self, _cache: &Path) -> Result<Installed> {
        let program = build("durable-streams-server", "durable-streams-server")?;
        let mut git = Command::new("git");
        git.current_dir(workspace()).args(["describe", "--always", "--dirty"]);
        let commit = run_quietly(&mut git).unwrap_or_else(|_| "unknown".into());
        Ok(Installed { program, version: format!("commit {commit}") })
    }

    fn command(&self, installed: &Installed, launch: &Launch<'_>) -> Result<Command> {
        command(installed, launch, "")
    }

    /// Streams are idle after a second, and share segments that are written once they have 64 KiB.
    fn sealing_command(
        &self,
        installed: &Installed,
        launch: &Launch<'_>,
    ) -> Result<Option<Command>> {
        let segments = "storage: {segments: {idle: 1s, share: 64KiB, interval: 100ms}}\n";
        command(installed, launch, segments).map(Some)
    }

    fn sealed_bytes(&self, data: &Path) -> u64 {
        let files = fs::read_dir(data.join("segments")).into_iter().flatten().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }
}

/// This server with an object store, a directory, which gets what is idle and keeps it alone.
pub(crate) struct TieredOurs;

impl TieredOurs {
    /// Where the objects are.
    pub(crate) fn objects(config: &Path) -> PathBuf {
        config.join("objects")
    }
}

impl ServerKind for TieredOurs {
    fn key(&self) -> &'static str {
        "ours-tiered"
    }

    fn title(&self) -> &'static str {
        "durable-streams-server (this one), with an object store"
    }

    fn install(&self, cache: &Path) -> Result<Installed> {
        Ours.install(cache)
    }

    fn command(&self, installed: &Installed, launch: &Launch<'_>) -> Result<Command> {
        let objects = Self::objects(launch.config);
        fs::create_dir_all(&objects)?;
        let more = format!(
            "storage: {{segments: {{idle: 1s, interval: 100ms}}}}\n\
             tier: {{url: 'file://{}', local: 0B, interval: 100ms}}\n",
            objects.display()
        );
        command(installed, launch, &more)
    }
}

/// Starts the server with `more` lines of configuration.
fn command(installed: &Installed, launch: &Launch<'_>, more: &str) -> Result<Command> {
    let mut yaml = format!("listen: \"127.0.0.1:{}\"\n", launch.port);
    if launch.mode == Mode::Durable {
        let _ = writeln!(yaml, "data_dir: {:?}", launch.data);
    }
    let _ = writeln!(yaml, "threads: {}\nlog:\n  level: warn\n{more}", launch.cores);
    let path = launch.config.join("streams.yaml");
    fs::write(&path, yaml)?;
    let mut command = Command::new(&installed.program);
    command.arg("run").arg("--config").arg(path);
    Ok(command)
}
