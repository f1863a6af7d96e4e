//! Repairing a directory whose sealed segments are damaged, and what repair writes again of records that others have.

use std::{fs, path::Path};

use durable_streams_engine::store::{
    AnyStore, Store,
    file::{
        SegmentOptions,
        offline::{self, IndexDamage, LostPart},
    },
};
use durable_streams_engine::{Clock, Engine, EngineLimits};
use durable_streams_protocol::{
    ContentType, Created, Decision, Expiry, Offset, StreamEvent, StreamId,
};

use crate::{
    harness::*,
    index_repair::{check_readers, damage, lost_bytes, read_from},
    segments::{commit, create, json, large, open, seal, sealed_store, segments, with},
};

/// Bytes of a block of a segment.
const BLOCK: u64 = 64 << 10;
/// Where the data of a segment begins in its file.
const HEADER: u64 = 32;

fn repair(dir: &Path) -> Option<IndexDamage> {
    let found = offline::repair_index(&options(dir), false, &mut |_| {}).unwrap();
    assert_eq!(offline::repair_index(&options(dir), true, &mut |_| {}).unwrap(), found);
    assert_eq!(offline::repair_index(&options(dir), true, &mut |_| {}).unwrap(), None);
    let report = offline::verify(&options(dir), &mut |_| {}).unwrap();
    assert_eq!(report.count, 0, "{:?}", report.problems);
    found
}

/// Changes a byte of the data in a segment.
fn flip(dir: &Path, segment: usize, at: u64) {
    let path = &segments(dir)[segment];
    let mut bytes = fs::read(path).unwrap();
    bytes[(HEADER + at) as usize] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn messages() -> Vec<Vec<u8>> {
    (0..1000).map(|n| format!("{{\"message\":{n:0500}}}\x1e").into_bytes()).collect()
}

/// Damage at a place of a stream of messages costs the messages that touch a block, and no others. Returns what is lost.
fn check_messages(dir: &Path, len: u64, at: u64, (start, end): (u64, u64)) -> (u64, u64) {
    let found = repair(dir).unwrap();
    let (from, to) = lost_bytes(&found);
    assert_eq!(found.lost[0].path.as_deref(), Some("s"));
    assert!(from % len == 0 && to % len == 0, "whole messages: {from} {to}");
    assert!((from..to).contains(&at), "{at}: {from} {to}");
    assert!(from + len > start && to < end + len, "no more than on the borders: {from} {to}");
    (from, to)
}

#[test]
fn messages_on_the_borders_of_a_damaged_block_are_dropped_whole() {
    let pieces = messages();
    let len = pieces[0].len() as u64;
    // In the first block, in one between others, in the last one of the segment, and in the second segment.
    for (segment, at) in
        [(0, 1000), (0, 2 * BLOCK + 100), (0, 280_000), (1, 1000), (1, BLOCK + 100)]
    {
        let dir = tempdir();
        let store = open(with(dir.path(), large()));
        let id = create(&store, Created { content_type: json(), ..created("s", "") });
        for pieces in pieces.chunks(50) {
            crate::segments::append(&store, id, &pieces.concat());
        }
        assert!(seal(&store) > 400_000);
        wait(store.close());
        drop(store);
        flip(dir.path(), segment, at);
        // The first one ends with a whole message.
        let first = segment as u64 * (300_000 / len * len);
        let block = at / BLOCK * BLOCK;
        let around = (first + block, first + block + BLOCK);
        let lost = check_messages(dir.path(), len, first + at, around);
        if segment == 0 {
            check_readers(dir.path(), &pieces.concat(), lost, len);
        }
    }
}

#[test]
fn blocks_are_those_of_the_file_where_streams_share_it() {
    let options =
        SegmentOptions { keep: 1 << 30, size: 1 << 30, idle: std::time::Duration::ZERO, ..large() };
    let pieces = messages();
    let before = 100_000;
    for at in [40_000, 2 * BLOCK, 450_000] {
        let dir = tempdir();
        let store = open(with(dir.path(), options));
        let other = create(&store, created("other", ""));
        crate::segments::append(&store, other, &vec![7; before as usize]);
        let id = create(&store, Created { content_type: json(), ..created("s", "") });
        for pieces in pieces.chunks(50) {
            crate::segments::append(&store, id, &pieces.concat());
        }
        assert!(seal(&store) > 600_000);
        assert_eq!(segments(dir.path()).len(), 1);
        wait(store.close());
        drop(store);
        flip(dir.path(), 0, before + at);
        let block = (before + at) / BLOCK * BLOCK;
        let around = (block - before, block + BLOCK - before);
        check_messages(dir.path(), pieces[0].len() as u64, at, around);
    }
}

#[test]
fn damage_of_what_was_trimmed_costs_nothing_that_is_kept() {
    for (begins, damaged, lost) in [
        (120_000, 60_000, None),
        (120_000, 119_999, Some((120_000, 150_000))),
        (120_000, 200_000, Some((150_000, 300_000))),
        // What is kept begins with a block.
        (2 * BLOCK, 2 * BLOCK - 1, None),
        (2 * BLOCK, 2 * BLOCK, Some((2 * BLOCK, 200_000))),
    ] {
        let dir = tempdir();
        let (id, all) = sealed_store(dir.path());
        let store = open(with(dir.path(), large()));
        let state = load(&store, "s").unwrap().state;
        let trimmed = state.trim(Offset::new(begins), None, false, at(9)).unwrap();
        let Decision::Commit(event, _) = trimmed else { panic!("a trim") };
        commit(&store, id, event);
        wait(store.close());
        drop(store);
        flip(dir.path(), 0, damaged);
        let found = repair(dir.path()).unwrap_or_default();
        let expected = |found: &IndexDamage| match lost {
            None => assert_eq!(found.lost, [], "{damaged}"),
            Some(range) => assert_eq!(lost_bytes(found), range, "{damaged}"),
        };
        expected(&found);
        let (from, to) = lost.unwrap_or((begins, begins));
        let engine = Engine::new(file(dir.path()), Clock::System, EngineLimits::default());
        let view = wait(engine.open(&path("s"))).unwrap();
        assert_eq!(view.tail.earliest.position(), begins);
        let rest = [&all[begins as usize..from as usize], &all[to as usize..]].concat();
        assert!(read_from(&engine, &view, begins, 70_000) == rest, "{damaged}");
        wait(engine.close());
    }
}

/// A stream that expires, a fork, and a stream with more appends than its state has room for.
fn family(dir: &Path) -> (AnyStore, [StreamId; 3]) {
    let store = file(dir);
    let expires = Expiry::At(at(5_000_000_000_000));
    let expiring =
        crate::harness::create(&store, Created { expiry: expires, ..created("expires", "one") });
    let source = crate::harness::create(&store, created("source", "of a fork"));
    let fork = Some(fork_of(&load(&store, "source").unwrap(), 4));
    let forked = crate::harness::create(
        &store,
        Created { fork, earliest: Offset::ZERO, ..created("fork", "") },
    );
    for _ in 0..3000 {
        crate::harness::append(&store, source, b"an append");
    }
    checkpoint(&store);
    (store, [expiring, source, forked])
}

fn pair(a: u64, b: u64) -> [u8; 16] {
    (u128::from(a) << 64 | u128::from(b)).to_be_bytes()
}

#[test]
fn deadlines_and_forks_are_written_again() {
    for what in ["nothing", "deadline", "fork"] {
        let dir = tempdir();
        let (store, [expiring, source, forked]) = family(dir.path());
        let bytes = 3 + 9 + 9 * 3000;
        assert_eq!(store.stats().bytes, bytes);
        wait(store.close());
        drop(store);
        match what {
            "deadline" => damage(dir.path(), &pair(5_000_000_000_000, expiring.0)),
            "fork" => damage(dir.path(), &pair(source.0, forked.0)),
            _ => {}
        }
        let found = repair(dir.path());
        assert_eq!(found.is_some(), what != "nothing", "{what}: {found:?}");
        let found = found.unwrap_or_default();
        assert_eq!(found.lost, [], "{what}");
        assert_eq!(found.rewritten.is_empty(), what == "nothing", "{what}: {:?}", found.rewritten);
        let store = file(dir.path());
        assert_eq!((store.stats().streams, store.stats().bytes), (3, bytes), "{what}");
        let due = |time| wait(store.due(at(time), 10)).unwrap();
        assert_eq!(due(4_999_999_999_999), []);
        assert_eq!(due(5_000_000_000_000), [path("expires")], "{what}");
        assert_eq!(load(&store, "source").unwrap().forks, [forked], "{what}");
        let state = load(&store, "source").unwrap().state;
        let all = [b"of a fork".to_vec(), b"an append".repeat(3000)].concat();
        assert!(read_all(&store, &state, 10_000) == all, "{what}");
    }
}

#[test]
fn what_is_left_of_trimmed_and_deleted_streams_with_many_appends_is_no_damage() {
    let dir = tempdir();
    let (store, [expiring, source, _]) = family(dir.path());
    let state = load(&store, "source").unwrap().state;
    let trimmed = state.trim(Offset::new(9 + 9 * 1234), None, false, at(9)).unwrap();
    let Decision::Commit(event, _) = trimmed else { panic!("a trim") };
    crate::harness::commit(&store, source, event).unwrap();
    let deleted = crate::harness::create(&store, created("deleted", ""));
    (0..3000).for_each(|_| crate::harness::append(&store, deleted, b"an append"));
    checkpoint(&store);
    for id in [deleted, expiring] {
        crate::harness::commit(&store, id, StreamEvent::Deleted { at: at(9) }).unwrap();
    }
    wait(store.close());
    drop(store);
    // Before what they leave is removed, and after.
    for _ in 0..2 {
        assert_eq!(repair(dir.path()), None);
        let store = file(dir.path());
        checkpoint(&store);
        maintain(&store);
        let state = load(&store, "source").unwrap().state;
        let kept = read_all(&store, &state, 10_000);
        assert!(kept == b"an append".repeat(3000 - 1234), "{} bytes", kept.len());
        wait(store.close());
    }
}

/// Storage format 1 did not have the ends of appends either.
#[test]
fn pages_of_text_whose_appends_are_not_known_end_between_characters() {
    let dir = tempdir();
    let store = file(dir.path());
    let content_type = ContentType::parse("text/plain").unwrap();
    let id = crate::harness::create(&store, Created { content_type, ..created("s", "") });
    for _ in 0..1000 {
        crate::harness::append(&store, id, "a\u{1f980}\u{e9}\u{20ac}".as_bytes());
    }
    wait(store.close());
    drop(store);
    damage(dir.path(), &[10; 200]);
    let found = repair(dir.path()).unwrap();
    assert!(matches!(found.lost[0].part, LostPart::AppendEnds { .. }), "{found:?}");
    let engine = Engine::new(file(dir.path()), Clock::System, EngineLimits::default());
    let view = wait(engine.open(&path("s"))).unwrap();
    let all = "a\u{1f980}\u{e9}\u{20ac}".repeat(1000);
    for most in 4..30 {
        let (mut from, mut pages) = (Offset::ZERO, String::new());
        while from < view.tail.offset {
            let page = wait(engine.read(&view.core, from, view.tail.offset, most)).unwrap();
            let text = String::from_utf8(page.chunks.concat()).expect("whole characters");
            assert!(
                text.len() <= most && text.len() + 4 > most.min(all.len() - pages.len()),
                "{most}"
            );
            pages.push_str(&text);
            from = page.end;
        }
        assert!(pages == all, "{most}");
    }
    // Less than a character has to go on all the same.
    let page = wait(engine.read(&view.core, Offset::new(1), view.tail.offset, 2)).unwrap();
    assert_eq!(page.end.position(), 3);
}

#[test]
fn the_ends_of_appends_before_a_damaged_list_are_not_known_any_more() {
    let dir = tempdir();
    let (store, [_, source, _]) = family(dir.path());
    let state = load(&store, "source").unwrap().state;
    wait(store.close());
    drop(store);
    // 3,000 times the length of an append, in lists.
    damage(dir.path(), &[9; 200]);
    let found = repair(dir.path()).unwrap();
    let [lost] = &found.lost[..] else { panic!("{found:?}") };
    assert_eq!((lost.id, lost.path.as_deref()), (source.0, Some("source")));
    assert_eq!(lost.part, LostPart::AppendEnds { before: state.tail.position() });
    let store = file(dir.path());
    let state = load(&store, "source").unwrap().state;
    assert_eq!(read_all(&store, &state, 10_000).len(), 9 + 9 * 3000, "no byte is lost");
}
