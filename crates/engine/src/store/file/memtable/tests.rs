use durable_streams_protocol::{Appended, Timestamp};

use super::*;

fn append(memtable: &Memtable, streams: u64, bytes: usize) {
    let events = (1..=streams).map(|id| {
        let tail =
            memtable.shard(StreamId(id)).lock().entries.get(&StreamId(id)).map(|e| e.tail.end());
        let place = EventPlace { events: 0, position: tail.unwrap_or_default() };
        let appended = Appended {
            at: Timestamp::default(),
            data: vec![b'x'; bytes].into(),
            terminators: 0,
            producer: None,
            stream_seq: None,
            close: false,
        };
        (StreamId(id), place, StreamEvent::Appended(appended))
    });
    memtable.publish(memtable.lsn() + 1, events);
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
