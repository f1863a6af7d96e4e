//! The backup socket: a command requests a copy of the index from the server that holds the directory's lock.
//!
//! The data directory is locked while the server runs, and only the server knows which of its pages are in use. So
//! the command opens the file that is to be written and hands it over with the request: what the command may write,
//! and where, is the system's answer to the command alone, whatever user, container or mount namespace the server is
//! in. The socket is in the data directory and for the server's user (and root) only.
//!
//! One request at a time, on a thread of its own; a second one waits.

pub mod client;
mod wire;

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use durable_streams_engine::Engine;
use durable_streams_engine::store::{AnyStore, file::SegmentHold};
use rustix::net::RecvFlags;
use socket2::{Domain, SockAddr, Socket, Type};
use wire::BackupReply;

/// The socket's name in the data directory.
const NAME: &str = "control";
/// A request is one write of a command that is there; it takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the server looks whether a command still copies.
const LOOK: Duration = Duration::from_millis(50);
/// Commands that wait for their turn.
const WAITING: i32 = 16;

/// The listening socket; dropping this removes it.
pub(super) struct BackupSocket {
    path: PathBuf,
}

impl BackupSocket {
    /// Listens in the data directory of `engine`, which must have its lock. A server without a control socket is a
    /// server all the same: `None`, with a warning.
    pub(super) fn open(dir: &Path, engine: &Arc<Engine>) -> Option<Self> {
        let path = dir.join(NAME);
        let engine = Arc::downgrade(engine);
        let started = listen(&path).and_then(|listener| {
            let answer = move || answer_all(&listener, &engine);
            thread::Builder::new().name("control".into()).spawn(answer)
        });
        match started {
            Ok(_) => Some(BackupSocket { path }),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%error, "cannot listen on {path}: no backups while the server runs");
                None
            }
        }
    }
}

impl Drop for BackupSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // A killed server left it; the holder of the lock may replace it.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before `listen`, so that no other user can connect.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(WAITING)?;
    Ok(socket.into())
}

fn answer_all(listener: &UnixListener, engine: &Weak<Engine>) {
    loop {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        let Some(engine) = engine.upgrade() else { return };
        if let Err(error) = answer(&client, &engine) {
            tracing::warn!(%error, "a request on the control socket failed");
        }
    }
}

fn answer(mut client: &UnixStream, engine: &Engine) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let (reply, held) = match wire::receive(client)? {
        Err(refusal) => (BackupReply::Failed(refusal), None),
        Ok(file) => match copy(client, engine, file) {
            Ok(held) => (BackupReply::Done, Some(held)),
            Err(error) => (BackupReply::Failed(error), None),
        },
    };
    client.write_all(reply.to_string().as_bytes())?;
    // The command copies the sealed segments that the index references, and closes the connection then.
    while held.is_some() && is_open(client) {
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether the command is still there: a copy that nobody receives would hold the index's free pages until its end.
fn is_open(client: &UnixStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    !matches!(rustix::net::recv(client, &mut [0; 1], flags), Ok((0, _)))
}

/// Copies the index into the file that came with a request. Returns what keeps its sealed segments.
fn copy(mut client: &UnixStream, engine: &Engine, file: OwnedFd) -> Result<SegmentHold, String> {
    let AnyStore::File(store) = engine.store() else {
        return Err("the server keeps its streams in memory".to_owned());
    };
    let file = File::from(file);
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.len() > 0 {
        return Err("what came with the request is not an empty file".to_owned());
    }
    let began = Instant::now();
    tracing::info!("a backup begins");
    let command = client;
    let mut begun = |total| {
        // Should the command have ended, `is_open` notices.
        let _ = client.write_all(BackupReply::Copying { total }.to_string().as_bytes());
    };
    let held = store.hold_segments();
    let copied = store.copy_index(&file, &mut begun, &|| is_open(command));
    match copied {
        Ok(()) => {
            let bytes = file.metadata().map_or(0, |metadata| metadata.len());
            let seconds = began.elapsed().as_secs_f64();
            tracing::info!(bytes, seconds, "copied the index for a backup");
            Ok(held)
        }
        Err(error) => {
            tracing::warn!(%error, "a backup failed");
            Err(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_command_that_has_ended_is_noticed() {
        let (server, command) = UnixStream::pair().unwrap();
        assert!(is_open(&server));
        let request = (&command).write(b"x").unwrap();
        assert_eq!(request, 1);
        assert!(is_open(&server), "with something to read");
        (&server).read_exact(&mut [0; 1]).unwrap();
        drop(command);
        assert!(!is_open(&server));
    }
}
