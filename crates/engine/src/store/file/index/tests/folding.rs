//! What a checkpoint folds in: states, bytes, counts.

use super::*;

/// A checkpoint writes the last chunk again while it has less than 16 KiB with its checksum, and writes no chunk of more than 64 KiB.
#[test]
fn bytes_are_kept_in_chunks_and_read_from_any_place() {
    const KIB: usize = 1024;
    let mut index = TestIndex::new();
    index.fold([(ONE, created("/a", bytes(0, 100))), (TWO, created("/b", bytes(7, 50)))]);
    let mut tail = 100;
    let mut append = |index: &mut TestIndex, lens: &[usize]| {
        let events: Vec<_> = lens
            .iter()
            .map(|len| {
                tail += *len as u64;
                (ONE, appended(bytes(tail - *len as u64, *len)))
            })
            .collect();
        index.fold(events);
        index.records("chunks", ONE)
    };
    assert_eq!(append(&mut index, &[10, 20]), [(0, 130)]);
    assert_eq!(append(&mut index, &[16 * KIB - 4 - 130 - 1]), [(0, 16_379)]);
    assert_eq!(append(&mut index, &[1]), [(0, 16_380)]);
    assert_eq!(append(&mut index, &[5]), [(0, 16_380), (16_380, 5)], "a chunk of 16 KiB stays");
    let third = 16_380 + 64 * KIB as u64;
    let expected = [(0, 16_380), (16_380, 64 * KIB), (third, 64 * KIB), (third + 65_536, 9)];
    assert_eq!(append(&mut index, &[128 * KIB - 5 + 9]), expected);
    let whole = [(0, 16_380), (16_380, 64 * KIB), (third, 64 * KIB), (third + 65_536, 64 * KIB)];
    assert_eq!(append(&mut index, &[1, 64 * KIB - 10]), whole);
    let all = bytes(0, tail as usize);
    let places =
        [0, 1, 99, 16_379, 16_380, 16_381, third - 1, third, third + 70_000, tail - 1, tail];
    for from in places {
        for to in places.into_iter().filter(|to| *to > from) {
            for max in [1, 100, 16_380, 64 * KIB, 64 * KIB + 1, usize::MAX] {
                let end = (to as usize).min((from as usize).saturating_add(max));
                assert!(
                    index.bytes(ONE, from, to, max) == all[from as usize..end],
                    "{from} {to} {max}"
                );
            }
        }
    }
    assert_eq!(index.bytes(TWO, 3, 50, 9), bytes(10, 9));
    assert_eq!(index.bytes(TWO, 50, 60, 9), b"");
    assert_eq!(index.bytes(StreamId(3), 0, 60, 9), b"");

    let reading = index.index.read().unwrap();
    let run = |most| reading.first_chunks(ONE, most).unwrap();
    let part = |end| Some(ChunkRun { start: 0, end, gap: false });
    let ends = [16_380, third, third + 65_536, tail];
    assert_eq!([0, 16_379].map(run), [part(ends[0]), part(ends[0])]);
    assert_eq!([16_380, third - 1].map(run), [part(ends[1]), part(ends[1])]);
    assert_eq!([third, tail, u64::MAX].map(run), [part(ends[2]), part(tail), part(tail)]);
    assert_eq!(reading.first_chunks(StreamId(3), 9).unwrap(), None);
    let pieces = |from, to, max| -> Vec<usize> {
        let pieces = reading.pieces(ONE, Offset::new(from), Offset::new(to), max).unwrap();
        let lens = pieces.iter().map(|piece| match piece {
            IndexPiece::Chunks(bytes) => bytes.len(),
            IndexPiece::Segment { .. } => panic!("no segment"),
        });
        lens.collect()
    };
    assert_eq!(pieces(5, 20, 100), [15]);
    assert_eq!(pieces(5, 20, 10), [10]);
    assert_eq!(pieces(tail, tail + 5, 10), [0; 0]);
    drop(reading);
    index.fold([(ONE, trimmed(third))]);
    index.index.purge_some(&|| Ok(()), 99).unwrap();
    let run = |most| index.index.read().unwrap().first_chunks(ONE, most).unwrap();
    let part = |end| Some(ChunkRun { start: third, end, gap: false });
    assert_eq!([65_535, 65_536].map(run), [part(third + 65_536), part(tail)]);
}

/// A gap is where nothing is known; reads end there.
#[test]
fn a_read_ends_at_a_gap() {
    let mut index = TestIndex::new();
    index.fold([(ONE, created("/a", bytes(0, 20_000)))]);
    index.fold([(ONE, appended(bytes(20_000, 20_000)))]);
    index.fold([(ONE, appended(bytes(40_000, 100)))]);
    assert_eq!(index.records("chunks", ONE), [(0, 20_000), (20_000, 20_000), (40_000, 100)]);
    let remove = |at| {
        let removed = index.index.write(&|| Ok(()), |index, txn| {
            Ok(index.chunks.delete(txn, &keys::chunk(ONE, Offset::new(at)))?)
        });
        assert!(removed.unwrap());
    };
    remove(20_000);
    assert_eq!(index.bytes(ONE, 19_990, 40_100, 99_999).len(), 10);
    assert_eq!(index.bytes(ONE, 20_000, 40_100, 99), b"");
    assert_eq!(index.bytes(ONE, 39_999, 40_100, 99), b"");
    assert_eq!(index.bytes(ONE, 40_000, 40_100, 99).len(), 99);
    let reading = index.index.read().unwrap();
    let run = reading.first_chunks(ONE, u64::MAX).unwrap();
    assert_eq!(run, Some(ChunkRun { start: 0, end: 20_000, gap: true }));
    assert_eq!(reading.first_chunks(ONE, 19_999).unwrap().map(|run| run.gap), Some(false));
}

#[test]
fn streams_bytes_and_what_is_retained_for_forks_are_counted() {
    let mut index = TestIndex::new();
    let totals = |index: &TestIndex| {
        let meta = index.index.read().unwrap().meta().unwrap();
        (meta.lsn, meta.streams, meta.bytes)
    };
    let folded = index.fold([(ONE, created("/a", bytes(0, 100))), (ONE, appended(bytes(100, 20)))]);
    assert_eq!((folded.freed, folded.retained), (0, RetainedTotals::default()));
    assert_eq!(totals(&index), (2, 1, 120));
    let source = index.state(ONE).unwrap();
    index.fold([
        (TWO, fork("/b", &source, 50, bytes(0, 7))),
        (StreamId(7), created("/c", bytes(0, 1))),
    ]);
    assert_eq!(totals(&index), (4, 3, 128));
    let next_id = index.index.read().unwrap().meta().unwrap().next_id;
    index.fold([(StreamId(next_id + 4), created("/d", Bytes::new()))]);
    assert_eq!(index.index.read().unwrap().meta().unwrap().next_id, next_id + 5);

    let folded = index.fold([(ONE, trimmed(30))]);
    assert_eq!((folded.freed, totals(&index)), (30, (6, 4, 98)));
    let folded = index.fold([(ONE, soft_deleted())]);
    assert_eq!(folded.retained, RetainedTotals { streams: 1, bytes: 90 });
    assert_eq!(index.index.retained().unwrap(), RetainedTotals { streams: 1, bytes: 90 });
    assert_eq!((folded.freed, totals(&index)), (0, (7, 4, 98)));
    assert_eq!(index.index.read().unwrap().forks(ONE).unwrap(), [TWO]);
    let folded = index.fold([(TWO, deleted()), (ONE, deleted())]);
    assert_eq!(folded.retained, RetainedTotals { streams: -1, bytes: -90 });
    assert_eq!((folded.freed, totals(&index)), (97, (9, 2, 1)));
    assert_eq!(index.index.retained().unwrap(), RetainedTotals::default());
    assert_eq!(index.index.read().unwrap().forks(ONE).unwrap(), []);
    assert_eq!((index.state(ONE), index.state(TWO)), (None, None));
    // It came and went between two checkpoints.
    let folded =
        index.fold([(StreamId(50), created("/e", bytes(0, 9))), (StreamId(50), deleted())]);
    assert_eq!((folded.freed, totals(&index)), (9, (11, 2, 1)));

    let mut retained = RetainedTotals { streams: 1, bytes: 5 };
    retained.add(RetainedTotals { streams: 2, bytes: -6 });
    assert_eq!(retained, RetainedTotals { streams: 3, bytes: 0 });
}

/// A checkpoint that is repeated, as after a crash, and one that is not to fold in all events.
#[test]
fn only_events_after_the_last_checkpoint_and_up_to_the_end_of_this_one_count() {
    let index = TestIndex::new();
    let change = |lsn, from, event| LoggedChange { lsn, from, event };
    let of = |changes| BTreeMap::from([(ONE, changes)]);
    let all = || {
        vec![
            change(5, 0, created("/a", bytes(0, 10))),
            change(6, 10, appended(bytes(10, 1))),
            change(8, 11, appended(bytes(11, 2))),
        ]
    };
    index.fold_changes(&of(all()), 6);
    assert_eq!(index.state(ONE).unwrap().tail, Offset::new(11));
    index.fold_changes(&of(all()), 9);
    assert_eq!(index.state(ONE).unwrap().tail, Offset::new(13));
    index.fold_changes(&of(all()), 7);
    assert_eq!(index.state(ONE).unwrap().tail, Offset::new(13));
    assert_eq!(index.index.read().unwrap().meta().unwrap().lsn, 9, "it never goes back");
    assert_eq!(index.bytes(ONE, 0, 13, 99), bytes(0, 13));
}

/// Another process has written, or the log has lost something: the stream stays as it was.
#[test]
fn events_that_do_not_begin_where_the_stream_ends_are_not_folded_in() {
    let mut index = TestIndex::new();
    index.fold([(ONE, created("/a", bytes(0, 10)))]);
    for (from, tail) in [(9, 10), (11, 10), (10, 12)] {
        index.lsn += 1;
        let changes = vec![LoggedChange { lsn: index.lsn, from, event: appended(bytes(10, 2)) }];
        index.fold_changes(&BTreeMap::from([(ONE, changes)]), index.lsn);
        assert_eq!(index.state(ONE).unwrap().tail, Offset::new(tail), "from {from}");
    }
}

#[test]
fn producers_are_counted_and_listed_in_order() {
    let mut index = TestIndex::new();
    index.fold([
        (ONE, created("/a", Bytes::new())),
        (ONE, produced(bytes(0, 1), "p", 0)),
        (TWO, created("/b", Bytes::new())),
        (TWO, produced(bytes(0, 1), "z", 9)),
    ]);
    index.fold([(ONE, produced(bytes(1, 1), "q", 5)), (ONE, produced(bytes(2, 1), "p", 1))]);
    index.fold([(ONE, produced(bytes(3, 1), "o", 2)), (ONE, produced(bytes(4, 1), "q", 6))]);
    let reading = index.index.read().unwrap();
    let known = |seq| ProducerState { epoch: 0, last_seq: seq };
    let id = |name: &str| ProducerId::new(name).unwrap();
    let counted = |stream| {
        let found = reading.state_and_producers(stream).unwrap();
        found.map(|(_, counted)| counted)
    };
    assert_eq!([ONE, TWO, StreamId(3)].map(counted), [Some(3), Some(1), None]);
    assert_eq!(reading.producer(ONE, &id("q")).unwrap(), Some(known(6)));
    assert_eq!(reading.producer(ONE, &id("z")).unwrap(), None);
    assert_eq!(["p", "z"].map(|name| reading.has_producer(ONE, &id(name)).unwrap()), [true, false]);
    let list = |after: Option<&str>, max| -> Vec<(String, u64)> {
        let found = reading.producers(ONE, after.map(id).as_ref(), max).unwrap();
        found.into_iter().map(|(id, known)| (id.as_str().to_owned(), known.last_seq)).collect()
    };
    let all = [("o".to_owned(), 2), ("p".to_owned(), 1), ("q".to_owned(), 6)];
    assert_eq!(list(None, 9), all);
    assert_eq!(list(None, 2), all[..2]);
    assert_eq!(list(Some("o"), 9), all[1..]);
    assert_eq!(list(Some("oo"), 1), all[1..2]);
    assert_eq!(list(Some("q"), 9), []);
}

/// A key that is not found may be one whose bits have changed: it is absent if its neighbours are whole.
#[test]
fn what_is_not_found_beside_damage_is_not_said_to_be_absent() {
    let mut index = TestIndex::new();
    index.fold(
        ["/b", "/d", "/f"]
            .map(|name| (StreamId(u64::from(name.as_bytes()[1])), created(name, Bytes::new()))),
    );
    index.fold([(ONE, created("/0", Bytes::new()))]);
    index.fold(["b", "d", "f"].map(|name| (ONE, produced(bytes(0, 1), name, 0))));
    let known = |name: &str| {
        let reading = index.index.read().unwrap();
        let producer = reading.producer(ONE, &ProducerId::new(name).unwrap());
        let found = reading.path_id(&path(&format!("/{name}")));
        (found.map(|id| id.is_some()).ok(), producer.map(|known| known.is_some()).ok())
    };
    let absent = (Some(false), Some(false));
    assert_eq!(["a", "c", "e", "g"].map(known), [absent; 4]);
    let damage = index.index.write(&|| Ok(()), |index, txn| {
        let name = [&[0; 8][..], b"/d"].concat();
        assert!(index.paths.get(txn, &name)?.is_some());
        index.paths.put(txn, &name, b"another value")?;
        let producer = keys::producer(ONE, &ProducerId::new("d").unwrap());
        Ok(index.producers.put(txn, &producer, b"another value")?)
    });
    damage.unwrap();
    assert_eq!(["a", "g"].map(known), [absent; 2]);
    assert_eq!(["c", "d", "e"].map(known), [(None, None); 3]);
    assert_eq!(["b", "f"].map(known), [(Some(true), Some(true)); 2]);
}

#[test]
fn streams_are_walked_in_the_order_of_ids_and_of_deadlines() {
    let mut index = TestIndex::new();
    index.fold([
        (StreamId(1), expiring("/a", 7000)),
        (StreamId(2), created("/b", Bytes::new())),
        (StreamId(3), expiring("/c", 5000)),
        (StreamId(4), expiring("/d", 7000)),
    ]);
    index.fold([(StreamId(5), expiring("/e", 6000)), (StreamId(5), deleted())]);
    let reading = index.index.read().unwrap();
    let states = |from, max| {
        let (states, next) = reading.states_from(from, max).unwrap();
        (states.iter().map(|state| state.core.id.0).collect::<Vec<_>>(), next)
    };
    assert_eq!(states(0, 9), (vec![1, 2, 3, 4], None));
    assert_eq!(states(0, 4), (vec![1, 2, 3, 4], None));
    assert_eq!(states(0, 3), (vec![1, 2, 3], Some(4)));
    assert_eq!(states(4, 3), (vec![4], None));
    let due = |now| {
        let mut due = Vec::new();
        reading
            .each_due(at(now), &mut |id| {
                due.push(id.0);
                Ok(due.len() < 2)
            })
            .unwrap();
        due
    };
    assert_eq!([4999, 5000, 6999].map(due), [vec![], vec![3], vec![3]]);
    assert_eq!(due(7000), [3, 1], "until the caller has enough");
    let from = |deadline, id, max| {
        let cursor = DeadlineCursor { deadline: at(deadline), id: StreamId(id) };
        let (ids, next) = reading.deadlines_from(cursor, max).unwrap();
        let next = next.map(|next| (next.deadline.millis(), next.id.0));
        (ids.iter().map(|id| id.0).collect::<Vec<_>>(), next)
    };
    assert_eq!(from(0, 0, 9), (vec![3, 1, 4], None));
    assert_eq!(from(0, 0, 1), (vec![3], Some((7000, 1))));
    assert_eq!(from(7000, 1, 1), (vec![1], Some((7000, 4))));
    assert_eq!(from(7000, 2, 1), (vec![4], None));
}

#[test]
fn a_deadline_follows_its_stream() {
    let mut index = TestIndex::new();
    index.fold([(ONE, expiring("/a", 5000)), (TWO, expiring("/b", 6000))]);
    let all = |index: &TestIndex| {
        let reading = index.index.read().unwrap();
        let (found, _) = reading.deadlines_from(DeadlineCursor::default(), 99).unwrap();
        found.iter().map(|id| id.0).collect::<Vec<_>>()
    };
    assert_eq!(all(&index), [1, 2]);
    let changed = |expiry| StreamEvent::ExpiryChanged { at: at(1), expiry };
    index.fold([(ONE, changed(Expiry::At(at(7000))))]);
    assert_eq!(all(&index), [2, 1]);
    index.fold([(TWO, changed(Expiry::Never))]);
    assert_eq!(all(&index), [1]);
    index.fold([(ONE, soft_deleted())]);
    assert_eq!(all(&index), [1], "at once");
    index.fold([(ONE, deleted())]);
    assert_eq!(all(&index), [0; 0]);
}

/// The stream is gone, and what was known of it; the others are untouched.
#[test]
fn a_stream_whose_state_is_damaged_can_be_deleted() {
    let mut index = TestIndex::new();
    index.fold([(ONE, created("/a", bytes(0, 70_000))), (TWO, expiring("/b", 5000))]);
    let source = index.state(ONE).unwrap();
    index.fold([(StreamId(3), fork("/c", &source, 5, bytes(0, 3)))]);
    // Another one, behind a link to node 1, with a deadline and a fork.
    let (other, long) = (StreamId(4), format!("/d{}", "x".repeat(600)));
    index.fold([(other, expiring(&long, 6000)), (other, appended(bytes(0, 10)))]);
    let kept = index.state(other).unwrap();
    index.fold([(StreamId(5), fork("/e", &kept, 5, Bytes::new()))]);
    let damage = |id| {
        let put = index.index.write(&|| Ok(()), |index, txn| {
            Ok(index.streams.put(txn, &keys::id(id), b"no state at all")?)
        });
        put.unwrap();
    };
    damage(ONE);
    damage(TWO);
    damage(StreamId(3));
    let folded = index.fold([(ONE, appended(bytes(70_000, 2)))]);
    assert_eq!(folded.freed, 0, "these events are lost");
    let folded = index.fold([(ONE, deleted()), (TWO, deleted()), (StreamId(3), deleted())]);
    assert_eq!(folded.freed, 70_003);
    let reading = index.index.read().unwrap();
    let meta = reading.meta().unwrap();
    assert_eq!((meta.streams, meta.bytes), (2, 10));
    for name in ["/a", "/b", "/c"] {
        assert_eq!(reading.path_id(&path(name)).unwrap(), None, "{name}");
    }
    assert_eq!(reading.forks(ONE).unwrap(), []);
    assert_eq!(reading.deadlines_from(DeadlineCursor::default(), 9).unwrap(), (vec![other], None));
    assert_eq!(reading.path_id(&path(&long)).unwrap(), Some(other));
    assert_eq!(reading.path_id(&path("/e")).unwrap(), Some(StreamId(5)));
    assert_eq!(reading.forks(other).unwrap(), [StreamId(5)]);
    drop(reading);
    assert!(index.index.purge_some(&|| Ok(()), 99).unwrap().any);
    // Two states, a link and two paths, a deadline, a fork, a chunk, and the meta record.
    assert_eq!(index.count(), 9);
}
