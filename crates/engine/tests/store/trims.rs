//! Trims, on every store: what readers find, what forks keep, what leaves the disk.

use std::path::Path;

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, AppendEnd, FileStore, FileStoreOptions, Store, file::offline,
};
use durable_streams_protocol::{
    ContentType, Created, Decision, Expiry, Offset, StreamEvent, StreamId,
};

use crate::harness::*;

/// Trims a stream at a position.
fn trim(store: &AnyStore, text: &str, before: u64) -> StreamId {
    let found = load(store, text).unwrap();
    let has_forks = !found.forks.is_empty();
    match found.state.trim(Offset::new(before), None, has_forks, at(9)).unwrap() {
        Decision::Commit(event, _) => commit(store, found.state.core.id, event).unwrap(),
        Decision::Reply(_) => panic!("nothing to trim"),
    }
    found.state.core.id
}

/// Runs a test in memory, and on disk with each of the ways to put the log away between its steps.
fn on_every_store(test: fn(AnyStore, &dyn Fn(AnyStore) -> AnyStore)) {
    test(memory(), &|store| store);
    let between: [fn(AnyStore, &Path) -> AnyStore; 3] = [
        |store, _| store,
        |store, _| {
            checkpoint(&store);
            maintain(&store);
            rest(&store);
            rest(&store);
            store
        },
        |store, dir| {
            wait(store.close());
            drop(store);
            let report = offline::verify(&options(dir), &mut |_| {}).unwrap();
            assert_eq!(report.count, 0, "{:?}", report.problems);
            file(dir)
        },
    ];
    for step in between {
        let dir = tempdir();
        test(file(dir.path()), &|store| step(store, dir.path()));
    }
}

fn read(store: &AnyStore, id: StreamId, from: u64, to: u64) -> Vec<u8> {
    wait(store.read(id, Offset::new(from), Offset::new(to), 1 << 20)).unwrap().concat()
}

/// Otherwise a reader that has looked before the trim gets a page that ends within an append.
#[test]
fn a_page_of_bytes_that_are_gone_since_ends_with_an_append_or_not_at_all() {
    on_every_store(|store, step| {
        let id = create(&store, created("s", ""));
        for byte in 0..50_u8 {
            append(&store, id, &[byte; 5_000]);
        }
        let tail = Offset::new(250_000);
        let store = step(store);
        trim(&store, "s", 120_000);
        let check = |store: &AnyStore| {
            for (from, within) in [(0, 7_500), (0, 110_001), (119_999, 0), (119_999, 2)] {
                match wait(store.append_end(id, Offset::new(from), tail, within)).unwrap() {
                    AppendEnd::At(end) => assert_eq!(end.position() % 5_000, 0, "from {from}"),
                    end => assert_eq!(end, AppendEnd::Gone, "from {from}"),
                }
            }
        };
        check(&store);
        let store = step(store);
        check(&store);
        commit(&store, id, StreamEvent::Deleted { at: at(9) }).unwrap();
        check(&store);
        check(&step(store));
    });
}

#[test]
fn readers_find_what_is_left_and_the_totals_fall() {
    on_every_store(|store, step| {
        let id = create(&store, created("s", ""));
        for byte in 0..50_u8 {
            append(&store, id, &[byte; 5_000]);
        }
        let store = step(store);
        trim(&store, "s", 120_000);
        let store = step(store);
        let state = load(&store, "s").unwrap().state;
        assert_eq!((state.earliest, state.own_len()), (Offset::new(120_000), 130_000));
        let kept: Vec<u8> = (24..50_u8).flat_map(|byte| [byte; 5_000]).collect();
        assert!(read_all(&store, &state, 7_000) == kept);
        let ends: Vec<u64> = (1..=50).map(|n| n * 5_000).collect();
        check_ends(&store, id, &ends, (120_000..250_000).step_by(999), &[0, 10_000, 5_001]);
        append(&store, id, b"more");
        let store = step(store);
        assert!(read(&store, id, 249_999, 250_004) == [&[49_u8][..], b"more"].concat());
        trim(&store, "s", 250_004);
        let store = step(store);
        let state = load(&store, "s").unwrap().state;
        assert_eq!((state.own_len(), read_all(&store, &state, 100)), (0, Vec::new()));
        append(&store, id, b"again");
        let store = step(store);
        assert_eq!(read(&store, id, 250_004, 250_009), b"again");
        checkpoint(&store);
        assert_eq!(store.stats().bytes, 5);
    });
}

#[test]
fn what_was_trimmed_and_purged_is_read_as_nothing_and_is_no_damage() {
    on_every_store(|store, step| {
        let id = create(&store, created("s", ""));
        let (first, second) = (vec![1; 70_000], vec![2; 70_000]);
        append(&store, id, &first);
        append(&store, id, &second);
        let store = step(store);
        trim(&store, "s", 70_000);
        let store = step(step(store));
        let found = wait(store.read(id, Offset::ZERO, Offset::new(100), 100)).unwrap();
        let found: Vec<u8> = found.concat();
        assert!(found.is_empty() || found == first[..found.len()], "{found:?}");
        assert!(read(&store, id, 70_000, 140_000) == second);
    });
}

#[test]
fn a_fork_keeps_what_it_inherits_until_it_goes() {
    on_every_store(|store, step| {
        let id = create(&store, created("source", "0123456789"));
        append(&store, id, &[7; 100_000]);
        let fork = Some(fork_of(&load(&store, "source").unwrap(), 10));
        let forked = create(&store, Created { fork, ..created("fork", "own") });
        let store = step(store);
        trim(&store, "source", 10);
        let store = step(store);
        let source = load(&store, "source").unwrap().state;
        assert!(source.keeps_trimmed_bytes());
        assert_eq!((source.earliest, source.own_len()), (Offset::new(10), 100_010));
        assert_eq!(read(&store, id, 0, 10), b"0123456789");
        let late = Some(fork_of(&load(&store, "source").unwrap(), 12));
        let late = Created { fork: late, earliest: source.earliest, ..created("late", "") };
        let late = create(&store, late);
        let store = step(store);
        assert_eq!(load(&store, "late").unwrap().state.earliest, Offset::new(10));
        for fork in [forked, late] {
            commit(&store, fork, StreamEvent::Deleted { at: at(5) }).unwrap();
        }
        let store = step(store);
        trim(&store, "source", 10);
        let store = step(store);
        let source = load(&store, "source").unwrap().state;
        assert_eq!((source.own_len(), source.keeps_trimmed_bytes()), (100_000, false));
        assert!(read_all(&store, &source, 9_999) == [7; 100_000]);
    });
}

#[test]
fn a_changed_expiry_is_found_when_it_is_due() {
    on_every_store(|store, step| {
        let id = create(&store, created("s", "x"));
        let expiring = create(&store, Created { expiry: Expiry::At(at(50)), ..created("t", "") });
        let store = step(store);
        let change = |id, expiry| {
            commit(&store, id, StreamEvent::ExpiryChanged { at: at(10), expiry }).unwrap();
        };
        change(id, Expiry::Ttl(2));
        change(expiring, Expiry::Never);
        let store = step(store);
        let due = |now| wait(store.due(at(now), 9)).unwrap();
        assert_eq!((due(2_009), due(2_010)), (vec![], vec![path("s")]));
        let state = load(&store, "t").unwrap().state;
        assert_eq!((state.core.expiry, state.touched), (Expiry::Never, at(10)));
    });
}

#[test]
fn times_and_messages_are_kept() {
    on_every_store(|store, step| {
        let json = ContentType::parse("application/json").unwrap();
        let id = create(&store, Created { content_type: json, ..created("j", "1\u{1e}2\u{1e}") });
        let store = step(store);
        commit(&store, id, StreamEvent::Marked { at: at(4) }).unwrap();
        append(&store, id, b"3\x1e");
        let store = step(store);
        let state = load(&store, "j").unwrap().state;
        assert_eq!(
            (state.messages, state.created, state.appended),
            (Some(3), Some(at(1)), Some(at(2)))
        );
        assert_eq!((state.marks.len(), state.marks[0].messages), (1, Some(2)));
        trim(&store, "j", 4);
        let store = step(store);
        let state = load(&store, "j").unwrap().state;
        assert_eq!((state.messages_before, state.marks.len()), (Some(2), 1));
    });
}

/// Files hold pages, so what a trim frees is used again rather than given back.
#[test]
fn a_stream_that_is_trimmed_as_it_grows_does_not_grow_the_index() {
    let dir = tempdir();
    let options = FileStoreOptions { map_size: 256 << 20, ..options(dir.path()) };
    let store = AnyStore::File(FileStore::open(options).unwrap());
    let id = create(&store, created("s", ""));
    let mut sizes = Vec::new();
    for round in 1..=24_u64 {
        for _ in 0..16 {
            append(&store, id, &[round as u8; 64 << 10]);
        }
        trim(&store, "s", (round << 20) - (512 << 10));
        checkpoint(&store);
        maintain(&store);
        let AnyStore::File(files) = &store else { panic!("a file store") };
        let stats = files.file_stats();
        sizes.push(stats.index_bytes);
    }
    assert!(sizes[23] <= sizes[5] + (1 << 20), "{sizes:?}");
    let state = load(&store, "s").unwrap().state;
    assert_eq!(Bytes::from(read_all(&store, &state, 1 << 20)), vec![24_u8; 512 << 10]);
}
