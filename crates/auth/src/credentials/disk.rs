//! The credentials file on disk: secret from others, replaced atomically, one writer at a time.
//!
//! A writer holds an exclusive lock on `{file}.lock` from reading to renaming, so two commands never lose
//! each other's change. A reader sees the old file or the new one, never a part.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The largest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// Why credentials cannot be read or written. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialFileError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read or write it.
    #[error("{} is open to others ({mode:04o}); run chmod 0600", path.display())]
    Permissions {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold credentials.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, without secrets.
        reason: String,
    },
    /// A change is refused.
    #[error("{0}")]
    Refused(String),
    /// No secret could be drawn.
    #[error(transparent)]
    NoRandomness(#[from] crate::NoRandomness),
}

/// What a file looked like when it was read; another value means that it was replaced or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CredentialFileError {
    let path = path.to_owned();
    move |source| CredentialFileError::Io { path, source }
}

/// The stamp of a file; `None` when there is none.
pub(super) fn stamp(path: &Path) -> Result<Option<FileStamp>, CredentialFileError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(stamp_of(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path)(error)),
    }
}

/// Reads a file that only its owner may read; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<(Vec<u8>, FileStamp)>, CredentialFileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path)(error)),
    };
    let metadata = file.metadata().map_err(io_error(path))?;
    private(path, &metadata)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io_error(path))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let reason = format!("more than {MAX_FILE_BYTES} bytes");
        return Err(CredentialFileError::Invalid { path: path.into(), reason });
    }
    Ok(Some((bytes, stamp_of(&metadata))))
}

/// Replaces a file by one that only its owner may read; durable when this returns.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), CredentialFileError> {
    let folder = folder(path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    // Left by a process of this number that was killed; the lock keeps living ones out.
    let _ = fs::remove_file(&temporary);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    only_the_owner(&mut options);
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        same_owner(path, folder, &file);
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(folder)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(io_error(path))
}

/// Waits for, and holds, the right to change a file.
pub(super) fn lock(path: &Path) -> Result<File, CredentialFileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let lock = folder(path).join(name);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    only_the_owner(&mut options);
    let file = options.open(&lock).map_err(io_error(&lock))?;
    same_owner(path, folder(path), &file);
    file.lock().map_err(io_error(&lock))?;
    Ok(file)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(unix)]
fn stamp_of(metadata: &fs::Metadata) -> FileStamp {
    use std::os::unix::fs::MetadataExt;
    let inode = metadata.ino();
    FileStamp { modified: metadata.modified().ok(), bytes: metadata.len(), inode }
}

#[cfg(not(unix))]
fn stamp_of(metadata: &fs::Metadata) -> FileStamp {
    FileStamp { modified: metadata.modified().ok(), bytes: metadata.len(), inode: 0 }
}

#[cfg(unix)]
fn private(path: &Path, metadata: &fs::Metadata) -> Result<(), CredentialFileError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(CredentialFileError::Permissions { path: path.into(), mode })
}

#[cfg(not(unix))]
fn private(_path: &Path, _metadata: &fs::Metadata) -> Result<(), CredentialFileError> {
    Ok(())
}

#[cfg(unix)]
fn only_the_owner(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
fn only_the_owner(_options: &mut OpenOptions) {}

/// A command that root runs leaves the file to the user whose server reads it: the owner of the file that
/// it replaces, or of the folder. Others cannot give files away, and need not.
#[cfg(unix)]
fn same_owner(path: &Path, folder: &Path, file: &File) {
    use std::os::unix::fs::{MetadataExt, fchown};
    if let Ok(owner) = fs::metadata(path).or_else(|_| fs::metadata(folder)) {
        let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
}

#[cfg(not(unix))]
fn same_owner(_path: &Path, _folder: &Path, _file: &File) {}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
