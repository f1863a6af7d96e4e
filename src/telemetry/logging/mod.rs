//! Logging to standard error: set up once, its level changeable while the server runs.
//!
//! Records of the `log` crate, which Pingora writes, take the same way as `tracing` events. At
//! level info, Pingora's own records are written from warnings up only: its info lines are about its insides.
//! A thread of its own writes; see `queue`.

mod printable;
mod queue;

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use printable::printable;
use queue::{LineQueue, RawStderr};

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// One line for people; coloured on a terminal.
    Text,
    /// One JSON object in a line for machines.
    Json,
}

/// Logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Another part of the process has installed a logger before.
    #[error("a logger is already installed in this process")]
    AlreadyInstalled,
    /// The level was changed before [`init`], or after the logger was dropped.
    #[error("logging is not set up")]
    NotInstalled,
    /// The thread that writes the lines cannot be started.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[from] io::Error),
}

static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

static QUEUE: OnceLock<LineQueue> = OnceLock::new();

/// Installs the process-wide logger.
///
/// # Errors
/// [`LoggingError::AlreadyInstalled`] when the process has one; [`LoggingError::Thread`].
pub fn init(level: LevelFilter, format: LineFormat) -> Result<(), LoggingError> {
    let (filter, handle) = reload::Layer::new(filter(level));
    let ansi = io::stderr().is_terminal();
    let queue = QUEUE.get_or_init(LineQueue::default);
    let subscriber = subscriber(filter, format, ansi, move || QueuedLine { queue, format, ansi });
    subscriber.try_init().map_err(|_| LoggingError::AlreadyInstalled)?;
    let report = |lines: u64| {
        tracing::warn!(lines, "log lines were dropped: standard error was not read fast enough");
    };
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || queue.write_to(&mut RawStderr, report))?;
    LEVEL.set(handle).map_err(|_| LoggingError::AlreadyInstalled)?;
    // The bridge takes its bound from the first level and would keep it.
    log::set_max_level(log_level(level));
    Ok(())
}

/// Changes the level of the logger that [`init`] installed.
///
/// # Errors
/// [`LoggingError::NotInstalled`] when there is none.
pub fn set_level(level: LevelFilter) -> Result<(), LoggingError> {
    let handle = LEVEL.get().ok_or(LoggingError::NotInstalled)?;
    handle.reload(filter(level)).map_err(|_| LoggingError::NotInstalled)?;
    log::set_max_level(log_level(level));
    Ok(())
}

/// Waits until the lines logged so far are written, at most `timeout`. For the end of the process.
pub fn flush(timeout: Duration) {
    if let Some(queue) = QUEUE.get() {
        queue.flush(timeout);
    }
}

/// Lines that were dropped because standard error was not read fast enough.
pub fn dropped_lines() -> u64 {
    QUEUE.get().map_or(0, LineQueue::dropped)
}

/// Where the subscriber writes a line: one call of `write` for each.
struct QueuedLine {
    queue: &'static LineQueue,
    format: LineFormat,
    ansi: bool,
}

impl Write for QueuedLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.format {
            LineFormat::Text => self.queue.push(&printable(line, self.ansi)),
            LineFormat::Json => self.queue.push(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn subscriber<W>(
    filter: reload::Layer<Targets, Registry>,
    format: LineFormat,
    ansi: bool,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        LineFormat::Text => lines.with_ansi(ansi).boxed(),
        LineFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    // The filter is the innermost layer, so that what it refuses costs nothing.
    tracing_subscriber::registry().with(filter).with(lines)
}

fn filter(level: LevelFilter) -> Targets {
    let pingora = if level == LevelFilter::INFO { LevelFilter::WARN } else { level };
    // A target matches by its start, which covers every crate of Pingora's.
    Targets::new().with_default(level).with_target("pingora", pingora)
}

fn log_level(level: LevelFilter) -> log::LevelFilter {
    match level.into_level() {
        None => log::LevelFilter::Off,
        Some(tracing::Level::ERROR) => log::LevelFilter::Error,
        Some(tracing::Level::WARN) => log::LevelFilter::Warn,
        Some(tracing::Level::INFO) => log::LevelFilter::Info,
        Some(tracing::Level::DEBUG) => log::LevelFilter::Debug,
        Some(tracing::Level::TRACE) => log::LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Captured {
        /// The records of this test; others of the process may log meanwhile.
        fn take(&self) -> Vec<serde_json::Value> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            let lines = String::from_utf8(bytes).unwrap();
            let ours = lines.lines().filter(|line| line.contains("probe: "));
            ours.map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    /// One test, because the bridge from `log` is one for the whole process.
    #[test]
    fn both_kinds_of_record_arrive_and_the_level_can_change() {
        let captured = Captured::default();
        let writer = captured.clone();
        let (layer, handle) = reload::Layer::new(filter(LevelFilter::INFO));
        let subscriber = subscriber(layer, LineFormat::Json, false, move || writer.clone());
        subscriber.try_init().unwrap();
        LEVEL.set(handle).unwrap();
        log::set_max_level(log_level(LevelFilter::INFO));

        tracing::info!(stream = "a", "probe: from tracing");
        log::info!("probe: from log");
        log::info!(target: "pingora_core::server", "probe: inner life");
        log::warn!(target: "pingora_core::server", "probe: a warning");
        tracing::debug!("probe: too much detail");
        let records = captured.take();
        let messages: Vec<&str> =
            records.iter().map(|record| record["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["probe: from tracing", "probe: from log", "probe: a warning"]);
        assert_eq!(records[0]["stream"], "a");
        assert_eq!(records[2]["target"], "pingora_core::server");

        set_level(LevelFilter::DEBUG).unwrap();
        tracing::debug!("probe: detail");
        log::debug!(target: "pingora_proxy", "probe: inner life");
        assert_eq!(captured.take().len(), 2, "debug must show both");

        set_level(LevelFilter::OFF).unwrap();
        tracing::error!("probe: unheard");
        log::error!("probe: unheard");
        assert!(captured.take().is_empty());
        assert!(matches!(
            init(LevelFilter::INFO, LineFormat::Text),
            Err(LoggingError::AlreadyInstalled)
        ));
    }
}
