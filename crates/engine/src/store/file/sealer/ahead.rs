//! Sealing by a checkpoint: where it has many new bytes of a stream, they go into segment files at once, ahead of the commit
//! that references those. So they are written twice, to the log and to a file, and not a third time, to the index.
//!
//! Measured: bytes written per byte appended to one busy stream, 3.08 -> 2.02 (docs/storage.md).

use bytes::Bytes;
use durable_streams_protocol::{StreamEvent, StreamId};
use parking_lot::MutexGuard;

use super::{
    Sealer,
    plan::{SealPlan, form},
    write::{PIECE, draft_in_form},
};
use crate::store::{
    MessageForm, StoreError,
    file::{
        append_ends::put_len,
        index::{
            checkpoint::{LoggedChange, StreamEvents},
            extents::NewSegment,
        },
        options::SegmentOptions,
        segments::draft::SegmentDraft,
        stats::add,
    },
};

/// With more changed streams than this, a checkpoint has much of none of them, and looks at none.
const STREAMS: usize = 256;

/// Segment files that the commit of a checkpoint may reference. Nothing else is sealed, and the directory is not swept, until
/// this is dropped: a sweep would remove files that the index does not have yet.
pub(in crate::store::file) struct SealedAhead<'s> {
    sealer: &'s Sealer,
    pub(in crate::store::file) segments: Vec<NewSegment>,
    _one: MutexGuard<'s, ()>,
}

impl SealedAhead<'_> {
    /// The commit was made, and references the segments with these numbers; the others are removed.
    pub(in crate::store::file) fn committed(self, referenced: &[u64]) {
        let mut unused = Vec::new();
        for segment in &self.segments {
            if referenced.contains(&segment.number) {
                self.sealer.count_sealed(segment);
            } else {
                unused.push(segment.number);
            }
        }
        self.sealer.core.segments.remove(&unused);
    }

    /// The commit failed, and may have been made all the same.
    pub(in crate::store::file) fn failed(self) {
        // What the index cannot say now, the next start finds.
        let _ = self.sealer.sweep();
    }
}

impl Sealer {
    /// Writes segment files for those of the streams of which a checkpoint has many new bytes; `events_of` returns what it has of
    /// one. `None` when there are none, when the sealer is at work, or when the disk has little room: then all goes into
    /// the index, and is sealed later.
    pub(in crate::store::file) fn seal_ahead(
        &self,
        ids: &[StreamId],
        events_of: &dyn Fn(StreamId) -> StreamEvents,
    ) -> Option<SealedAhead<'_>> {
        let options = self.options().filter(|_| self.core.limit.is_none())?;
        if ids.len() > STREAMS {
            return None;
        }
        let has_many = |id: &&StreamId| self.core.memtable.unindexed(**id) >= options.ahead;
        let many: Vec<_> = ids.iter().filter(has_many).collect();
        if many.is_empty() || !self.has_room(&options) {
            return None;
        }
        let one = self.one_at_a_time.try_lock()?;
        let mut ahead = SealedAhead { sealer: self, segments: Vec::new(), _one: one };
        for id in many {
            let written = self.write_ahead(&options, *id, &events_of(*id), &mut ahead.segments);
            if let Err(error) = written {
                tracing::warn!(%error, "cannot seal the newest bytes of a stream; they go into the index first");
                add(&self.counters.failures, 1);
                break;
            }
        }
        (!ahead.segments.is_empty()).then_some(ahead)
    }

    /// Writes the new bytes of a stream to files of about the usual size, while enough is left for one. The first file begins with
    /// the chunks that the stream has, since chunks come after extents.
    fn write_ahead(
        &self,
        options: &SegmentOptions,
        id: StreamId,
        events: &[LoggedChange],
        segments: &mut Vec<NewSegment>,
    ) -> Result<(), StoreError> {
        let Some((chunks, is_json)) = self.chunks_before(options, id, events.first())? else {
            return Ok(());
        };
        let appends: Vec<&Bytes> = events.iter().filter_map(|change| change.event.data()).collect();
        let mut extent = AheadExtent { chunks, is_json, appends: &[], end: chunks.end };
        let mut rest = &appends[..];
        while len_of(rest) >= options.ahead {
            let (mut end, full) = (extent.end, extent.chunks.start.saturating_add(options.size));
            let mut fits = |append: &&Bytes| {
                let fits = end < full;
                end += if fits { append.len() as u64 } else { 0 };
                fits
            };
            // A segment that the chunks alone fill gets one append all the same.
            let count = rest.iter().take_while(|append| fits(append)).count().max(1);
            (extent.appends, rest) = rest.split_at(count);
            extent.end += len_of(extent.appends);
            let form = form(is_json, options, extent.chunks.start..extent.end);
            let draft = draft_in_form(|stored| {
                self.draft_ahead(&extent, if stored { MessageForm::Stored } else { form })
            })?;
            let Some(draft) = draft else { return Ok(()) };
            let mut segment = draft.finish()?;
            segment.record.sealed_at = self.now();
            segments.push(segment);
            extent.chunks = SealPlan { start: extent.end, end: extent.end, ..extent.chunks };
        }
        Ok(())
    }

    /// The chunks of a stream, which end where its new bytes begin, and whether it is one of JSON; `None` where there is more in
    /// chunks than in a segment, which is for the sealer's thread.
    fn chunks_before(
        &self,
        options: &SegmentOptions,
        id: StreamId,
        first: Option<&LoggedChange>,
    ) -> Result<Option<(SealPlan, bool)>, StoreError> {
        let Some(LoggedChange { from: end, event, .. }) = first else { return Ok(None) };
        let plan =
            |start| SealPlan { id, start, end: *end, shares: false, form: MessageForm::Stored };
        if let StreamEvent::Created(created) = event {
            return Ok(Some((plan(*end), created.content_type.is_json())));
        }
        let reading = self.core.index.read()?;
        let Some(state) = reading.state(id)? else { return Ok(None) };
        let start = match reading.first_chunks(id, options.size)? {
            None => *end,
            Some(run) if run.end == *end && !run.gap => run.start,
            Some(_) => return Ok(None),
        };
        Ok(Some((plan(start), state.core.content_type.is_json())))
    }

    /// A file with one extent, which is not finished; `None` when the chunks are damaged. Stops early where messages turn out to be
    /// too small for a list of their ends.
    fn draft_ahead(
        &self,
        extent: &AheadExtent<'_>,
        form: MessageForm,
    ) -> Result<Option<SegmentDraft<'_>>, StoreError> {
        let chunks = &extent.chunks;
        let mut draft = SegmentDraft::begin(&self.core.segments)?;
        draft.begin_extent(chunks.id, chunks.start, self.lens_ahead(extent)?, form, None);
        let mut at = chunks.start;
        while at < chunks.end && !draft.has_tiny_messages() {
            let Some(bytes) = self.next_piece(chunks, at)? else { return Ok(None) };
            draft.write(&bytes)?;
            at += bytes.len() as u64;
        }
        let mut joined = Vec::new();
        for append in extent.appends {
            if draft.has_tiny_messages() {
                return Ok(Some(draft));
            }
            if !joined.is_empty() && joined.len() + append.len() > PIECE {
                draft.write(&joined)?;
                joined.clear();
            }
            if append.len() >= PIECE {
                draft.write(append)?;
            } else {
                joined.extend_from_slice(append);
            }
        }
        if !joined.is_empty() {
            draft.write(&joined)?;
        }
        Ok(Some(draft))
    }

    /// The lengths of the appends of an extent; empty when they are not known of its chunks, and for JSON.
    fn lens_ahead(&self, extent: &AheadExtent<'_>) -> Result<Vec<u8>, StoreError> {
        let (chunks, has_chunks) = (&extent.chunks, extent.chunks.start < extent.chunks.end);
        let mut lens = if has_chunks { self.append_lens(chunks)? } else { Vec::new() };
        let known = !has_chunks || !lens.is_empty();
        if known && !extent.is_json {
            let with_bytes = extent.appends.iter().filter(|append| !append.is_empty());
            with_bytes.for_each(|append| put_len(&mut lens, append.len() as u64));
        }
        Ok(lens)
    }
}

/// What goes into one file.
struct AheadExtent<'e> {
    /// The chunks that it begins with; perhaps none.
    chunks: SealPlan,
    is_json: bool,
    /// The new appends behind them.
    appends: &'e [&'e Bytes],
    end: u64,
}

fn len_of(appends: &[&Bytes]) -> u64 {
    appends.iter().map(|append| append.len() as u64).sum()
}
