//! thesampaton's Rust server, crate `durable-streams-server`.

use super::{Installed, Launch, Mode, ServerKind, cargo_install};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

const VERSION: &str = "0.3.0";
/// Its limits default to 100 MiB in all and 10 MiB a stream, which the loads would hit.
const LIMIT_BYTES: &str = "17179869184";

pub(crate) struct Thesampaton;

impl ServerKind for Thesampaton {
    fn key(&self) -> &'static str {
        "thesampaton"
    }

    fn title(&self) -> &'static str {
        "thesampaton"
    }

    fn install(&self, cache: &Path) -> Result<Installed> {
        cargo_install(cache, "durable-streams-server", VERSION, "durable-streams-server")
    }

    fn command(&self, installed: &Installed, launch: &Launch<'_>) -> Result<Command> {
        let mode = match launch.mode {
            Mode::Durable => "file-durable",
            Mode::Memory => "memory",
        };
        let mut command = Command::new(&installed.program);
        command
            .current_dir(launch.config)
            .env("DS_SERVER__BIND_ADDRESS", format!("127.0.0.1:{}", launch.port))
            .env("DS_STORAGE__MODE", mode)
            .env("DS_STORAGE__DATA_DIR", launch.data)
            .env("DS_LIMITS__MAX_MEMORY_BYTES", LIMIT_BYTES)
            .env("DS_LIMITS__MAX_STREAM_BYTES", LIMIT_BYTES)
            .env("DS_OBSERVABILITY__RUST_LOG", "warn");
        Ok(command)
    }
}
