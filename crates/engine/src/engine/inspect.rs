//! One stream as an operator looks at it: more than a client sees, and no use of the stream.

use durable_streams_protocol::{
    Closure, Offset, ProducerId, ProducerState, Rejection, StreamPath, StreamSeq,
};

use super::{Engine, StreamSummary, errors::rejection};
use crate::store::{BytePlaces, LoadFor, Store};

/// Everything that the server knows of a stream, apart from its bytes.
#[derive(Clone, Debug)]
pub struct StreamDetails {
    /// What the list says.
    pub summary: StreamSummary,
    /// The number of producers that it remembers.
    pub producers: usize,
    /// The last accepted `Stream-Seq`.
    pub stream_seq: Option<StreamSeq>,
    /// The append that closed it; `None` while it is open.
    pub closed: Option<Closure>,
    /// Forks, by path, with the positions where they leave it; a bounded number.
    pub forks: Vec<(StreamPath, Offset)>,
    /// Where its bytes lie.
    pub location: ByteLocation,
}

/// Where the bytes of a stream lie.
#[derive(Clone, Debug)]
pub struct ByteLocation {
    /// Where its own bytes begin.
    pub own_start: Offset,
    /// In which files; `None` without an index.
    pub places: Option<BytePlaces>,
    /// What it inherits, oldest first.
    pub inherited: Vec<InheritedRange>,
}

/// A range that a fork inherits.
#[derive(Clone, Debug)]
pub struct InheritedRange {
    /// The stream that holds it; `None` when that has no path any more.
    pub path: Option<StreamPath>,
    /// Its first position.
    pub from: u64,
    /// The position behind its last byte.
    pub to: u64,
}

/// Producers in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct ProducerPage {
    /// Producers, with the newest epoch and sequence number of each.
    pub producers: Vec<(ProducerId, ProducerState)>,
    /// There are more.
    pub more: bool,
}

impl Engine {
    /// One stream, with at most `max_forks` of its forks. Soft-deleted ones are found, too.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], the store's errors.
    pub async fn inspect(
        &self,
        path: &StreamPath,
        max_forks: usize,
    ) -> Result<StreamDetails, Rejection> {
        let page = self.list_streams(std::ops::Bound::Included(path), path.as_str(), 1).await?;
        let listed = page.streams.into_iter().find(|listed| listed.path == *path);
        let summary = listed.ok_or(Rejection::NotFound)?.summary?;
        let id = summary.view.core.id;
        let (producers, stream_seq, closed, mut fork_ids) = self
            .look(path, LoadFor::State, |_, state, _| {
                let assigned = state.assigned.as_ref().ok_or(Rejection::NotFound)?;
                let forks: Vec<_> = state.forks.iter().copied().collect();
                let (seq, closed) = (assigned.stream_seq.clone(), assigned.closed.clone());
                Ok((state.producers() as usize, seq, closed, forks))
            })
            .await?;
        fork_ids.sort_unstable();
        let mut forks = Vec::new();
        for fork in fork_ids.into_iter().take(max_forks) {
            let Some(state) = self.store.state_of(fork).await.map_err(rejection)? else { continue };
            forks.push((state.core.path.clone(), state.core.own_start()));
        }
        let location = ByteLocation {
            own_start: summary.view.core.own_start(),
            places: self.store.places(id).await.map_err(rejection)?,
            inherited: self.inherited(&summary).await?,
        };
        Ok(StreamDetails { summary, producers, stream_seq, closed, forks, location })
    }

    async fn inherited(&self, summary: &StreamSummary) -> Result<Vec<InheritedRange>, Rejection> {
        let mut ranges = Vec::new();
        let mut from = 0;
        for (id, end) in summary.view.core.fork.iter().flat_map(|fork| &fork.ancestors) {
            let state = self.store.state_of(*id).await.map_err(rejection)?;
            let path = state.map(|state| state.core.path.clone());
            ranges.push(InheritedRange { path, from, to: end.position() });
            from = end.position();
        }
        Ok(ranges)
    }

    /// At most `max` producers of a stream, those behind `after`, by id.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], [`Rejection::Gone`], the store's errors.
    pub async fn producers(
        &self,
        path: &StreamPath,
        after: Option<&str>,
        max: usize,
    ) -> Result<ProducerPage, Rejection> {
        let id = self
            .look(path, LoadFor::State, |_, state, _| {
                state.assigned.as_ref().map(|assigned| assigned.core.id).ok_or(Rejection::NotFound)
            })
            .await?;
        // No id is longer than that.
        let after = after.and_then(|after| ProducerId::new(after.get(..256).unwrap_or(after)));
        // One more than the page has, to know whether there is another page.
        let found = self.store.producers(id, after.as_ref(), max.saturating_add(1)).await;
        let mut producers = found.map_err(rejection)?;
        let more = producers.len() > max;
        producers.truncate(max);
        Ok(ProducerPage { producers, more })
    }
}

#[cfg(test)]
mod producer_tests;
