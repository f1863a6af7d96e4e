//! A disk in memory, under a page cache, that fails and stops on demand.
//!
//! Until a sync, a power cut may lose any part of what was written, sector by sector, in any order; until a sync of the
//! directory, any of the names. Once the disk has stopped, every operation fails. [`FaultDisk::after_power_cut`] returns
//! a disk as a power cut may leave it; [`FaultDisk::after_kill`] one as a killed process leaves it, with everything that
//! is in the page cache.
//!
//! A sync that fails drops what it could not write, as Linux does: the page cache shows those bytes still, a later sync
//! succeeds without them, and only writing them again can make them durable.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use durable_streams_engine::store::file::disk::{Disk, DiskFile};
use parking_lot::Mutex;

use super::workload::Rng;

const SECTOR: usize = 512;

type Inode = usize;

#[derive(Clone, Default)]
struct FileData {
    /// What is on the disk.
    safe: Vec<u8>,
    /// What the page cache shows.
    now: Vec<u8>,
    /// Writes since the last sync: offset and bytes.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// The write during which the disk stopped.
    in_flight: Option<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Name {
    Put(PathBuf, Inode),
    Gone(PathBuf),
    Moved(PathBuf, PathBuf, Inode),
}

#[derive(Default)]
struct State {
    files: Vec<FileData>,
    safe_names: BTreeMap<PathBuf, Inode>,
    names: BTreeMap<PathBuf, Inode>,
    unsynced_names: Vec<Name>,
    faults: Faults,
    steps: u64,
    writes: u64,
    syncs: u64,
    operations: u64,
    /// The operation that failed, if `Faults::operation` has made one fail.
    failed: Option<&'static str>,
    stopped: bool,
    /// What is looked at is neither counted nor does it fail.
    watched: bool,
    /// Bytes that all files together may have; `None` for any number.
    capacity: Option<usize>,
}

impl State {
    fn used(&self) -> usize {
        self.names.values().map(|inode| self.files[*inode].now.len()).sum()
    }

    /// Fails when a file cannot grow to `len`.
    fn grow(&self, inode: Inode, len: usize) -> io::Result<()> {
        let more = len.saturating_sub(self.files[inode].now.len());
        let fits = more == 0 || self.capacity.is_none_or(|all| self.used() + more <= all);
        if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

/// What goes wrong. Numbers count from 1; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The operation at which everything stops.
    pub stop_at: u64,
    /// The write that fails half done, as on a full disk.
    pub write: u64,
    /// The sync that fails.
    pub sync: u64,
    /// The operation of any kind that fails, reads included; a failing write or sync does part of its work.
    pub operation: u64,
    /// It fails as on a full disk.
    pub full: bool,
    /// The index cannot commit.
    pub no_index_commits: bool,
}

/// See the module.
#[derive(Clone, Default)]
pub struct FaultDisk(Arc<Mutex<State>>);

struct FaultFile {
    disk: FaultDisk,
    inode: Inode,
}

fn stopped() -> io::Error {
    io::Error::other("the machine is off")
}

impl FaultDisk {
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.0.lock();
        (state.steps, state.writes, state.syncs, state.operations) = (0, 0, 0, 0);
        if faults.operation > 0 {
            state.failed = None;
        }
        state.faults = faults;
    }

    /// Limits what all files together may have; the index is elsewhere.
    pub fn set_capacity(&self, bytes: usize) {
        self.0.lock().capacity = Some(bytes);
    }

    /// Syncs of files so far, since the faults were set last.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// The operation that `Faults::operation` has made fail.
    pub fn failed(&self) -> Option<&'static str> {
        self.0.lock().failed
    }

    /// A look of the test at what is there, which no operation of any kind fails.
    pub fn watch<T>(&self, look: impl FnOnce() -> T) -> T {
        self.0.lock().watched = true;
        let seen = look();
        self.0.lock().watched = false;
        seen
    }

    /// Counts an operation of any kind; fails when it is its turn.
    fn count(&self, what: &'static str) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.watched {
            return Ok(());
        }
        state.operations += 1;
        if state.operations != state.faults.operation {
            return Ok(());
        }
        state.failed = Some(what);
        let full = state.faults.full;
        Err(if full {
            io::ErrorKind::StorageFull.into()
        } else {
            io::Error::other("the disk says no")
        })
    }

    pub fn is_stopped(&self) -> bool {
        self.0.lock().stopped
    }

    fn running(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.0.lock();
        if state.stopped { Err(stopped()) } else { Ok(state) }
    }

    fn step(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.0.lock();
        state.steps += 1;
        if state.steps == state.faults.stop_at {
            state.stopped = true;
        }
        if state.stopped { Err(stopped()) } else { Ok(state) }
    }

    /// The disk as a killed process may leave it: with everything that it wrote, durable or not.
    pub fn after_kill(&self, rng: &mut Rng) -> FaultDisk {
        let state = self.0.lock();
        let mut files = state.files.clone();
        for file in &mut files {
            if let Some((offset, mut bytes)) = file.in_flight.take() {
                bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
                file.write(offset, bytes);
            }
        }
        let (names, safe_names) = (state.names.clone(), state.safe_names.clone());
        let unsynced_names = state.unsynced_names.clone();
        let state = State { files, names, safe_names, unsynced_names, ..State::default() };
        FaultDisk(Arc::new(Mutex::new(state)))
    }

    /// The disk as a power cut leaves it at worst: without anything that was not synced.
    pub fn without_unsynced(&self) -> FaultDisk {
        let state = self.0.lock();
        let durable = |file: &FileData| {
            let safe = file.safe.clone();
            FileData { now: safe.clone(), safe, ..FileData::default() }
        };
        let files = state.files.iter().map(durable).collect();
        let names = state.safe_names.clone();
        let state = State { files, safe_names: names.clone(), names, ..State::default() };
        FaultDisk(Arc::new(Mutex::new(state)))
    }

    /// The disk as a power cut may leave it.
    pub fn after_power_cut(&self, rng: &mut Rng) -> FaultDisk {
        let state = self.0.lock();
        let mut names = state.safe_names.clone();
        let keep_names = rng.below(3);
        for change in &state.unsynced_names {
            if keep_names == 0 || (keep_names == 1 && rng.below(2) == 0) {
                continue;
            }
            match change.clone() {
                Name::Put(path, inode) => {
                    names.insert(path, inode);
                }
                Name::Gone(path) => {
                    names.remove(&path);
                }
                Name::Moved(from, to, inode) => {
                    names.remove(&from);
                    names.insert(to, inode);
                }
            }
        }
        let mut files = state.files.clone();
        for file in &mut files {
            let mut found = file.safe.clone();
            let mood = rng.below(4);
            for (offset, bytes) in file.unsynced.iter().chain(&file.in_flight) {
                let cut = rng.below(bytes.len() as u64 + 1) as usize;
                for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                    let keep = match mood {
                        0 => false,
                        1 => true,
                        2 => rng.below(2) == 0,
                        _ => at * SECTOR < cut,
                    };
                    if keep {
                        put(&mut found, offset + at * SECTOR, sector);
                    }
                }
            }
            *file = FileData { safe: found.clone(), now: found, ..FileData::default() };
        }
        let state = State { files, safe_names: names.clone(), names, ..State::default() };
        FaultDisk(Arc::new(Mutex::new(state)))
    }

    /// Changes a file behind the store's back.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        let inode = state.names[path];
        let file = &mut state.files[inode];
        change(&mut file.now);
        file.safe = file.now.clone();
    }

    /// A copy that shares nothing, with everything safe.
    pub fn copy(&self) -> FaultDisk {
        let state = self.0.lock();
        let mut files = state.files.clone();
        for file in &mut files {
            file.safe = file.now.clone();
            file.unsynced.clear();
        }
        let names = state.names.clone();
        let state = State { files, safe_names: names.clone(), names, ..State::default() };
        FaultDisk(Arc::new(Mutex::new(state)))
    }

    /// Paths of files in a directory, in order.
    pub fn paths(&self, dir: &Path) -> Vec<PathBuf> {
        let state = self.0.lock();
        state.names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect()
    }
}

impl FileData {
    fn write(&mut self, offset: usize, bytes: Vec<u8>) {
        put(&mut self.now, offset, &bytes);
        self.unsynced.push((offset, bytes));
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Disk for FaultDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.count("create a directory")?;
        // LMDB writes to the real one.
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.count("list")?;
        let paths = self.paths(dir);
        Ok(paths.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.count("read a file")?;
        let state = self.0.lock();
        let inode = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.files[*inode].now.clone())
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        self.count(if create { "create" } else { "open" })?;
        // Opening for a read changes nothing, so the disk does not stop there.
        let mut state = if create { self.step()? } else { self.running()? };
        let known = state.names.get(path).copied();
        let inode = match known {
            Some(inode) => inode,
            None if create => {
                state.files.push(FileData::default());
                let inode = state.files.len() - 1;
                state.names.insert(path.to_owned(), inode);
                state.unsynced_names.push(Name::Put(path.to_owned(), inode));
                inode
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Box::new(FaultFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.count("rename")?;
        let mut state = self.step()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        state.unsynced_names.push(Name::Moved(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.count("remove")?;
        let mut state = self.step()?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.unsynced_names.push(Name::Gone(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.count("sync a directory")?;
        let mut state = self.step()?;
        let under = |path: &Path| path.parent() == Some(dir);
        let names = state.names.clone();
        state.safe_names.retain(|path, _| !under(path));
        state.safe_names.extend(names.into_iter().filter(|(path, _)| under(path)));
        state.unsynced_names.retain(|change| match change {
            Name::Put(path, _) | Name::Gone(path) | Name::Moved(path, ..) => !under(path),
        });
        Ok(())
    }

    fn room(&self, _dir: &Path) -> Option<u64> {
        let state = self.0.lock();
        state.capacity.map(|all| all.saturating_sub(state.used()) as u64)
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.count("lock")?;
        Ok(Some(Box::new(())))
    }

    fn before_index_commit(&self) -> io::Result<()> {
        self.count("commit the index")?;
        let state = self.step()?;
        let fails = state.faults.no_index_commits;
        if fails { Err(io::Error::other("the disk says no")) } else { Ok(()) }
    }
}

impl DiskFile for FaultFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.count("look at")?;
        Ok(self.disk.0.lock().files[self.inode].now.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.disk.count("read")?;
        let state = self.disk.0.lock();
        let rest = state.files[self.inode].now.get(offset as usize..).unwrap_or(&[]);
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let counted = self.disk.count("write");
        let mut state = self.disk.step().inspect_err(|_| {
            // The power goes while this is being written.
            let mut state = self.disk.0.lock();
            if state.steps == state.faults.stop_at {
                state.files[self.inode].in_flight = Some((offset as usize, bytes.to_vec()));
            }
        })?;
        state.grow(self.inode, offset as usize + bytes.len())?;
        state.writes += 1;
        let fails = state.writes == state.faults.write || counted.is_err();
        let bytes = if fails { &bytes[..bytes.len() / 2] } else { bytes };
        state.files[self.inode].write(offset as usize, bytes.to_vec());
        counted?;
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.count("allocate")?;
        let mut state = self.disk.step()?;
        state.grow(self.inode, len as usize)?;
        let file = &mut state.files[self.inode];
        let (old, len) = (file.now.len(), len as usize);
        if old < len {
            file.write(old, vec![0; len - old]);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let counted = self.disk.count("sync");
        let mut state = self.disk.step()?;
        state.syncs += 1;
        let fails = state.syncs == state.faults.sync || counted.is_err();
        let steps = state.steps as usize;
        let file = &mut state.files[self.inode];
        for (offset, bytes) in std::mem::take(&mut file.unsynced) {
            for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                // A failing sync writes some of it.
                if !fails || (at + steps).is_multiple_of(3) {
                    put(&mut file.safe, offset + at * SECTOR, sector);
                }
            }
        }
        counted?;
        if fails { Err(io::Error::other("the disk says no")) } else { Ok(()) }
    }
}
