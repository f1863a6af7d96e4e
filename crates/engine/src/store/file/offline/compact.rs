//! Rewriting the index without its free pages.

use super::{OnProgress, OperationPhase, OperationStep, check_room, copy_index, open_index};
use crate::store::{
    StoreError,
    file::{
        FileStore, FileStoreOptions,
        checkpointer::PURGE,
        disk::{Disk, RealDisk},
        error::io_error,
        layout::Layout,
    },
};

/// The result of a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactedIndex {
    /// Size of the index before, bytes.
    pub before: u64,
    /// Size after, bytes.
    pub after: u64,
    /// Streams in it.
    pub streams: u64,
    /// LSN of the last event in it.
    pub lsn: u64,
}

/// Rewrites the index without its free pages, after folding the log into it and removing the data of deleted streams, in
/// transactions of the size that a server uses. Needs space for a second index.
///
/// # Errors
/// As for opening; [`StoreError::Room`] or [`StoreError::Full`] when there is no space for the copy. The old index stays then.
pub fn compact(
    options: &FileStoreOptions,
    progress: &mut OnProgress<'_>,
) -> Result<CompactedIndex, StoreError> {
    let layout = Layout::open_existing(&RealDisk, &options.dir)?;
    check_room(&open_index(&layout, options)?, &layout.index)?;
    let dir = layout.index.clone();
    let store = FileStore::open_locked(std::sync::Arc::new(RealDisk), options.clone(), layout)?;
    store.checkpoint()?;
    let mut done = 0;
    loop {
        let purged = store.core.index.purge_some(&|| Ok(()), PURGE)?;
        store.core.segments.remove(&purged.freed);
        if !purged.more {
            break;
        }
        done += 1;
        progress(OperationStep { what: OperationPhase::Purging, done, total: 0 });
    }
    let meta = store.core.index.read()?.meta()?;
    let (path, new) = (dir.join("data.mdb"), dir.join("data.new"));
    let before = store.core.index.size();
    // An interrupted compaction may have left it.
    match RealDisk.remove(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io_error("remove", &new)(error));
        }
        _ => {}
    }
    let file = RealDisk::create_file(&new).map_err(io_error("create", &new))?;
    let copied = copy_index(&store.core.index, &file, &new, progress)
        .and_then(|()| file.sync_all().map_err(io_error("sync", &new)));
    if let Err(error) = copied {
        let _ = RealDisk.remove(&new);
        return Err(error);
    }
    // The directory stays locked while the environment is closed.
    let layout = store.layout.lock().take();
    drop(store);
    let after = file.metadata().map_err(io_error("look at", &new))?.len();
    RealDisk.rename(&new, &path).map_err(io_error("rename", &new))?;
    RealDisk.sync_dir(&dir).map_err(io_error("sync", &dir))?;
    drop(layout);
    Ok(CompactedIndex { before, after, streams: meta.streams, lsn: meta.lsn })
}
