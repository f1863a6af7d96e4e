//! Reading the configuration again while the server runs (`SIGHUP`): all that can change without a restart
//! takes effect together, or, when anything is wrong with the new one, nothing does.

use std::sync::{Arc, Mutex, PoisonError};

use durable_streams_engine::Engine;

use super::compose;
use crate::config::{Config, ConfigError, ConfigSources};
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
}

/// See the module.
pub(super) struct ConfigReloader {
    sources: ConfigSources,
    /// In force. The lock makes one reload wait for another.
    running: Mutex<Config>,
    engine: Arc<Engine>,
    edge: EdgeControl,
    tls: Option<Arc<TlsService>>,
}

impl ConfigReloader {
    pub(super) fn new(
        sources: ConfigSources,
        running: Config,
        engine: Arc<Engine>,
        edge: EdgeControl,
        tls: Option<Arc<TlsService>>,
    ) -> Self {
        ConfigReloader { sources, running: Mutex::new(running), engine, edge, tls }
    }

    /// Reads file, environment and flags again, and says in the log what came of it. May wait for name
    /// resolution.
    pub(super) fn reload(&self) {
        let result = self.try_reload();
        self.edge.metrics().reloaded(result.is_ok());
        if let Err(error) = result {
            for problem in error.to_string().lines() {
                tracing::error!("{problem}");
            }
            tracing::error!("the new configuration is refused; the running one stays");
        }
    }

    fn try_reload(&self) -> Result<(), ReloadError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let read = Config::load(&self.sources)?;
        let changes = running.changes(&read);
        let new = read.keeping_fixed(&running);
        // Before everything else: a certificate that is refused leaves the configuration as it is. Certificates that
        // are accepted stay, even where an upstream is refused next; they depend on no other key.
        if let Some(tls) = &self.tls {
            tls.reload()?;
        }
        self.edge.change(compose::edge_options(&new))?;
        self.engine.set_limits(compose::limits(&new));
        if let Err(error) = logging::set_level(new.log.level.filter()) {
            tracing::warn!(%error, "log.level stays");
        }
        *running = new;
        for change in changes {
            let (key, from, to) = (change.key, change.from, change.to);
            if change.needs_restart {
                tracing::warn!("{key} = {to:?} needs a restart; it stays {from:?}");
            } else {
                tracing::info!("{key} is now {to:?}, was {from:?}");
            }
        }
        tracing::info!("configuration reloaded");
        Ok(())
    }
}
