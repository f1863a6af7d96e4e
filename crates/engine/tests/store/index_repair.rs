//! Repairing an index with one flipped bit: what is lost is said, the rest is whole, and nothing is damaged afterwards.
//!
//! `STORE_REPAIR_SEEDS=1000` repairs that many.

use std::{fs, path::Path};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, LoadFor, Store, StoreError,
    file::offline::{self, IndexDamage, LostPart, LostRecords},
};
use durable_streams_engine::{Clock, Engine, EngineLimits, StreamView};
use durable_streams_protocol::{Append, ContentType, Created, Decision, Offset};

use crate::{
    harness::*,
    index_damage::{name, payload, records, write},
    workload::Rng,
};

fn repair(dir: &Path, apply: bool) -> Result<Option<IndexDamage>, StoreError> {
    offline::repair_index(&options(dir), apply, &mut |_| {})
}

/// Changes one byte wherever `text` is in the index, current or left over.
pub(crate) fn damage(dir: &Path, text: &[u8]) {
    let index = dir.join("store/data.mdb");
    let mut bytes = fs::read(&index).unwrap();
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, text).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    fs::write(&index, &bytes).unwrap();
}

/// What a client reads, page by page, from `from` on.
pub(crate) fn read_from(engine: &Engine, view: &StreamView, from: u64, page: usize) -> Vec<u8> {
    let (mut at, mut all) = (Offset::new(from), Vec::new());
    while at < view.tail.offset {
        let slice = wait(engine.read(&view.core, at, view.tail.offset, page)).unwrap();
        assert!(slice.end > at, "{} does not go on", slice.end);
        slice.chunks.iter().for_each(|chunk| all.extend_from_slice(chunk));
        at = slice.end;
    }
    all
}

pub(crate) fn lost_bytes(found: &IndexDamage) -> (u64, u64) {
    let [LostRecords { part: LostPart::Bytes { from, to }, .. }] = found.lost[..] else {
        panic!("{found:?}")
    };
    (from, to)
}

/// Writes a stream, damages it where `damaged` is, and repairs it. Returns the lost range.
fn repaired(dir: &Path, kind: &str, pieces: &[Vec<u8>], damaged: &[u8]) -> (u64, u64) {
    let store = file(dir);
    let content_type = ContentType::parse(kind).unwrap();
    let id = create(&store, Created { content_type, ..created("s", "") });
    pieces.iter().for_each(|piece| append(&store, id, piece));
    create(&store, created("other", "other"));
    wait(store.close());
    drop(store);
    damage(dir, damaged);
    let before = fs::read(dir.join("store/data.mdb")).unwrap();
    let found = repair(dir, false).unwrap().unwrap();
    assert_eq!(fs::read(dir.join("store/data.mdb")).unwrap(), before, "nothing is changed yet");
    assert_eq!(found.lost[0].path.as_deref(), Some("s"));
    assert_eq!(repair(dir, true).unwrap().as_ref(), Some(&found));
    assert_eq!(repair(dir, true).unwrap(), None, "nothing is left to do");
    let report = offline::verify(&options(dir), &mut |_| {}).unwrap();
    assert_eq!(report.count, 0, "{:?}", report.problems);
    lost_bytes(&found)
}

/// Everything but the lost range is read, wherever a reader begins, and appends go on.
pub(crate) fn check_readers(dir: &Path, all: &[u8], (from, to): (u64, u64), unit: u64) {
    let engine = Engine::new(file(dir), Clock::System, EngineLimits::default());
    let rest = [&all[..from as usize], &all[to as usize..], b"more\x1e"].concat();
    let append = Append::default();
    let view = wait(engine.open(&path("s"))).unwrap();
    let append = Append { content_type: Some(Ok(view.core.content_type.clone())), ..append };
    wait(engine.append(&path("s"), &append, Bytes::from_static(b"\"more\"")))
        .map(drop)
        .unwrap_or(());
    let view = wait(engine.open(&path("s"))).unwrap();
    let added = view.tail.offset.position() as usize - all.len();
    let rest = &rest[..rest.len() - 5];
    for page in [100, 5000, 70_000, usize::MAX] {
        let found = read_from(&engine, &view, 0, page);
        assert!(found[..rest.len()] == *rest, "pages of {page}");
        assert_eq!(found.len() - rest.len(), added);
        for at in [from, from + unit, to - unit, to] {
            let found = read_from(&engine, &view, at, page);
            assert!(found[..found.len() - added] == all[to as usize..], "from {at}");
            wait(engine.check_offset(&view.core, Offset::new(at), view.tail.offset)).unwrap();
        }
    }
    wait(engine.close());
}

#[test]
fn readers_of_messages_go_on_behind_a_dropped_range() {
    let dir = tempdir();
    let message = |n: u64| format!("{{\"message\":{n:0500}}}\x1e").into_bytes();
    let pieces: Vec<Vec<u8>> = (0..400).map(message).collect();
    let len = pieces[0].len() as u64;
    for damaged in [200, 0, 399] {
        let dir = dir.path().join(damaged.to_string());
        let text = &pieces[damaged as usize][..len as usize - 1];
        let (from, to) = repaired(&dir, "application/json", &pieces, text);
        assert!(from % len == 0 && to % len == 0, "whole messages: {from} {to}");
        assert!((from..to).contains(&(damaged * len)), "{from} {to}");
        assert!(to - from < 66_000 + 2 * len, "one chunk, and the messages on its borders");
        check_readers(&dir, &pieces.concat(), (from, to), len);
    }
}

#[test]
fn readers_of_bytes_go_on_behind_a_dropped_range() {
    let dir = tempdir();
    let piece = |n: u8, len| vec![b'a' + n; len];
    let pieces = [piece(0, 60_000), piece(1, 20_000), piece(2, 90_000), piece(3, 30_000)];
    // The second chunk has ends of two appends: all of both is lost with it.
    let range = repaired(dir.path(), "application/octet-stream", &pieces, &pieces[2][..50_000]);
    assert_eq!(range, (60_000, 170_000));
    check_readers(dir.path(), &pieces.concat(), range, 1);
}

#[test]
fn a_damaged_state_costs_its_stream_only() {
    let dir = tempdir();
    let store = file(dir.path());
    let lost = create(&store, created("lost", "of a stream that is lost"));
    create(&store, created("kept", "kept"));
    checkpoint(&store);
    append(&store, lost, b"more");
    drop(store);
    // The state has the path as text with its length in front.
    damage(dir.path(), b"\x04\0lost");
    let part = LostPart::Stream { bytes: 24 };
    let found = repair(dir.path(), true).unwrap().unwrap();
    assert_eq!(found.lost.len(), 1);
    assert_eq!((found.lost[0].id, found.lost[0].path.as_deref()), (lost.0, Some("lost")));
    assert_eq!(found.lost[0].part, part);
    let store = file(dir.path());
    assert!(load(&store, "lost").is_none());
    let kept = load(&store, "kept").unwrap().state;
    assert_eq!(read_all(&store, &kept, 100), b"kept");
    create(&store, created("lost", "another"));
}

/// The log has events of a stream whose state is damaged: they must not stop the checkpoints of all streams.
#[test]
fn a_damaged_state_does_not_stop_checkpoints() {
    let dir = tempdir();
    let store = file(dir.path());
    let damaged = create(&store, created("lost", "damaged"));
    checkpoint(&store);
    append(&store, damaged, b"more");
    drop(store);
    damage(dir.path(), b"\x04\0lost");
    let store = file(dir.path());
    create(&store, created("other", "other"));
    checkpoint(&store);
    let refused = wait(store.load(&path("lost"), LoadFor::State));
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    assert!(load(&store, "other").is_some());
}

#[test]
fn whatever_bit_flips_is_repaired_and_nothing_is_lost_unsaid() {
    let dir = tempdir();
    let store = file(dir.path());
    let expected = write(&store);
    wait(store.close());
    drop(store);
    let index = dir.path().join("store/data.mdb");
    let whole = fs::read(&index).unwrap();
    let records = records(&whole);
    let (mut needed, seeds) = (0, seeds("STORE_REPAIR_SEEDS", 40));
    for seed in seeds.clone() {
        let mut rng = Rng(seed);
        let record = &records[rng.below(records.len() as u64) as usize];
        let at = record.start + rng.below(record.len() as u64) as usize;
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << rng.below(8);
        fs::write(&index, &flipped).unwrap();
        let what = format!("STORE_REPAIR_SEEDS={seed}..{}: byte {at}", seed + 1);
        let found = repair(dir.path(), true).unwrap_or_else(|e| panic!("{what}: {e}"));
        needed += u64::from(found.is_some());
        let found = found.unwrap_or_default();
        let store = file(dir.path());
        for (n, state) in expected.iter().enumerate() {
            let lost = found.lost.iter().filter(|lost| lost.id == state.core.id.0);
            let lost: Vec<&LostPart> = lost.map(|lost| &lost.part).collect();
            let Some(mut loaded) = wait(store.load(&path(&name(n)), LoadFor::Bytes)).unwrap()
            else {
                assert!(matches!(lost[..], [LostPart::Stream { .. }]), "{what}: {lost:?}");
                continue;
            };
            add_producers(&store, &mut loaded);
            let (loaded, all) = (loaded.state, [payload(n).as_bytes(), b"more"].concat());
            match lost[..] {
                [] => {
                    assert_eq!(&loaded, state, "{what}");
                    assert_eq!(read_all(&store, state, 1 << 20), all, "{what}");
                }
                [LostPart::Bytes { from, to }] => {
                    let found = store.dropped(loaded.core.id, Offset::ZERO, state.tail);
                    assert_eq!(found, Some((Offset::new(*from), Offset::new(*to))), "{what}");
                }
                [LostPart::Producers { count: 1 }] => {
                    assert!(loaded.producers.is_empty(), "{what}");
                    assert_eq!(read_all(&store, state, 1 << 20), all, "{what}");
                }
                _ => panic!("{what}: {lost:?}"),
            }
        }
        drop(store);
    }
    println!("{} flips, {needed} repaired", seeds.end - seeds.start);
    assert!(needed * 5 > seeds.end - seeds.start, "only {needed} were damage");
}

#[test]
fn a_trimmed_stream_is_repaired_from_the_first_byte_that_it_keeps() {
    let pieces: Vec<Vec<u8>> = (0..30_u8).map(|n| vec![b'a' + n % 26; 10_000]).collect();
    let all = pieces.concat();
    for (before, maintained) in [(100_000, false), (100_000, true), (140_000, true)] {
        let dir = tempdir();
        let store = file(dir.path());
        let id = create(&store, created("s", ""));
        pieces.iter().for_each(|piece| append(&store, id, piece));
        checkpoint(&store);
        let state = load(&store, "s").unwrap().state;
        let trimmed = state.trim(Offset::new(before), None, false, at(9)).unwrap();
        let Decision::Commit(event, _) = trimmed else { panic!("a trim") };
        commit(&store, id, event).unwrap();
        checkpoint(&store);
        if maintained {
            maintain(&store);
        }
        wait(store.close());
        drop(store);
        // A damaged chunk of what is kept, and, where there is one, of what was trimmed.
        damage(dir.path(), &[b'u'; 9_000]);
        if !maintained {
            damage(dir.path(), &[b'c'; 9_000]);
        }
        let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
        assert!(report.count > 0);
        let found = repair(dir.path(), true).unwrap().unwrap();
        let (from, to) = lost_bytes(&found);
        assert!(from >= before && (from..to).contains(&205_000), "{from} {to}");
        assert_eq!(repair(dir.path(), true).unwrap(), None, "nothing is left to do");
        let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
        assert_eq!(report.count, 0, "{:?}", report.problems);
        let store = file(dir.path());
        let AnyStore::File(files) = &store else { panic!("a file store") };
        assert_eq!(files.scrub(), 0);
        let engine = Engine::new(store, Clock::System, EngineLimits::default());
        let view = wait(engine.open(&path("s"))).unwrap();
        let read = read_from(&engine, &view, before, 70_000);
        let rest = [&all[before as usize..from as usize], &all[to as usize..]].concat();
        assert!(read == rest, "{before}");
        // A trim may begin inside what was lost.
        let middle = view.core.offset_at((from + to) / 2);
        wait(engine.trim(&path("s"), middle)).unwrap();
        let view = wait(engine.open(&path("s"))).unwrap();
        let from = view.tail.earliest.position();
        assert!(read_from(&engine, &view, from, 70_000) == all[to as usize..]);
        wait(engine.close());
        drop(engine);
        let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
        assert_eq!(report.count, 0, "{:?}", report.problems);
    }
}
