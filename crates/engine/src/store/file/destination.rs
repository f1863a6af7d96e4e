//! An unfinished data directory, which a backup or a restore writes.
//!
//! Invariants
//! - `VERSION` is written last, so that an unfinished directory is not a data directory, whatever ended the process.
//! - What a kill has left of it is begun again by the next one: `UNFINISHED` is there until `VERSION` is.
//! - Files and directories have owner-only permissions: they hold secrets, and the bytes of every stream.
//! - A [`Destination`] that is dropped unfinished removes what it created.

use std::path::{Path, PathBuf};

use super::{
    disk::{Disk, File, RealDisk},
    error::{copy_error, io_error},
    layout::{self, Layout, keys_dir},
};
use crate::store::StoreError;

/// Directories inside each other that `keys` may have: more than a server makes below `keys/tls`.
const KEYS_DEPTH: usize = 8;

/// An unfinished data directory; see the module's documentation.
pub struct Destination {
    dir: PathBuf,
    layout: Layout,
    /// The directory did not exist before.
    made: bool,
    finished: bool,
}

impl Destination {
    /// Prepares a directory that is empty, missing or was left unfinished; its parent must exist.
    ///
    /// # Errors
    /// [`StoreError::Format`] when it is not empty; [`StoreError::Locked`], [`StoreError::Full`],
    /// [`StoreError::Io`].
    pub fn prepare(dir: &Path) -> Result<Self, StoreError> {
        let made = match RealDisk::create_dir(dir) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(io_error("create", dir)(error)),
        };
        match Layout::prepare(dir) {
            Ok(layout) => Ok(Destination { dir: dir.to_owned(), layout, made, finished: false }),
            Err(error) => {
                if made {
                    let _ = RealDisk::remove_all(dir);
                }
                Err(error)
            }
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn wal(&self) -> &Path {
        &self.layout.wal
    }

    pub(super) fn index(&self) -> &Path {
        &self.layout.index
    }

    pub(super) fn segments(&self) -> &Path {
        &self.layout.segments
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.layout.index.join("data.mdb")
    }

    /// Creates the file for the index.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn index_file(&self) -> Result<File, StoreError> {
        let path = self.index_path();
        RealDisk::create_file(&path).map_err(io_error("create", &path))
    }

    /// Copies the secrets beside a store: the keys of subscriptions, and in directories of their own those of TLS. A server
    /// replaces these files by renaming only, so each copy is a whole file.
    pub(super) fn copy_keys(&self, from: &Path) -> Result<(), StoreError> {
        copy_secrets(&keys_dir(from), &keys_dir(&self.dir), KEYS_DEPTH)
    }

    /// Syncs everything and writes `VERSION`.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        let index = self.index_path();
        let synced = File::open(&index).and_then(|file| file.sync_all());
        synced.map_err(io_error("sync", &index))?;
        for dir in [self.index(), self.wal(), self.segments()] {
            RealDisk.sync_dir(dir).map_err(io_error("sync", dir))?;
        }
        layout::finish(&self.dir)?;
        let parent = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        RealDisk.sync_dir(parent).map_err(io_error("sync", parent))?;
        self.finished = true;
        Ok(())
    }
}

/// Copies the files of a directory, if there is one, and of those in it, as deep as `depth`.
fn copy_secrets(from: &Path, to: &Path, depth: usize) -> Result<(), StoreError> {
    let names = match RealDisk.list(from) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(io_error("list", from))?,
    };
    RealDisk::create_dir(to).map_err(io_error("create", to))?;
    // Files with this ending are not renamed to their final name yet.
    for name in names.iter().filter(|name| !name.ends_with(".new")) {
        let (from, to) = (from.join(name), to.join(name));
        match depth.checked_sub(1) {
            Some(depth) if RealDisk::is_dir(&from) => copy_secrets(&from, &to, depth)?,
            _ => RealDisk::copy(&from, &to, &mut |_| {}).map_err(copy_error(&from, &to))?,
        }
    }
    RealDisk.sync_dir(to).map_err(io_error("sync", to))
}

impl Drop for Destination {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        layout::remove_unfinished(&self.dir, &self.layout);
        if self.made {
            let _ = RealDisk::remove_dir(&self.dir);
        }
    }
}
