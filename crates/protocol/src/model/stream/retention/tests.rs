//! Trims, marks and changes of the expiry, without a store.

use bytes::Bytes;

use super::*;
use crate::{
    Appended, ContentType, Created, Expiry, ForkPoint, StreamId, StreamPath, count_messages,
};

const ID: StreamId = StreamId(7);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn stream(content_type: &str, fork: Option<ForkPoint>) -> StreamState {
    let created = Created {
        at: at(1_000),
        path: StreamPath::new("/a").unwrap(),
        content_type: ContentType::parse(content_type).unwrap(),
        expiry: Expiry::Never,
        expiry_inherited: false,
        fork,
        incarnation: 7,
        closed: false,
        public: false,
        earliest: Offset::ZERO,
        data: Bytes::new(),
    };
    StreamState::created(ID, &created)
}

fn append(state: &mut StreamState, millis: u64, data: &'static [u8]) {
    state.apply(&StreamEvent::Appended(Appended {
        at: at(millis),
        data: Bytes::from_static(data),
        terminators: count_messages(data) as u64,
        producer: None,
        stream_seq: None,
        close: false,
    }));
}

fn trim(state: &mut StreamState, before: u64, has_forks: bool) -> Option<Offset> {
    match state.trim(Offset::new(before), None, has_forks, at(9_000)).unwrap() {
        Decision::Commit(event, earliest) => {
            state.apply(&event);
            assert_eq!(state.earliest, earliest);
            Some(earliest)
        }
        Decision::Reply(earliest) => {
            assert_eq!(state.earliest, earliest);
            None
        }
    }
}

#[test]
fn a_trim_moves_the_earliest_position_once_and_never_back() {
    let mut state = stream("text/plain", None);
    append(&mut state, 2_000, b"abc");
    append(&mut state, 3_000, b"defg");
    assert_eq!((state.messages, state.appended), (Some(2), Some(at(3_000))));
    assert_eq!(state.created, Some(at(1_000)));
    let beyond = state.trim(Offset::new(8), None, false, at(0)).unwrap_err();
    assert_eq!(beyond.code(), "offset-beyond-tail");
    let earliest = trim(&mut state, 3, false).unwrap();
    assert_eq!(earliest.to_string(), "0000000000000007_0000000000000003");
    assert_eq!((state.own_len(), state.messages_before), (4, None));
    assert_eq!(trim(&mut state, 3, false), None, "the same again");
    assert_eq!(trim(&mut state, 0, false), None, "an older one");
    trim(&mut state, 7, false).unwrap();
    assert_eq!((state.own_len(), state.messages_before), (0, Some(2)), "all were counted");
    append(&mut state, 4_000, b"h");
    assert_eq!((state.own_len(), state.messages), (1, Some(3)));
}

#[test]
fn bytes_stay_while_forks_need_them_and_go_with_the_next_trim() {
    let mut state = stream("text/plain", None);
    append(&mut state, 2_000, b"abcdef");
    let first = state.trim(Offset::new(4), Some(1), true, at(9_000)).unwrap();
    let Decision::Commit(event, _) = first else { panic!("it trims") };
    state.apply(&event);
    assert!(state.keeps_trimmed_bytes());
    assert_eq!(
        (state.earliest, state.first_kept(), state.own_len()),
        (Offset::new(4), Offset::ZERO, 6)
    );
    assert_eq!(trim(&mut state, 4, true), None);
    assert!(trim(&mut state, 4, false).is_some(), "the last fork is gone");
    assert_eq!(state.messages_before, Some(1), "what is known of that place stays known");
    assert!(!state.keeps_trimmed_bytes());
    assert_eq!((state.first_kept(), state.own_len()), (Offset::new(4), 2));
}

#[test]
fn a_fork_that_is_trimmed_within_what_it_inherits_keeps_its_own_bytes() {
    let position = Offset::new(5);
    let fork = ForkPoint {
        source: StreamId(3),
        source_path: StreamPath::new("/s").unwrap(),
        position,
        requested: None,
        sub_offset: 0,
        ancestors: vec![(StreamId(3), position.in_incarnation(3))],
    };
    let mut state = stream("text/plain", Some(fork));
    append(&mut state, 2_000, b"xyz");
    let earliest = trim(&mut state, 2, false).unwrap();
    assert_eq!(earliest.incarnation(), 3, "as the source has it");
    assert_eq!((state.first_kept(), state.own_len()), (position, 3));
    assert!(!state.keeps_trimmed_bytes());
    trim(&mut state, 6, true).unwrap();
    assert_eq!((state.first_kept(), state.own_len()), (position, 3));
    trim(&mut state, 6, false).unwrap();
    assert_eq!((state.first_kept(), state.own_len()), (Offset::new(6), 2));
}

#[test]
fn json_messages_are_counted_and_marks_know_how_many_came_before() {
    let mut state = stream("application/json", None);
    append(&mut state, 2_000, b"1\x1e2\x1e");
    state.apply(&StreamEvent::Marked { at: at(2_500) });
    append(&mut state, 3_000, b"3\x1e");
    state.apply(&StreamEvent::Marked { at: at(3_500) });
    append(&mut state, 4_000, b"");
    assert_eq!(state.messages, Some(3));
    assert_eq!(state.mark_until(at(2_499)), None);
    assert_eq!(state.mark_until(at(3_499)).unwrap().position, Offset::new(4));
    assert_eq!(state.mark_until(at(9_999)).unwrap().position, Offset::new(6));
    assert_eq!(state.mark_before_last(0).unwrap().position, Offset::new(6));
    assert_eq!(state.mark_before_last(1).unwrap().position, Offset::new(4));
    assert_eq!(state.mark_before_last(2), None);
    assert_eq!(state.mark_before_last(4), None);
    trim(&mut state, 4, false).unwrap();
    assert_eq!((state.messages_before, state.marks.len()), (Some(2), 2));
    trim(&mut state, 6, false).unwrap();
    assert_eq!((state.messages_before, state.marks.len()), (Some(3), 1));
}

#[test]
fn marks_are_thinned_out_evenly_in_time_and_in_bytes() {
    let mut state = stream("text/plain", None);
    for n in 0..5_000_u64 {
        // A burst, then a long quiet time.
        append(&mut state, 0, if n < 2_500 { &[b'x'; 1000] } else { b"x" });
        let pause = if n < 2_500 { 1 } else { 1_000 };
        let last = state.marks.last().map_or(0, |mark| mark.at.millis());
        state.apply(&StreamEvent::Marked { at: at(last + pause) });
        assert_eq!(state.marks.len(), MARKS.min(n as usize + 1));
    }
    let (first, last) = (state.marks.first().unwrap(), state.marks.last().unwrap());
    let age = last.at.millis() - first.at.millis();
    let bytes = last.position.position() - first.position.position();
    for pair in state.marks.windows(2) {
        let (from, to) = (&pair[0], &pair[1]);
        let (time, length) =
            (to.at.millis() - from.at.millis(), to.position.position() - from.position.position());
        assert!(time <= age / 8 && length <= bytes / 8, "{from:?} {to:?}");
    }
    state.apply(&StreamEvent::Marked { at: at(5) });
    assert_eq!(state.marks.last().unwrap().at, at(age + 1), "the clock was set back");
}

#[test]
fn a_changed_expiry_begins_at_the_change() {
    let mut state = stream("text/plain", None);
    assert_eq!(state.change_expiry(Expiry::Never, at(2_000)), Decision::Reply(()));
    let Decision::Commit(event, ()) = state.change_expiry(Expiry::Ttl(5), at(2_000)) else {
        panic!("a change")
    };
    let shared = state.core.clone();
    state.apply(&event);
    assert_eq!((state.core.expiry, state.due_at()), (Expiry::Ttl(5), Some(at(7_000))));
    assert_eq!(shared.expiry, Expiry::Never, "who reads the stream keeps what it was");
    let again = state.change_expiry(Expiry::Ttl(5), at(3_000));
    assert!(matches!(again, Decision::Commit(..)), "a TTL begins again");
}

#[test]
fn a_mark_goes_whose_neighbours_are_near_in_time_and_in_bytes() {
    let mark = |(millis, position)| TimeMark {
        at: at(millis),
        position: Offset::new(position),
        messages: None,
    };
    // Without the second: 60 % of the time and 20 % of the bytes; without the third: 50 % and 90 %.
    let marks = [(0, 0), (50_000, 1), (60_000, 2), (100_000, 10)].map(mark);
    assert_eq!(least_useful(&marks), Some(1));
}
