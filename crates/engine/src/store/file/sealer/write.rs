//! Writing one segment file out of the index, and handing the bytes over to it.

use bytes::Bytes;
use durable_streams_protocol::Offset;

use super::{SealStop, Sealer, plan::SealPlan};
use crate::store::{
    MessageForm, StoreError,
    file::{
        index::extents::{HandedOver, NewSegment},
        segments::draft::SegmentDraft,
        stats::add,
    },
};

/// Bytes that are read from the index in one transaction, and written to a file at a time, roughly.
pub(super) const PIECE: usize = 1 << 20;

/// A draft as `write` makes it, which is told whether all of it is to be in the [stored form](MessageForm::Stored): it is once
/// more when the messages are too small for a list of their ends.
pub(super) fn draft_in_form<'d, E>(
    write: impl Fn(bool) -> Result<Option<SegmentDraft<'d>>, E>,
) -> Result<Option<SegmentDraft<'d>>, E> {
    match write(false)? {
        Some(draft) if draft.has_tiny_messages() => {
            drop(draft);
            write(true)
        }
        draft => Ok(draft),
    }
}

impl Sealer {
    /// Writes one file with the bytes of these streams and hands them over to it. Returns how many bytes it has then.
    pub(super) fn seal(&self, plans: &[SealPlan], paced: bool) -> Result<u64, SealStop> {
        if !self.may_take_more()? {
            return Ok(0);
        }
        let draft = draft_in_form(|stored| {
            let form = |plan: &SealPlan| if stored { MessageForm::Stored } else { plan.form };
            self.write(plans, form, paced)
        })?;
        match draft {
            Some(draft) if draft.len() > 0 => self.hand_over(draft.finish()?),
            _ => Ok(0),
        }
    }

    /// Writes the bytes of these streams to a new file, which is not finished; `None` when a stream that has it for itself was
    /// deleted or trimmed meanwhile. Stops early where messages turn out to be too small for a list of their ends.
    fn write(
        &self,
        plans: &[SealPlan],
        form: impl Fn(&SealPlan) -> MessageForm,
        paced: bool,
    ) -> Result<Option<SegmentDraft<'_>>, SealStop> {
        let mut draft = SegmentDraft::begin(&self.core.segments)?;
        for plan in plans {
            // The bytes of a stream that shares the file come first: should they be gone, or damaged, it is left out.
            let (mut at, mut ahead) = (plan.start, Vec::new());
            while plan.shares && at < plan.end {
                let Some(bytes) = self.next_piece(plan, at)? else { break };
                at += bytes.len() as u64;
                ahead.push(bytes);
            }
            if plan.shares && at < plan.end {
                continue;
            }
            draft.begin_extent(plan.id, plan.start, self.append_lens(plan)?, form(plan), None);
            for bytes in ahead {
                draft.write(&bytes)?;
                self.pace(paced, bytes.len())?;
            }
            while at < plan.end && !draft.has_tiny_messages() {
                let Some(bytes) = self.next_piece(plan, at)? else { return Ok(None) };
                draft.write(&bytes)?;
                at += bytes.len() as u64;
                self.pace(paced, bytes.len())?;
            }
        }
        Ok(Some(draft))
    }

    /// The next bytes of a stream that is being sealed; `None` when it was deleted or trimmed since it was planned, or when
    /// they are damaged; a read of the stream reports that.
    pub(super) fn next_piece(&self, plan: &SealPlan, at: u64) -> Result<Option<Bytes>, StoreError> {
        let (from, to) = (Offset::new(at), Offset::new(plan.end));
        match self.core.index.read()?.bytes(plan.id, from, to, PIECE) {
            Ok(bytes) => Ok(Some(bytes).filter(|bytes| !bytes.is_empty())),
            Err(StoreError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn append_lens(&self, plan: &SealPlan) -> Result<Vec<u8>, StoreError> {
        match self.core.index.read()?.lens_between(plan.id, plan.start, plan.end) {
            Err(StoreError::Corrupt { .. }) => Ok(Vec::new()),
            lens => lens,
        }
    }

    pub(super) fn hand_over(&self, mut segment: NewSegment) -> Result<u64, SealStop> {
        let core = &*self.core;
        segment.record.sealed_at = self.now();
        let commit = || core.index.hand_over(&|| core.disk.before_index_commit(), &segment);
        let handed = match commit() {
            // It makes room in the end. Handed over twice, a segment would look unused.
            Err(StoreError::Full { .. })
                if core.limit.is_some()
                    && core.index.read()?.segment(segment.number)?.is_none() =>
            {
                core.index.with_reserve(commit)?
            }
            handed => handed?,
        };
        let HandedOver { live, mut freed } = handed;
        if live == 0 {
            freed.push(segment.number);
        } else {
            self.count_sealed(&segment);
        }
        core.segments.remove(&freed);
        Ok(live)
    }

    /// Counts a file that the index references now.
    pub(super) fn count_sealed(&self, segment: &NewSegment) {
        add(&self.counters.files, 1);
        add(&self.counters.bytes, segment.record.file_len);
    }
}
