//! What is done to the streams, and how it is made up.

use durable_streams_protocol::{
    Append, ContentType, Create, Expiry, Fork, Offset, Producer, ProducerId, StreamPath, StreamSeq,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Few enough that streams collide, in an order that differs from that of creation.
pub(crate) const PATHS: [&str; 5] = ["m", "a/b", "z", "a", "k/"];
const TYPES: [&str; 3] = ["application/json", "application/octet-stream", "text/plain"];

/// A position in a stream, as a client could ask for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// The n-th message boundary, from the front, or the tail.
    Boundary(usize),
    /// So many bytes from the tail.
    BeforeTail(u64),
    /// So many bytes from the start, wherever that is.
    Byte(u64),
    /// Beyond the tail.
    Beyond(u64),
}

/// One step.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create(&'static str, Create, Vec<u8>),
    /// A `PUT` with a fork; the place is resolved on the source as it is then.
    Fork(&'static str, Create, Option<Place>, Vec<u8>),
    Append(&'static str, Append, Vec<u8>),
    /// The n-th last append once more, as a client does that missed the answer.
    Retry(usize),
    Delete(&'static str),
    Read(&'static str, Place, usize),
    Head(&'static str),
    Trim(&'static str, Place),
    ChangeExpiry(&'static str, Expiry),
    /// A live reader arrives.
    Watch(&'static str),
    /// All live readers leave.
    Unwatch,
    Advance(u64),
    Sweep,
    /// Nobody comes for a while: cells leave memory.
    Idle,
}

fn path() -> impl Strategy<Value = &'static str> {
    select(&PATHS[..])
}

fn content_type() -> impl Strategy<Value = ContentType> {
    select(&TYPES[..]).prop_map(|text| ContentType::parse(text).unwrap())
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let json = select(
        &[
            "1",
            "[]",
            "[1,[2],\"three\"]",
            "{\"a\": 1}",
            " [ {} , null ] ",
            "\"\u{e9}\u{1f600}\"",
            "{",
            "[1]2",
        ][..],
    );
    prop_oneof![
        1 => Just(Vec::new()),
        6 => json.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..40),
    ]
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        4 => Just(Expiry::Never),
        2 => (1u64..100).prop_map(Expiry::Ttl),
        1 => (0u64..100).prop_map(|after| Expiry::At(
            durable_streams_protocol::Timestamp::from_millis(1_800_000_000_000 + after * 1000)
        )),
    ]
}

fn producer() -> impl Strategy<Value = Producer> {
    (select(&["p", "q"][..]), 0u64..3, 0u64..4).prop_map(|(id, epoch, seq)| Producer {
        id: ProducerId::new(id).unwrap(),
        epoch,
        seq,
    })
}

fn create() -> impl Strategy<Value = Create> {
    (
        option::weighted(0.9, content_type()),
        expiry(),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(content_type, expiry, closed, public)| Create {
            content_type,
            expiry,
            closed,
            fork: None,
            public,
        })
}

fn append() -> impl Strategy<Value = Append> {
    let stream_seq =
        option::weighted(0.15, (0u8..30).prop_map(|n| StreamSeq::new(&n.to_string()).unwrap()));
    let given = option::weighted(0.95, content_type().prop_map(Ok));
    (given, stream_seq, option::weighted(0.4, producer()), proptest::bool::weighted(0.07)).prop_map(
        |(content_type, stream_seq, producer, close)| Append {
            content_type,
            stream_seq,
            producer,
            close,
        },
    )
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        4 => (0usize..8).prop_map(Place::Boundary),
        2 => (0u64..4).prop_map(Place::BeforeTail),
        2 => (0u64..60).prop_map(Place::Byte),
        1 => (1u64..3).prop_map(Place::Beyond),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let fork = (path(), create(), path(), option::of(place()), 0u64..3, body()).prop_map(
        |(path, create, source, place, sub_offset, body)| {
            let source = StreamPath::new(source).unwrap();
            let create = Create { fork: Some(Fork { source, offset: None, sub_offset }), ..create };
            Op::Fork(path, create, place, body)
        },
    );
    prop_oneof![
        6 => (path(), create(), body()).prop_map(|(path, create, body)| Op::Create(path, create, body)),
        6 => fork,
        16 => (path(), append(), body()).prop_map(|(path, append, body)| Op::Append(path, append, body)),
        3 => (0usize..3).prop_map(Op::Retry),
        3 => path().prop_map(Op::Delete),
        6 => (path(), place(), 1usize..30).prop_map(|(path, place, max)| Op::Read(path, place, max)),
        2 => path().prop_map(Op::Head),
        4 => (path(), place()).prop_map(|(path, place)| Op::Trim(path, place)),
        1 => (path(), expiry()).prop_map(|(path, expiry)| Op::ChangeExpiry(path, expiry)),
        2 => path().prop_map(Op::Watch),
        1 => Just(Op::Unwatch),
        3 => (0u64..40_000).prop_map(Op::Advance),
        2 => Just(Op::Sweep),
        2 => Just(Op::Idle),
    ]
}

/// A history. Types follow their stream more often than chance would have it: see [`crate::sequences`].
pub(crate) fn history() -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 1..60)
}

impl Place {
    /// The offset in a stream with these bytes.
    pub(crate) fn resolve(self, bytes: &[u8]) -> Offset {
        let tail = bytes.len() as u64;
        Offset::new(match self {
            Place::Boundary(n) => {
                let ends = bytes
                    .iter()
                    .enumerate()
                    .filter(|(_, b)| **b == durable_streams_protocol::MESSAGE_END);
                std::iter::once(0).chain(ends.map(|(at, _)| at as u64 + 1)).nth(n).unwrap_or(tail)
            }
            Place::BeforeTail(back) => tail.saturating_sub(back),
            Place::Byte(at) => at,
            Place::Beyond(by) => tail + by,
        })
    }
}
