//! What the administration API does to the server around it. The server implements it, which knows the configuration.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

/// The server as the administration API steers it.
pub trait ServerControl: Send + Sync {
    /// The configuration in force, without secrets.
    fn config(&self) -> Value;

    /// Reads the configuration again. May wait for name resolution.
    ///
    /// # Errors
    /// Every problem, one a line; nothing has changed then.
    fn reload(&self) -> Result<Vec<ReloadedKey>, String>;

    /// The level of the log.
    fn log_level(&self) -> LogLevelState;

    /// Another level for a while; `None` for the configured one. Returns the number of this change, for
    /// [`end_log_level`](Self::end_log_level).
    ///
    /// # Errors
    /// What levels there are, or why there is no log to change.
    fn set_log_level(&self, level: Option<(&str, Duration)>) -> Result<u64, String>;

    /// Brings the configured level back, unless it was changed since the change with this number.
    fn end_log_level(&self, change: u64);

    /// Where backups are made.
    fn backups(&self) -> Option<PathBuf>;
}

/// One key that a reload has changed.
#[derive(Clone, Debug)]
pub struct ReloadedKey {
    /// The key, as `limits.max_append`.
    pub key: String,
    /// The value before, without secrets.
    pub from: String,
    /// The value now, without secrets.
    pub to: String,
    /// Whether it takes effect only after a restart.
    pub needs_restart: bool,
}

/// The level of the log.
#[derive(Clone, Debug)]
pub struct LogLevelState {
    /// The level in force.
    pub level: String,
    /// When the configured one comes back, if this is another.
    pub until: Option<durable_streams_protocol::Timestamp>,
}
