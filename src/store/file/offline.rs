//! What operators do with a data directory that no server has open, and backups of one that does.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    FileStore, FileStoreOptions,
    disk::{Disk, RealDisk},
    error::io_error,
    index::{env::Index, verify::Indexed},
    layout::{self, Layout},
    wal::{
        Lsn,
        frame::FrameHeader,
        reader, recovery,
        segment::{self, Segment},
    },
};
use crate::store::StoreError;

/// What a data directory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Streams in the index.
    pub streams: u64,
    /// Chunks of bytes, each with its checksum.
    pub chunks: u64,
    /// Payload bytes in the index.
    pub bytes: u64,
    /// Events in the log that the index does not have.
    pub events: u64,
}

/// What `repair` drops, or would drop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The segment in which it begins.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// The first event that is lost; all later ones are, too.
    pub first_lost: u64,
    /// The last event that was found whole, and is lost all the same, if any.
    pub last_found: Option<u64>,
}

/// Checks every checksum and how records fit together. `progress` gets the number of records done.
///
/// # Errors
/// [`StoreError::Corrupt`] for the first thing that is wrong; [`StoreError::Locked`] while a server has the
/// directory; [`StoreError::Format`], [`StoreError::Io`].
pub fn verify(
    options: &FileStoreOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified, StoreError> {
    let disk = RealDisk;
    let layout = Layout::open_existing(&disk, &options.dir)?;
    let index = Index::open(&layout.index, options.map_size)?;
    let reading = index.read()?;
    let meta = reading.meta()?;
    let Indexed { streams, chunks, bytes } = reading.verify(progress)?;
    let mut events = 0;
    recovery::recover(&disk, &layout.wal, meta.lsn, &mut |_, _, event| {
        event()?;
        events += 1;
        Ok(())
    })?;
    Ok(Verified { streams, chunks, bytes, events })
}

/// Copies a directory that no server has open into `to`, which must be empty or missing.
///
/// # Errors
/// As for opening either; [`StoreError::Full`].
pub fn backup(options: &FileStoreOptions, to: &Path) -> Result<(), StoreError> {
    check_exists(options)?;
    let store = FileStore::open_on(Arc::new(RealDisk), options.clone())?;
    store.backup(to)
}

/// Makes a data directory, which must be empty or missing, from a backup.
///
/// # Errors
/// As for opening either; [`StoreError::Full`].
pub fn restore(from: &Path, options: &FileStoreOptions) -> Result<(), StoreError> {
    let from = FileStoreOptions { dir: from.to_owned(), ..options.clone() };
    verify(&from, &mut |_| {})?;
    backup(&from, &options.dir)
}

/// Rewrites the index without its free pages. Gives its size before and after, bytes.
///
/// # Errors
/// As for opening; [`StoreError::Full`] when there is no room for the copy. The old index stays then.
pub fn compact(options: &FileStoreOptions) -> Result<(u64, u64), StoreError> {
    check_exists(options)?;
    let store = FileStore::open_on(Arc::new(RealDisk), options.clone())?;
    store.checkpoint()?;
    let before_commit = || Ok(());
    while store.work.index.purge_some(&before_commit, 1 << 16)? {}
    let dir = options.dir.join("store");
    let (path, new) = (dir.join("data.mdb"), dir.join("data.new"));
    let before = store.work.index.size();
    store.work.index.copy_to(&new)?;
    // The lock of the directory is kept while the environment goes.
    let layout = store.layout.lock().take();
    drop(store);
    let after = RealDisk.open(&new, false).and_then(|file| file.len());
    let after = after.map_err(io_error("look at", &new))?;
    RealDisk.rename(&new, &path).map_err(io_error("rename", &new))?;
    RealDisk.sync_dir(&dir).map_err(io_error("sync", &dir))?;
    drop(layout);
    Ok((before, after))
}

/// Finds where the log is damaged; with `apply`, drops everything from there on, for good. `None` when
/// opening would work as it is.
///
/// The index is not repaired: damage in it is an error here, and calls for a backup.
///
/// # Errors
/// As for opening, damage of the log's frames apart.
pub fn repair(options: &FileStoreOptions, apply: bool) -> Result<Option<Damage>, StoreError> {
    let disk = RealDisk;
    let layout = Layout::open_existing(&disk, &options.dir)?;
    let index = Index::open(&layout.index, options.map_size)?;
    let checkpoint = index.read()?.meta()?.lsn;
    drop(index);
    let mut reached = checkpoint;
    let refused = recovery::recover(&disk, &layout.wal, checkpoint, &mut |lsn, _, event| {
        event()?;
        reached = lsn;
        Ok(())
    });
    let (path, offset) = match refused {
        Ok(_) => return Ok(None),
        Err(StoreError::Corrupt { path, offset, .. }) => (path, offset),
        Err(other) => return Err(other),
    };
    let mut last_found = None;
    let mut beyond = Vec::new();
    for name in disk.list(&layout.wal).map_err(io_error("list", &layout.wal))? {
        let Some(number) = segment::number_of(&name) else { continue };
        let there = layout.wal.join(&name);
        let found = Segment::open(&disk, &layout.wal, number);
        if there >= path
            && let Ok(found) = &found
        {
            last_found = last_found.max(last_whole(found, reached)?);
        }
        if there > path {
            beyond.push(there);
        }
    }
    if apply {
        cut(&layout, &path, offset, &beyond)?;
    }
    Ok(Some(Damage { path, offset, first_lost: reached + 1, last_found }))
}

/// The last whole frame after `reached` that is anywhere in a segment.
fn last_whole(segment: &Segment, reached: Lsn) -> Result<Option<Lsn>, StoreError> {
    let mut last = None;
    let wanted = |header: &FrameHeader| header.lsn > reached;
    reader::scan(segment, segment::HEADER, &wanted, &mut |header, _| {
        last = last.max(Some(header.lsn));
        ControlFlow::Continue(())
    })?;
    Ok(last)
}

/// Drops the rest of one segment and all later ones; they stay beside the log under other names.
fn cut(layout: &Layout, path: &Path, offset: u64, beyond: &[PathBuf]) -> Result<(), StoreError> {
    let disk = RealDisk;
    for later in beyond {
        let aside = later.with_extension("dropped");
        disk.rename(later, &aside).map_err(io_error("rename", later))?;
    }
    if offset < segment::HEADER {
        let aside = path.with_extension("dropped");
        disk.rename(path, &aside).map_err(io_error("rename", path))?;
    } else {
        let aside = path.with_extension("dropped");
        let all = disk.read(path).map_err(io_error("read", path))?;
        let kept = disk.open(&aside, true).and_then(|copy| {
            copy.write_at(0, &all)?;
            copy.sync()
        });
        kept.map_err(io_error("write", &aside))?;
        let file = disk.open(path, false).map_err(io_error("open", path))?;
        let len = file.len().map_err(io_error("look at", path))?;
        let rest = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
        file.write_at(offset, &vec![0; rest]).map_err(io_error("write", path))?;
        file.sync().map_err(io_error("sync", path))?;
    }
    disk.sync_dir(&layout.wal).map_err(io_error("sync", &layout.wal))
}

fn check_exists(options: &FileStoreOptions) -> Result<(), StoreError> {
    Layout::open_existing(&RealDisk, &options.dir).map(drop)
}

impl FileStore {
    /// Copies everything that is durable now into `to`, which must be empty or missing: a data directory
    /// like any other. Works while the store serves; holds up nothing but checkpoints' reuse of old pages.
    ///
    /// # Errors
    /// [`StoreError::Format`] when `to` is not empty; [`StoreError::Full`], [`StoreError::Io`].
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        self.checkpoint()?;
        let disk = RealDisk;
        disk.create_dir_all(to).map_err(io_error("create", to))?;
        layout::check_empty(&disk, to)?;
        let (wal, store) = (to.join("wal"), to.join("store"));
        for dir in [&wal, &store] {
            disk.create_dir_all(dir).map_err(io_error("create", dir))?;
        }
        let copy = store.join("data.mdb");
        self.work.index.copy_to(&copy)?;
        disk.sync_dir(&store).map_err(io_error("sync", &store))?;
        let index = Index::open(&store, self.work.map_size())?;
        let next = index.read()?.meta()?.lsn + 1;
        drop(index);
        segment::begin_log(&disk, &wal, next)?;
        // Last, so that a backup that was cut short is not taken for a whole one.
        layout::write_version(&disk, to)
    }
}
