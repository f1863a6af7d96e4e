//! The real binary with a configuration, and what it logs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing in these tests may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
}

/// The binary, or the one that `BINARY` names, without the variables of this process.
pub(crate) fn binary() -> Command {
    let mine = env!("CARGO_BIN_EXE_durable-streams-server");
    let mut command = Command::new(std::env::var_os("BINARY").unwrap_or_else(|| mine.into()));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DURABLE_STREAMS_") {
            command.env_remove(name);
        }
    }
    command
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    let [port] = free_ports();
    port
}

/// Ports that are free now, each another one.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Waits until `check` returns something.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

impl Server {
    /// `run` with this configuration in `directory`, once it listens.
    pub(crate) async fn run(directory: &Path, config: &str) -> Self {
        let server = Self::start(directory, config);
        eventually("it listens", async || server.logged("listening")).await;
        server
    }

    fn start(directory: &Path, config: &str) -> Self {
        let file = directory.join("streams.yaml");
        fs::write(&file, format!("{config}\nlog: {{format: json}}\n")).unwrap();
        let mut command = binary();
        command.arg("run").arg("--config").arg(file);
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
        Server { child, log }
    }

    /// The first record whose text contains this.
    pub(crate) fn logged(&self, part: &str) -> Option<Value> {
        let log = self.log.lock().unwrap();
        log.iter().find(|record| record.to_string().contains(part)).cloned()
    }

    /// How many records contain this.
    pub(crate) fn times(&self, part: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|record| record.to_string().contains(part)).count()
    }

    /// The first address listened on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// The addresses listened on.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let record = self.logged("listening").unwrap();
        let text = record["addresses"].as_str().unwrap().to_owned();
        text.trim_matches(['[', ']']).split(',').map(|one| one.trim().parse().unwrap()).collect()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            for record in self.log.lock().unwrap().iter() {
                eprintln!("{record}");
            }
        }
    }
}
