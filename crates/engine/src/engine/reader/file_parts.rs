//! Parts of a planned read that lie in files which the kernel can send by itself.

use durable_streams_protocol::{Offset, Rejection, StreamCore};

use super::{Engine, FILE_PART, READ_PIECE, ReadPlan, ReadSlice, go_on, rejection};
use crate::store::{AnyStore, FilePart, MessageForm, Store, StoredPiece};

impl Engine {
    /// What comes next of a planned read of the stream `core`, if it lies in a file as clients get it: at most `max` bytes of it;
    /// JSON messages with a comma behind each, also the last one. `None` when [`next_piece`](Engine::next_piece) has what comes
    /// next, or at the end.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn next_file_part(
        &self,
        core: &StreamCore,
        plan: &mut ReadPlan,
        max: usize,
    ) -> Result<Option<FilePart>, Rejection> {
        if !plan.first.is_empty() || plan.next >= plan.end {
            return Ok(None);
        }
        let part = match plan.part.take() {
            Some(part) => Some(part),
            None => {
                let (holder, until) = core.holder_of(plan.next, plan.end);
                let part = self.store.file_part(holder, plan.next, until, max, sent_form(core));
                part.await.map_err(rejection)?
            }
        };
        if let Some(part) = &part {
            plan.next = plan.next.advance(part.len());
        }
        Ok(part)
    }
}

/// The form in which clients get the bytes of a stream.
fn sent_form(core: &StreamCore) -> MessageForm {
    if core.content_type.is_json() { MessageForm::Array } else { MessageForm::Stored }
}

/// Begins a plan from `from` to `end`: with a part of a file, or with a piece that is read.
pub(super) async fn begin_to_send(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    end: Offset,
) -> Result<ReadPlan, Rejection> {
    let (holder, until) = core.holder_of(from, end);
    let form = sent_form(core);
    // The last terminator of a range is the end of an array.
    let len = end.position().saturating_sub(from.position());
    let most = len.saturating_sub(u64::from(form == MessageForm::Array));
    let most = usize::try_from(most).unwrap_or(FILE_PART).min(FILE_PART);
    let piece = store.read_or_part(holder, from, until, READ_PIECE, most, form).await;
    let chunks = match piece.map_err(rejection)? {
        StoredPiece::File(part) => {
            return Ok(ReadPlan { first: Vec::new(), next: from, end, part: Some(part) });
        }
        StoredPiece::Bytes(chunks) => chunks,
    };
    let mut slice = ReadSlice { chunks, end: from };
    slice.end = from.advance(slice.len() as u64);
    if slice.is_empty() {
        return Err(Rejection::NotFound);
    }
    let slice = go_on(store, core, slice, end, READ_PIECE).await?;
    Ok(ReadPlan { next: slice.end, first: slice.chunks, end, part: None })
}
