//! Repairing the index of a data directory: what is damaged is dropped or written again.

use std::{collections::HashSet, path::Path, sync::Arc};

use durable_streams_protocol::StreamId;

use super::{
    OnProgress, OperationPhase, OperationStep, VerifiedTotals, check_room, open_index_as,
    repair::aside,
    segments::{SegmentSource, check_segments, set_aside_unreferenced},
    verify,
};
use crate::store::{
    StoreError,
    file::{
        FileStore, FileStoreOptions,
        disk::{Disk, RealDisk},
        error::io_error,
        index::{
            handle::IndexHandle,
            repair::{IndexDamage, IndexRepair},
        },
        layout::Layout,
        memtable::Memtable,
        places::StreamPlaces,
        segments::{
            files::SegmentFiles,
            format::number_of,
            object_files::SegmentObjects,
            rewrite::{RewriteStop, rewrite},
        },
        wal::recovery,
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
    repair_index_with(options, apply, None, progress)
}

/// The same, and takes segments that are objects for damaged where the objects are; without `objects` they are taken for
/// whole.
///
/// # Errors
/// As for [`repair_index`]; [`StoreError::Io`] when the object store does not answer.
pub fn repair_index_with(
    options: &FileStoreOptions,
    apply: bool,
    objects: Option<&Arc<dyn SegmentObjects>>,
    progress: &mut OnProgress<'_>,
) -> Result<Option<IndexDamage>, StoreError> {
    let layout = Layout::open_existing(&RealDisk, &options.dir)?;
    let mut index = open_index_as(&layout, options, true)?;
    let (mut whole, total) = (true, index.records()?);
    // LMDB may end a process that meets a damaged page, so the index is not searched then.
    let pages = verify::has_damaged_pages(&index)?;
    if !pages {
        let mut each =
            |done| progress(OperationStep { what: OperationPhase::Checking, done, total });
        index.read()?.verify(&mut each, &mut |_| whole = false)?;
        let segments = SegmentSource { dir: &layout.segments, objects };
        let mut found = VerifiedTotals::default();
        check_segments(&index, &segments, &mut found, &mut |_| whole = false)?;
        if whole {
            return Ok(None);
        }
    }
    check_room(&index, &layout.index)?;
    let dir = layout.index.join("repaired");
    let (wal, old) = (layout.wal.clone(), layout.index.join("data.mdb"));
    let segments = layout.segments.clone();
    let mut held = Some(layout);
    if apply && !pages {
        drop(index);
        // The log may have events of streams that are about to be dropped.
        held = fold_log(options, held)?;
        index = IndexHandle::open(old.parent().unwrap_or(&dir), options.map_size)?;
    }
    remove(&dir)?;
    RealDisk::create_dir(&dir).map_err(io_error("create", &dir))?;
    let wal = apply.then_some(&*wal);
    let places = SegmentSource { dir: &segments, objects };
    let done = mend(&index, &dir, options, (wal, &places, pages), progress);
    drop(index);
    if apply && done.is_ok() {
        replace(&old, &dir.join("data.mdb"))?;
        let whole = IndexHandle::open(old.parent().unwrap_or(&dir), options.map_size)?;
        set_aside_unreferenced(&whole, &segments)?;
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

/// Folds the log into an index that lacks the streams in `lost`, whose events are lost, too. The log stays: what it has is
/// then in the index.
pub(super) fn fold_log_into(
    index: &IndexHandle,
    wal: &Path,
    lost: &HashSet<u64>,
) -> Result<(), StoreError> {
    let meta = index.read()?.meta()?;
    let memtable = Memtable::new(meta.lsn, meta.next_id, meta.streams, meta.bytes, 0);
    let reading = index.read()?;
    let base = |id: StreamId| {
        let state = reading.state(id)?;
        if state.is_none() && lost.contains(&id.0) {
            return Err(index.missing(&format!("stream {}", id.0)));
        }
        Ok(state)
    };
    let mut places = StreamPlaces::new(&base);
    recovery::recover(&RealDisk, wal, meta.lsn, &mut |logged| {
        let event = logged.event()?;
        let place = places.follow(logged, &event)?;
        memtable.publish(logged.header.lsn, std::iter::once((logged.header.id, place, event)));
        Ok(())
    })?;
    drop(reading);
    let sealed = memtable.seal();
    let events_of = |id| memtable.events(id, sealed.lsn);
    index.checkpoint(&|| Ok(()), sealed.lsn, (&sealed.dirty, &events_of), &[])?;
    Ok(())
}

/// Makes a whole index in `dir`; repairs and checks it when the log is given, which is folded in if it was not.
fn mend(
    index: &IndexHandle,
    dir: &Path,
    options: &FileStoreOptions,
    (wal, segments, unfolded): (Option<&Path>, &SegmentSource<'_>, bool),
    progress: &mut OnProgress<'_>,
) -> Result<IndexDamage, StoreError> {
    let new = IndexHandle::open(dir, options.map_size)?;
    let total = index.records()?;
    let mut each = |done| progress(OperationStep { what: OperationPhase::Checking, done, total });
    index.salvage(&new, &mut each)?;
    let files = segments.files();
    let repair = new.read()?.plan_repair(&files)?;
    if let Some(wal) = wal {
        new.repair(&repair)?;
        rewrite_damaged(&new, &files, &repair)?;
        if unfolded {
            let lost: HashSet<u64> = repair.damage.lost.iter().map(|lost| lost.id).collect();
            fold_log_into(&new, wal, &lost)?;
        }
        verify::check(&new, (wal, segments), progress)?.whole()?;
    }
    Ok(repair.damage)
}

/// Moves what is whole of damaged segment files to new ones.
fn rewrite_damaged(
    index: &IndexHandle,
    files: &SegmentFiles,
    repair: &IndexRepair,
) -> Result<(), StoreError> {
    let next = index.read()?.meta()?.next_segment;
    files.note_number(next.saturating_sub(1));
    for name in files.names()? {
        number_of(&name).into_iter().for_each(|number| files.note_number(number));
    }
    for number in &repair.damaged_files {
        let Some(record) = index.read()?.segment(*number)? else { continue };
        match rewrite(index, files, (*number, record.footer_crc), &|_| true) {
            Ok(Some(segment)) => drop(index.hand_over(&|| Ok(()), &segment)?),
            Ok(None) | Err(RewriteStop::Stopped) => {}
            Err(RewriteStop::Failed(error)) => return Err(error),
        }
    }
    Ok(())
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
