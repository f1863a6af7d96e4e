//! The commands.
//!
//! Exit codes: 0 for success; 1 for a refused configuration, a server that failed or is not ready, a data directory that
//! is damaged, and anything else that failed; 2 for a command line that cannot be understood.

mod access;
mod check;
mod describe;
mod dev;
mod healthcheck;
mod operate;
mod rotate_keys;
mod run;
mod tls_root;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, LogFormat};
use crate::server::ServerError;
use crate::telemetry::build;
use crate::telemetry::logging::{self, LineFormat, LoggingError};

pub use self::{dev::banner, operate::OperateError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The configuration was refused; one line for each problem.
    #[error("{0}\n{problems} in the configuration; nothing was started", problems = count(.0))]
    Config(#[from] ConfigError),
    /// The server did not start, or failed.
    #[error("error: {0}")]
    Server(#[from] ServerError),
    /// Logging could not be set up.
    #[error("error: {0}")]
    Logging(#[from] LoggingError),
    /// A server is not ready, or not there.
    #[error("{url} is not ready: {why}")]
    Unhealthy {
        /// The URL that was requested.
        url: String,
        /// The answer, or what kept it away.
        why: String,
    },
    /// There is no key file.
    #[error("error: without data_dir the keys live in memory only, and there is nothing to rotate")]
    NoKeys,
    /// There is nowhere to keep a root.
    #[error("error: the root is kept in data_dir, and there is none; use --data-dir to name one")]
    NoTlsRoot,
    /// The key file cannot be used.
    #[error("error: {0}")]
    Keys(#[from] durable_streams_subscriptions::KeyError),
    /// The configuration names no credentials file.
    #[error("error: the configuration has no auth.credentials; use --credentials to name a file")]
    NoCredentialsFile,
    /// The credentials file cannot be read or changed.
    #[error("error: {0}")]
    Credentials(#[from] durable_streams_auth::CredentialFileError),
    /// A command on a data directory failed.
    #[error(transparent)]
    Operate(#[from] OperateError),
    /// Standard output could not be written.
    #[error("error: cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// What the program is called.
const NAME: &str = "durable-streams-server";

/// A Durable Streams server and reverse proxy in one binary.
#[derive(Debug, Parser)]
#[command(name = NAME, version = build::LONG, about, long_about = LONG_ABOUT)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
struct CliArguments {
    #[command(subcommand)]
    command: CliCommand,
}

const LONG_ABOUT: &str = "\
A Durable Streams server and reverse proxy in one binary.

Streams are append-only logs with a URL: create one with PUT, append with POST, read and follow
with GET. They live under one route (/v1/stream); every other path goes to your own servers.";

const EXAMPLES: &str = "\
Examples:
  durable-streams-server dev                          try it: in memory, on http://localhost:4437
  durable-streams-server check --config streams.yaml  find every mistake in a configuration
  durable-streams-server run --config streams.yaml    serve
  durable-streams-server backup --config streams.yaml /backups/today
                                                      copy all streams, while the server runs

Exit codes: 0 done; 1 failed, or damage was found; 2 the command line makes no sense.

Settings come from flags, then DURABLE_STREAMS_* variables, then the file, then the defaults.
Every key is described in docs/configuration.md and config/streams.yaml.";

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Start at once, in memory, without configuration
    Dev(dev::DevCommand),
    /// Serve with a configuration
    Run(run::RunCommand),
    /// Validate a configuration without starting
    Check(check::CheckCommand),
    /// Ask a running server whether it is ready; exit code 0 when it is
    Healthcheck(healthcheck::HealthcheckCommand),
    /// Print a completion script for a shell
    Completions(describe::CompletionsCommand),
    /// Print the man page
    Man(describe::ManCommand),
    /// Print the root certificate of `tls: internal`, for browsers to trust
    TlsRoot(tls_root::TlsRootCommand),
    /// Make a new key for signing webhooks; works beside a running server
    RotateKeys(rotate_keys::RotateKeysCommand),
    /// Make, list and revoke API keys; works beside a running server
    Key(access::KeyCommand),
    /// Make, list, rotate and delete projects, whose secrets sign tokens
    Project(access::ProjectCommand),
    /// Issue tokens of a project
    Token(access::TokenCommand),
    /// Make, list and delete keys that sign URLs
    UrlKey(access::UrlKeyCommand),
    /// Sign a URL for one stream, and print its query
    Sign(access::SignCommand),
    /// Copy a data directory, while its server runs or not; checks every checksum of the copy
    Backup(operate::BackupCommand),
    /// Make a data directory from a backup; into an empty or missing directory only
    Restore(operate::RestoreCommand),
    /// Check every checksum of a stopped server's data directory, and how its records fit together
    Verify(operate::VerifyCommand),
    /// Give back the disk space of deleted data; for a stopped server's data directory
    Compact(operate::CompactCommand),
    /// Say what damage in the log costs, and with --apply go on without what it costs
    Repair(operate::RepairCommand),
}

/// Parses the command line and runs the command. Prints help, version and usage errors itself and
/// ends the process after those, as `clap` does.
///
/// # Errors
/// What kept the command from its end; the message is complete and meant for people.
pub fn run() -> Result<(), CliError> {
    match CliArguments::parse().command {
        CliCommand::Dev(dev) => dev.execute(),
        CliCommand::Run(run) => run.execute(),
        CliCommand::Check(check) => check.execute(),
        CliCommand::Healthcheck(healthcheck) => healthcheck.execute(),
        CliCommand::Completions(completions) => completions.execute(),
        CliCommand::Man(man) => man.execute(),
        CliCommand::TlsRoot(root) => root.execute(),
        CliCommand::RotateKeys(rotate) => rotate.execute(),
        CliCommand::Key(key) => key.execute(),
        CliCommand::Project(project) => project.execute(),
        CliCommand::Token(token) => token.execute(),
        CliCommand::UrlKey(key) => key.execute(),
        CliCommand::Sign(sign) => sign.execute(),
        CliCommand::Backup(backup) => backup.execute(),
        CliCommand::Restore(restore) => restore.execute(),
        CliCommand::Verify(verify) => verify.execute(),
        CliCommand::Compact(compact) => compact.execute(),
        CliCommand::Repair(repair) => repair.execute(),
    }
}

fn count(error: &ConfigError) -> String {
    match error.count() {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}

fn start_logging(config: &Config) -> Result<(), LoggingError> {
    let format = match config.log.format {
        LogFormat::Text => LineFormat::Text,
        LogFormat::Json => LineFormat::Json,
    };
    logging::init(config.log.level.filter(), format)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::CliArguments::command().debug_assert();
    }
}
