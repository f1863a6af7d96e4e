//! The Caddy plugin: as a Go module where there is one, or a binary given in `BENCH_CADDY`.

use super::{Installed, Launch, Mode, ServerKind, run_quietly};
use anyhow::{Result, bail, ensure};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MODULE: &str = "github.com/durable-streams/durable-streams/packages/caddy-plugin/cmd/caddy";

pub(crate) struct Caddy;

impl ServerKind for Caddy {
    fn key(&self) -> &'static str {
        "caddy"
    }

    fn title(&self) -> &'static str {
        "Caddy plugin"
    }

    fn install(&self, cache: &Path) -> Result<Installed> {
        if let Some(program) = env::var_os("BENCH_CADDY").map(PathBuf::from) {
            ensure!(program.exists(), "BENCH_CADDY: {} does not exist", program.display());
            return Ok(Installed { program, version: "given in BENCH_CADDY".into() });
        }
        let bin = cache.join("caddy").join("bin");
        let program = bin.join("caddy");
        if !program.exists() {
            let mut go = Command::new("go");
            let installed =
                run_quietly(go.env("GOBIN", &bin).args(["install", &format!("{MODULE}@latest")]));
            // What Go says names hosts of the machine that asked, which is nothing for a report.
            if let Err(error) = installed {
                eprintln!("caddy: {error:#}");
                bail!("no Go module of it could be had; build it and give its path in BENCH_CADDY");
            }
        }
        Ok(Installed { program, version: "Go module, latest".into() })
    }

    fn command(&self, installed: &Installed, launch: &Launch<'_>) -> Result<Command> {
        let data = match launch.mode {
            Mode::Durable => format!("data_dir {}", launch.data.display()),
            Mode::Memory => String::new(),
        };
        let path = launch.config.join("Caddyfile");
        let port = launch.port;
        fs::write(
            &path,
            format!(
                "{{\n\tadmin off\n\tauto_https off\n}}\n\nhttp://127.0.0.1:{port} {{\n\
                 \troute /v1/stream/* {{\n\t\tdurable_streams {{\n\t\t\t{data}\n\t\t}}\n\t}}\n}}\n"
            ),
        )?;
        let mut command = Command::new(&installed.program);
        command.env("HOME", launch.config).env("GOMAXPROCS", launch.cores.to_string());
        command.arg("run").arg("--config").arg(path).args(["--adapter", "caddyfile"]);
        Ok(command)
    }
}
