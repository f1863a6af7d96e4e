//! Errors of a store: its own trouble, as opposed to a client's mistake.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

/// What went wrong in a store; each text says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The event was decided on state that was lost; load the stream again.
    #[error("the state this was decided on was lost")]
    Superseded,
    /// No space. Appends may work again when there is.
    #[error("no space left in {path}")]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// A second index has no room beside the first.
    #[error(
        "{path} needs {needed} bytes more while it is written anew, and the disk has {room}: make room there \
         (storage.max_disk does not count them); nothing was changed"
    )]
    Room {
        /// The directory of the index.
        path: PathBuf,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that there are.
        room: u64,
    },
    /// The limit on disk use is reached. Appends may work again after deletes.
    #[error(
        "the limit on disk use is reached: {path} may take storage.max_disk = {limit} bytes; delete streams, or raise it \
         and restart"
    )]
    Limit {
        /// The data directory.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// An earlier failure leaves it unknown what is on disk; restart to recover.
    #[error("writes are refused since an earlier failure ({reason}); restart to recover")]
    Poisoned {
        /// The earlier failure.
        reason: Arc<str>,
    },
    /// Bytes on disk are not what was written.
    #[error("{path} is damaged{place}: {found}", place = at_byte(*.offset))]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Byte offset in the file; 0 when it is the file as a whole, or unknown.
        offset: u64,
        /// What is wrong.
        found: Arc<str>,
    },
    /// An operation failed.
    #[error("cannot {operation} {path}: {source}{advice}", advice = advice(.source))]
    Io {
        /// A verb, as in "cannot open".
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// Bytes that are in an object store cannot be read from there now.
    #[error("the object store cannot be read: {reason}")]
    Cold {
        /// The least time to wait before another try.
        retry_after: Duration,
        /// What the object store did.
        reason: Arc<str>,
    },
    /// Another process has the data directory.
    #[error("{path} is in use by another process{pid}; stop it, or choose another data directory", pid = named(*.holder))]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The other process's number, which in a container differs from the number outside.
        holder: Option<u32>,
    },
    /// The data directory is not what this version reads and writes.
    #[error("{path} {found}")]
    Format {
        /// The data directory.
        path: PathBuf,
        /// What it is, and what to do.
        found: Arc<str>,
    },
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

fn at_byte(offset: u64) -> String {
    if offset == 0 { String::new() } else { format!(" at byte {offset}") }
}

fn named(holder: Option<u32>) -> String {
    holder.map_or(String::new(), |pid| format!(" (process {pid})"))
}

/// What to do about an error of the operating system, where its own words do not say.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; let the user of this process read and write there",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is mounted read-only: mount it for writing, or choose another directory"
        }
        io::ErrorKind::OutOfMemory => {
            "; if the address space of the process is limited (ulimit -v), lower `storage.map_size`"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_follows_what_the_system_says() {
        let text = |kind: io::ErrorKind| {
            let (operation, path) = ("open", PathBuf::from("/data/wal"));
            StoreError::Io { operation, path, source: Arc::new(kind.into()) }.to_string()
        };
        for (kind, advice) in [
            (io::ErrorKind::PermissionDenied, "let the user of this process read and write there"),
            (
                io::ErrorKind::ReadOnlyFilesystem,
                "mount it for writing, or choose another directory",
            ),
            (io::ErrorKind::OutOfMemory, "lower `storage.map_size`"),
        ] {
            let text = text(kind);
            assert!(
                text.starts_with("cannot open /data/wal: ") && text.ends_with(advice),
                "{text}"
            );
        }
        let other = text(io::ErrorKind::NotFound);
        assert!(other.ends_with("not found"), "{other}");
    }
}
