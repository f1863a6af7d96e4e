//! Which streams keep their bytes in memory when there is no room for all, or no reader asks for them.

use super::*;
use crate::store::file::memtable::shard::CACHED_COST;

/// Streams of the first shard.
fn streams(count: u64) -> impl Iterator<Item = u64> {
    (1..=count).map(|n| n * SHARDS as u64)
}

/// One append of each in the memtable, and in the index.
fn indexed(memtable: &Memtable, streams: impl Iterator<Item = u64>, bytes: usize) {
    for id in streams {
        publish(memtable, [(id, appended(&vec![b'x'; bytes]))]);
        checkpoint(memtable);
    }
}

fn cached(memtable: &Memtable, count: u64) -> Vec<u64> {
    let all = streams(count);
    all.filter(|id| memtable.has(StreamId(*id))).map(|id| id / SHARDS as u64).collect()
}

fn read(memtable: &Memtable, stream: u64) {
    let id = StreamId(stream * SHARDS as u64);
    memtable.read(id, Offset::ZERO, Offset::new(100), 100).unwrap();
}

#[test]
fn as_many_streams_stay_as_there_is_room_for_and_those_that_were_read_longest() {
    // Four streams of 100 bytes fit, to the byte.
    let room = SHARDS * 4 * (CACHED_COST + 100);
    let memtable = Memtable::new(0, 1, 0, 0, room);
    indexed(&memtable, streams(4), 100);
    assert_eq!(cached(&memtable, 4), [1, 2, 3, 4]);
    read(&memtable, 1);
    read(&memtable, 3);
    indexed(&memtable, streams(5).skip(4), 100);
    assert_eq!(cached(&memtable, 5), [1, 3, 4, 5], "the second was not read");
    indexed(&memtable, streams(6).skip(5), 100);
    assert_eq!(cached(&memtable, 6), [1, 3, 5, 6], "nor the fourth, and the third was");
    indexed(&memtable, streams(7).skip(6), 100);
    assert_eq!(cached(&memtable, 7), [1, 3, 6, 7], "nor the fifth");

    let memtable = Memtable::new(0, 1, 0, 0, room - SHARDS);
    indexed(&memtable, streams(4), 100);
    assert_eq!(cached(&memtable, 4), [2, 3, 4], "one byte too few");
}

/// What the memtable loads from the index counts as what it has checkpointed.
#[test]
fn loaded_streams_take_the_room_of_others() {
    let memtable = Memtable::new(0, 1, 0, 0, SHARDS * 3 * (CACHED_COST + 100));
    for id in streams(5) {
        let event = created(&format!("/{id}"), &[b'x'; 100]);
        let state = StreamState::fold(None, StreamId(id), &event).unwrap();
        let bytes = Bytes::from(vec![b'x'; 100]);
        memtable.cache_indexed(memtable.begin_read(), &state, bytes, &[100]).unwrap();
        let clean = memtable.shard(StreamId(id)).lock().clean;
        assert_eq!(clean, 100 * cached(&memtable, 5).len());
    }
    assert_eq!(cached(&memtable, 5), [3, 4, 5]);
    // They are in the ring once each: an append does not put them there again.
    indexed(&memtable, streams(5).skip(2), 0);
    assert_eq!(memtable.shard(StreamId(0)).lock().ring_len(), 3);
    assert_eq!(cached(&memtable, 5), [3, 4, 5]);
}

/// Its own bytes are more than their share.
#[test]
fn one_large_stream_makes_many_others_go_although_all_were_read() {
    let room = 10 * (CACHED_COST + 100);
    let memtable = Memtable::new(0, 1, 0, 0, SHARDS * room);
    indexed(&memtable, streams(10), 100);
    (1..=10).for_each(|stream| read(&memtable, stream));
    let large = vec![b'x'; room - 2 * CACHED_COST - 100];
    publish(&memtable, [(11 * SHARDS as u64, appended(&large))]);
    read(&memtable, 11);
    checkpoint(&memtable);
    assert_eq!(cached(&memtable, 11), [10, 11]);
    indexed(&memtable, streams(12).skip(11), room + 1);
    assert_eq!(cached(&memtable, 12).len(), 0, "it has no room alone");
}

/// The rounds that went by before do not count.
#[test]
fn a_stream_that_is_loaded_late_stays_for_two_rounds_as_well() {
    let memtable = Memtable::new(0, 1, 0, 0, 1 << 30);
    (0..5).for_each(|_| memtable.release_idle());
    let id = StreamId(SHARDS as u64);
    let state = StreamState::fold(None, id, &created("/a", b"abc")).unwrap();
    memtable.cache_indexed(memtable.begin_read(), &state, "abc".into(), &[3]).unwrap();
    assert_eq!(memtable.shard(id).lock().clean, 3, "one append needs no list of ends");
    memtable.release_idle();
    assert_eq!(cached(&memtable, 1), [1]);
    memtable.release_idle();
    assert!(cached(&memtable, 1).is_empty());
}

/// A burst of streams leaves no table behind that only it has filled.
#[test]
fn tables_shrink_when_their_streams_are_gone() {
    let memtable = Memtable::new(0, 1, 0, 0, 0);
    publish(&memtable, streams(5000).map(|id| (id, appended(b"x"))));
    let capacity = || memtable.shard(StreamId(0)).lock().entries.capacity();
    assert!(capacity() >= 5000);
    checkpoint(&memtable);
    assert!(capacity() < 500, "room for {} streams", capacity());
}

/// Events that the index does not have are never evicted for room; the rest of their stream's bytes are.
#[test]
fn what_is_not_in_the_index_stays_without_room() {
    let memtable = Memtable::new(0, 1, 0, 0, 0);
    publish(&memtable, [(64, appended(b"abc"))]);
    let sealed = memtable.seal();
    publish(&memtable, [(64, appended(b"de"))]);
    memtable.evict_folded(&sealed.dirty, &[], sealed.lsn, 0);
    let read = |from| memtable.read(StreamId(64), Offset::new(from), Offset::new(5), 9);
    assert_eq!((read(0), read(3).map(|pieces| pieces.concat())), (None, Some(b"de".to_vec())));
    assert!(memtable.has_pending(StreamId(64)));
    checkpoint(&memtable);
    assert!(!memtable.has(StreamId(64)));
}

#[test]
fn a_stream_that_is_not_read_for_two_rounds_goes_however_many_there_are() {
    for count in [1, STREAMS_PER_LOCK as u64 - 1, STREAMS_PER_LOCK as u64 + 1] {
        let memtable = Memtable::new(0, 1, 0, 0, 1 << 30);
        publish(&memtable, streams(count).map(|id| (id, appended(&[b'x'; 100]))));
        checkpoint(&memtable);
        memtable.release_idle();
        assert_eq!(cached(&memtable, count).len() as u64, count, "in its first round");
        read(&memtable, count);
        memtable.release_idle();
        assert_eq!(cached(&memtable, count), [count], "read in the round before");
        memtable.release_idle();
        assert!(cached(&memtable, count).is_empty());
        assert_eq!(memtable.shard(StreamId(0)).lock().ring_len(), 0);
    }
}

/// Streams that come and go leave their places in the ring behind, until these outnumber the streams.
#[test]
fn the_ring_forgets_streams_that_are_gone() {
    let memtable = Memtable::new(0, 1, 0, 0, 1 << 30);
    for n in 1..=60 {
        let id = n * SHARDS as u64;
        publish(&memtable, [(id, created(&format!("/{n}"), b"abc"))]);
        checkpoint(&memtable);
        publish(&memtable, [(id, deleted())]);
        checkpoint(&memtable);
        let shard = memtable.shard(StreamId(id)).lock();
        assert!(shard.ring_len() <= 16, "{} places for no stream", shard.ring_len());
        assert_eq!(shard.ring_len() as u64, n % 17, "after {n}");
    }
}
