//! The producers of a stream, listed.

use durable_streams_protocol::{ProducerId, ProducerState, Rejection, StreamPath};

use super::{Engine, errors::rejection, view};
use crate::store::{LoadFor, Store};

impl Engine {
    /// What a stream remembers of its producers (§5.2.1), durable state only: those after `after` in byte order of their
    /// ids, at most `max`. It does not count as a read.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], [`Rejection::Gone`], the store's errors.
    pub async fn producers(
        &self,
        path: &StreamPath,
        after: Option<&ProducerId>,
        max: usize,
    ) -> Result<Vec<(ProducerId, ProducerState)>, Rejection> {
        let view = self.look(path, LoadFor::State, |_, state, now| view(state, now)).await?;
        self.store.producers(view.core.id, after, max).await.map_err(rejection)
    }
}

#[cfg(test)]
mod tests;
