//! Backups, from a serving store or from files, and restoring them.

use std::{collections::HashSet, path::Path, sync::Arc};

use durable_streams_protocol::StreamPath;

use super::{
    OnProgress, OperationPhase, OperationStep, VerifiedTotals, copy_index, open_index,
    repair_index::fold_log_into,
    segments::{SegmentSource, copy_segments},
    verify,
};
use crate::store::{
    StoreError,
    file::{
        FileStore, FileStoreOptions,
        destination::Destination,
        disk::{Disk, File, RealDisk},
        error::{copy_error, corrupt, io_error},
        index::{handle::IndexHandle, leave_out::LeftOut},
        layout::{Layout, segments_dir},
        segments::object_files::SegmentObjects,
        wal::{recovery, segment},
    },
};

/// What a backup has.
#[derive(Clone, Copy, Default)]
pub struct BackupContents<'b> {
    /// The streams that are left out.
    pub without: &'b [StreamPath],
    /// Where the bytes of segments come from that are in an object store only. Without it the backup lists their objects.
    pub objects: Option<&'b Arc<dyn SegmentObjects>>,
}

/// Copies a directory that no server has open into `to`, which must be empty or missing. Changes only lock files in the
/// directory, and needs no space there. The streams at `without` are left out.
///
/// # Errors
/// As for opening either; [`StoreError::Corrupt`] when the copy fails its checks. What was written to `to` is removed
/// then.
pub fn backup(
    options: &FileStoreOptions,
    to: &Path,
    without: &[StreamPath],
    progress: &mut OnProgress<'_>,
) -> Result<(VerifiedTotals, Vec<LeftOut>), StoreError> {
    backup_with(options, to, BackupContents { without, objects: None }, progress)
}

/// The same, with these contents.
///
/// # Errors
/// As for [`backup`]; [`StoreError::Io`] when the object store does not answer.
pub fn backup_with(
    options: &FileStoreOptions,
    to: &Path,
    contents: BackupContents<'_>,
    progress: &mut OnProgress<'_>,
) -> Result<(VerifiedTotals, Vec<LeftOut>), StoreError> {
    let layout = Layout::open_existing(&RealDisk, &options.dir)?;
    let index = open_index(&layout, options)?;
    let to = Destination::prepare(to)?;
    copy_index(&index, &to.index_file()?, &to.index_path(), progress)?;
    let checkpoint = index.read()?.meta()?.lsn;
    let mut events = 0_u64;
    recovery::recover(&RealDisk, &layout.wal, checkpoint, &mut |_| {
        events += 1;
        Ok(())
    })?;
    drop(index);
    // A log whose events are all in the index need not be copied.
    if events > 0 {
        copy_log(&layout.wal, &to)?;
    }
    to.complete(&options.dir, options.map_size, contents, progress)
}

/// Makes `options.dir`, which must be empty or missing, a data directory from a backup. Only reads the backup, which may
/// be on read-only media.
///
/// # Errors
/// As for [`backup`].
pub fn restore(
    from: &Path,
    options: &FileStoreOptions,
    progress: &mut OnProgress<'_>,
) -> Result<VerifiedTotals, StoreError> {
    let layout = Layout::open_to_read(from)?;
    let to = Destination::prepare(&options.dir)?;
    let index = layout.index.join("data.mdb");
    let total = File::open(&index).and_then(|file| file.metadata()).map_or(0, |index| index.len());
    let mut each = |done| progress(OperationStep { what: OperationPhase::Copying, done, total });
    let copied = RealDisk::copy(&index, &to.index_path(), &mut each);
    copied.map_err(copy_error(&index, &to.index_path()))?;
    copy_log(&layout.wal, &to)?;
    Ok(to.complete(from, options.map_size, BackupContents::default(), progress)?.0)
}

/// Copies the segments of a log.
fn copy_log(from: &Path, to: &Destination) -> Result<(), StoreError> {
    for number in segment::numbers_in(&RealDisk, from)? {
        let name = segment::file_name(number);
        let (from, to) = (from.join(&name), to.wal().join(&name));
        RealDisk::copy(&from, &to, &mut |_| {}).map_err(copy_error(&from, &to))?;
    }
    Ok(())
}

impl Destination {
    /// Makes it a data directory, once the index was written: adds the sealed segments and the secrets of `source` and, if there is no log, an
    /// empty one that goes on after the index; leaves out the streams that `contents` leaves out. Checks everything that was written
    /// first.
    ///
    /// # Errors
    /// [`StoreError::Format`] when one of them does not exist, or has forks; [`StoreError::Corrupt`], [`StoreError::Full`], [`StoreError::Io`]. What was written is removed then.
    pub fn complete(
        self,
        source: &Path,
        map_size: usize,
        contents: BackupContents<'_>,
        progress: &mut OnProgress<'_>,
    ) -> Result<(VerifiedTotals, Vec<LeftOut>), StoreError> {
        let BackupContents { without, objects } = contents;
        self.copy_keys(source)?;
        let index = IndexHandle::open(self.index(), map_size)?;
        let mut left_out = Vec::new();
        if !without.is_empty() {
            self.fold_log(&index)?;
            left_out = index.leave_out(without)?;
        }
        let from = SegmentSource { dir: &segments_dir(source), objects };
        let segments = SegmentSource::local(self.segments());
        copy_segments(&index, &from, &segments)?;
        if segment::numbers_in(&RealDisk, self.wal())?.is_empty() {
            segment::begin_log(&RealDisk, self.wal(), 1, index.read()?.meta()?.lsn + 1)?;
        }
        let places = (self.wal(), &segments);
        let found = verify::check(&index, places, progress)?.whole().map_err(|problem| {
            // The file that the problem names is about to be removed.
            let StoreError::Corrupt { found, .. } = problem else { return problem };
            let what = format!(
                "the copy that was made of it is not whole, and was removed: {found}. `verify` finds all that is \
                 wrong; an older backup may be whole"
            );
            corrupt(source, 0, &what)
        })?;
        drop(index);
        self.finish()?;
        Ok((found, left_out))
    }

    /// Folds the log into the index and removes it: it may have events of streams that are left out.
    fn fold_log(&self, index: &IndexHandle) -> Result<(), StoreError> {
        index.migrate(&|| Ok(()))?;
        let numbers = segment::numbers_in(&RealDisk, self.wal())?;
        if numbers.is_empty() {
            return Ok(());
        }
        fold_log_into(index, self.wal(), &HashSet::new())?;
        for number in numbers {
            let path = self.wal().join(segment::file_name(number));
            RealDisk.remove(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }
}

impl FileStore {
    /// Copies everything that is durable now into `to`, which must be empty or missing, while the store serves. The copy
    /// is a data directory like any other.
    ///
    /// # Errors
    /// As for [`copy_index`](Self::copy_index), and as for [`backup`].
    pub fn backup(&self, to: &Path) -> Result<VerifiedTotals, StoreError> {
        let to = Destination::prepare(to)?;
        let _held = self.hold_segments();
        self.copy_index(&to.index_file()?, &mut |_| {}, &|| true)?;
        Ok(to
            .complete(
                &self.core.options.dir,
                self.core.options.map_size,
                BackupContents::default(),
                &mut |_| {},
            )?
            .0)
    }

    /// Completes a backup whose index [`copy_index`](Self::copy_index) has copied: sealed segments, which
    /// [`hold_segments`](Self::hold_segments) has kept since before the copy, the keys, a check of all of it, `VERSION`.
    ///
    /// # Errors
    /// Those of [`Destination::complete`].
    pub fn complete_backup(&self, to: Destination) -> Result<VerifiedTotals, StoreError> {
        let options = &self.core.options;
        Ok(to.complete(&options.dir, options.map_size, BackupContents::default(), &mut |_| {})?.0)
    }

    /// Folds everything that is durable now into the index, and copies the index into an empty file, which the caller
    /// syncs. `begun` receives the number of bytes to come, roughly. Appends and reads go on; LMDB does not reuse pages
    /// that checkpoints free until the copy ends. The copy ends with an error once `wanted` returns false.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`], of the store's own disk or of the file.
    pub fn copy_index(
        &self,
        file: &File,
        begun: &mut dyn FnMut(u64),
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        self.checkpoint()?;
        begun(self.core.index.used_size()?);
        self.core.index.copy_into(file, Path::new("the backup"), wanted)
    }
}
