//! Electric's Rust server, crate `durable-streams`.

use super::{Installed, Launch, Mode, ServerKind, cargo_install};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

const VERSION: &str = "0.1.5";

pub(crate) struct Electric;

impl ServerKind for Electric {
    fn key(&self) -> &'static str {
        "electric"
    }

    fn title(&self) -> &'static str {
        "Electric"
    }

    fn install(&self, cache: &Path) -> Result<Installed> {
        cargo_install(cache, "durable-streams", VERSION, "durable-streams-server")
    }

    /// Threads and log shards are left at its own defaults, which follow the processors it sees.
    fn command(&self, installed: &Installed, launch: &Launch<'_>) -> Result<Command> {
        let durability = match launch.mode {
            Mode::Durable => "wal",
            Mode::Memory => "memory",
        };
        let mut command = Command::new(&installed.program);
        command.args(["--host", "127.0.0.1", "--port", &launch.port.to_string()]);
        command.args(["--durability", durability, "--data-dir"]).arg(launch.data);
        Ok(command)
    }
}
