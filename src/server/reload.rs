//! Reading the configuration again while the server runs (`SIGHUP`): all that can change without a restart
//! takes effect together, or, when anything is wrong with the new one, nothing does.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use durable_streams_engine::Engine;
use durable_streams_protocol::Timestamp;

use super::compose;
use crate::admin::{LogLevelState, ReloadedKey, ServerControl};
use crate::config::{Config, ConfigChange, ConfigError, ConfigSources, LogLevel};
use crate::edge::EdgeControl;
use crate::edge::upstream::UpstreamError;
use crate::telemetry::logging;
use crate::tls::{CertificateError, TlsService};

/// Why the running configuration stays.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    #[error("the server was started without a configuration that could be read again")]
    NoSources,
}

/// Another level of the log, for a while.
#[derive(Default)]
struct LevelOverride {
    /// The number of changes so far: the timer of an earlier change ends no later one.
    changes: u64,
    present: Option<(LogLevel, Timestamp)>,
}

/// See the module.
pub(super) struct ConfigReloader {
    /// `None`: there is nothing to read again.
    sources: Option<ConfigSources>,
    /// In force. The lock makes one reload wait for another.
    running: Mutex<Config>,
    level: Mutex<LevelOverride>,
    engine: Arc<Engine>,
    edge: EdgeControl,
    tls: Option<Arc<TlsService>>,
}

impl ConfigReloader {
    pub(super) fn new(
        sources: Option<ConfigSources>,
        running: Config,
        engine: Arc<Engine>,
        edge: EdgeControl,
        tls: Option<Arc<TlsService>>,
    ) -> Self {
        let (running, level) = (Mutex::new(running), Mutex::default());
        ConfigReloader { sources, running, level, engine, edge, tls }
    }

    /// Reads file, environment and flags again, and says in the log what came of it. May wait for name
    /// resolution.
    pub(super) fn reload(&self) {
        // What came of it is in the log.
        let _ = self.reload_and_report();
    }

    fn reload_and_report(&self) -> Result<Vec<ConfigChange>, ReloadError> {
        let result = self.try_reload();
        self.edge.metrics().reloaded(result.is_ok());
        if let Err(error) = &result {
            for problem in error.to_string().lines() {
                tracing::error!("{problem}");
            }
            tracing::error!("the new configuration is refused; the running one stays");
        }
        result
    }

    fn running(&self) -> MutexGuard<'_, Config> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn level(&self) -> MutexGuard<'_, LevelOverride> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_reload(&self) -> Result<Vec<ConfigChange>, ReloadError> {
        let sources = self.sources.as_ref().ok_or(ReloadError::NoSources)?;
        let mut running = self.running();
        let read = Config::load(sources)?;
        let changes = running.changes(&read);
        let new = read.keeping_fixed(&running);
        // Before everything else: a certificate that is refused leaves the configuration as it is. Certificates that
        // are accepted stay, even where an upstream is refused next; they depend on no other key.
        if let Some(tls) = &self.tls {
            tls.reload()?;
        }
        self.edge.change(compose::edge_options(&new))?;
        self.engine.set_limits(compose::limits(&new));
        self.level().present = None;
        if let Err(error) = logging::set_level(new.log.level.filter()) {
            tracing::warn!(%error, "log.level stays");
        }
        *running = new;
        for change in &changes {
            let (key, from, to) = (&change.key, &change.from, &change.to);
            if change.needs_restart {
                tracing::warn!("{key} = {to:?} needs a restart; it stays {from:?}");
            } else {
                tracing::info!("{key} is now {to:?}, was {from:?}");
            }
        }
        tracing::info!("configuration reloaded");
        Ok(changes)
    }
}

impl ServerControl for ConfigReloader {
    fn config(&self) -> serde_json::Value {
        self.running().masked()
    }

    fn reload(&self) -> Result<Vec<ReloadedKey>, String> {
        let changes = self.reload_and_report().map_err(|error| error.to_string())?;
        let one = |change: ConfigChange| {
            let ConfigChange { key, from, to, needs_restart } = change;
            ReloadedKey { key, from, to, needs_restart }
        };
        Ok(changes.into_iter().map(one).collect())
    }

    fn log_level(&self) -> LogLevelState {
        let configured = self.running().log.level;
        let present = self.level().present;
        let level = present.map_or(configured, |(level, _)| level);
        LogLevelState { level: level.word(), until: present.map(|(_, until)| until) }
    }

    fn set_log_level(&self, level: Option<(&str, Duration)>) -> Result<u64, String> {
        let configured = self.running().log.level;
        let present = match level {
            None => None,
            Some((word, duration)) => {
                let level = LogLevel::of_word(word)?;
                let until = self.engine.now().millis().saturating_add(duration.as_millis() as u64);
                Some((level, Timestamp::from_millis(until)))
            }
        };
        let mut state = self.level();
        let filter = present.map_or(configured, |(level, _)| level).filter();
        logging::set_level(filter).map_err(|error| error.to_string())?;
        state.changes += 1;
        state.present = present;
        Ok(state.changes)
    }

    fn end_log_level(&self, change: u64) {
        let configured = self.running().log.level;
        let mut state = self.level();
        if state.changes != change || state.present.is_none() {
            return;
        }
        state.present = None;
        if let Err(error) = logging::set_level(configured.filter()) {
            tracing::warn!(%error, "the configured log.level is not back");
        }
    }

    fn backups(&self) -> Option<PathBuf> {
        self.running().admin.as_ref()?.backups.clone()
    }
}
