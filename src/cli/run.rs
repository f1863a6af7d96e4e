//! `run`: serve with a configuration.

use clap::Args;

use super::check::ConfigArguments;
use super::{error::CliError, logging};
use crate::config::Config;
use crate::server::{self, Mode};

#[derive(Debug, Args)]
pub(super) struct RunCommand {
    #[command(flatten)]
    settings: ConfigArguments,
}

impl RunCommand {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let sources = self.settings.sources();
        let config = Config::load(&sources)?;
        logging::start(&config)?;
        for notice in config.notices() {
            tracing::warn!("{notice}");
        }
        server::run(&config, Mode::Production, Some(sources), |_, _| {})?;
        Ok(())
    }
}
