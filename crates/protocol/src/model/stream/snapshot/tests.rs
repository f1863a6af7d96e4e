//! The stored form, cut and changed.

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{ContentType, Expiry, ForkPoint, Offset, Producer, ProducerId, StreamPath, StreamSeq};

fn producer(epoch: u64, seq: u64) -> Producer {
    Producer { id: ProducerId::new("p").unwrap(), epoch, seq }
}

fn open_stream() -> StreamState {
    StreamState {
        core: Arc::new(StreamCore {
            id: StreamId(1),
            path: StreamPath::new("a").unwrap(),
            content_type: ContentType::parse("text/plain").unwrap(),
            expiry: Expiry::Never,
            expiry_inherited: false,
            fork: None,
            incarnation: 7,
            public: false,
        }),
        tail: Offset::ZERO,
        events: 1,
        delimited_from: Offset::ZERO,
        closed: None,
        stream_seq: None,
        touched: Timestamp::default(),
        soft_deleted: false,
        earliest: Offset::ZERO,
        kept: Offset::ZERO,
        created: None,
        appended: None,
        messages: None,
        messages_before: None,
        marks: Vec::new(),
        producers: HashMap::new(),
    }
}

fn a_state() -> impl Strategy<Value = StreamState> {
    let expiry = prop_oneof![
        Just(Expiry::Never),
        any::<u64>().prop_map(Expiry::Ttl),
        any::<u64>().prop_map(|millis| Expiry::At(Timestamp::from_millis(millis))),
    ];
    let offset = || (0..=Offset::MAX.position()).prop_map(Offset::new);
    let fork = (
        any::<u64>(),
        offset(),
        option::of(offset()),
        any::<u64>(),
        vec((any::<u64>(), offset()), 0..4),
    )
        .prop_map(|(source, position, requested, sub_offset, ancestors)| ForkPoint {
            source: StreamId(source),
            source_path: StreamPath::new("source").unwrap(),
            position,
            requested,
            sub_offset,
            ancestors: ancestors.into_iter().map(|(id, end)| (StreamId(id), end)).collect(),
        });
    let by = option::of((any::<u64>(), any::<u64>()).prop_map(|(epoch, seq)| producer(epoch, seq)));
    let closed = option::of(by.prop_map(|by| Closure { by }));
    let seq = option::of("[a-z]{1,9}".prop_map(|text| StreamSeq::new(&text).unwrap()));
    let tail = (offset(), offset(), any::<u64>());
    (expiry, any::<(bool, bool, bool, u64)>(), option::of(fork), tail, closed, seq).prop_map(
        |(
            expiry,
            (expiry_inherited, soft_deleted, public, touched),
            fork,
            tail,
            closed,
            stream_seq,
        )| {
            let (tail, delimited_from, events) = tail;
            StreamState {
                core: Arc::new(StreamCore {
                    id: StreamId(9),
                    path: StreamPath::new("a/b").unwrap(),
                    content_type: ContentType::default(),
                    expiry,
                    expiry_inherited,
                    fork,
                    incarnation: touched % 3,
                    public,
                }),
                tail,
                events,
                delimited_from,
                closed,
                stream_seq,
                touched: Timestamp::from_millis(touched),
                soft_deleted,
                ..open_stream()
            }
        },
    )
}

proptest! {
    #[test]
    fn the_stored_form_round_trips(state in a_state()) {
        let mut stored = Vec::new();
        state.encode(&mut stored);
        prop_assert_eq!(StreamState::decode(StreamId(9), &stored), Ok(state));
        for end in 0..stored.len() {
            prop_assert!(StreamState::decode(StreamId(9), &stored[..end]).is_err(), "cut at {}", end);
        }
        stored.push(0);
        prop_assert!(StreamState::decode(StreamId(9), &stored).is_err());
    }
}

#[test]
fn a_stored_form_of_another_version_is_refused() {
    let mut stored = Vec::new();
    open_stream().encode(&mut stored);
    stored[0] = 4;
    assert_eq!(StreamState::decode(StreamId(1), &stored).unwrap_err().what, "snapshot format");

    // Flags: after format, path, content type and expiry. An open stream has no closing producer.
    let mut closed = open_stream();
    closed.closed = Some(Closure { by: Some(producer(0, 0)) });
    let mut stored = Vec::new();
    closed.encode(&mut stored);
    let flags = 1 + (2 + 1) + (2 + 10) + 9;
    assert_eq!(stored[flags], 1);
    stored[flags] = 0;
    assert_eq!(StreamState::decode(StreamId(1), &stored).unwrap_err().what, "closing producer");
    stored[flags] = 1 | 16;
    assert_eq!(StreamState::decode(StreamId(1), &stored).unwrap_err().what, "snapshot flags");
}

#[test]
fn one_bit_of_the_flags_makes_a_stream_public() {
    let mut stored = Vec::new();
    open_stream().encode(&mut stored);
    let flags = 1 + (2 + 1) + (2 + 10) + 9;
    assert_eq!(stored[flags], 0, "what was stored before the bit had a meaning is not public");
    stored[flags] = 8;
    assert!(StreamState::decode(StreamId(1), &stored).unwrap().core.public);
}

#[test]
fn a_stored_form_of_format_1_knows_no_ends_of_appends() {
    let mut state = open_stream();
    (state.tail, state.events, state.delimited_from) = (Offset::new(9), 7, Offset::new(5));
    let mut stored = Vec::new();
    state.encode(&mut stored);
    stored[0] = 1;
    // From the incarnation on: four numbers, the first kept position, four options and the number of marks.
    stored.truncate(stored.len() - 5 * 8 - 5);
    (state.events, state.delimited_from) = (0, state.tail);
    Arc::make_mut(&mut state.core).incarnation = 0;
    assert_eq!(StreamState::decode(StreamId(1), &stored), Ok(state));
}

#[test]
fn more_marks_than_a_stream_has_and_a_first_kept_byte_that_readers_do_not_find_are_refused() {
    let mut state = open_stream();
    state.kept = Offset::new(1);
    let mut stored = Vec::new();
    state.encode(&mut stored);
    assert_eq!(StreamState::decode(StreamId(1), &stored).unwrap_err().what, "first kept byte");
    let mut marked = open_stream();
    let mark = TimeMark { at: Timestamp::default(), position: Offset::ZERO, messages: None };
    marked.marks = vec![mark; 32];
    let mut stored = Vec::new();
    marked.encode(&mut stored);
    assert_eq!(StreamState::decode(StreamId(1), &stored), Ok(marked));
    let mut stored = Vec::new();
    open_stream().encode(&mut stored);
    *stored.last_mut().unwrap() = 33;
    assert_eq!(StreamState::decode(StreamId(1), &stored).unwrap_err().what, "time marks");
}

#[test]
fn a_producer_is_sixteen_bytes() {
    let state = ProducerState { epoch: 0x0102, last_seq: 0x0304 };
    let stored = state.encode();
    assert_eq!(stored, [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ProducerState::decode(&stored), Ok(state));
    assert!(ProducerState::decode(&stored[1..]).is_err());
    assert!(ProducerState::decode(&[0; 17]).is_err());
}
