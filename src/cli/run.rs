//! `run`: serve with a configuration.

use clap::Args;

use super::CliError;
use super::check::Settings;
use crate::config::Config;
use crate::server::{self, Mode};

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    settings: Settings,
}

impl Run {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let sources = self.settings.sources();
        let config = Config::load(&sources)?;
        super::start_logging(&config)?;
        for notice in config.notices() {
            tracing::warn!("{notice}");
        }
        server::run(&config, Mode::Production, Some(sources), |_, _| {})?;
        Ok(())
    }
}
