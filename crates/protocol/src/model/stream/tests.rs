//! The rules of `PUT` and `POST`, and the lineage of forks, each without a store.

use bytes::Bytes;

use super::*;
use crate::{Append, Create, Fork, JsonError, Rejection, store_messages};

const NOW: Timestamp = Timestamp::from_millis(5_000);

fn path(text: &str) -> StreamPath {
    StreamPath::new(text).unwrap()
}

fn content_type(text: &str) -> ContentType {
    ContentType::parse(text).unwrap()
}

fn producer(epoch: u64, seq: u64) -> Producer {
    Producer { id: ProducerId::new("p").unwrap(), epoch, seq }
}

/// The state after a `PUT`, then these events.
fn put(id: u64, create: &Create, body: &'static [u8]) -> StreamState {
    let (id, body) = (StreamId(id), Ok(Bytes::from_static(body)));
    let decided = StreamState::create(id, &path("a"), create, None, body, NOW);
    let Decision::Commit(event, _) = decided.unwrap() else { panic!("a new stream is an event") };
    StreamState::fold(None, id, &event).unwrap()
}

fn text_stream() -> StreamState {
    put(1, &Create { content_type: Some(content_type("text/plain")), ..Create::default() }, b"")
}

fn text() -> Append {
    Append { content_type: Some(Ok(content_type("text/plain"))), ..Append::default() }
}

fn post(
    state: &StreamState,
    append: &Append,
    body: &'static [u8],
) -> Result<Decision<AppendOutcome>, Rejection> {
    let known = append.producer.as_ref().and_then(|producer| state.producers.get(&producer.id));
    state.append(append, known.copied(), body.is_empty(), Ok(Bytes::from_static(body)), NOW)
}

/// Appends and folds in what was decided.
fn accept(state: &mut StreamState, append: &Append, body: &'static [u8]) -> AppendOutcome {
    match post(state, append, body).unwrap() {
        Decision::Commit(event, outcome) => {
            state.apply(&event);
            outcome
        }
        Decision::Reply(outcome) => panic!("nothing new: {outcome:?}"),
    }
}

fn refused(state: &StreamState, append: &Append, body: &'static [u8]) -> Rejection {
    post(state, append, body).unwrap_err()
}

#[test]
fn an_append_moves_the_tail_and_is_remembered() {
    let mut state = text_stream();
    let append =
        Append { producer: Some(producer(3, 0)), stream_seq: StreamSeq::new("5"), ..text() };
    let outcome = accept(&mut state, &append, b"abc");
    let known = ProducerState { epoch: 3, last_seq: 0 };
    let expected = AppendOutcome {
        next_offset: Offset::new(3),
        closed: false,
        producer: Some(known),
        added: true,
    };
    assert_eq!(outcome, expected);
    assert_eq!((state.tail, state.stream_seq.clone()), (Offset::new(3), StreamSeq::new("5")));
    assert_eq!(state.producers[&producer(0, 0).id], known);
    assert!(state.closed.is_none());
    accept(&mut state, &Append { producer: Some(producer(3, 1)), ..text() }, b"d");
    assert_eq!(state.events, 3, "with the creation");
    assert_eq!(state.producers[&producer(0, 0).id], ProducerState { epoch: 3, last_seq: 1 });
    assert_eq!(state.stream_seq, StreamSeq::new("5"), "an append without one leaves it");
}

#[test]
fn an_empty_append_only_closes() {
    let mut state = text_stream();
    assert_eq!(refused(&state, &text(), b""), Rejection::EmptyAppend);
    let close = Append { close: true, ..Append::default() };
    let outcome = accept(&mut state, &close, b"");
    assert_eq!((outcome.closed, outcome.added, outcome.next_offset), (true, false, Offset::ZERO));
    assert_eq!(state.closed, Some(Closure { by: None }));
}

#[test]
fn a_closed_stream_takes_the_request_that_closed_it_again_and_no_other() {
    let closing = Append { producer: Some(producer(0, 0)), close: true, ..text() };
    let mut state = text_stream();
    accept(&mut state, &closing, b"end");
    let closed = Rejection::StreamClosed { tail: Offset::new(3) };
    let Ok(Decision::Reply(again)) = post(&state, &closing, b"end") else { panic!("a retry") };
    assert_eq!((again.closed, again.added, again.next_offset), (true, false, Offset::new(3)));
    assert_eq!(again.producer, Some(ProducerState { epoch: 0, last_seq: 0 }));
    let next = Append { producer: Some(producer(0, 1)), ..closing.clone() };
    assert_eq!(refused(&state, &next, b"x"), closed);
    assert_eq!(refused(&state, &text(), b"x"), closed);
    assert_eq!(refused(&state, &Append { close: true, ..text() }, b"x"), closed, "with bytes");
    let close_only = Append { close: true, ..Append::default() };
    assert!(matches!(post(&state, &close_only, b""), Ok(Decision::Reply(_))), "idempotent");

    let mut state = text_stream();
    accept(&mut state, &close_only, b"");
    assert_eq!(
        refused(&state, &Append { close: true, producer: Some(producer(0, 0)), ..text() }, b""),
        Rejection::StreamClosed { tail: Offset::ZERO },
        "closed without a producer"
    );
}

#[test]
fn the_content_type_of_a_body_must_match() {
    let state = text_stream();
    assert_eq!(refused(&state, &Append::default(), b"x"), Rejection::MissingContentType);
    let other = Append { content_type: Some(Ok(content_type("text/html"))), ..Append::default() };
    let stream = content_type("text/plain");
    assert_eq!(refused(&state, &other, b"x"), Rejection::ContentTypeMismatch { stream });
    let malformed = Err(crate::ContentTypeError::Form);
    let malformed = Append { content_type: Some(malformed), ..Append::default() };
    assert_eq!(refused(&state, &malformed, b"x").code(), "invalid-content-type");
    let close = Append { close: true, ..malformed };
    assert!(post(&state, &close, b"").is_ok(), "without a body it does not matter");
    let parameter = content_type("TEXT/plain; charset=utf-8");
    assert!(post(&state, &Append { content_type: Some(Ok(parameter)), ..text() }, b"x").is_ok());
}

#[test]
fn producers_are_judged_with_the_tail_in_the_answer() {
    let mut state = text_stream();
    accept(&mut state, &Append { producer: Some(producer(2, 0)), ..text() }, b"ab");
    let tail = Offset::new(2);
    let by = |epoch, seq| Append { producer: Some(producer(epoch, seq)), ..text() };
    assert_eq!(refused(&state, &by(1, 0), b"x"), Rejection::StaleEpoch { current: 2, tail });
    assert_eq!(refused(&state, &by(3, 1), b"x"), Rejection::EpochMustStartAtZero);
    let gap = Rejection::SequenceGap { expected: 1, received: 4, tail };
    assert_eq!(refused(&state, &by(2, 4), b"x"), gap);
    let Ok(Decision::Reply(duplicate)) = post(&state, &by(2, 0), b"x") else { panic!("seen") };
    let known = Some(ProducerState { epoch: 2, last_seq: 0 });
    let expected =
        AppendOutcome { next_offset: tail, closed: false, producer: known, added: false };
    assert_eq!(duplicate, expected);
}

#[test]
fn stream_seq_must_increase() {
    let mut state = text_stream();
    let seq = |text_: &str| Append { stream_seq: StreamSeq::new(text_), ..text() };
    accept(&mut state, &seq("b"), b"x");
    let last = StreamSeq::new("b").unwrap();
    let conflict = Rejection::SequenceRegression { last, tail: Offset::new(1) };
    assert_eq!(refused(&state, &seq("b"), b"x"), conflict);
    assert_eq!(refused(&state, &seq("a"), b"x"), conflict);
    assert!(conflict.to_string().starts_with("sequence conflict"), "clients look for it");
    assert!(post(&state, &seq("ba"), b"x").is_ok());
    assert!(post(&state, &text(), b"x").is_ok());
}

#[test]
fn json_is_judged_after_the_producer() {
    let json = content_type("application/json");
    let mut state = put(1, &Create { content_type: Some(json.clone()), ..Create::default() }, b"");
    let append = Append { content_type: Some(Ok(json)), ..Append::default() };
    let invalid = || store_messages(b"{").map(|_| Bytes::new());
    let refused = state.append(&append, None, false, invalid(), NOW).unwrap_err();
    assert_eq!(refused.code(), "invalid-json");
    let refused = state.append(&append, None, false, Ok(Bytes::new()), NOW).unwrap_err();
    assert_eq!(refused, Rejection::EmptyJsonArray);
    accept(&mut state, &Append { producer: Some(producer(0, 0)), ..append.clone() }, b"1\x1e");
    let again = Append { producer: Some(producer(0, 0)), ..append };
    let known = again.producer.as_ref().map(Producer::accepted);
    assert!(matches!(state.append(&again, known, false, invalid(), NOW), Ok(Decision::Reply(_))));
}

#[test]
fn a_stream_ends_before_the_largest_offset() {
    let mut state = text_stream();
    state.tail = Offset::new(Offset::MAX.position() - 2);
    assert!(post(&state, &text(), b"x").is_ok());
    assert_eq!(refused(&state, &text(), b"xy"), Rejection::StreamFull);
    assert_eq!(refused(&state, &text(), b"xyz"), Rejection::StreamFull);
}

#[test]
fn a_put_confirms_the_same_configuration_only() {
    let asked = Create {
        content_type: Some(content_type("text/plain")),
        expiry: Expiry::Ttl(60),
        closed: false,
        fork: None,
        public: false,
    };
    let mut state = put(1, &asked, b"abc");
    let confirmed = state.confirm(&asked).unwrap();
    let expected = CreateOutcome {
        created: false,
        content_type: content_type("text/plain"),
        next_offset: Offset::new(3),
        closed: false,
        public: false,
    };
    assert_eq!(confirmed, expected);
    let fork = Fork { source: path("b"), offset: None, sub_offset: 0 };
    let differ = |state: &StreamState, create: Create| match state.confirm(&create) {
        Err(Rejection::ConfigMismatch { field, closed_at }) => (field, closed_at),
        other => panic!("{other:?}"),
    };
    let field = |create| differ(&state, create).0;
    assert_eq!(field(Create { content_type: None, ..asked.clone() }), "Content-Type");
    assert_eq!(
        field(Create { expiry: Expiry::Never, ..asked.clone() }),
        "Stream-TTL or Stream-Expires-At"
    );
    assert_eq!(field(Create { closed: true, ..asked.clone() }), "Stream-Closed");
    assert_eq!(field(Create { public: true, ..asked.clone() }), "value of public");
    assert_eq!(field(Create { fork: Some(fork), ..asked.clone() }), "Stream-Forked-From");
    state.closed = Some(Closure { by: None });
    assert_eq!(differ(&state, asked.clone()), ("Stream-Closed", Some(Offset::new(3))));
    assert!(state.confirm(&Create { closed: true, ..asked.clone() }).unwrap().closed);
    state.soft_deleted = true;
    assert_eq!(state.confirm(&asked), Err(Rejection::PathBlocked));
}

/// A fork of `source` as a `PUT` asks for it, at `position`.
fn fork(
    id: u64,
    source: &StreamState,
    create: &Create,
    position: u64,
) -> Result<(StreamState, CreateOutcome), Rejection> {
    let at = ForkSource { state: source, position: Offset::new(position) };
    let (id, body) = (StreamId(id), Ok(Bytes::from_static(b"xy")));
    let decided = StreamState::create(id, &path("fork"), create, Some(at), body, NOW)?;
    let Decision::Commit(event, outcome) = decided else { panic!("a new stream is an event") };
    Ok((StreamState::fold(None, id, &event).unwrap(), outcome))
}

fn forking(source: &StreamState) -> Create {
    let source = source.core.path.clone();
    Create { fork: Some(Fork { source, offset: None, sub_offset: 0 }), ..Create::default() }
}

#[test]
fn a_fork_inherits_bytes_type_and_expiry() {
    let asked = Create {
        content_type: Some(content_type("text/plain")),
        expiry: Expiry::Ttl(60),
        ..Create::default()
    };
    let source = put(1, &asked, b"abcdef");
    let create = forking(&source);
    let (state, outcome) = fork(2, &source, &create, 4).unwrap();
    assert_eq!((outcome.created, outcome.next_offset), (true, Offset::new(6)));
    assert_eq!(outcome.content_type, content_type("text/plain"));
    assert_eq!((state.tail, state.core.own_start()), (Offset::new(6), Offset::new(4)));
    assert_eq!((state.core.expiry, state.core.expiry_inherited), (Expiry::Ttl(60), true));
    assert_eq!(state.core.holder_of(Offset::ZERO, state.tail), (StreamId(1), Offset::new(4)));
    assert_eq!(state.core.holder_of(Offset::new(3), state.tail), (StreamId(1), Offset::new(4)));
    assert_eq!(state.core.holder_of(Offset::new(4), state.tail), (StreamId(2), Offset::new(6)));
    assert_eq!(state.core.holder_of(Offset::ZERO, Offset::new(2)), (StreamId(1), Offset::new(2)));
    assert!(state.confirm(&create).is_ok(), "the same PUT again");
    assert!(state.confirm(&Create { expiry: Expiry::Ttl(60), ..create.clone() }).is_ok());
    assert!(state.confirm(&Create { expiry: Expiry::Ttl(61), ..create.clone() }).is_err());

    let own = Create { expiry: Expiry::Ttl(5), ..create.clone() };
    let (state, _) = fork(2, &source, &own, 4).unwrap();
    assert_eq!((state.core.expiry, state.core.expiry_inherited), (Expiry::Ttl(5), false));
    let other = Create { content_type: Some(content_type("a/b")), ..create.clone() };
    let expected = content_type("text/plain");
    assert_eq!(
        fork(2, &source, &other, 4).unwrap_err(),
        Rejection::SourceTypeMismatch { expected }
    );
    let same = Create { content_type: Some(content_type("TEXT/PLAIN")), ..create.clone() };
    let (state, _) = fork(2, &source, &same, 4).unwrap();
    assert_eq!(state.core.content_type.as_str(), "TEXT/PLAIN");
    let deleted = StreamState { soft_deleted: true, ..source };
    assert_eq!(fork(2, &deleted, &create, 4).unwrap_err(), Rejection::SourceDeleted);
}

#[test]
fn a_fork_begins_where_its_source_still_has_bytes() {
    let mut source = put(1, &Create::default(), b"abcdef");
    let Ok(Decision::Commit(trim, _)) = source.trim(Offset::new(3), None, false, NOW) else {
        panic!("three bytes go");
    };
    source.apply(&trim);
    let earliest = Offset::new(3);
    for gone in [0, 2] {
        let refused = fork(2, &source, &forking(&source), gone).unwrap_err();
        assert_eq!(refused, Rejection::OffsetTrimmed { earliest });
    }
    for there in [3, 6] {
        let (state, _) = fork(2, &source, &forking(&source), there).unwrap();
        assert_eq!(state.core.own_start(), Offset::new(there));
        assert_eq!(state.earliest, earliest, "as the source has it");
    }
}

#[test]
fn a_fork_is_confirmed_by_the_same_place_only() {
    let source = put(1, &Create::default(), b"abcdef");
    let place = |offset: Option<u64>, sub_offset| Create {
        fork: Some(Fork {
            source: path("a"),
            offset: offset.map(|at| source.core.offset_at(at)),
            sub_offset,
        }),
        ..Create::default()
    };
    let (state, _) = fork(2, &source, &place(Some(2), 1), 3).unwrap();
    let field = |create: &Create| match state.confirm(create) {
        Ok(_) => None,
        Err(Rejection::ConfigMismatch { field, .. }) => Some(field),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(field(&place(Some(2), 1)), None);
    assert_eq!(field(&place(None, 1)), None, "no offset asks for none");
    assert_eq!(field(&place(Some(3), 1)), Some("Stream-Fork-Offset"));
    assert_eq!(field(&place(Some(2), 0)), Some("Stream-Fork-Sub-Offset"));
    assert_eq!(field(&Create::default()), Some("Stream-Forked-From"));
    let mut other = place(Some(2), 1);
    other.fork.as_mut().unwrap().source = path("b");
    assert_eq!(field(&other), Some("Stream-Forked-From"));
    let (tail, _) = fork(3, &source, &place(None, 0), 6).unwrap();
    assert!(tail.confirm(&place(Some(6), 0)).is_ok(), "the place it has");
    assert!(tail.confirm(&place(Some(5), 0)).is_err());
}

#[test]
fn a_fork_of_a_fork_names_every_holder_once() {
    let first = put(1, &Create::default(), b"abcdef");
    let (second, _) = fork(2, &first, &forking(&first), 4).unwrap();
    assert_eq!(
        second.core.ancestors_up_to(Offset::new(6)),
        [(StreamId(1), Offset::new(4)), (StreamId(2), Offset::new(6)),]
    );
    assert_eq!(second.core.ancestors_up_to(Offset::new(5))[1], (StreamId(2), Offset::new(5)));
    assert_eq!(second.core.ancestors_up_to(Offset::new(4)), [(StreamId(1), Offset::new(4))]);
    assert_eq!(second.core.ancestors_up_to(Offset::new(3)), [(StreamId(1), Offset::new(3))]);
    let (third, _) = fork(3, &second, &forking(&second), 6).unwrap();
    assert_eq!(third.core.ancestors_up_to(Offset::new(3)), [(StreamId(1), Offset::new(3))]);
    assert_eq!(
        third.core.ancestors_up_to(Offset::new(5)),
        [(StreamId(1), Offset::new(4)), (StreamId(2), Offset::new(5)),]
    );
    assert_eq!(third.core.ancestors_up_to(Offset::new(8)).len(), 3);
    assert_eq!(first.core.ancestors_up_to(Offset::ZERO), []);
    let holder = third.core.holder_of(Offset::new(4), third.tail);
    assert_eq!(holder, (StreamId(2), Offset::new(6)));
    let mut deepest = first;
    for id in 2..=257 {
        deepest = fork(id, &deepest, &forking(&deepest), deepest.tail.position()).unwrap().0;
    }
    let last = fork(258, &deepest, &forking(&deepest), deepest.tail.position()).unwrap_err();
    assert_eq!(last, Rejection::ForkTooDeep { limit: 256 });
}

#[test]
fn a_create_has_the_default_type_and_refuses_what_is_not_json() {
    let plain = put(1, &Create::default(), b"");
    assert_eq!(plain.core.content_type.as_str(), ContentType::DEFAULT);
    assert!(plain.confirm(&Create::default()).is_ok());
    let invalid: Result<Bytes, JsonError> = store_messages(b"{");
    let refused =
        StreamState::create(StreamId(1), &path("a"), &Create::default(), None, invalid, NOW);
    assert_eq!(refused.unwrap_err().code(), "invalid-json");
    let closed = put(1, &Create { closed: true, ..Create::default() }, b"");
    assert_eq!(closed.closed, Some(Closure { by: None }));
}

#[test]
fn an_id_leaves_room_before_incarnations_start_again() {
    let last = INCARNATIONS - 1;
    for (id, room, expected) in [
        (0, 10, 0),
        (5, 10, 5),
        (last - 10, 10, last - 10),
        (last - 9, 10, INCARNATIONS),
        (last, 0, last),
        (last, 1, INCARNATIONS),
        (INCARNATIONS + 3, 10, INCARNATIONS + 3),
    ] {
        let found = StreamId(id).with_room(room);
        assert_eq!(found, StreamId(expected), "{id} with room for {room}");
        let after = StreamId(found.0 + room);
        assert!(after.incarnation() >= found.incarnation(), "they grow");
    }
}
