//! The harness's own trivial responder: the proof of how fast the client is.

use super::{Abilities, Installed, Launch, ServerKind};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

pub(crate) struct Epoll;

impl ServerKind for Epoll {
    fn key(&self) -> &'static str {
        "epoll"
    }

    fn title(&self) -> &'static str {
        "trivial epoll loop"
    }

    fn abilities(&self) -> Abilities {
        Abilities::CEILING
    }

    fn install(&self, _cache: &Path) -> Result<Installed> {
        let program = std::env::current_exe()?;
        Ok(Installed { program, version: "part of the harness".into() })
    }

    fn command(&self, installed: &Installed, launch: &Launch<'_>) -> Result<Command> {
        let mut command = Command::new(&installed.program);
        command.arg("respond").arg(format!("127.0.0.1:{}", launch.port));
        Ok(command)
    }
}
