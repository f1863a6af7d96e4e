//! The bytes of events and snapshots: golden hex, so that a change of format is a visible difference, and round trips.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

use std::sync::Arc;

use bytes::Bytes;
use durable_streams_protocol::{
    Appended, Closure, ContentType, Created, Expiry, ForkPoint, Offset, Producer, ProducerId,
    ProducerState, StreamCore, StreamEvent, StreamId, StreamPath, StreamSeq, StreamState, TimeMark,
    Timestamp, Trimmed, count_messages,
};
use proptest::{collection::vec, option, prelude::*};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn byte(digits: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
}

fn record(event: &StreamEvent) -> Bytes {
    let mut out = Vec::new();
    event.encode_head(&mut out);
    out.extend_from_slice(event.data().map_or(&[], |data| data));
    out.into()
}

fn path(text: &str) -> StreamPath {
    StreamPath::system(text).unwrap()
}

fn producer() -> Producer {
    Producer { id: ProducerId::new("p").unwrap(), epoch: 3, seq: 258 }
}

fn fork_point() -> ForkPoint {
    ForkPoint {
        source: StreamId(7),
        source_path: path("a"),
        position: Offset::new(5),
        requested: Some(Offset::new(4)),
        sub_offset: 1,
        ancestors: vec![(StreamId(6), Offset::new(2)), (StreamId(7), Offset::new(5))],
    }
}

fn created() -> Created {
    Created {
        at: Timestamp::from_millis(0x0102),
        path: path("a/é"),
        content_type: ContentType::parse("text/plain").unwrap(),
        expiry: Expiry::Ttl(60),
        expiry_inherited: true,
        fork: None,
        incarnation: 0,
        closed: true,
        public: false,
        earliest: Offset::ZERO,
        data: Bytes::from_static(b"hi"),
    }
}

#[test]
fn golden_events() {
    let at = Timestamp::from_millis(0x0102);
    let forked = Created {
        fork: Some(fork_point()),
        expiry: Expiry::At(at),
        data: Bytes::new(),
        ..created()
    };
    let appended = Appended {
        at,
        data: Bytes::from_static(b"hi"),
        terminators: 0,
        producer: Some(producer()),
        stream_seq: StreamSeq::new("09"),
        close: true,
    };
    let plain = Appended { producer: None, stream_seq: None, close: false, ..appended.clone() };
    let public = Created { public: true, ..created() };
    let (before, kept) = (Offset::new(5), Offset::new(4));
    let trimmed = Trimmed { at, before, kept, messages: None };
    let counted = Trimmed { at, before, kept: before, messages: Some(3) };
    let of_trimmed = Created { earliest: kept, ..created() };
    for (event, golden) in [
        (StreamEvent::Created(Box::new(public)), PUBLIC),
        (StreamEvent::Created(Box::new(created())), CREATED),
        (StreamEvent::Created(Box::new(forked)), FORKED),
        (StreamEvent::Appended(appended), APPENDED),
        (StreamEvent::Appended(plain), "020201000000000000 00 00 00 6869"),
        (StreamEvent::Touched { at }, "030201000000000000"),
        (StreamEvent::SoftDeleted { at }, "040201000000000000"),
        (StreamEvent::Deleted { at }, "050201000000000000"),
        (StreamEvent::Trimmed(trimmed), "070201000000000000 0500000000000000 0400000000000000 00"),
        (
            StreamEvent::Trimmed(counted),
            "070201000000000000 0500000000000000 0500000000000000 01 0300000000000000",
        ),
        (
            StreamEvent::ExpiryChanged { at, expiry: Expiry::Ttl(60) },
            "080201000000000000 013c00000000000000",
        ),
        (StreamEvent::Marked { at }, "090201000000000000"),
        (StreamEvent::Created(Box::new(of_trimmed)), OF_TRIMMED),
    ] {
        let record = record(&event);
        assert_eq!(hex(&record), golden.replace(' ', ""), "{event:?}");
        assert_eq!(StreamEvent::decode(&record).unwrap(), event);
    }
}

/// A fork of a stream of incarnation 6, which is a fork of one of format 1.
fn incarnated_fork() -> Created {
    let at = |position, incarnation| Offset::new(position).in_incarnation(incarnation);
    let fork = ForkPoint {
        position: at(5, 6),
        requested: Some(at(4, 6)),
        ancestors: vec![(StreamId(6), at(2, 0)), (StreamId(7), at(5, 6))],
        ..fork_point()
    };
    let (expiry, data) = (Expiry::Never, Bytes::from_static(b"hi"));
    Created { fork: Some(fork), incarnation: 0x0304, expiry, data, ..created() }
}

#[test]
fn golden_incarnations() {
    let event = StreamEvent::Created(Box::new(incarnated_fork()));
    let bytes = record(&event);
    assert_eq!(hex(&bytes), INCARNATED.replace(' ', ""));
    let StreamEvent::Created(decoded) = StreamEvent::decode(&bytes).unwrap() else {
        panic!("created")
    };
    assert_eq!(StreamEvent::Created(decoded.clone()), event);
    let state = state(&decoded);
    let mut out = Vec::new();
    state.encode(&mut out);
    for state in [state, StreamState::decode(StreamId(9), &out).unwrap()] {
        let known = |position| state.core.offset_at(position).to_string();
        assert_eq!(known(0), "0000000000000000_0000000000000000");
        assert_eq!(known(2), "0000000000000000_0000000000000002");
        assert_eq!(known(3), "0000000000000006_0000000000000003");
        assert_eq!(known(5), "0000000000000006_0000000000000005", "the source has it so");
        assert_eq!(known(6), "0000000000000772_0000000000000006");
        assert_eq!(state.tail.to_string(), "0000000000000772_0000000000000007");
        let fork = state.core.fork.as_ref().unwrap();
        assert_eq!(fork.position.incarnation(), 6);
        assert_eq!(fork.requested.unwrap().incarnation(), 6);
        let resolved = |incarnation, position| {
            let offset = Offset::new(position).in_incarnation(incarnation);
            state.core.resolve(offset, state.tail).map(|offset| offset.incarnation()).ok()
        };
        assert_eq!(resolved(0, 2), Some(0));
        assert_eq!(resolved(0, 3), None, "its source went on without that stream");
        assert_eq!((resolved(6, 5), resolved(6, 6)), (Some(6), None));
        assert_eq!((resolved(772, 3), resolved(772, 9)), (Some(6), Some(772)));
        assert_eq!((resolved(771, 1), resolved(773, 9)), (None, None));
        assert_eq!(resolved(5, 0), Some(0), "the start of every stream");
        let refused = |incarnation| {
            let offset = Offset::new(3).in_incarnation(incarnation);
            state.core.resolve(offset, state.tail).unwrap_err().code()
        };
        assert_eq!((refused(5), refused(773)), ("offset-of-deleted-stream", "offset-beyond-tail"));
    }
}

const INCARNATED: &str = "060201000000000000 0400612fc3a9 0a00746578742f706c61696e 000000000000000000 03 \
    01 0700000000000000 010061 0500000000000000 01 0600000000000000 0400000000000000 0100000000000000 \
    0200000000000000 0600000000000000 0000000000000000 0200000000000000 \
    0700000000000000 0600000000000000 0500000000000000 0403000000000000 6869";

const CREATED: &str =
    "010201000000000000 0400612fc3a9 0a00746578742f706c61696e 013c00000000000000 03 00 6869";
const PUBLIC: &str =
    "010201000000000000 0400612fc3a9 0a00746578742f706c61696e 013c00000000000000 07 00 6869";
const OF_TRIMMED: &str = "0a0201000000000000 0400612fc3a9 0a00746578742f706c61696e 013c00000000000000 03 00 \
    0000000000000000 0400000000000000 6869";
const FORKED: &str = "010201000000000000 0400612fc3a9 0a00746578742f706c61696e 020201000000000000 03 \
    01 0700000000000000 010061 0500000000000000 01 0400000000000000 0100000000000000 0200000000000000 \
    0600000000000000 0200000000000000 0700000000000000 0500000000000000";
const APPENDED: &str =
    "020201000000000000 01 01 010070 0300000000000000 0201000000000000 01 02003039 6869";

fn state(created: &Created) -> StreamState {
    StreamState::created(StreamId(9), created)
}

#[test]
fn golden_snapshot() {
    let forked = Created { fork: Some(fork_point()), ..created() };
    let mut state =
        StreamState { soft_deleted: true, stream_seq: StreamSeq::new("09"), ..state(&forked) };
    state.closed = Some(Closure { by: Some(producer()) });
    (state.earliest, state.kept, state.messages_before) = (Offset::new(4), Offset::new(3), None);
    let at = Timestamp::from_millis(0x0103);
    state.marks = vec![TimeMark { at, position: state.tail, messages: Some(1) }];
    let mut out = Vec::new();
    state.encode(&mut out);
    let golden = "03 0400612fc3a9 0a00746578742f706c61696e 013c00000000000000 07 \
        01 0700000000000000 010061 0500000000000000 01 0000000000000000 0400000000000000 0100000000000000 \
        0200000000000000 0600000000000000 0000000000000000 0200000000000000 \
        0700000000000000 0000000000000000 0500000000000000 \
        0700000000000000 0201000000000000 01 010070 0300000000000000 0201000000000000 01 02003039 \
        0000000000000000 0100000000000000 0500000000000000 0400000000000000 0300000000000000 \
        01 0201000000000000 01 0201000000000000 01 0100000000000000 00 \
        01 0301000000000000 0700000000000000 01 0100000000000000";
    assert_eq!(hex(&out), golden.replace(' ', ""));
    assert_eq!(StreamState::decode(StreamId(9), &out).unwrap(), state);
    // Format 2, which had neither trims nor times.
    let format_2 = "02 0400612fc3a9 0a00746578742f706c61696e 013c00000000000000 07 \
        01 0700000000000000 010061 0500000000000000 01 0000000000000000 0400000000000000 0100000000000000 \
        0200000000000000 0600000000000000 0000000000000000 0200000000000000 \
        0700000000000000 0000000000000000 0500000000000000 \
        0700000000000000 0201000000000000 01 010070 0300000000000000 0201000000000000 01 02003039 \
        0000000000000000 0100000000000000 0500000000000000 0500000000000000 0000000000000000";
    let stored: Vec<u8> = format_2.replace(' ', "").as_bytes().chunks(2).map(byte).collect();
    (state.earliest, state.kept, state.marks) = (Offset::ZERO, Offset::ZERO, Vec::new());
    (state.created, state.appended) = (None, None);
    (state.messages, state.messages_before) = (None, None);
    assert_eq!(StreamState::decode(StreamId(9), &stored).unwrap(), state);
    let known = ProducerState { epoch: 3, last_seq: 258 };
    assert_eq!(hex(&known.encode()), "03000000000000000201000000000000");
}

/// A time, and an incarnation.
fn any_incarnated() -> impl Strategy<Value = (u64, u64)> {
    (any::<u64>(), prop_oneof![Just(0), 1..=Offset::MAX.position()])
}

fn position() -> impl Strategy<Value = Offset> {
    (0..=Offset::MAX.position()).prop_map(Offset::new)
}

fn any_path() -> impl Strategy<Value = StreamPath> {
    "\\PC{1,20}(/\\PC{0,9}){0,2}"
        .prop_filter_map("not a path", |text| StreamPath::system(&text).ok())
}

fn any_producer() -> impl Strategy<Value = Producer> {
    ("\\PC{1,20}", any::<u64>(), any::<u64>()).prop_map(|(id, epoch, seq)| Producer {
        id: ProducerId::new(&id).unwrap(),
        epoch,
        seq,
    })
}

fn any_seq() -> impl Strategy<Value = StreamSeq> {
    "\\PC{1,20}".prop_map(|seq| StreamSeq::new(&seq).unwrap())
}

fn any_expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        Just(Expiry::Never),
        any::<u64>().prop_map(Expiry::Ttl),
        any::<u64>().prop_map(|at| Expiry::At(Timestamp::from_millis(at))),
    ]
}

fn any_fork() -> impl Strategy<Value = ForkPoint> {
    let ancestors = vec((any::<u64>().prop_map(StreamId), position()), 0..4);
    (any::<u64>(), any_path(), position(), option::of(position()), any::<u64>(), ancestors)
        .prop_map(|(source, source_path, position, requested, sub_offset, ancestors)| ForkPoint {
            source: StreamId(source),
            source_path,
            position,
            requested,
            sub_offset,
            ancestors,
        })
}

fn any_created() -> impl Strategy<Value = Created> {
    let kind = "[a-z]{1,9}/[a-z+.-]{1,9}(; ?[a-z]{1,5}=\"?[ -~]{0,9}\"?[a-z])?"
        .prop_filter_map("not a type", |text| ContentType::parse(&text));
    let data = vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    (
        any_incarnated(),
        any_path(),
        kind,
        any_expiry(),
        any::<(bool, bool, bool)>(),
        option::of(any_fork()),
        data,
    )
        .prop_map(|((at, incarnation), path, content_type, expiry, flags, fork, data)| {
            Created {
                at: Timestamp::from_millis(at),
                incarnation,
                path,
                content_type,
                expiry,
                expiry_inherited: flags.1,
                fork,
                closed: flags.0,
                public: flags.2,
                earliest: Offset::new(if flags.0 { at % 9 } else { 0 }),
                data,
            }
        })
}

fn any_event() -> impl Strategy<Value = StreamEvent> {
    let data = vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let appended =
        (any::<u64>(), data, option::of(any_producer()), option::of(any_seq()), any::<bool>())
            .prop_map(|(at, data, producer, stream_seq, close)| {
                let at = Timestamp::from_millis(at);
                StreamEvent::Appended(Appended {
                    at,
                    terminators: count_messages(&data) as u64,
                    data,
                    producer,
                    stream_seq,
                    close,
                })
            });
    let bare = (0..4, any::<u64>()).prop_map(|(kind, at)| {
        let at = Timestamp::from_millis(at);
        match kind {
            0 => StreamEvent::Touched { at },
            1 => StreamEvent::SoftDeleted { at },
            2 => StreamEvent::Marked { at },
            _ => StreamEvent::Deleted { at },
        }
    });
    let changed = (any::<u64>(), any_expiry()).prop_map(|(at, expiry)| {
        StreamEvent::ExpiryChanged { at: Timestamp::from_millis(at), expiry }
    });
    let trimmed = (any::<u64>(), position(), position(), option::of(any::<u64>())).prop_map(
        |(at, a, b, messages)| {
            let at = Timestamp::from_millis(at);
            StreamEvent::Trimmed(Trimmed { at, before: a.max(b), kept: a.min(b), messages })
        },
    );
    prop_oneof![
        trimmed,
        changed,
        any_created().prop_map(|created| StreamEvent::Created(Box::new(created))),
        appended,
        bare
    ]
}

fn any_state() -> impl Strategy<Value = StreamState> {
    let closed = option::of(option::of(any_producer()).prop_map(|by| Closure { by }));
    let number = || option::of(any::<u64>());
    let mark = (any::<u64>(), position(), number()).prop_map(|(at, position, messages)| TimeMark {
        at: Timestamp::from_millis(at),
        position,
        messages,
    });
    let kept = (position(), position(), number(), number(), number(), number(), vec(mark, 0..33));
    (any_created(), closed, option::of(any_seq()), position(), any::<bool>(), kept).prop_map(
        |(created, closed, stream_seq, tail, soft_deleted, kept)| {
            let (a, b, created_at, appended, messages, messages_before, marks) = kept;
            let fresh = state(&created);
            let core = Arc::new(StreamCore::clone(&fresh.core));
            let mut state = StreamState { core, closed, stream_seq, tail, soft_deleted, ..fresh };
            (state.earliest, state.kept) = (a.max(b), a.min(b));
            state.created = created_at.map(Timestamp::from_millis);
            state.appended = appended.map(Timestamp::from_millis);
            (state.messages, state.messages_before) = (messages, messages_before);
            state.marks = marks;
            state
        },
    )
}

proptest! {
    #[test]
    fn events_come_back(event in any_event()) {
        let record = record(&event);
        prop_assert_eq!(StreamEvent::decode(&record).unwrap(), event);
    }

    #[test]
    fn snapshots_come_back(state in any_state()) {
        let mut out = Vec::new();
        state.encode(&mut out);
        prop_assert_eq!(StreamState::decode(StreamId(9), &out).unwrap(), state);
    }

    /// A record that lost its end, or has one more byte, is refused or is a different event: never the same one.
    #[test]
    fn cut_records_are_not_taken_for_whole_ones(event in any_event(), cut in any::<proptest::sample::Index>()) {
        let record = record(&event);
        let short = record.slice(..cut.index(record.len()));
        prop_assert_ne!(StreamEvent::decode(&short).ok(), Some(event));
    }

    /// Whatever decodes is what encoding gives: there is one spelling of every event and snapshot.
    #[test]
    fn one_spelling(event in any_event(), at in any::<proptest::sample::Index>(), to: u8) {
        let mut changed = record(&event).to_vec();
        let at = at.index(changed.len());
        changed[at] = to;
        let changed = Bytes::from(changed);
        if let Ok(decoded) = StreamEvent::decode(&changed) {
            prop_assert_eq!(record(&decoded), changed);
        }
    }

    #[test]
    fn one_spelling_of_a_snapshot(state in any_state(), at in any::<proptest::sample::Index>(), to: u8) {
        let mut changed = Vec::new();
        state.encode(&mut changed);
        let at = at.index(changed.len());
        changed[at] = to;
        if let Ok(decoded) = StreamState::decode(StreamId(9), &changed) {
            let mut again = Vec::new();
            decoded.encode(&mut again);
            prop_assert_eq!(again, changed);
        }
    }
}
