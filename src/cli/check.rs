//! `check`: validate a configuration without starting; and the flags that it shares with `run`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use crate::config::{Config, ConfigFlag, ConfigSources};
use crate::server::{ServerError, tls};
use durable_streams_engine::Clock;

#[derive(Debug, Args)]
pub(super) struct CheckCommand {
    #[command(flatten)]
    settings: ConfigArguments,
    /// Print the effective configuration as YAML: every key, with file, environment and flags
    /// applied
    #[arg(long)]
    print: bool,
}

/// The file and the flags that override it.
#[derive(Debug, Args)]
pub(super) struct ConfigArguments {
    /// The YAML file; see config/streams.yaml for every key
    #[arg(long, short, value_name = "FILE", env = "DURABLE_STREAMS_CONFIG")]
    config: PathBuf,
    /// Address to listen on, repeatable; replaces `listen`
    #[arg(long, value_name = "IP:PORT")]
    listen: Vec<String>,
    /// Directory of the durable store; replaces `data_dir`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Worker threads; replaces `threads`
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// off, error, warn, info, debug or trace; replaces `log.level`
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json; replaces `log.format`
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl ConfigArguments {
    /// The file, this process's environment, and the flags.
    pub(super) fn sources(self) -> ConfigSources {
        let listen = (!self.listen.is_empty()).then(|| self.listen.join(","));
        let flags = [
            ("--listen", "listen", listen),
            ("--data-dir", "data_dir", self.data_dir),
            ("--threads", "threads", self.threads),
            ("--log-level", "log.level", self.log_level),
            ("--log-format", "log.format", self.log_format),
        ];
        let given = |(name, key, value): (&'static str, &'static str, Option<String>)| {
            value.map(|value| ConfigFlag { name, key, value })
        };
        ConfigSources {
            file: Some(self.config),
            environment: std::env::vars_os().collect(),
            flags: flags.into_iter().filter_map(given).collect(),
        }
    }
}

impl CheckCommand {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let file = self.settings.config.display().to_string();
        let config = Config::load(&self.settings.sources())?;
        tls::check(&config, &Clock::System).map_err(ServerError::from)?;
        let mut out = std::io::stdout().lock();
        // As a comment, what `--print` writes is a file again.
        let mark = if self.print { "# " } else { "" };
        writeln!(out, "{mark}OK: {file}")?;
        for notice in config.notices() {
            writeln!(out, "{mark}note: {notice}")?;
        }
        if self.print {
            out.write_all(config.to_yaml().as_bytes())?;
        }
        Ok(())
    }
}
