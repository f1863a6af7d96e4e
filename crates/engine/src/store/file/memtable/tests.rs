use durable_streams_protocol::{
    Appended, ContentType, Created, Expiry, ForkPoint, Offset, Producer, ProducerId, ProducerState,
    StreamPath, StreamState, Timestamp, Trimmed,
};

use super::*;
use crate::test_events;

mod clock;
mod reads;
mod unindexed_names;

const ONE: StreamId = StreamId(1);

fn appended(data: &[u8]) -> StreamEvent {
    StreamEvent::Appended(Appended {
        at: Timestamp::default(),
        data: Bytes::copy_from_slice(data),
        terminators: 0,
        producer: None,
        stream_seq: None,
        close: false,
    })
}

fn produced(data: &[u8], producer: &str, seq: u64) -> StreamEvent {
    let StreamEvent::Appended(mut event) = appended(data) else { unreachable!() };
    event.producer = Some(Producer { id: ProducerId::new(producer).unwrap(), epoch: 0, seq });
    StreamEvent::Appended(event)
}

fn creation(path: &str, data: &[u8]) -> Created {
    let path = StreamPath::new(path).unwrap();
    test_events::creation(Timestamp::from_millis(1000), path, Bytes::copy_from_slice(data))
}

fn created(path: &str, data: &[u8]) -> StreamEvent {
    StreamEvent::Created(Box::new(creation(path, data)))
}

const fn deleted() -> StreamEvent {
    StreamEvent::Deleted { at: Timestamp::from_millis(2000) }
}

/// Publishes events as one batch, each where its stream ends.
fn publish(memtable: &Memtable, events: impl IntoIterator<Item = (u64, StreamEvent)>) {
    let events = events.into_iter().map(|(id, event)| {
        let id = StreamId(id);
        let tail = memtable.shard(id).lock().entries.get(&id).map(|entry| entry.tail.end());
        (id, EventPlace { events: 0, position: tail.unwrap_or_default() }, event)
    });
    memtable.publish(memtable.lsn() + 1, events);
}

fn append(memtable: &Memtable, streams: u64, bytes: usize) {
    publish(memtable, (1..=streams).map(|id| (id, appended(&vec![b'x'; bytes]))));
}

/// A checkpoint that has folded in everything.
fn checkpoint(memtable: &Memtable) {
    let sealed = memtable.seal();
    memtable.evict_folded(&sealed.dirty, &[], sealed.lsn, 0);
}

#[test]
fn a_checkpoint_waits_for_a_quarter_and_for_more_when_many_streams_changed() {
    const MOST: usize = 1 << 20;
    let few = Memtable::new(0, 1, 0, 0, 0);
    append(&few, 2, MOST / 8);
    assert!(!few.is_due(MOST));
    append(&few, 2, BYTES_PER_STATE);
    assert!(few.is_due(MOST));
    let sealed = few.seal();
    few.evict_folded(&sealed.dirty, &[], sealed.lsn, 0);
    assert!(!few.is_due(MOST));

    let many = Memtable::new(0, 1, 0, 0, 0);
    append(&many, 128, MOST / 256);
    assert!(!many.is_due(MOST), "half of it, in 128 streams");
    append(&many, 128, MOST / 256);
    assert!(many.is_due(MOST), "all of it");
    // The streams of a failed checkpoint are dirty again.
    let sealed = many.seal();
    many.reopen(sealed.dirty);
    assert_eq!(many.dirty.load(Ordering::Relaxed), 128);
}

#[test]
fn a_json_stream_keeps_no_ends_of_appends() {
    let memtable = Memtable::new(0, 1, 0, 0, 1 << 30);
    let clean = |memtable: &Memtable, id| memtable.shard(StreamId(id)).lock().clean;
    for _ in 0..3 {
        (0..10).for_each(|_| append(&memtable, 2, 5));
        let sealed = memtable.seal();
        // Nothing but the checkpoint has seen the state of either stream.
        memtable.evict_folded(&sealed.dirty, &[StreamId(2)], sealed.lsn, 0);
    }
    assert_eq!(clean(&memtable, 2), 3 * 10 * 5);
    assert!(clean(&memtable, 1) > 3 * 10 * 5);
}

/// The index may be the first to know that a stream is one, and a reader may.
#[test]
fn ends_of_appends_are_forgotten_when_a_stream_turns_out_to_be_json() {
    let json = ContentType::parse("application/json").unwrap();
    let created =
        StreamEvent::Created(Box::new(Created { content_type: json, ..creation("/a", b"") }));
    let state = StreamState::fold(None, StreamId(1), &created);
    for by_reader in [false, true] {
        let memtable = Memtable::new(0, 1, 0, 0, 1 << 30);
        let clean = || memtable.shard(StreamId(1)).lock().clean;
        for _ in 0..2 {
            append(&memtable, 1, 5);
            checkpoint(&memtable);
        }
        assert!(clean() > 10);
        if by_reader {
            let guard = memtable.begin_read();
            let found = memtable.fold(guard, StreamId(1), memtable.lsn(), state.clone()).unwrap();
            assert_eq!((found, clean()), (state.clone(), 10));
        } else {
            append(&memtable, 1, 5);
            let sealed = memtable.seal();
            memtable.evict_folded(&sealed.dirty, &[StreamId(1)], sealed.lsn, 0);
            assert_eq!(clean(), 15);
        }
    }
}

/// The index has what came before.
#[test]
fn a_stream_goes_on_where_its_first_event_here_says() {
    for more in [false, true] {
        let memtable = Memtable::new(0, 1, 0, 0, 1 << 30);
        let event = |position, data| (ONE, EventPlace { events: 3, position }, appended(data));
        let events = [event(100, b"abc"), event(103, b"d")];
        memtable.publish(1, events.into_iter().take(1 + usize::from(more)));
        let froms: Vec<_> = memtable.events(ONE, 1).iter().map(|event| event.from).collect();
        assert_eq!(froms, [100]);
        let read = |from| {
            let read = memtable.read(ONE, Offset::new(from), Offset::new(103), 9);
            read.map(|pieces| pieces.concat())
        };
        assert_eq!((read(99), read(100)), (None, Some(b"abc".to_vec())));
        checkpoint(&memtable);
        assert_eq!((read(99), read(101)), (None, Some(b"bc".to_vec())));
        let clean = memtable.shard(ONE).lock().clean;
        assert!(if more { clean > 4 } else { clean == 3 }, "{clean} bytes");
    }
}

#[test]
fn what_clean_bytes_take_is_counted_through_evictions() {
    // Room for some of the streams of each shard.
    let memtable = Memtable::new(0, 1, 0, 0, SHARDS * 4000);
    let check = |at_most: usize| {
        let mut all = 0;
        for shard in &memtable.shards {
            let shard = shard.lock();
            let clean: usize = shard.entries.values().map(|entry| entry.tail.clean_len()).sum();
            assert_eq!(shard.clean, clean);
            all += clean;
        }
        assert!(all <= at_most && (all > 0 || at_most == 0), "{all} of {at_most}");
    };
    for _ in 0..5 {
        append(&memtable, 20 * SHARDS as u64, 500);
        let sealed = memtable.seal();
        assert_eq!(memtable.dirty(), 0, "since the seal");
        memtable.evict_folded(&sealed.dirty, &[], sealed.lsn, 0);
        check(SHARDS * 4000);
    }
    // No reader asks for these streams any more.
    for _ in 0..100 {
        memtable.release_idle();
    }
    check(0);
}

#[test]
fn ids_are_given_once_and_follow_those_that_the_log_has() {
    let memtable = Memtable::new(0, 5, 0, 0, 0);
    assert_eq!([memtable.next_id(), memtable.next_id()], [StreamId(5), StreamId(6)]);
    publish(&memtable, [(40, created("/a", b""))]);
    publish(&memtable, [(9, created("/b", b""))]);
    assert_eq!(memtable.next_id(), StreamId(41));
    assert_eq!(Memtable::new(0, 0, 0, 0, 0).next_id(), StreamId(1));
    let incarnations = u64::MAX / 2 - (u64::MAX / 2) % Offset::MAX.position();
    for used in [0, 1, 98, 99, 100] {
        let next = incarnations + Offset::MAX.position() - used;
        let memtable = Memtable::new(0, next, 0, 0, 0);
        memtable.reserve_incarnations(99);
        assert_eq!(memtable.next_id(), StreamId(next).with_room(99), "{used} before the end");
    }
}

#[test]
fn the_streams_and_their_bytes_are_counted() {
    let memtable = Memtable::new(0, 1, 7, 100, 0);
    assert_eq!(memtable.totals(), (7, 100));
    publish(
        &memtable,
        [(1, created("/a", b"abc")), (2, created("/b", b"")), (1, appended(b"12345"))],
    );
    assert_eq!(memtable.totals(), (9, 108));
    publish(&memtable, [(1, deleted())]);
    assert_eq!(memtable.totals(), (8, 108), "its bytes go with the checkpoint");
    let sealed = memtable.seal();
    memtable.evict_folded(&sealed.dirty, &[], sealed.lsn, 8);
    assert_eq!(memtable.totals(), (8, 100));
}

#[test]
fn a_checkpoint_is_due_for_one_byte_more_than_it_is_worth() {
    const MOST: usize = 1 << 20;
    let few = Memtable::new(0, 1, 0, 0, 0);
    let worth = MOST / 4 + BYTES_PER_STATE;
    append(&few, 1, worth - EVENT_COST);
    assert_eq!((few.pending(), few.dirty()), (worth, 1));
    assert!(!few.is_due(MOST));
    publish(&few, [(1, StreamEvent::Touched { at: Timestamp::default() })]);
    assert_eq!((few.pending(), few.dirty()), (worth + EVENT_COST, 1));
    assert!(few.is_due(MOST));

    let new = Memtable::new(0, 1, 0, 0, 0);
    publish(&new, (1..=3).map(|id| (id, created(&format!("/{id}"), b"12"))));
    assert_eq!((new.pending(), new.dirty()), (3 * (CREATED_COST + 2), 3));
    checkpoint(&new);
    assert_eq!((new.pending(), new.dirty()), (0, 0));
}

/// In a failed checkpoint, in the next one that works, and after it.
#[test]
fn a_stream_is_folded_in_once_for_all_its_events_since_the_last_checkpoint() {
    let memtable = Memtable::new(20, 1, 0, 0, 0);
    publish(&memtable, [(3, appended(b"a")), (1, appended(b"b")), (3, appended(b"cd"))]);
    assert_eq!((memtable.lsn(), memtable.dirty()), (23, 2));
    let failed = memtable.seal();
    assert_eq!((failed.lsn, &failed.dirty[..]), (23, &[StreamId(1), StreamId(3)][..]));
    publish(&memtable, [(3, appended(b"e"))]);
    assert_eq!(memtable.dirty(), 1);
    memtable.reopen(failed.dirty);
    let sealed = memtable.seal();
    assert_eq!((sealed.lsn, &sealed.dirty[..]), (24, &[StreamId(1), StreamId(3)][..]));
    publish(&memtable, [(3, appended(b"f"))]);
    let events = |id, upto| -> Vec<_> {
        let events = memtable.events(StreamId(id), upto).into_iter();
        events.map(|one| (one.lsn, one.from, one.event.data().unwrap().to_vec())).collect()
    };
    let of_third = [(21, 0, b"a".to_vec()), (23, 1, b"cd".to_vec()), (24, 3, b"e".to_vec())];
    assert_eq!(events(3, 24), of_third);
    assert_eq!(events(3, 23), of_third[..2]);
    assert_eq!(events(3, 20), []);
    assert_eq!(events(2, 24), []);
    memtable.evict_folded(&sealed.dirty, &[], sealed.lsn, 0);
    assert_eq!(events(3, 25), [(25, 4, b"f".to_vec())]);
    assert_eq!(memtable.pending(), EVENT_COST + 1);
    let next = memtable.seal();
    assert_eq!((next.lsn, &next.dirty[..]), (25, &[StreamId(3)][..]));
    let none = memtable.seal();
    assert_eq!((none.lsn, none.dirty), (25, Vec::new()));
}

/// However many they are: they are evicted in steps, between which readers get the lock.
#[test]
fn a_checkpoint_evicts_every_event_of_a_stream_with_many() {
    for count in [1, EVENTS_PER_LOCK - 1, EVENTS_PER_LOCK, EVENTS_PER_LOCK + 1, 3 * EVENTS_PER_LOCK]
    {
        let memtable = Memtable::new(0, 1, 0, 0, 1 << 30);
        publish(&memtable, (0..count).map(|_| (1, appended(b"x"))));
        assert!(memtable.has_pending(StreamId(1)));
        checkpoint(&memtable);
        assert!(!memtable.has_pending(StreamId(1)), "{count} events");
        assert_eq!(memtable.pending(), 0, "{count} events");
        let tail = Offset::new(count as u64);
        let read = memtable.read(StreamId(1), Offset::ZERO, tail, usize::MAX).unwrap();
        assert_eq!(read.concat(), vec![b'x'; count]);
    }
}

#[test]
fn a_deleted_stream_takes_no_room_and_gives_no_bytes() {
    let memtable = Memtable::new(0, 1, 0, 0, 1 << 30);
    publish(&memtable, [(1, created("/a", b"abc"))]);
    checkpoint(&memtable);
    publish(&memtable, [(1, appended(b"d")), (1, deleted())]);
    assert_eq!(memtable.shard(StreamId(1)).lock().clean, 0);
    let read = memtable.read(StreamId(1), Offset::ZERO, Offset::new(4), 9);
    assert_eq!(read, None);
    assert!(memtable.has(StreamId(1)), "its deletion is to be folded in");
    checkpoint(&memtable);
    assert!(!memtable.has(StreamId(1)));
}
