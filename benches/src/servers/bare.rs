//! The ceiling of the HTTP layer: Pingora answering out of `request_filter`, with no store.

use super::{Abilities, Installed, Launch, ServerKind, build};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

pub(crate) struct Bare;

impl ServerKind for Bare {
    fn key(&self) -> &'static str {
        "bare"
    }

    fn title(&self) -> &'static str {
        "bare Pingora (no store)"
    }

    fn abilities(&self) -> Abilities {
        Abilities::CEILING
    }

    fn install(&self, _cache: &Path) -> Result<Installed> {
        let program = build("durable-streams-bench", "bare-pingora")?;
        Ok(Installed { program, version: "pingora 0.9.1".into() })
    }

    fn command(&self, installed: &Installed, launch: &Launch<'_>) -> Result<Command> {
        let mut command = Command::new(&installed.program);
        command.arg(format!("127.0.0.1:{}", launch.port)).arg(launch.cores.to_string());
        Ok(command)
    }
}
