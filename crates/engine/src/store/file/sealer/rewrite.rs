//! Files of which less than half is live, or a part has been dead for long: what is live moves to a new file.

use parking_lot::MutexGuard;

use super::{SealStop, Sealer};
use crate::store::{
    StoreError,
    file::segments::{
        objects::SegmentInfo,
        rewrite::{RewriteStop, rewrite},
    },
};

/// Files whose records are looked at in one read transaction.
const FILES_PER_STEP: usize = 256;

impl Sealer {
    /// Moves what is live of a local segment to a file of another number. The old one is freed.
    pub(in crate::store::file) fn renew(&self, number: u64) -> Result<(), StoreError> {
        let (core, _one) = (&*self.core, self.one_at_a_time.lock());
        let record = core.index.read()?.segment(number)?;
        let Some(record) = record.filter(|record| record.place.is_local()) else { return Ok(()) };
        let file = (number, record.footer_crc);
        let renewed = rewrite(&core.index, &core.segments, file, &|_| true);
        let renewed = renewed.map_err(|stop| match stop {
            RewriteStop::Stopped => SealStop::Stopped,
            RewriteStop::Failed(error) => SealStop::Failed(error),
        });
        let handed = renewed.and_then(|new| new.map_or(Ok(0), |new| self.hand_over(new)));
        match handed {
            Ok(_) | Err(SealStop::Stopped) => Ok(()),
            Err(SealStop::Failed(error)) => {
                // The failed commit may have been made.
                let _ = self.sweep();
                Err(error)
            }
        }
    }

    /// Rewrites each file that [is to be](SegmentInfo::is_to_be_rewritten).
    pub(super) fn rewrite_sparse(
        &self,
        paced: bool,
        one: &mut MutexGuard<'_, ()>,
    ) -> Result<(), SealStop> {
        let (core, mut after) = (&*self.core, None);
        let now = (core.options.clock.0)();
        let pace = |bytes| self.pace(paced, bytes).is_ok();
        loop {
            MutexGuard::bump(one);
            let step = core.index.segments_after(after, FILES_PER_STEP)?;
            let Some((last, _)) = step.last() else { return Ok(()) };
            after = Some(*last);
            for (number, record) in step {
                let sparse = record.ok().filter(|record| {
                    let info = SegmentInfo::new(number, record);
                    record.place.is_local() && info.is_to_be_rewritten(now)
                });
                let Some(record) = sparse else { continue };
                let file = (number, record.footer_crc);
                match rewrite(&core.index, &core.segments, file, &pace) {
                    Ok(Some(segment)) => drop(self.hand_over(segment)?),
                    // A damaged file stays as it is, for `repair`.
                    Ok(None) | Err(RewriteStop::Failed(StoreError::Corrupt { .. })) => {}
                    Err(RewriteStop::Stopped) => return Err(SealStop::Stopped),
                    Err(RewriteStop::Failed(error)) => return Err(SealStop::Failed(error)),
                }
            }
        }
    }
}
