//! How an event changes a stream's state, and when the state's time is up.
//!
//! One fold serves the live path, recovery and every store, so that they cannot differ.

use std::{collections::HashMap, sync::Arc};

use super::{Closure, StreamCore, StreamId, StreamState};
use crate::{Created, Expiry, Offset, StreamEvent, Timestamp, count_messages};

impl StreamState {
    /// Folds one event of stream `id` into its state: `Created` begins it, `Deleted` ends it (`None`), every
    /// other event [changes](Self::apply) it. An event of a stream that does not exist changes nothing.
    #[must_use]
    pub fn fold(state: Option<Self>, id: StreamId, event: &StreamEvent) -> Option<Self> {
        match event {
            StreamEvent::Created(created) => Some(Self::created(id, created)),
            StreamEvent::Deleted { .. } => None,
            StreamEvent::Appended(_)
            | StreamEvent::Touched { .. }
            | StreamEvent::SoftDeleted { .. }
            | StreamEvent::Trimmed(_)
            | StreamEvent::ExpiryChanged { .. }
            | StreamEvent::Marked { .. } => state.map(|mut state| {
                state.apply(event);
                state
            }),
        }
    }

    /// The state right after the creation of stream `id`.
    pub fn created(id: StreamId, created: &Created) -> Self {
        let (start, end) = created.range();
        let terminators = count_messages(&created.data) as u64;
        let messages = messages_of(created.content_type.is_json(), terminators, created.data.len());
        let mut state = StreamState {
            core: Arc::new(StreamCore {
                id,
                path: created.path.clone(),
                content_type: created.content_type.clone(),
                expiry: created.expiry,
                expiry_inherited: created.expiry_inherited,
                fork: created.fork.clone(),
                incarnation: created.incarnation,
                public: created.public,
            }),
            tail: end,
            events: 1,
            delimited_from: start,
            closed: created.closed.then_some(Closure { by: None }),
            stream_seq: None,
            touched: created.at,
            soft_deleted: false,
            earliest: Offset::ZERO,
            kept: Offset::ZERO,
            created: Some(created.at),
            appended: (!created.data.is_empty()).then_some(created.at),
            messages: Some(messages),
            messages_before: Some(0),
            marks: Vec::new(),
            producers: HashMap::new(),
        };
        state.earliest = state.core.offset_at(created.earliest.position());
        state
    }

    /// The step of [`fold`](Self::fold) for a stream that exists, for a caller that holds its state in place.
    /// `Created` and `Deleted` begin and end a state and change none.
    pub fn apply(&mut self, event: &StreamEvent) {
        self.events += 1;
        match event {
            StreamEvent::Created(_) | StreamEvent::Deleted { .. } => {}
            StreamEvent::Appended(appended) => {
                self.tail = self.after(appended.data.len());
                self.touched = appended.at;
                self.appended = Some(appended.at);
                let json = self.core.content_type.is_json();
                let messages = messages_of(json, appended.terminators, appended.data.len());
                self.messages = self.messages.map(|before| before.saturating_add(messages));
                if let Some(seq) = &appended.stream_seq {
                    self.stream_seq = Some(seq.clone());
                }
                if let Some(producer) = &appended.producer {
                    match self.producers.get_mut(&producer.id) {
                        Some(known) => *known = producer.accepted(),
                        None => {
                            self.producers.insert(producer.id.clone(), producer.accepted());
                        }
                    }
                }
                if appended.close {
                    self.closed = Some(Closure { by: appended.producer.clone() });
                }
            }
            StreamEvent::Touched { at } => self.touched = *at,
            StreamEvent::SoftDeleted { .. } => self.soft_deleted = true,
            StreamEvent::Trimmed(trimmed) => self.apply_trim(trimmed),
            StreamEvent::ExpiryChanged { at, expiry } => {
                let core = Arc::make_mut(&mut self.core);
                (core.expiry, core.expiry_inherited) = (*expiry, false);
                self.touched = *at;
            }
            StreamEvent::Marked { at } => self.apply_mark(*at),
        }
    }

    /// The tail after `bytes` more.
    pub(in crate::model) fn after(&self, bytes: usize) -> Offset {
        self.core.offset_at(self.tail.advance(bytes as u64).position())
    }

    /// The moment from which the stream is gone.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.core.expiry.deadline(self.touched)
    }

    /// Whether the stream is gone at `now` (§5.1).
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Whether the stream expires a time after its last use, and that was after `time`.
    pub fn is_used_after(&self, time: Timestamp) -> bool {
        matches!(self.core.expiry, Expiry::Ttl(_)) && self.touched > time
    }

    /// From when the sweeper should look at the stream: its deadline, or 0 (at once) when soft-deleted.
    pub fn due_at(&self) -> Option<Timestamp> {
        if self.soft_deleted { Some(Timestamp::default()) } else { self.deadline() }
    }

    /// Whether the sweeper may remove the stream at `now`: it has expired, or it is soft-deleted and its last
    /// fork is gone (§4.2).
    ///
    /// The deadline of a soft-deleted stream does not count: its forks still read its bytes, and many such
    /// streams would keep the sweeper from all others.
    pub fn is_due(&self, has_forks: bool, now: Timestamp) -> bool {
        if self.soft_deleted { !has_forks } else { self.is_expired(now) }
    }
}

/// The messages of an append.
fn messages_of(json: bool, terminators: u64, bytes: usize) -> u64 {
    if json { terminators } else { u64::from(bytes > 0) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Appended, ContentType, StreamPath};

    const ID: StreamId = StreamId(7);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn created(expiry: Expiry) -> StreamEvent {
        StreamEvent::Created(Box::new(Created {
            at: at(1_000),
            path: StreamPath::new("/a").unwrap(),
            content_type: ContentType::default(),
            expiry,
            expiry_inherited: false,
            fork: None,
            incarnation: 0,
            closed: false,
            public: false,
            earliest: Offset::ZERO,
            data: Bytes::from_static(b"ab"),
        }))
    }

    fn appended(data: &'static [u8], at: Timestamp, close: bool) -> StreamEvent {
        let data = Bytes::from_static(data);
        StreamEvent::Appended(Appended {
            at,
            data,
            terminators: 0,
            producer: None,
            stream_seq: None,
            close,
        })
    }

    fn fold(events: &[StreamEvent]) -> Option<StreamState> {
        events.iter().fold(None, |state, event| StreamState::fold(state, ID, event))
    }

    #[test]
    fn created_begins_a_state_and_deleted_ends_it() {
        let begun = fold(&[created(Expiry::Never)]).unwrap();
        assert_eq!((begun.core.id, begun.tail, begun.touched), (ID, Offset::new(2), at(1_000)));
        let changed = fold(&[created(Expiry::Never), appended(b"cde", at(2_000), true)]).unwrap();
        assert_eq!((changed.tail, changed.touched), (Offset::new(5), at(2_000)));
        assert_eq!(changed.closed, Some(Closure { by: None }));
        let deleted = StreamEvent::Deleted { at: at(3_000) };
        assert_eq!(fold(&[created(Expiry::Never), deleted.clone()]), None);
        let anew = fold(&[created(Expiry::Never), deleted, created(Expiry::Ttl(1))]).unwrap();
        assert_eq!(anew.core.expiry, Expiry::Ttl(1));
    }

    #[test]
    fn without_a_stream_an_event_changes_nothing() {
        let events = [
            appended(b"a", at(1), true),
            StreamEvent::Touched { at: at(1) },
            StreamEvent::SoftDeleted { at: at(1) },
            StreamEvent::Deleted { at: at(1) },
        ];
        for event in events {
            assert_eq!(fold(std::slice::from_ref(&event)), None, "{event:?}");
        }
    }

    #[test]
    fn the_last_use_is_that_of_the_newest_event() {
        let touched = |at| StreamEvent::Touched { at };
        let state =
            fold(&[created(Expiry::Ttl(2)), touched(at(5_000)), touched(at(4_000))]).unwrap();
        assert_eq!(state.touched, at(4_000), "the clock was set back");
        assert_eq!(state.due_at(), Some(at(6_000)));
        let state = fold(&[created(Expiry::Ttl(2)), appended(b"a", at(500), false)]).unwrap();
        assert_eq!(state.touched, at(500));
    }

    /// A clock that was set back leaves uses in the future; only those of a TTL matter.
    #[test]
    fn a_use_counts_only_for_a_ttl() {
        for (expiry, before, at_it) in [
            (Expiry::Ttl(2), true, false),
            (Expiry::Never, false, false),
            (Expiry::At(at(9_000)), false, false),
        ] {
            let state = fold(&[created(expiry)]).unwrap();
            let used = (state.is_used_after(at(999)), state.is_used_after(at(1_000)));
            assert_eq!(used, (before, at_it), "{expiry:?}");
        }
    }

    #[test]
    fn another_expiry_is_of_the_stream_itself_and_begins_anew() {
        let StreamEvent::Created(mut inherited) = created(Expiry::Ttl(2)) else { panic!() };
        inherited.expiry_inherited = true;
        let changed = StreamEvent::ExpiryChanged { at: at(5_000), expiry: Expiry::Ttl(3) };
        let state = fold(&[StreamEvent::Created(inherited), changed]).unwrap();
        assert_eq!((state.core.expiry, state.core.expiry_inherited), (Expiry::Ttl(3), false));
        assert_eq!((state.touched, state.deadline()), (at(5_000), Some(at(8_000))));
        assert!(!state.is_expired(at(7_999)) && state.is_expired(at(8_000)));
    }

    #[test]
    fn due_at_its_deadline_or_when_soft_deleted_without_forks() {
        let never = fold(&[created(Expiry::Never)]).unwrap();
        assert_eq!(never.due_at(), None);
        assert!(!never.is_due(false, at(u64::MAX)));

        let ttl = fold(&[created(Expiry::Ttl(2))]).unwrap();
        for has_forks in [false, true] {
            assert!(!ttl.is_due(has_forks, at(2_999)));
            assert!(ttl.is_due(has_forks, at(3_000)));
        }

        let soft = StreamEvent::SoftDeleted { at: at(1_500) };
        let soft_deleted = fold(&[created(Expiry::Ttl(2)), soft]).unwrap();
        assert_eq!(soft_deleted.due_at(), Some(Timestamp::default()));
        assert!(soft_deleted.is_due(false, Timestamp::default()));
        assert!(!soft_deleted.is_due(true, at(u64::MAX)), "its deadline does not count");
    }
}
