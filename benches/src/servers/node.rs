//! The Node reference server, npm `@durable-streams/server`.

use super::{Installed, Launch, Mode, ServerKind, run_quietly};
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::process::Command;

const VERSION: &str = "0.3.7";
const START: &str = r#"import { DurableStreamTestServer } from "@durable-streams/server"
const [port, dataDir] = process.argv.slice(2)
await new DurableStreamTestServer({ port: Number(port), host: "127.0.0.1", dataDir }).start()
"#;

pub(crate) struct Node;

impl ServerKind for Node {
    fn key(&self) -> &'static str {
        "node"
    }

    fn title(&self) -> &'static str {
        "Node reference"
    }

    fn install(&self, cache: &Path) -> Result<Installed> {
        let root = cache.join(format!("node-server-{VERSION}"));
        let program = root.join("start.mjs");
        if !root.join("node_modules/@durable-streams/server").exists() {
            fs::create_dir_all(&root)?;
            fs::write(root.join("package.json"), "{\"private\": true}\n")?;
            let mut npm = Command::new("npm");
            npm.current_dir(&root).args(["install", "--no-audit", "--no-fund"]);
            run_quietly(npm.arg(format!("@durable-streams/server@{VERSION}")))?;
        }
        fs::write(&program, START)?;
        let node = run_quietly(Command::new("node").arg("--version"))?;
        Ok(Installed { program, version: format!("npm {VERSION}, node {node}") })
    }

    fn command(&self, installed: &Installed, launch: &Launch<'_>) -> Result<Command> {
        let mut command = Command::new("node");
        command.arg(&installed.program).arg(launch.port.to_string());
        if launch.mode == Mode::Durable {
            command.arg(launch.data);
        }
        Ok(command)
    }
}
