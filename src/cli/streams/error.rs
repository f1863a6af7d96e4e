//! Why a command on a stream failed, and its exit code.

use std::io;
use std::path::PathBuf;

use durable_streams_client::{ClientError, ProducerError};

/// Why a command on a stream failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamCommandError {
    /// A request failed.
    #[error("error: {0}")]
    Client(#[from] ClientError),
    /// An append failed.
    #[error("error: {0}")]
    Producer(#[from] ProducerError),
    /// Standard input could not be read.
    #[error("error: cannot read standard input: {0}")]
    Input(io::Error),
    /// A file could not be read or written.
    #[error("error: {path}: {source}", path = .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Options that do not fit together, or the server.
    #[error("error: {0}")]
    Usage(String),
    /// The administration API lists no streams.
    #[error("error: {place}: {}{reason}", .status.map(|status| format!("{status} ")).unwrap_or_default())]
    Unlisted {
        /// Where it is.
        place: String,
        /// The status of its refusal.
        status: Option<u16>,
        /// What it says, or what kept the request away.
        reason: String,
    },
    /// A copy cannot go on.
    #[error("error: {0}")]
    Copy(String),
}

impl StreamCommandError {
    /// 2 what was typed makes no sense; 3 there is no such stream; 4 not allowed; 5 the stream is closed, exists with
    /// another configuration, or the producer is fenced; 6 the server cannot be reached or is overloaded; 1 the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            StreamCommandError::Client(error)
            | StreamCommandError::Producer(ProducerError::Failed(error)) => of_client(error),
            StreamCommandError::Producer(ProducerError::Fenced { .. }) => 5,
            StreamCommandError::Usage(_) => 2,
            StreamCommandError::Unlisted { status, .. } => of_status(*status).unwrap_or(6),
            StreamCommandError::Producer(_)
            | StreamCommandError::Input(_)
            | StreamCommandError::File { .. }
            | StreamCommandError::Copy(_) => 1,
        }
    }
}

fn of_client(error: &ClientError) -> u8 {
    match error {
        ClientError::InvalidArgument { .. } => 2,
        error if error.is_retryable() => 6,
        error => of_status(error.status().map(|status| status.as_u16())).unwrap_or(1),
    }
}

/// The exit code of a refusal; `None` without one.
fn of_status(status: Option<u16>) -> Option<u8> {
    Some(match status? {
        404 | 410 => 3,
        401 | 403 => 4,
        409 => 5,
        429 | 502..=504 => 6,
        _ => 1,
    })
}
