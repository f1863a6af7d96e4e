//! The stop: how it is requested, what it signals, what it waits for.
//!
//! Pingora's own graceful stop sleeps for a fixed grace period. Ours ends when the work does: a
//! stop turns the watch, waits until every permit is back, and only then lets Pingora end its
//! runtimes. What happens on which signal is listed in [`super`].

use std::io;

#[cfg(unix)]
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How a server came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All open work was finished.
    Drained,
    /// `shutdown_timeout` passed first; what was open has been dropped.
    TimedOut,
    /// A second signal requested an immediate stop.
    Forced,
}

/// Requests for a stop, in rising order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StopRequest {
    Serve,
    Stop,
    StopNow,
}

/// What a reload does; it may block.
pub(super) type ReloadHook = Arc<dyn Fn() + Send + Sync>;

/// Stops a server from inside the process.
#[derive(Debug, Clone)]
pub struct StopHandle(watch::Sender<StopRequest>);

impl StopHandle {
    /// Begins a stop, as `SIGTERM` does. A second call stops at once.
    pub fn stop(&self) {
        self.0.send_modify(|request| {
            *request = if *request == StopRequest::Serve {
                StopRequest::Stop
            } else {
                StopRequest::StopNow
            };
        });
    }
}

/// Counts open work of one kind and bounds it.
#[derive(Clone)]
pub(super) struct WorkTracker {
    permits: Arc<Semaphore>,
}

impl WorkTracker {
    /// A permit to exist; `None` when there are too many already.
    pub(super) fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().ok()
    }
}

/// The stop of one server.
pub(super) struct Stop {
    request: watch::Sender<StopRequest>,
    stopping: watch::Sender<bool>,
    /// Permits of every kind of open work, with their number.
    open: Mutex<Vec<(Arc<Semaphore>, u32)>>,
}

impl Stop {
    pub(super) fn new() -> Self {
        Stop {
            request: watch::Sender::new(StopRequest::Serve),
            stopping: watch::Sender::new(false),
            open: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn handle(&self) -> StopHandle {
        StopHandle(self.request.clone())
    }

    /// Turns `true` when a stop begins.
    pub(super) fn watch(&self) -> ShutdownWatch {
        self.stopping.subscribe()
    }

    /// A new kind of open work, at most `max` at once; the stop will wait for all of it.
    pub(super) fn connections(&self, max: usize) -> WorkTracker {
        let max = u32::try_from(max.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let permits = Arc::new(Semaphore::new(max as usize));
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push((permits.clone(), max));
        WorkTracker { permits }
    }

    /// The watch for Pingora's main loop, and where the result will be.
    pub(super) fn into_watch(self, timeout: Duration) -> (DrainWatch, StopOutcome) {
        let outcome = StopOutcome(Arc::new(Mutex::new(Stopped::Forced)));
        (DrainWatch { stop: self, timeout, outcome: outcome.clone() }, outcome)
    }

    async fn drained(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (permits, max) in open {
            // All permits are back when all can be had at once.
            let _ = permits.acquire_many(max).await;
        }
    }
}

/// How the stop went.
#[derive(Clone)]
pub(super) struct StopOutcome(Arc<Mutex<Stopped>>);

impl StopOutcome {
    pub(super) fn get(&self) -> Stopped {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, stopped: Stopped) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stopped;
    }
}

/// Returns to Pingora when the server may end.
pub(super) struct DrainWatch {
    stop: Stop,
    timeout: Duration,
    outcome: StopOutcome,
}

#[async_trait]
impl ShutdownSignalWatch for DrainWatch {
    async fn recv(&self) -> ShutdownSignal {
        let mut request = self.stop.request.subscribe();
        let _ = request.wait_for(|request| *request >= StopRequest::Stop).await;
        tracing::info!("stopping");
        self.stop.stopping.send_replace(true);
        let stopped = tokio::select! {
            () = self.stop.drained() => Stopped::Drained,
            () = tokio::time::sleep(self.timeout) => Stopped::TimedOut,
            _ = request.wait_for(|request| *request == StopRequest::StopNow) => Stopped::Forced,
        };
        self.outcome.set(stopped);
        // The waiting is over, whichever way it went.
        ShutdownSignal::FastShutdown
    }
}

/// How long Pingora itself is to wait once it hears of a stop. Not at all: by then all is done.
#[cfg(unix)]
pub(super) const GRACE_SECONDS: u64 = 0;
/// On Windows it hears of Ctrl-C by itself, at once; it must not end before the work does.
#[cfg(not(unix))]
pub(super) const GRACE_SECONDS: u64 = 24 * 60 * 60;

/// Runs Pingora until the watch says that the server may end.
#[cfg(unix)]
pub(super) fn run_until(server: Server, watch: DrainWatch) {
    server.run(RunArgs { shutdown_signal: Box::new(watch) });
}

/// The same where Pingora takes no watch: it is left running, and ends with the process.
#[cfg(not(unix))]
pub(super) fn run_until(server: Server, watch: DrainWatch) {
    std::thread::spawn(move || server.run(RunArgs::default()));
    match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => drop(runtime.block_on(watch.recv())),
        Err(error) => tracing::error!(%error, "cannot wait for a stop; stopping"),
    }
}

/// Turns the process's signals into requestes, from now until the process ends. A thread of its own,
/// so that the handlers are in place before the server reports that it listens.
///
/// # Errors
/// The system does not let us handle signals.
pub(super) fn on_signals(handle: StopHandle, reload: Option<ReloadHook>) -> io::Result<()> {
    let (installed, result) = mpsc::sync_channel(1);
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let outcome = runtime.and_then(|runtime| {
            let signals = {
                let _context = runtime.enter();
                SignalHandlers::install()?
            };
            Ok((runtime, signals))
        });
        match outcome {
            Ok((runtime, signals)) => {
                let _ = installed.send(Ok(()));
                runtime.block_on(signals.forward(&handle, reload));
            }
            Err(error) => {
                let _ = installed.send(Err(error));
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(body)?;
    result.recv().unwrap_or_else(|_| Err(io::Error::other("the signal thread ended")))
}

#[cfg(not(unix))]
struct SignalHandlers;

#[cfg(not(unix))]
impl SignalHandlers {
    fn install() -> io::Result<Self> {
        Ok(SignalHandlers)
    }

    async fn forward(self, handle: &StopHandle, _: Option<ReloadHook>) {
        while tokio::signal::ctrl_c().await.is_ok() {
            handle.stop();
        }
    }
}

#[cfg(unix)]
struct SignalHandlers {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    /// Whether a terminal was there that can go away.
    terminal: bool,
}

#[cfg(unix)]
impl SignalHandlers {
    fn install() -> io::Result<Self> {
        Ok(SignalHandlers {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            terminal: io::stdin().is_terminal(),
        })
    }

    async fn forward(mut self, handle: &StopHandle, reload: Option<ReloadHook>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => handle.stop(),
                _ = self.interrupt.recv() => handle.stop(),
                _ = self.quit.recv() => handle.stop(),
                _ = self.hangup.recv() => match &reload {
                    _ if self.terminal => handle.stop(),
                    Some(reload) => {
                        // Elsewhere: a stop must not wait for a slow resolver.
                        let reload = reload.clone();
                        tokio::task::spawn_blocking(move || reload());
                    }
                    None => tracing::warn!("SIGHUP ignored: there is no configuration to reload"),
                },
            }
        }
    }
}
