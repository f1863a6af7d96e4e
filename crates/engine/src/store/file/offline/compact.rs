//! Rewriting the index without its free pages.

use super::{Phase, Progress, Step, copy_index, open_index};
use crate::store::{
    StoreError,
    file::{
        FileStore, FileStoreOptions,
        disk::{Disk, RealDisk},
        error::io_error,
        layout::Layout,
        work::PURGE,
    },
};

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Size of the index before, bytes.
    pub before: u64,
    /// And after.
    pub after: u64,
    /// Streams in it.
    pub streams: u64,
    /// The last event in it.
    pub lsn: u64,
}

/// Rewrites the index without its free pages; first folds the log into it and removes what deleted streams
/// left, as a server does, in transactions of the same sizes. Needs room for a second index.
///
/// # Errors
/// As for opening; [`StoreError::Full`] when there is no room for the copy. The old index stays then.
pub fn compact(
    options: &FileStoreOptions,
    progress: &mut Progress<'_>,
) -> Result<Compacted, StoreError> {
    let layout = Layout::open_existing(&RealDisk, &options.dir)?;
    drop(open_index(&layout, options)?);
    let dir = layout.index.clone();
    let store = FileStore::open_locked(std::sync::Arc::new(RealDisk), options.clone(), layout)?;
    store.checkpoint()?;
    let mut done = 0;
    while store.work.index.purge_some(&|| Ok(()), PURGE)? {
        done += 1;
        progress(Step { what: Phase::Purging, done, total: 0 });
    }
    let meta = store.work.index.read()?.meta()?;
    let (path, new) = (dir.join("data.mdb"), dir.join("data.new"));
    let before = store.work.index.size();
    // Left by a compaction that was cut short.
    match RealDisk.remove(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io_error("remove", &new)(error));
        }
        _ => {}
    }
    let file = RealDisk::create_file(&new).map_err(io_error("create", &new))?;
    let copied = copy_index(&store.work.index, &file, &new, progress)
        .and_then(|()| file.sync_all().map_err(io_error("sync", &new)));
    if let Err(error) = copied {
        let _ = RealDisk.remove(&new);
        return Err(error);
    }
    // The lock of the directory is kept while the environment goes.
    let layout = store.layout.lock().take();
    drop(store);
    let after = file.metadata().map_err(io_error("look at", &new))?.len();
    RealDisk.rename(&new, &path).map_err(io_error("rename", &new))?;
    RealDisk.sync_dir(&dir).map_err(io_error("sync", &dir))?;
    drop(layout);
    Ok(Compacted { before, after, streams: meta.streams, lsn: meta.lsn })
}
