//! Backups, from a serving store or from files, and restoring them.

use std::path::Path;

use super::{Phase, Progress, Step, Verified, copy_index, open_index, verify};
use crate::store::{
    StoreError,
    file::{
        FileStore, FileStoreOptions,
        destination::Destination,
        disk::{File, RealDisk},
        error::{corrupt, io_error},
        index::gate::Index,
        layout::Layout,
        wal::{recovery, segment},
    },
};

/// Copies a directory that no server has open into `to`, which must be empty or missing. Changes nothing that
/// counts in the directory, and needs no room there.
///
/// # Errors
/// As for opening either; [`StoreError::Corrupt`] when anything is wrong with the copy. Nothing is left in `to`
/// then.
pub fn backup(
    options: &FileStoreOptions,
    to: &Path,
    progress: &mut Progress<'_>,
) -> Result<Verified, StoreError> {
    let layout = Layout::open_existing(&RealDisk, &options.dir)?;
    let index = open_index(&layout, options)?;
    let to = Destination::prepare(to)?;
    copy_index(&index, &to.index_file()?, &to.index_path(), progress)?;
    let checkpoint = index.read()?.meta()?.lsn;
    let mut events = 0_u64;
    recovery::recover(&RealDisk, &layout.wal, checkpoint, &mut |_, _, _| {
        events += 1;
        Ok(())
    })?;
    drop(index);
    // A log that has nothing more than the index need not be copied.
    if events > 0 {
        copy_log(&layout.wal, &to)?;
    }
    to.complete(&options.dir, options.map_size, progress)
}

/// Makes a data directory, which must be empty or missing, from a backup. Only reads the backup, so that it
/// may be on read-only media.
///
/// # Errors
/// As for [`backup`].
pub fn restore(
    from: &Path,
    options: &FileStoreOptions,
    progress: &mut Progress<'_>,
) -> Result<Verified, StoreError> {
    let layout = Layout::open_to_read(from)?;
    let to = Destination::prepare(&options.dir)?;
    let index = layout.index.join("data.mdb");
    let total = File::open(&index).and_then(|file| file.metadata()).map_or(0, |index| index.len());
    let mut each = |done| progress(Step { what: Phase::Copying, done, total });
    RealDisk::copy(&index, &to.index_path(), &mut each).map_err(io_error("copy", &index))?;
    copy_log(&layout.wal, &to)?;
    to.complete(from, options.map_size, progress)
}

/// Copies the segments of a log.
fn copy_log(from: &Path, to: &Destination) -> Result<(), StoreError> {
    for number in segment::numbers_in(&RealDisk, from)? {
        let name = segment::file_name(number);
        let (from, to) = (from.join(&name), to.wal().join(&name));
        RealDisk::copy(&from, &to, &mut |_| {}).map_err(io_error("copy", &from))?;
    }
    Ok(())
}

impl Destination {
    /// Makes a data directory of it, once the index is there: adds the secrets of `source` and, if there is no
    /// log, one that goes on after the index. Checks everything that was written first.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Full`], [`StoreError::Io`]. Nothing is left then.
    pub fn complete(
        self,
        source: &Path,
        map_size: usize,
        progress: &mut Progress<'_>,
    ) -> Result<Verified, StoreError> {
        self.copy_keys(source)?;
        let index = Index::open(self.index(), map_size)?;
        if segment::numbers_in(&RealDisk, self.wal())?.is_empty() {
            segment::begin_log(&RealDisk, self.wal(), 1, index.read()?.meta()?.lsn + 1)?;
        }
        let found = verify::check(&index, self.wal(), progress)?.whole().map_err(|problem| {
            // The file that it names is about to go.
            let StoreError::Corrupt { found, .. } = problem else { return problem };
            let what = format!(
                "the copy that was made of it is not whole, and was removed: {found}. `verify` finds all that is \
                 wrong; an older backup may be whole"
            );
            corrupt(source, 0, &what)
        })?;
        drop(index);
        self.finish()?;
        Ok(found)
    }
}

impl FileStore {
    /// Copies everything that is durable now into `to`, which must be empty or missing: a data directory
    /// like any other. Works while the store serves.
    ///
    /// # Errors
    /// As for [`copy_index`](Self::copy_index), and as for [`backup`].
    pub fn backup(&self, to: &Path) -> Result<Verified, StoreError> {
        let to = Destination::prepare(to)?;
        self.copy_index(&to.index_file()?, &mut |_| {})?;
        to.complete(&self.work.options().dir, self.work.options().map_size, &mut |_| {})
    }

    /// Copies the index, with everything that is durable now folded in, into an empty file, and leaves it to
    /// the caller to sync that. `begun` gets the number of bytes there will be, roughly. Appends and reads go
    /// on; pages that checkpoints free meanwhile are not used again until the copy is done.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`], of the store's own disk or of the file.
    pub fn copy_index(&self, file: &File, begun: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        self.checkpoint()?;
        begun(self.work.index.live_size()?);
        self.work.index.copy_into(file, Path::new("the backup"))
    }
}
