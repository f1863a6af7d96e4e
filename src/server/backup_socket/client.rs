//! The command's side of the backup socket.

use std::{
    io::{BufRead, BufReader},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use durable_streams_engine::store::file::disk::File;

use super::{NAME, wire, wire::BackupReply};

/// How often the file is looked at while it grows.
const LOOK: Duration = Duration::from_millis(100);

/// Why the copy failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupSocketError {
    /// The process that holds the lock does not listen on the socket.
    #[error(
        "the process that has the data directory does not answer on {path} ({source}); a server answers once it \
         listens, and a command ends by itself: try again, or stop the process"
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The server went away.
    #[error("the server went away before the copy was done; nothing of it counts")]
    Gone,
    /// The server reported an error.
    #[error("the server could not copy its index: {0}")]
    Failed(String),
}

/// Keeps the server from removing sealed segments that the copy references.
pub struct BackupConnection(UnixStream);

impl Drop for BackupConnection {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Has the server of a data directory copy its index into an empty file. `progress` gets the bytes that are there
/// and those that will be, roughly. The server keeps the sealed segments that the copy references until the connection
/// is dropped.
///
/// # Errors
/// See [`BackupSocketError`]; what is in the file does not count then.
pub fn copy_index(
    dir: &Path,
    file: &File,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackupConnection, BackupSocketError> {
    let path = dir.join(NAME);
    let silent = |source| BackupSocketError::Silent { path: path.clone(), source };
    let server = UnixStream::connect(&path).map_err(silent)?;
    wire::send(&server, file).map_err(silent)?;
    let connection = BackupConnection(server.try_clone().map_err(silent)?);
    let (said, replies) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(server).lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                return;
            }
        }
    });
    let mut total = None;
    loop {
        match replies.recv_timeout(LOOK) {
            Ok(line) => match BackupReply::parse(&line) {
                Some(BackupReply::Copying { total: bytes }) => total = Some(bytes),
                Some(BackupReply::Done) => return Ok(connection),
                Some(BackupReply::Failed(why)) => return Err(BackupSocketError::Failed(why)),
                None => return Err(BackupSocketError::Failed(format!("it says {line:?}"))),
            },
            Err(RecvTimeoutError::Timeout) => {
                if let Some(total) = total {
                    progress(file.metadata().map_or(0, |metadata| metadata.len()), total);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Err(BackupSocketError::Gone),
        }
    }
}
