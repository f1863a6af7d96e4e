//! `rotate-keys`: a new key for signing webhooks.

use std::io::Write;

use clap::Args;
use durable_streams_engine::Clock;
use durable_streams_engine::store::file::keys_dir;
use durable_streams_subscriptions::{KeyFile, REPLAY_WINDOW_MILLIS};

use super::{check::ConfigArguments, error::CliError};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct RotateKeysCommand {
    #[command(flatten)]
    settings: ConfigArguments,
}

impl RotateKeysCommand {
    /// Works beside a running server, which notices the new key within seconds.
    pub(super) fn execute(self) -> Result<(), CliError> {
        let config = Config::load(&self.settings.sources())?;
        let directory = config.data_dir.ok_or(CliError::NoKeys)?;
        let (old, new) =
            KeyFile::in_directory(&keys_dir(&directory)).rotate(Clock::System.now())?;
        let minutes = REPLAY_WINDOW_MILLIS / 60_000;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{new} signs webhooks from now on")?;
        writeln!(out, "{old} is retired, and published for {minutes} minutes more")?;
        Ok(())
    }
}
