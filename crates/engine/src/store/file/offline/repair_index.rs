//! Repairing the index of a data directory: what is damaged is dropped or written again.

use std::{path::Path, sync::Arc};

use super::{OnProgress, OperationPhase, OperationStep, open_index, repair::aside, verify};
use crate::store::{
    StoreError,
    file::{
        FileStore, FileStoreOptions,
        disk::{Disk, RealDisk},
        error::io_error,
        index::{handle::IndexHandle, repair::IndexDamage},
        layout::Layout,
    },
};

/// Finds damaged records in the index; with `apply`, folds the log in and replaces the index by one that has the whole
/// records only and in which they fit together. The old one stays beside it. Needs space for a second index. Returns
/// `None` when nothing is damaged.
///
/// # Errors
/// As for opening; [`StoreError::Corrupt`] when the log is damaged, too, or when the structure of the index is: then a
/// backup must be restored.
pub fn repair_index(
    options: &FileStoreOptions,
    apply: bool,
    progress: &mut OnProgress<'_>,
) -> Result<Option<IndexDamage>, StoreError> {
    let layout = Layout::open_existing(&RealDisk, &options.dir)?;
    let mut index = open_index(&layout, options)?;
    let (mut problems, total) = (0, index.records()?);
    let mut each = |done| progress(OperationStep { what: OperationPhase::Checking, done, total });
    index.read()?.verify(&mut each, &mut |_| problems += 1)?;
    if problems == 0 {
        return Ok(None);
    }
    let dir = layout.index.join("repaired");
    let (wal, old) = (layout.wal.clone(), layout.index.join("data.mdb"));
    let mut held = Some(layout);
    if apply {
        drop(index);
        // The log may have events of streams that are about to be dropped.
        held = fold_log(options, held)?;
        index = IndexHandle::open(old.parent().unwrap_or(&dir), options.map_size)?;
    }
    remove(&dir)?;
    RealDisk::create_dir(&dir).map_err(io_error("create", &dir))?;
    let done = mend(&index, &dir, options.map_size, apply.then_some(&*wal), progress);
    drop(index);
    if apply && done.is_ok() {
        replace(&old, &dir.join("data.mdb"))?;
    }
    remove(&dir)?;
    drop(held);
    done.map(Some)
}

/// Folds the log into the index; the directory stays locked.
fn fold_log(
    options: &FileStoreOptions,
    layout: Option<Layout>,
) -> Result<Option<Layout>, StoreError> {
    let Some(layout) = layout else { return Ok(None) };
    let store = FileStore::open_locked(Arc::new(RealDisk), options.clone(), layout)?;
    store.checkpoint()?;
    Ok(store.layout.lock().take())
}

/// Makes a whole index in `dir`; repairs and checks it when the log is given.
fn mend(
    index: &IndexHandle,
    dir: &Path,
    map_size: usize,
    wal: Option<&Path>,
    progress: &mut OnProgress<'_>,
) -> Result<IndexDamage, StoreError> {
    let new = IndexHandle::open(dir, map_size)?;
    let total = index.records()?;
    let mut each = |done| progress(OperationStep { what: OperationPhase::Checking, done, total });
    index.salvage(&new, &mut each)?;
    let repair = new.read()?.plan_repair()?;
    if let Some(wal) = wal {
        new.repair(&repair)?;
        verify::check(&new, wal, progress)?.whole()?;
    }
    Ok(repair.damage)
}

/// Puts the new index in the place of the old one, which stays beside it.
fn replace(old: &Path, new: &Path) -> Result<(), StoreError> {
    let kept = aside(old)?;
    RealDisk::link(old, &kept).map_err(io_error("link", &kept))?;
    RealDisk.rename(new, old).map_err(io_error("rename", new))?;
    let dir = old.parent().unwrap_or(old);
    RealDisk.sync_dir(dir).map_err(io_error("sync", dir))
}

fn remove(dir: &Path) -> Result<(), StoreError> {
    RealDisk::remove_all(dir).map_err(io_error("remove", dir))
}
