//! Reads of the memtable, alone and on top of an index that a checkpoint is about to change.

use super::*;

fn id(id: &str) -> ProducerId {
    ProducerId::new(id).unwrap()
}

/// The state after the first `events`.
fn state_of(events: &[StreamEvent]) -> StreamState {
    let fold = |state, event| StreamState::fold(state, StreamId(1), event);
    events.iter().fold(None, fold).unwrap()
}

/// A state that the index has goes on with the events behind it, wherever it ends.
#[test]
fn a_state_of_the_index_and_the_events_after_it_are_the_whole_stream() {
    let events = [created("/a", b"abc"), appended(b"de"), appended(b"f"), appended(b"ghij")];
    let memtable = Memtable::new(10, 1, 0, 0, 0);
    publish(&memtable, events.iter().map(|event| (1, event.clone())));
    let guard = memtable.begin_read();
    for folded in 0..=events.len() {
        let base = (folded > 0).then(|| state_of(&events[..folded]));
        let found = memtable.fold(guard, StreamId(1), 10 + folded as u64, base).unwrap();
        assert_eq!(found, Some(state_of(&events)), "the index has {folded}");
    }
    let other = state_of(&events[..1]);
    let found = memtable.fold(guard, StreamId(2), 0, Some(other.clone())).unwrap();
    assert_eq!(found, Some(other), "nothing is here of another stream");
    publish(&memtable, [(1, deleted())]);
    assert_eq!(memtable.fold(guard, StreamId(1), 10, None).unwrap(), None);
}

/// The seqlock's counter is odd while a checkpoint evicts. What began before or during it may have missed events.
#[test]
fn a_read_is_stale_once_events_were_evicted_that_its_snapshot_may_lack() {
    let memtable = Memtable::new(0, 1, 0, 0, 0);
    let evicts = || {
        memtable.evictions.fetch_add(1, Ordering::Relaxed);
    };
    let before = memtable.begin_read();
    assert!(before.is_stable() && memtable.validate(before).is_ok());
    evicts();
    let during = memtable.begin_read();
    assert!(!during.is_stable());
    assert!(memtable.validate(before).is_err(), "the eviction began after it");
    assert!(memtable.validate(during).is_ok(), "the index had them already when it began");
    evicts();
    let after = memtable.begin_read();
    assert!(after.is_stable() && memtable.validate(after).is_ok());
    assert!(memtable.validate(during).is_ok());
    evicts();
    assert!(memtable.validate(during).is_err() && memtable.validate(after).is_err());
    assert!(memtable.fold(after, StreamId(1), 0, None).is_err());
    let state = state_of(&[created("/a", b"abc")]);
    assert!(memtable.cache_indexed(after, &state, "abc".into(), &[3]).is_err());
}

#[test]
fn what_the_index_has_is_cached_unless_newer_bytes_are_here() {
    let memtable = Memtable::new(0, 1, 0, 0, 1 << 30);
    let state = state_of(&[created("/a", b"abc"), appended(b"de")]);
    let cached = |to| {
        let read = memtable.read(StreamId(1), Offset::ZERO, Offset::new(to), 99);
        read.map(|pieces| pieces.concat())
    };
    assert_eq!((memtable.has(StreamId(1)), cached(5)), (false, None));
    memtable.cache_indexed(memtable.begin_read(), &state, "abcde".into(), &[3, 2]).unwrap();
    assert_eq!((memtable.has(StreamId(1)), cached(5)), (true, Some(b"abcde".to_vec())));
    assert!(!memtable.has_pending(StreamId(1)) && !memtable.begins_here(StreamId(1)));
    let end = |limit| {
        let (from, to) = (Offset::ZERO, Offset::new(5));
        memtable.append_end(StreamId(1), from, to, Offset::new(limit))
    };
    assert_eq!([1, 3, 4].map(end), [3, 3, 3].map(|end| Some(Offset::new(end))));
    publish(&memtable, [(1, appended(b"f"))]);
    memtable.cache_indexed(memtable.begin_read(), &state, "XXXXX".into(), &[5]).unwrap();
    assert_eq!(cached(6), Some(b"abcdef".to_vec()));
    assert!(memtable.has_pending(StreamId(1)) && !memtable.begins_here(StreamId(1)));
    publish(&memtable, [(2, created("/b", b"")), (2, appended(b"1"))]);
    assert!(memtable.begins_here(StreamId(2)));
}

/// Where a fork begins, or what was trimmed.
#[test]
fn one_append_that_begins_late_takes_its_bytes_only() {
    let memtable = Memtable::new(0, 1, 0, 0, 1 << 30);
    let place = ForkPoint {
        source: StreamId(9),
        source_path: StreamPath::new("/s").unwrap(),
        position: Offset::new(1000),
        requested: None,
        sub_offset: 0,
        ancestors: vec![(StreamId(9), Offset::new(1000))],
    };
    let fork = Created { fork: Some(place), ..creation("/f", b"abc") };
    let state = state_of(&[StreamEvent::Created(Box::new(fork))]);
    memtable.cache_indexed(memtable.begin_read(), &state, "abc".into(), &[3]).unwrap();
    assert_eq!(memtable.shard(StreamId(1)).lock().clean, 3);
    let end = memtable.append_end(StreamId(1), Offset::new(1000), state.tail, Offset::new(1001));
    assert_eq!(end, Some(Offset::new(1003)));
}

#[test]
fn producers_have_the_newest_state_of_the_events_that_are_here() {
    let memtable = Memtable::new(0, 1, 0, 0, 1 << 30);
    let state = |seq| Some(ProducerState { epoch: 0, last_seq: seq });
    let found = |name| memtable.producer(StreamId(1), &id(name));
    let following = |after: Option<&str>| {
        let mut found = memtable.producers(StreamId(1), after.map(id).as_ref());
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        found.into_iter().map(|(id, state)| (id.as_str().to_owned(), state)).collect::<Vec<_>>()
    };
    assert_eq!((found("p"), following(None)), (None, vec![]));
    publish(&memtable, [(1, created("/a", b""))]);
    publish(&memtable, [(1, produced(b"x", "p", 0)), (1, produced(b"x", "q", 0))]);
    publish(&memtable, [(1, produced(b"x", "p", 1)), (1, appended(b"x"))]);
    assert_eq!((found("p"), found("q"), found("r")), (state(1), state(0), None));
    // The table exists now; events are added to it, and forgotten with their checkpoint.
    let sealed = memtable.seal();
    publish(&memtable, [(1, produced(b"x", "q", 1)), (1, produced(b"x", "s", 7))]);
    assert_eq!((found("p"), found("q"), found("s")), (state(1), state(1), state(7)));
    let names = |some: &[(String, ProducerState)]| {
        some.iter().map(|(name, _)| name.clone()).collect::<String>()
    };
    assert_eq!(names(&following(None)), "pqs");
    assert_eq!(names(&following(Some("o"))), "pqs");
    assert_eq!(names(&following(Some("p"))), "qs");
    assert_eq!(names(&following(Some("s"))), "");
    memtable.evict_folded(&sealed.dirty, &[], sealed.lsn, 0);
    assert_eq!((found("p"), found("q"), found("s")), (None, state(1), state(7)));
    checkpoint(&memtable);
    assert_eq!((found("q"), following(None)), (None, vec![]));
    publish(&memtable, [(1, produced(b"x", "s", 8))]);
    assert_eq!(following(None), [("s".to_owned(), state(8).unwrap())]);
}
