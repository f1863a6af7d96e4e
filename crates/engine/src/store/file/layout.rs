//! The data directory: its paths, its lock, its version. See docs/storage.md, "The directory".

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    disk::{Disk, RealDisk},
    error::io_error,
};
use crate::store::StoreError;

const KEYS: &str = "keys";
/// The file of a backup that names the segments whose bytes are in the object store only.
pub(super) const OBJECTS: &str = "OBJECTS";
/// The file of a directory that is being written, so that what a kill has left of it can be begun again.
const UNFINISHED: &str = "UNFINISHED";
const LOCK: &str = "LOCK";
const VERSION: &str = "VERSION";
const VERSION_NEW: &str = "VERSION.new";
const VERSION_PREFIX: &str = "durable-streams-server data, format ";
/// The format that this version reads and writes.
pub const FORMAT: u64 = 2;
/// The oldest format that this version reads; it writes nothing of it.
const OLDEST: u64 = 1;

/// A locked data directory.
pub(super) struct Layout {
    dir: PathBuf,
    /// The format that `VERSION` names.
    format: u64,
    pub(super) wal: PathBuf,
    pub(super) index: PathBuf,
    pub(super) segments: PathBuf,
    _lock: Box<dyn Send + Sync>,
}

impl Layout {
    /// Locks the directory, checks its version, and creates what is missing.
    pub(super) fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, StoreError> {
        disk.create_dir_all(dir).map_err(io_error("create", dir))?;
        // Also before locking, which would create a file in a directory that is not a data directory.
        if disk.read(&dir.join(VERSION)).is_err() {
            check_empty(disk, dir)?;
        }
        let lock = Self::lock(disk, dir)?;
        let format = match disk.read(&dir.join(VERSION)) {
            Ok(found) => check_version(dir, &found)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => begin(disk, dir)?,
            Err(error) => return Err(io_error("read", &dir.join(VERSION))(error)),
        };
        let layout = Self::of(dir, format, lock);
        for sub in [&layout.wal, &layout.index, &layout.segments] {
            disk.create_dir_all(sub).map_err(io_error("create", sub))?;
        }
        disk.sync_dir(dir).map_err(io_error("sync", dir))?;
        Ok(layout)
    }

    /// Locks an existing data directory.
    pub(super) fn open_existing(disk: &dyn Disk, dir: &Path) -> Result<Self, StoreError> {
        let format = check_existing(disk, dir)?;
        let lock = Self::lock(disk, dir)?;
        Ok(Self::of(dir, format, lock))
    }

    /// Locks an existing data directory for reading; it may be on a read-only file system.
    pub(super) fn open_to_read(dir: &Path) -> Result<Self, StoreError> {
        let format = check_existing(&RealDisk, dir)?;
        let path = dir.join(LOCK);
        let lock = RealDisk::lock_to_read(&path).map_err(io_error("lock", &path))?;
        let lock = lock.ok_or_else(|| locked(&RealDisk, dir))?;
        Ok(Self::of(dir, format, Box::new(lock)))
    }

    /// Locks an empty directory, or one that was left unfinished, which [`finish`] will make a data directory.
    pub(super) fn prepare(dir: &Path) -> Result<Self, StoreError> {
        // Also before locking, which would create a file in a directory that is not a data directory.
        check_destination(dir)?;
        let lock = Self::lock(&RealDisk, dir)?;
        check_destination(dir)?;
        let layout = Self::of(dir, FORMAT, lock);
        let mark = dir.join(UNFINISHED);
        RealDisk.open(&mark, true).map_err(io_error("create", &mark))?;
        RealDisk.sync_dir(dir).map_err(io_error("sync", dir))?;
        remove_contents(dir, &layout);
        for sub in [&layout.wal, &layout.index, &layout.segments] {
            RealDisk::create_dir(sub).map_err(io_error("create", sub))?;
        }
        Ok(layout)
    }

    fn of(dir: &Path, format: u64, lock: Box<dyn Send + Sync>) -> Self {
        let (wal, index) = (dir.join("wal"), dir.join("store"));
        let segments = segments_dir(dir);
        Layout { dir: dir.to_owned(), format, wal, index, segments, _lock: lock }
    }

    /// Makes a directory of an older format one of this format, before anything of this format is written to it: from
    /// then on older versions refuse it. This version reads records of both formats.
    pub(super) fn upgrade(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        if self.format == FORMAT {
            return Ok(());
        }
        write_version(disk, &self.dir)?;
        tracing::info!(
            dir = %self.dir.display(),
            from = self.format,
            to = FORMAT,
            "the data directory has a new format, which older versions refuse"
        );
        Ok(())
    }

    fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Send + Sync>, StoreError> {
        let path = dir.join(LOCK);
        let lock = disk.lock(&path).map_err(io_error("lock", &path))?;
        lock.ok_or_else(|| locked(disk, dir))
    }
}

/// The directory of sealed segments.
pub(super) fn segments_dir(dir: &Path) -> PathBuf {
    dir.join("segments")
}

/// The file in [`keys_dir`] of a data directory whose segments go to an object store.
pub const TIER_IDENTITY: &str = "tier.json";

/// The directory for secrets beside the store; backups include it.
pub fn keys_dir(dir: &Path) -> PathBuf {
    dir.join(KEYS)
}

/// Removes what an unfinished directory may hold, [`keys_dir`] included; `VERSION` first, so that it never looks like a
/// data directory.
pub(super) fn remove_unfinished(dir: &Path, layout: &Layout) {
    let _ = RealDisk.remove(&dir.join(VERSION));
    remove_contents(dir, layout);
    let _ = RealDisk.remove(&dir.join(UNFINISHED));
    let _ = RealDisk.remove(&dir.join(LOCK));
}

fn remove_contents(dir: &Path, layout: &Layout) {
    let _ = RealDisk.remove(&dir.join(VERSION_NEW));
    let _ = RealDisk.remove(&dir.join(OBJECTS));
    for sub in [&layout.wal, &layout.index, &layout.segments, &keys_dir(dir)] {
        let _ = RealDisk::remove_all(sub);
    }
}

/// Makes an unfinished directory a data directory, durably.
pub(super) fn finish(dir: &Path) -> Result<(), StoreError> {
    write_version(&RealDisk, dir)?;
    // With `VERSION` it says nothing any more.
    let _ = RealDisk.remove(&dir.join(UNFINISHED));
    Ok(())
}

fn locked(disk: &dyn Disk, dir: &Path) -> StoreError {
    let holder = disk.read(&dir.join(LOCK)).ok().and_then(|pid| {
        std::str::from_utf8(&pid).ok().and_then(|pid| pid.trim_end().parse::<u32>().ok())
    });
    StoreError::Locked { path: dir.to_owned(), holder }
}

fn check_existing(disk: &dyn Disk, dir: &Path) -> Result<u64, StoreError> {
    let version = dir.join(VERSION);
    match disk.read(&version) {
        Ok(found) => check_version(dir, &found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let found = "is not a data directory of this server, or an unfinished one: it has no VERSION \
                         file; name the directory that `data_dir` names, or a whole backup";
            Err(StoreError::Format { path: dir.to_owned(), found: found.into() })
        }
        Err(error) => Err(io_error("read", &version)(error)),
    }
}

/// Returns the format that `VERSION` names, if this version reads it.
fn check_version(dir: &Path, found: &[u8]) -> Result<u64, StoreError> {
    let format = std::str::from_utf8(found)
        .ok()
        .and_then(|text| text.strip_prefix(VERSION_PREFIX))
        .and_then(|rest| rest.trim_end().parse::<u64>().ok());
    let found = match format {
        Some(format @ OLDEST..=FORMAT) => return Ok(format),
        Some(other) => format!(
            "holds data of format {other}, and this version knows format {FORMAT}; use the version that \
             wrote it, or a newer one"
        ),
        None => "has a VERSION file that this server did not write; choose another data directory"
            .to_owned(),
    };
    Err(StoreError::Format { path: dir.to_owned(), found: found.into() })
}

/// Makes an empty directory a data directory. `VERSION` is written first, so a directory with other files and without
/// `VERSION` is not a data directory.
fn begin(disk: &dyn Disk, dir: &Path) -> Result<u64, StoreError> {
    check_empty(disk, dir)?;
    write_version(disk, dir)?;
    Ok(FORMAT)
}

/// Refuses a directory that holds anything but what an interrupted opening leaves, and keys that a command has made
/// before the first start: `tls-root`, `rotate-keys`.
fn check_empty(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    let Some(other) = something_in(disk, dir, &[KEYS])? else { return Ok(()) };
    let found = format!(
        "is not empty (there is {other:?}) and is not a data directory; choose an empty directory, or one \
         that this server made"
    );
    Err(StoreError::Format { path: dir.to_owned(), found: found.into() })
}

/// Refuses a destination that is neither empty nor unfinished.
fn check_destination(dir: &Path) -> Result<(), StoreError> {
    let there = |name: &str| RealDisk.read(&dir.join(name)).is_ok();
    let unfinished = there(UNFINISHED) && !there(VERSION);
    let left: &[&str] =
        if unfinished { &[UNFINISHED, OBJECTS, KEYS, "wal", "store", "segments"] } else { &[] };
    let Some(other) = something_in(&RealDisk, dir, left)? else { return Ok(()) };
    let found = format!(
        "is not empty (there is {other:?}), and nothing is overwritten; choose an empty or a new directory"
    );
    Err(StoreError::Format { path: dir.to_owned(), found: found.into() })
}

fn something_in(disk: &dyn Disk, dir: &Path, but: &[&str]) -> Result<Option<String>, StoreError> {
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let ours = [LOCK, VERSION_NEW, "lost+found"];
    let ignored = |name: &str| ours.contains(&name) || but.contains(&name);
    Ok(names.into_iter().find(|name| !ignored(name)))
}

/// Writes `VERSION` durably.
pub(super) fn write_version(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    let (new, path) = (dir.join(VERSION_NEW), dir.join(VERSION));
    let write = || {
        let file = disk.open(&new, true)?;
        file.write_at(0, format!("{VERSION_PREFIX}{FORMAT}\n").as_bytes())?;
        file.sync()?;
        disk.rename(&new, &path)?;
        disk.sync_dir(dir)
    };
    write().map_err(io_error("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_this_version_reads_are_known_and_others_refused() {
        let check = |text: &str| check_version(Path::new("dir"), text.as_bytes());
        let version = |format: u64| format!("{VERSION_PREFIX}{format}\n");
        for format in [OLDEST, FORMAT] {
            assert_eq!(check(&version(format)).unwrap(), format);
        }
        for (text, what) in [
            (version(OLDEST - 1), "data of format 0"),
            (version(FORMAT + 1), "data of format 3"),
            ("another program's".to_owned(), "did not write"),
        ] {
            let refused = check(&text).unwrap_err().to_string();
            assert!(refused.contains(what), "{refused}");
        }
    }

    #[test]
    fn a_new_directory_has_the_newest_format_and_an_old_one_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Layout::open(&RealDisk, dir.path()).unwrap();
        assert_eq!(open().format, FORMAT);
        let version = dir.path().join(VERSION);
        std::fs::write(&version, format!("{VERSION_PREFIX}{OLDEST}\n")).unwrap();
        let old = open();
        assert_eq!(old.format, OLDEST);
        old.upgrade(&RealDisk).unwrap();
        drop(old);
        assert_eq!(open().format, FORMAT);
    }

    #[test]
    fn nothing_is_begun_in_a_directory_of_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |name: &str| dir.path().join(name);
        std::fs::write(entry("thesis.txt"), "").unwrap();
        let refused = Layout::open(&RealDisk, dir.path()).err().unwrap().to_string();
        assert!(refused.contains("there is \"thesis.txt\""), "{refused}");
        assert!(!entry(LOCK).exists() && !entry(VERSION).exists());
        std::fs::remove_file(entry("thesis.txt")).unwrap();
        // What a file system, an interrupted opening and a command before the first start may leave.
        for name in ["lost+found", KEYS] {
            std::fs::create_dir(entry(name)).unwrap();
        }
        std::fs::write(entry(VERSION_NEW), "half of it").unwrap();
        Layout::open(&RealDisk, dir.path()).unwrap();
        assert!(entry(VERSION).exists() && !entry(VERSION_NEW).exists());
    }
}
