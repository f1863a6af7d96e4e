//! The reserve: a file beside the segments that keeps disk space free for the time when the disk is full.
//!
//! When nothing else is left, it is removed: deletes and trims are then still written, checkpoints fold them in, and a start finds
//! room for a segment. From then on the store refuses events that need space, until the reserve exists again.

use std::path::Path;

use durable_streams_protocol::StreamEvent;

use crate::store::file::disk::Disk;

const NAME: &str = "reserve";
/// The size of the reserve, bytes; smaller with smaller segments.
const SIZE: u64 = 8 << 20;

/// The size of a segment when there is no room for one of the usual size, bytes.
pub(super) fn small_segment(usual: u64) -> u64 {
    usual.min(1 << 20)
}

/// Whether an event makes room instead of needing it: then it may use the reserve.
pub(in crate::store::file) fn frees_space(event: &StreamEvent) -> bool {
    match event {
        StreamEvent::Deleted { .. } | StreamEvent::SoftDeleted { .. } | StreamEvent::Trimmed(_) => {
            true
        }
        StreamEvent::Created(_)
        | StreamEvent::Appended(_)
        | StreamEvent::Touched { .. }
        | StreamEvent::ExpiryChanged { .. }
        | StreamEvent::Marked { .. } => false,
    }
}

/// Frees the reserve's space. Returns whether there was a reserve.
pub(super) fn release(disk: &dyn Disk, dir: &Path) -> bool {
    let released = disk.remove(&dir.join(NAME)).is_ok();
    if released {
        tracing::warn!(
            "the disk is full: only deletes are accepted until {} has room again",
            dir.display()
        );
    }
    released
}

/// Makes the reserve if it does not exist; from the spare file where there is no other room. Returns whether it exists.
pub(super) fn ensure(disk: &dyn Disk, dir: &Path, usual_segment: u64) -> bool {
    let (path, size) = (dir.join(NAME), usual_segment.min(SIZE));
    let missing = |len: u64| size.saturating_sub(len);
    let reserved = |path: &Path| {
        let file = disk.open(path, false).ok()?;
        file.len().ok()
    };
    if reserved(&path).is_some_and(|len| missing(len) == 0) {
        return true;
    }
    // Half of the last room is for others, such as the index.
    if disk.room(dir).is_none_or(|room| room / 2 > size) {
        let made = disk.open(&path, true).and_then(|file| {
            file.allocate(size)?;
            file.sync()
        });
        return match made {
            Ok(()) => disk.sync_dir(dir).is_ok(),
            Err(_) => {
                let _ = disk.remove(&path);
                false
            }
        };
    }
    let spare = dir.join(super::segment::SPARE);
    reserved(&spare).is_some_and(|len| missing(len) == 0)
        && disk.rename(&spare, &path).and_then(|()| disk.sync_dir(dir)).is_ok()
}
