//! Running the binary and reading what it says.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A directory with a configuration in it.
pub(crate) struct Scene {
    directory: TempDir,
}

/// What a run left behind.
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Scene {
    /// `content` as `streams.yaml`.
    pub(crate) fn with(content: impl AsRef<[u8]>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("streams.yaml"), content).expect("the file is written");
        Self { directory }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("streams.yaml")
    }

    /// `check --config streams.yaml` and `arguments`, in the scene's directory.
    pub(crate) fn check(&self, arguments: &[&str]) -> Outcome {
        self.check_in(&[], arguments)
    }

    /// The same with `environment`.
    pub(crate) fn check_in(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Outcome {
        let mut command = binary();
        command.args(["check", "--config", "streams.yaml"]).args(arguments);
        command.current_dir(self.directory.path()).envs(environment.iter().copied());
        finish(&mut command)
    }
}

/// The binary, with nothing of ours in its environment.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durable-streams-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DURABLE_STREAMS_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn finish(command: &mut Command) -> Outcome {
    outcome(command.output().expect("the binary runs"))
}

pub(crate) fn outcome(Output { status, stdout, stderr }: Output) -> Outcome {
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    let (stdout, stderr) = (text(stdout), text(stderr));
    let Some(code) = status.code() else { panic!("ended by a signal, {status}: {stderr}") };
    Outcome { code, stdout, stderr }
}
