//! Parts of a planned read that lie in files which the kernel can send by itself.

use durable_streams_protocol::{Rejection, StreamCore};

use super::{Engine, ReadPlan, rejection};
use crate::store::{FilePart, Store};

impl Engine {
    /// What comes next of a planned read of the stream `core`, if it lies in a file: at most `max` bytes of it. `None` when
    /// [`next_piece`](Engine::next_piece) has what comes next, or at the end.
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
        let (holder, until) = core.holder_of(plan.next, plan.end);
        let part = self.store.file_part(holder, plan.next, until, max).await.map_err(rejection)?;
        if let Some(part) = &part {
            plan.next = plan.next.advance(part.range.end - part.range.start);
        }
        Ok(part)
    }
}
