//! The real binary as a process, with what it logs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::eventually;

pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
    directory: tempfile::TempDir,
}

impl Process {
    /// `run` with this configuration; it must log as JSON to be understood.
    pub(crate) async fn run(config: &str) -> Self {
        Self::run_with(config, &[]).await
    }

    /// The same with these variables in its environment.
    pub(crate) async fn run_with(config: &str, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("streams.yaml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_durable-streams-server"));
        command.arg("run").arg("--config").arg(file);
        let process = Self::start(command, environment, directory);
        eventually("it listens", || async { process.logged("listening").is_some() }).await;
        process
    }

    fn start(
        mut command: Command,
        environment: &[(&str, &str)],
        directory: tempfile::TempDir,
    ) -> Self {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("DURABLE_STREAMS_") || text.starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        command.envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, seen) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let record = serde_json::from_str(&line).unwrap_or(Value::String(line));
                seen.lock().unwrap().push(record);
            }
        });
        Process { child, log, directory }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("streams.yaml")
    }

    pub(crate) fn write(&self, config: &str) {
        std::fs::write(self.config(), config).unwrap();
    }

    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Asks it to stop; whether it ended well, and how long that took.
    #[allow(dead_code, reason = "for the tests of tracing")]
    pub(crate) async fn stop(&mut self) -> (bool, Duration) {
        self.signal("TERM");
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.success(), asked.elapsed());
            }
            assert!(asked.elapsed() < Duration::from_secs(20), "it does not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The first record whose message contains this.
    pub(crate) fn logged(&self, part: &str) -> Option<Value> {
        let log = self.log.lock().unwrap();
        let has = |record: &&Value| record["message"].as_str().is_some_and(|m| m.contains(part));
        log.iter().find(has).cloned()
    }

    /// How many records contain this.
    pub(crate) fn times(&self, part: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|record| record.to_string().contains(part)).count()
    }

    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let record = self.logged("listening").unwrap();
        let parse = |key: &str| {
            let text = record[key].as_str().unwrap();
            text.trim_matches(['[', ']']).parse().unwrap()
        };
        (parse("addresses"), parse("admin"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
