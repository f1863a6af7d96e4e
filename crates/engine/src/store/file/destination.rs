//! A data directory in the making: what backups and restores write.
//!
//! Invariants
//! - `VERSION` is written last, so a directory that was not finished is none, whatever ended the process.
//! - Everything in it is for its owner only: it holds secrets, and the bytes of every stream.
//! - Dropped unfinished, it removes what it made.

use std::path::{Path, PathBuf};

use super::{
    disk::{Disk, File, RealDisk},
    error::io_error,
    layout::{self, Layout, keys_dir},
};
use crate::store::StoreError;

/// See the module.
pub struct Destination {
    dir: PathBuf,
    layout: Layout,
    /// The directory was not there before.
    made: bool,
    finished: bool,
}

impl Destination {
    /// Takes a directory that is empty or missing; its parent must be there.
    ///
    /// # Errors
    /// [`StoreError::Format`] when something is in it; [`StoreError::Locked`], [`StoreError::Full`],
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

    pub(super) fn index_path(&self) -> PathBuf {
        self.layout.index.join("data.mdb")
    }

    /// Makes the file that is to hold the index.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn index_file(&self) -> Result<File, StoreError> {
        let path = self.index_path();
        RealDisk::create_file(&path).map_err(io_error("create", &path))
    }

    /// Copies the secrets that lie beside a store. Each file is one that was whole at some moment: they are
    /// only ever replaced by renaming.
    pub(super) fn copy_keys(&self, from: &Path) -> Result<(), StoreError> {
        let (from, to) = (keys_dir(from), keys_dir(&self.dir));
        let names = match RealDisk.list(&from) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            names => names.map_err(io_error("list", &from))?,
        };
        RealDisk::create_dir(&to).map_err(io_error("create", &to))?;
        // Files with this ending are on their way to a name.
        for name in names.iter().filter(|name| !name.ends_with(".new")) {
            let (from, to) = (from.join(name), to.join(name));
            RealDisk::copy(&from, &to, &mut |_| {}).map_err(io_error("copy", &from))?;
        }
        RealDisk.sync_dir(&to).map_err(io_error("sync", &to))
    }

    /// Makes everything safe, and the directory a data directory.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        let index = self.index_path();
        let synced = File::open(&index).and_then(|file| file.sync_all());
        synced.map_err(io_error("sync", &index))?;
        for dir in [self.index(), self.wal()] {
            RealDisk.sync_dir(dir).map_err(io_error("sync", dir))?;
        }
        layout::write_version(&RealDisk, &self.dir)?;
        let parent = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        RealDisk.sync_dir(parent).map_err(io_error("sync", parent))?;
        self.finished = true;
        Ok(())
    }
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
