//! The real binary on a data directory, and what it logs.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::client::Client;

/// Nothing in these tests may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Storage so small that a second of load checkpoints, rotates and recycles.
pub(crate) const SMALL: &str = "storage: {checkpoint_interval: 200ms, checkpoint_size: 1MiB, \
     wal_segment: 1MiB, cache: 1MiB, map_size: 64MiB, segments: {min: 8KiB, keep: 1KiB, size: 32KiB, \
     idle: 0ms, share: 2KiB, interval: 20ms}}\nlimits: {max_append: 512KiB}\n";

/// How to start the binary: always from the same place with the same file.
pub(crate) struct Setup {
    directory: tempfile::TempDir,
    pub(crate) data: PathBuf,
    /// Commands put before the binary, such as `nsenter`.
    pub(crate) prefix: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

/// A running server. Killed when dropped; a test that fails meanwhile prints its log.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// A server that ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

impl Setup {
    /// With `settings` as YAML, on a fresh data directory.
    pub(crate) fn new(settings: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let setup = Setup { directory, data, prefix: Vec::new(), environment: Vec::new() };
        setup.configure(settings);
        setup
    }

    /// With another data directory.
    pub(crate) fn on(settings: &str, data: &Path) -> Self {
        let mut setup = Setup::new(settings);
        setup.data = data.to_owned();
        setup.configure(settings);
        setup
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn configure(&self, settings: &str) {
        let log = "log: {format: json, access: false}\n";
        let log = if settings.contains("log:") { "" } else { log };
        let data = self.data.display();
        let common = format!("listen: \"127.0.0.1:0\"\nthreads: 2\ndata_dir: {data}\n{log}");
        fs::write(self.path().join("server.yaml"), common + settings).expect("a file is written");
    }

    /// Starts the process without waiting for anything.
    pub(crate) fn spawn(&self) -> Child {
        let mut line = self.prefix.clone();
        line.push(env!("CARGO_BIN_EXE_durable-streams-server").to_owned());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg("run").arg("--config").arg(self.path().join("server.yaml"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("the binary starts")
    }

    /// Starts the server and waits until it listens, or gives how it ended.
    pub(crate) fn try_start(&self) -> Result<Server, Ended> {
        let mut child = self.spawn();
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Arc::new(Mutex::new(String::new()));
        let (tell, told) = mpsc::channel();
        let reader = thread::spawn({
            let log = log.clone();
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if let Some(address) = listening(&line) {
                        let _ = tell.send(address);
                    }
                    let mut log = log.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        match told.recv_timeout(PATIENCE) {
            Ok(address) => Ok(Server { child, address, log, reader: Some(reader) }),
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().expect("the child is ours");
                let _ = reader.join();
                let log = log.lock().unwrap().clone();
                Err(Ended { status, log })
            }
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the server neither listens nor ends:\n{}", log.lock().unwrap());
            }
        }
    }

    pub(crate) fn start(&self) -> Server {
        match self.try_start() {
            Ok(server) => server,
            Err(ended) => panic!("the server does not start ({}):\n{}", ended.status, ended.log),
        }
    }

    /// Starts and expects a refusal: exit code 1 and a message on standard error.
    pub(crate) fn refused(&self) -> String {
        match self.try_start() {
            Ok(_) => panic!("the server started on what it had to refuse"),
            Err(ended) => {
                assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
                ended.log
            }
        }
    }
}

/// The address in the log line that says so.
fn listening(line: &str) -> Option<SocketAddr> {
    if !line.contains("\"listening\"") {
        return None;
    }
    let at = line.find("127.0.0.1:")?;
    let end = line[at..].find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')?;
    line[at..at + end].parse().ok()
}

impl Server {
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log contains `text`.
    pub(crate) fn until_logged(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "never logged {text:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_none()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }

    /// SIGTERM; waits for the end and gives how it came.
    pub(crate) fn stop(self) -> Ended {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(sent.success());
        self.until_ended()
    }

    /// Waits for the end and gives how it came.
    pub(crate) fn until_ended(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                break status;
            }
            assert!(Instant::now() < deadline, "does not stop:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        };
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ended { status, log: self.log() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Ok(log) = self.log.lock()
        {
            eprintln!("the server's log:\n{log}");
        }
    }
}

/// The events that the start replayed, by its log.
pub(crate) fn replayed(log: &str) -> u64 {
    let found = log.split("\"replayed\":").nth(1);
    let digits = found.unwrap_or_else(|| panic!("nothing about a replay in:\n{log}"));
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().expect("a number")
}
