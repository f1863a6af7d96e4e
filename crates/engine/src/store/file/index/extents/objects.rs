//! An index that was copied out of a data directory that is lost: its segments are objects.

use super::{SegmentPlace, SegmentRecord};
use crate::store::{StoreError, file::index::handle::IndexHandle};

/// Segments that one commit moves.
const SEGMENTS_PER_COMMIT: usize = 4096;

/// Ids that no stream of a restored index has: more than a server uses in the time between two copies.
const SKIPPED_IDS: u64 = 1 << 32;

/// Numbers that no segment of a restored index has: more than a server uses between two starts.
const SKIPPED_SEGMENTS: u64 = 1 << 31;

impl IndexHandle {
    /// Notes that every segment is in the object store only.
    pub(in crate::store::file) fn move_all_to_objects(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let step = self.segments_after(after, SEGMENTS_PER_COMMIT)?;
            let Some((last, _)) = step.last() else { return Ok(()) };
            after = Some(*last);
            self.write(&|| Ok(()), |index, txn| {
                for (number, record) in &step {
                    let Ok(record) = record else { continue };
                    let moved = SegmentRecord { place: SegmentPlace::Object, ..*record };
                    index.put_segment(txn, *number, &moved)?;
                }
                Ok(())
            })?;
        }
    }

    /// Passes over the numbers of segments and the ids of streams that the server may have used after it copied the index.
    pub(in crate::store::file) fn skip_numbers(&self) -> Result<(), StoreError> {
        self.write(&|| Ok(()), |index, txn| {
            let mut meta = index.meta(txn)?;
            meta.next_segment = meta.next_segment.saturating_add(SKIPPED_SEGMENTS);
            meta.next_id = meta.next_id.saturating_add(SKIPPED_IDS);
            Ok(index.put_meta(txn, &mut meta)?)
        })
    }
}
