//! Sliding expiry (§5.1): when a stream was last used, and when the store learns of it.
//!
//! A read pushes the deadline back, but a commit per read would make reads as slow as writes. So the last use
//! is kept in memory, and a `Touched` event follows only when the stored one lags behind by a twentieth of the
//! TTL (at least one second, at most one minute), or when the cell leaves memory. A crash makes a stream expire
//! earlier by that lag at most.

use std::sync::Arc;

use durable_streams_protocol::{Expiry, StreamEvent, StreamId, StreamState, Timestamp};

use super::{
    Engine, Ticket,
    cell::{CellState, DecidedEvent, StreamCell},
};
use crate::store::{Store, StoreError};

/// What a cell knows of its stream's sliding expiry, beside the state itself.
#[derive(Debug, Default)]
pub(super) struct TtlState {
    /// The last use that the store knows of.
    stored: Timestamp,
    /// The last use of a stream whose state was forgotten: a disk that takes no writes must not make a
    /// stream expire that is being read.
    remembered: Option<(StreamId, Timestamp)>,
    /// The stream that live readers hold, and how many they are.
    holders: Option<(StreamId, usize)>,
}

impl TtlState {
    /// The store has `state`, or will have it with the event being committed.
    pub(super) fn stored_with(&mut self, state: Option<&StreamState>) {
        if let Some(state) = state {
            self.stored = state.touched;
        }
    }

    /// Remembers the last use of a stream whose state is being forgotten.
    pub(super) fn remember(&mut self, state: Option<&StreamState>) {
        self.remembered = state.map(|state| (state.core.id, state.touched)).or(self.remembered);
    }

    /// Brings the remembered last use back into a state that was loaded again.
    pub(super) fn restore(&mut self, state: Option<&mut StreamState>) {
        self.stored = state.as_ref().map_or(Timestamp::default(), |state| state.touched);
        if let (Some((id, at)), Some(state)) = (self.remembered.take(), state)
            && state.core.id == id
        {
            state.touched = state.touched.max(at);
        }
    }

    /// Whether live readers keep a stream: only one with a TTL.
    fn keeps(&self, state: &StreamState) -> bool {
        matches!(state.core.expiry, Expiry::Ttl(_)) && self.is_held(state.core.id)
    }

    fn is_held(&self, id: StreamId) -> bool {
        self.holders.is_some_and(|(held, readers)| held == id && readers > 0)
    }
}

impl CellState {
    /// The last use, when the store does not know of it.
    pub(super) fn unstored_touch(&self) -> Option<(StreamId, Timestamp)> {
        let state = self.assigned.as_ref()?;
        (state.touched != self.ttl.stored).then_some((state.core.id, state.touched))
    }

    /// Whether the assigned stream has expired. A sliding TTL does not run out under a live reader (§5.1).
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        let expired = |state: &StreamState| state.is_expired(now) && !self.ttl.keeps(state);
        self.assigned.as_ref().is_some_and(expired)
    }

    /// Restarts the TTL if only live readers have kept the stream until now.
    pub(super) fn renew_held(&mut self, now: Timestamp) {
        if let Some(state) = &mut self.assigned
            && self.ttl.keeps(state)
            && state.is_expired(now)
        {
            state.touched = state.touched.max(now);
        }
    }

    /// A live reader of stream `id` begins to hold its TTL.
    pub(super) fn hold(&mut self, id: StreamId) {
        self.ttl.holders = match self.ttl.holders {
            Some((held, readers)) if held == id => Some((held, readers + 1)),
            _ => Some((id, 1)),
        };
    }

    /// A live reader of stream `id` leaves. If the TTL ran out meanwhile, it starts again now: the reader kept
    /// the stream until now, and may be about to return, as after a recycled SSE connection.
    pub(super) fn release(&mut self, id: StreamId, now: Timestamp) {
        if self.ttl.is_held(id) {
            self.renew_held(now);
        }
        if let Some((held, readers)) = &mut self.ttl.holders
            && *held == id
        {
            *readers = readers.saturating_sub(1);
        }
    }
}

impl Engine {
    /// Pushes a sliding expiry back. Returns the ticket of the `Touched` event, if one was due.
    pub(super) fn touch(
        &self,
        cell: &Arc<StreamCell>,
        state: &mut CellState,
        now: Timestamp,
    ) -> Option<Ticket> {
        let stored = state.ttl.stored;
        let stream = state.assigned.as_mut()?;
        let Expiry::Ttl(seconds) = stream.core.expiry else { return None };
        stream.touched = stream.touched.max(now);
        let early = now.millis() < stored.millis().saturating_add(lag_millis(seconds));
        // A refused commit would make every read load the stream again.
        if early || self.store.writable().is_err() {
            return None;
        }
        let id = stream.core.id;
        // If the event is lost, the next touch commits another.
        state.commit(cell, &self.store, touched_at(id, now)).ok().flatten()
    }

    /// Commits the last use, if the store does not know it yet.
    pub(super) fn store_touch(
        &self,
        cell: &Arc<StreamCell>,
        state: &mut CellState,
    ) -> Result<Option<Ticket>, StoreError> {
        let Some((id, at)) = state.unstored_touch() else { return Ok(None) };
        state.commit(cell, &self.store, touched_at(id, at))
    }
}

fn touched_at(id: StreamId, at: Timestamp) -> DecidedEvent<'static> {
    DecidedEvent { id, event: StreamEvent::Touched { at }, place: None, forks: None, usage: None }
}

/// Waits until a touch is stored. One that cannot be stored is no reason to refuse a read.
pub(super) async fn touched(ticket: Option<Ticket>) {
    if let Some(ticket) = ticket {
        ticket.resolved().await;
    }
}

/// How far the stored touch of a stream with this TTL may lag behind, milliseconds.
fn lag_millis(ttl_seconds: u64) -> u64 {
    (ttl_seconds.saturating_mul(1000) / 20).clamp(1_000, 60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_touch_lags_by_a_twentieth_between_a_second_and_a_minute() {
        let lags = [0, 1, 20, 40, 1200, 1201, u64::MAX].map(lag_millis);
        assert_eq!(lags, [1_000, 1_000, 1_000, 2_000, 60_000, 60_000, 60_000]);
    }
}
