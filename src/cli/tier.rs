//! `tier`: what an operator decides about the object store.

use std::io::Write;

use clap::{Args, Subcommand};

use super::{check::ConfigArguments, error::CliError};
use crate::config::Config;
use crate::server::tier::{TakeOverError, take_over};

#[derive(Debug, Args)]
pub(super) struct TierCommand {
    #[command(subcommand)]
    action: TierAction,
}

#[derive(Debug, Subcommand)]
enum TierAction {
    /// Claim the prefix of `tier.url` for this data directory, whatever other server has it; stop that one for good first
    TakeOver(TakeOverCommand),
}

#[derive(Debug, Args)]
struct TakeOverCommand {
    #[command(flatten)]
    settings: ConfigArguments,
}

impl TierCommand {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let TierAction::TakeOver(command) = self.action;
        command.execute()
    }
}

impl TakeOverCommand {
    fn execute(self) -> Result<(), CliError> {
        let config = Config::load(&self.settings.sources())?;
        let (Some(dir), Some(tier)) = (&config.data_dir, &config.tier) else {
            return Err(TakeOverError::NoTier.into());
        };
        let claim = take_over(&config, dir)?;
        let mut out = std::io::stdout().lock();
        let location = tier.url.as_ref().map(ToString::to_string).unwrap_or_default();
        writeln!(out, "{location} belongs to {} now (claim {})", claim.identity, claim.epoch)?;
        match &claim.replaced {
            Some(other) if *other != claim.identity => writeln!(
                out,
                "{other} had it: its objects stay below segments/{other}/, and its server moves and deletes nothing any \
                 more once it sees this claim, within a minute"
            )?,
            Some(_) => writeln!(
                out,
                "this directory or a copy of it had it: a server on a copy moves and deletes nothing any more once it \
                 sees this claim, within a minute"
            )?,
            None => {}
        }
        Ok(())
    }
}
