//! One running instance in a fresh directory.

use super::{Abilities, Installed, Launch, Mode, ServerKind};
use crate::client::Target;
use crate::process::Guarded;
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take from its start to its first accepted connection.
const START_BOUND: Duration = Duration::from_secs(180);
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How long a server may take to move old data.
const SEALING_BOUND: Duration = Duration::from_secs(120);

/// Where and with what servers run.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Holds one directory per instance while it runs.
    pub(crate) data_root: PathBuf,
    /// The core of the server; `None` leaves it to the scheduler.
    pub(crate) server_core: Option<usize>,
    pub(crate) cores: usize,
}

/// A started server. Its directory goes with it.
pub(crate) struct Running<'a> {
    kind: &'a dyn ServerKind,
    installed: &'a Installed,
    host: &'a Host,
    pub(crate) mode: Mode,
    pub(crate) target: Target,
    dir: PathBuf,
    guard: Option<Guarded>,
}

impl<'a> Running<'a> {
    pub(crate) fn start(
        kind: &'a dyn ServerKind,
        installed: &'a Installed,
        host: &'a Host,
        mode: Mode,
    ) -> Result<Self> {
        let port = free_port()?;
        let dir = host.data_root.join(format!("{}-{port}", kind.key()));
        fs::create_dir_all(dir.join("data"))?;
        fs::create_dir_all(dir.join("config"))?;
        let target = Target {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            base: kind.base().into(),
            headers: Vec::new(),
        };
        let mut running = Self { kind, installed, host, mode, target, dir, guard: None };
        running.launch()?;
        Ok(running)
    }

    pub(crate) fn abilities(&self) -> Abilities {
        self.kind.abilities()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("config")
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        Ok(self.guard.as_ref().context("the server is not running")?.pid())
    }

    /// Stops the server and leaves its data.
    pub(crate) fn stop(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.stop(STOP_GRACE);
        }
    }

    /// Ends the server with SIGKILL and leaves its data.
    pub(crate) fn kill(&mut self) {
        self.guard = None;
    }

    /// Starts the server over the data it has, and waits until it accepts connections.
    pub(crate) fn launch(&mut self) -> Result<()> {
        let (data, config) = (self.data(), self.config());
        let command = self.kind.command(self.installed, &self.how(&data, &config))?;
        self.spawn(command)
    }

    /// Starts a server that seals old data again and again, until it has sealed nearly all of the `bytes` it holds. What
    /// other servers hold grows older in vain.
    pub(crate) fn seal(&mut self, bytes: u64) -> Result<()> {
        let (data, config) = (self.data(), self.config());
        let launch = self.how(&data, &config);
        let Some(command) = self.kind.sealing_command(self.installed, &launch)? else {
            return Ok(());
        };
        self.stop();
        self.spawn(command)?;
        let deadline = Instant::now() + SEALING_BOUND;
        // What is too little for a segment of its own stays.
        while self.kind.sealed_bytes(&data) < bytes - bytes / 20 {
            if Instant::now() > deadline {
                bail!("sealed {} of {bytes} bytes", self.kind.sealed_bytes(&data));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.stop();
        self.launch()
    }

    fn how<'b>(&self, data: &'b Path, config: &'b Path) -> Launch<'b> {
        let port = self.target.addr.port();
        Launch { port, mode: self.mode, data, config, cores: self.host.cores }
    }

    fn spawn(&mut self, mut command: Command) -> Result<()> {
        let log = File::create(self.log())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let guard = self.guard.insert(Guarded::spawn(command, self.host.server_core)?);
        let deadline = Instant::now() + START_BOUND;
        while TcpStream::connect_timeout(&self.target.addr, Duration::from_secs(1)).is_err() {
            if let Some(status) = guard.ended() {
                bail!("ended at its start ({status}): {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!("did not listen within {START_BOUND:?}: {}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The exit status, if the server ended by itself.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.guard.as_mut()?.ended()
    }

    /// The last line the server wrote.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let line = text.trim_end().lines().next_back().unwrap_or("it wrote nothing");
        line.chars().take(200).collect()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.guard = None;
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    Ok(listener.local_addr()?.port())
}
