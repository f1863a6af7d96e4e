//! Whether the events of a log join the streams that the index has: each is the next one of its stream, and begins where
//! the stream ends.
//!
//! It notices what no checksum does: events of another writer, and an index that is not the log's.

use durable_streams_protocol::{StreamEvent, StreamId, StreamState};
use rustc_hash::FxHashMap;

use super::wal::reader::LoggedEvent;
use crate::store::{EventPlace, StoreError};

/// The place of each stream's next event, as far as a log has been read.
pub(super) struct StreamPlaces<'b> {
    known: FxHashMap<StreamId, KnownPlace>,
    /// The state that the index has.
    base: &'b dyn Fn(StreamId) -> Result<Option<StreamState>, StoreError>,
}

#[derive(Clone, Copy)]
enum KnownPlace {
    At(EventPlace),
    /// There is no such stream, or not any more.
    Nowhere,
    /// The stream's state is damaged in the index.
    Unknown,
}

impl<'b> StreamPlaces<'b> {
    pub(super) fn new(
        base: &'b dyn Fn(StreamId) -> Result<Option<StreamState>, StoreError>,
    ) -> Self {
        StreamPlaces { known: FxHashMap::default(), base }
    }

    /// The place of the log's next event, which is `event`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is not the next event of its stream.
    pub(super) fn follow(
        &mut self,
        logged: &LoggedEvent<'_>,
        event: &StreamEvent,
    ) -> Result<EventPlace, StoreError> {
        let (id, lsn) = (logged.header.id, logged.header.lsn);
        let known = match self.known.get(&id) {
            Some(known) => *known,
            None => self.look_up(id)?,
        };
        let expected = match (known, event) {
            (KnownPlace::Unknown, _) => logged.header.place.unwrap_or_default(),
            (KnownPlace::Nowhere, StreamEvent::Created(created)) => {
                EventPlace::of_creation(created)
            }
            (KnownPlace::At(place), event) if !matches!(event, StreamEvent::Created(_)) => place,
            (KnownPlace::At(_), _) => {
                let found = format!("event {lsn} creates stream {}, which exists", id.0);
                return Err(logged.damaged(&found));
            }
            (KnownPlace::Nowhere, _) => {
                let found = format!("event {lsn} is of stream {}, which is not there", id.0);
                return Err(logged.damaged(&found));
            }
        };
        // Frames of format 1 do not say.
        if let Some(place) = logged.header.place.filter(|place| *place != expected) {
            let found = format!(
                "event {lsn} is event {} of stream {} and begins at position {}, but the stream has {} events and ends \
                 at {}: events are lost, or another process has written here",
                place.events + 1,
                id.0,
                place.position,
                expected.events,
                expected.position
            );
            return Err(logged.damaged(&found));
        }
        let next = match event {
            StreamEvent::Deleted { .. } => KnownPlace::Nowhere,
            StreamEvent::Created(_)
            | StreamEvent::Appended(_)
            | StreamEvent::Touched { .. }
            | StreamEvent::SoftDeleted { .. }
            | StreamEvent::Trimmed(_)
            | StreamEvent::ExpiryChanged { .. }
            | StreamEvent::Marked { .. } => KnownPlace::At(expected.after(event)),
        };
        self.known.insert(id, next);
        Ok(expected)
    }

    fn look_up(&self, id: StreamId) -> Result<KnownPlace, StoreError> {
        match (self.base)(id) {
            Ok(Some(state)) => Ok(KnownPlace::At(EventPlace::behind(&state))),
            Ok(None) => Ok(KnownPlace::Nowhere),
            // The damage stays in its stream.
            Err(StoreError::Corrupt { .. }) => Ok(KnownPlace::Unknown),
            Err(error) => Err(error),
        }
    }
}
