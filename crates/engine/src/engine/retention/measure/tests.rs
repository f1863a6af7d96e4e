use durable_streams_protocol::subscription::Glob;
use durable_streams_protocol::{StreamEvent, StreamId, StreamPath, TimeMark};

use super::*;
use crate::test_events;

const fn second(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

/// A stream of 100 bytes.
fn state(marks: &[(u64, u64, Option<u64>)], messages: Option<u64>) -> StreamState {
    let path = StreamPath::new("/a").unwrap();
    let created = test_events::creation(second(1), path, vec![b'x'; 100].into());
    let created = StreamEvent::Created(Box::new(created));
    let mut state = StreamState::fold(None, StreamId(1), &created).unwrap();
    let mark = |(position, at, messages): &(u64, u64, Option<u64>)| TimeMark {
        position: Offset::new(*position),
        at: second(*at),
        messages: *messages,
    };
    state.marks = marks.iter().map(mark).collect();
    (state.messages, state.messages_before) = (messages, None);
    state
}

/// A sixteenth of the time, or of the messages, that a rule keeps.
#[test]
fn a_mark_is_due_once_a_sixteenth_is_new() {
    let paths = Glob::parse("**").unwrap();
    let none = RetentionRule { paths, keep_for: None, keep_bytes: Some(1), keep_messages: None };
    let time = RetentionRule { keep_for: Some(Duration::from_secs(160)), ..none.clone() };
    let messages = RetentionRule { keep_messages: Some(160), ..none.clone() };
    let due = |state: &StreamState, rule, now| is_mark_due(state, rule, second(now));
    let fresh = state(&[], Some(11));
    assert!(!due(&fresh, &none, 5000) && due(&fresh, &time, 1) && due(&fresh, &messages, 1));
    let marked = state(&[(50, 1000, Some(1))], Some(11));
    assert_eq!([1009, 1010, 5000].map(|now| due(&marked, &time, now)), [false, true, true]);
    for (mark, all, expected) in [
        (None, Some(10), false),
        (None, Some(11), true),
        (Some(5), Some(15), false),
        (Some(5), Some(16), true),
        (Some(9), Some(5), false),
        (Some(5), None, false),
    ] {
        let state = state(&[(50, 1000, mark)], all);
        assert_eq!(due(&state, &messages, 1001), expected, "{all:?} behind {mark:?}");
        let counted = StreamState { messages_before: Some(0), ..state };
        assert!(!due(&counted, &messages, 1001), "messages are counted");
    }
    // Nothing is new.
    let idle = state(&[(20, 1, None), (100, 1000, None)], Some(500));
    assert!(!due(&idle, &time, 9000) && !due(&idle, &messages, 9000));
    let empty = StreamState { earliest: Offset::new(100), ..state(&[], Some(500)) };
    assert!(!due(&empty, &time, 9000) && !due(&empty, &messages, 9000));
}
