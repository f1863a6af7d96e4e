//! The disk as the file store sees it: a trait, so that tests can inject failures and lose unsynced writes.
//!
//! A disk promises this and no more: the bytes of a file are durable after [`DiskFile::sync`] returned; names in a
//! directory (created, renamed, removed) are durable after [`Disk::sync_dir`] returned. Until then a crash may lose any
//! part of them, in any order. [`RealDisk`] alone opens files in the store.
//!
//! One file because it is the whole seam: what the store may ask of a disk, beside the disk that asks the system.

use std::{
    fs::{self, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
#[cfg(windows)]
use std::os::windows::fs::FileExt;

pub use std::fs::File;

/// Files and directories.
pub trait Disk: Send + Sync + 'static {
    /// Creates a directory and its parents; succeeds when it exists.
    ///
    /// # Errors
    /// Those of the operating system, here and below.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Names in a directory, in no order.
    ///
    /// # Errors
    /// See above.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Reads a whole small file.
    ///
    /// # Errors
    /// See above; `NotFound` when it does not exist.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Opens a file for reading and writing; creates it empty when `create` is set and it does not exist.
    ///
    /// # Errors
    /// See above.
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that exists for reading only, which works on a read-only file system.
    ///
    /// # Errors
    /// See above.
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path, false)
    }
    /// Renames a file, replacing an existing one.
    ///
    /// # Errors
    /// See above.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// See above.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// See above.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Locks a file against other processes until the guard is dropped; returns `None` when another process has it.
    ///
    /// # Errors
    /// See above.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
    /// Free bytes of the file system that holds `dir`, as far as this process may use them; `None` when unknown.
    fn room(&self, _dir: &Path) -> Option<u64> {
        None
    }
    /// Called right before the index commits, which LMDB syncs itself. Tests inject crashes and failures here.
    ///
    /// # Errors
    /// Only in tests.
    fn before_index_commit(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// Those of the operating system, here and below.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    ///
    /// # Errors
    /// See above.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads up to `out.len()` bytes at an offset; fewer at the end of the file only.
    ///
    /// # Errors
    /// See above.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;
    /// The file itself, for what the kernel does with one; `None` for a file that is not the operating system's.
    fn handle(&self) -> Option<Arc<File>> {
        None
    }
    /// Has the system read the whole file into memory in the background, where it can.
    fn read_ahead(&self) {}
    /// Writes all of `bytes` at an offset.
    ///
    /// # Errors
    /// See above; part of them may have been written then.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file at least `len` bytes long and reserves the space, so that a later write there cannot fail for
    /// want of space. New bytes are zero.
    ///
    /// # Errors
    /// See above.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes all bytes durable, with the metadata that reading them needs.
    ///
    /// # Errors
    /// See above. What is durable is unknown then, and a later success does not change that.
    fn sync(&self) -> io::Result<()>;
}

/// Mode of directories made here: streams are private to the server's user.
#[cfg(unix)]
const OWNER_DIR: u32 = 0o700;

/// Mode of files made here.
#[cfg(unix)]
const OWNER_FILE: u32 = 0o600;

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

struct RealFile(Arc<File>);

/// A lock whose file contains this process's number while it is held.
struct HeldLock(File);

impl Drop for HeldLock {
    fn drop(&mut self) {
        let _ = self.0.set_len(0);
    }
}

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        #[cfg_attr(not(unix), expect(unused_mut, reason = "there is nothing to set"))]
        let mut options = fs::DirBuilder::new();
        #[cfg(unix)]
        options.mode(OWNER_DIR);
        options.recursive(true).create(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false);
        #[cfg(unix)]
        options.mode(OWNER_FILE);
        Ok(Box::new(RealFile(Arc::new(options.open(path)?))))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(Arc::new(File::open(path)?))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    #[cfg(unix)]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    // Windows journals names by itself, and cannot open a directory as a file.
    #[cfg(windows)]
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    #[cfg(unix)]
    fn room(&self, dir: &Path) -> Option<u64> {
        let stat = rustix::fs::statvfs(dir).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        // A symbolic link would have the file that it names emptied below.
        #[cfg(unix)]
        options.mode(OWNER_FILE).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => {
                // The number is for the error message of another process. A full disk must not prevent the lock.
                let _ = file.set_len(0);
                let _ = (&file).write_all(format!("{}\n", std::process::id()).as_bytes());
                Ok(Some(Box::new(HeldLock(file))))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// The file offset of bytes that lie in a file mapped into memory; `None` where /proc does not exist.
pub(super) fn mapped_at(bytes: &[u8]) -> Option<u64> {
    let address = bytes.as_ptr() as u64;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (from, to, offset) = (number(from)?, number(to)?, number(fields.nth(1)?)?);
        (from..to).contains(&address).then(|| address - from + offset)
    })
}

/// The mode of a directory that users other than its owner and group may look into.
pub(super) fn mode_open_to_others(dir: &Path) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(dir).ok()?.permissions().mode() & 0o7777;
        (mode & 0o007 != 0).then_some(mode)
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}

/// Operations for commands on whole directories. Files and directories created here have owner-only permissions.
impl RealDisk {
    /// Locks a directory for reading, so that no server changes it meanwhile; returns `None` when a server has it, and
    /// `Some(None)` when there is no lock file, so no server can have it.
    pub(super) fn lock_to_read(path: &Path) -> io::Result<Option<Option<File>>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(None)),
            opened => opened?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Some(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Creates a directory; it must not exist.
    pub(super) fn create_dir(dir: &Path) -> io::Result<()> {
        #[cfg_attr(not(unix), expect(unused_mut, reason = "there is nothing to set"))]
        let mut options = fs::DirBuilder::new();
        #[cfg(unix)]
        options.mode(OWNER_DIR);
        options.create(dir)
    }

    /// Whether a path leads to a directory.
    pub(super) fn is_dir(path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
    }

    /// Creates a file; it must not exist.
    pub(super) fn create_file(path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        options.mode(OWNER_FILE);
        options.open(path)
    }

    /// Gives a file a second name.
    pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    /// Removes a directory with its contents; succeeds when it does not exist.
    pub(super) fn remove_all(dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    /// Copies a file to a new one, with holes for zeros, and syncs it. `each` receives the number of bytes copied.
    pub(super) fn copy(from: &Path, to: &Path, each: &mut dyn FnMut(u64)) -> io::Result<()> {
        const PIECE: usize = 1 << 20;
        let (from, to) = (File::open(from)?, Self::create_file(to)?);
        let (from, to) = (RealFile(Arc::new(from)), RealFile(Arc::new(to)));
        let mut piece = vec![0; PIECE];
        let mut done = 0;
        loop {
            let read = from.read_at(done, &mut piece)?;
            let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            for (at, part) in (done..).step_by(64 << 10).zip(bytes.chunks(64 << 10)) {
                if part.iter().any(|byte| *byte != 0) {
                    to.write_at(at, part)?;
                }
            }
            done += read as u64;
            each(done);
        }
        to.0.set_len(done)?;
        to.0.sync_all()
    }
}

impl DiskFile for RealFile {
    fn handle(&self) -> Option<Arc<File>> {
        Some(self.0.clone())
    }

    fn read_ahead(&self) {
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&*self.0, 0, None, rustix::fs::Advice::WillNeed);
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            #[cfg(unix)]
            let read = self.0.read_at(rest, offset + done as u64);
            #[cfg(windows)]
            let read = self.0.seek_read(rest, offset + done as u64);
            match read {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    #[cfg(unix)]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.0.seek_write(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    bytes = bytes.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, len: u64) -> io::Result<()> {
        use rustix::{
            fs::{FallocateFlags, fallocate},
            io::Errno,
        };
        if self.len()? >= len {
            return Ok(());
        }
        match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            // File systems without preallocation: a full disk then shows up when writing.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.0.set_len(len),
            other => Ok(other?),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.len()? >= len { Ok(()) } else { self.0.set_len(len) }
    }

    // `sync_data` is fdatasync, and F_FULLFSYNC on Apple systems.
    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests;
