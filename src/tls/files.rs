//! Files of certificates: written so that a crash leaves the old or the new, and watched for changes.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::options::{CertificateSource, TlsOptions};

/// Replaces a file with contents that only its owner may read.
///
/// # Errors
/// The file system's. The old file stands then.
pub(super) fn write_secret(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The name is durable with its directory.
    #[cfg(unix)]
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Makes a folder, and those above it, that only the owner may enter.
///
/// # Errors
/// The file system's.
pub(super) fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// What is compared to notice that a file was replaced: by renewal tools in place, by orchestrators through
/// a symbolic link.
type Fingerprint = Option<(PathBuf, SystemTime, u64)>;

/// The files of a listener as they were when they were last read.
#[derive(Debug)]
pub(super) struct WatchedFiles {
    paths: Vec<PathBuf>,
    seen: Vec<Fingerprint>,
}

impl WatchedFiles {
    pub(super) fn of(options: &TlsOptions) -> Self {
        let mut paths = Vec::new();
        if let CertificateSource::Files(files) = &options.source {
            for pair in files {
                paths.extend([pair.certificate.clone(), pair.key.clone()]);
            }
        }
        paths.extend(options.client_auth.as_ref().map(|one| one.authorities.clone()));
        let seen = paths.iter().map(|path| fingerprint(path)).collect();
        WatchedFiles { paths, seen }
    }

    /// Whether a file changed since the last call, or since it was first looked at.
    pub(super) fn changed(&mut self) -> bool {
        let now: Vec<Fingerprint> = self.paths.iter().map(|path| fingerprint(path)).collect();
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

fn fingerprint(path: &Path) -> Fingerprint {
    let target = fs::canonicalize(path).ok()?;
    let metadata = fs::metadata(&target).ok()?;
    Some((target, metadata.modified().ok()?, metadata.len()))
}
