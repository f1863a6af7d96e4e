//! Why a command failed.

use durable_streams_engine::store::StoreError;

use super::admin::AdminCommandError;
use super::operate::error::OperateError;
use super::streams::StreamCommandError;
use crate::config::ConfigError;
use crate::server::ServerError;
use crate::server::tier::TakeOverError;
use crate::telemetry::logging::LoggingError;

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
    /// The prefix of an object store was not taken over.
    #[error("error: {0}")]
    TakeOver(#[from] TakeOverError),
    /// The configuration names no credentials file.
    #[error("error: the configuration has no auth.credentials; use --credentials to name a file")]
    NoCredentialsFile,
    /// The credentials file cannot be read or changed.
    #[error("error: {0}")]
    Credentials(#[from] durable_streams_auth::CredentialFileError),
    /// A command on a data directory failed.
    #[error(transparent)]
    Operate(#[from] OperateError),
    /// A command on the administration API failed.
    #[error(transparent)]
    Admin(#[from] AdminCommandError),
    /// A command on a stream failed.
    #[error(transparent)]
    Stream(#[from] StreamCommandError),
    /// Standard output could not be written.
    #[error("error: cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Stream(error) => error.exit_code(),
            CliError::Admin(error) => error.exit_code(),
            _ => 1,
        }
    }
}

fn count(error: &ConfigError) -> String {
    match error.count() {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        CliError::Operate(error.into())
    }
}
