//! The contract of `store`, on every store; on disk before a checkpoint, after one, and after opening anew.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use durable_streams_engine::store::{AnyStore, AppendEnd, Commit, EventPlace, Store, StoreError};
use durable_streams_protocol::{ContentType, Expiry, Offset, StreamEvent};

use crate::harness::*;

/// Runs a test on both stores. `test` gets a function to call between its steps.
fn on_every_store(test: fn(AnyStore, &dyn Fn(AnyStore) -> AnyStore)) {
    test(memory(), &|store| store);
    let dir = || tempfile::tempdir().unwrap();
    let between: [fn(AnyStore, &Path) -> AnyStore; 4] = [
        |store, _| store,
        |store, _| {
            checkpoint(&store);
            store
        },
        |store, dir| {
            drop(store);
            file(dir)
        },
        |store, dir| {
            wait(store.close());
            drop(store);
            file(dir)
        },
    ];
    for step in between {
        let dir = dir();
        test(file(dir.path()), &|store| step(store, dir.path()));
    }
}

#[test]
fn a_stream_is_found_by_its_path_with_its_state() {
    on_every_store(|store, step| {
        let id = create(&store, created("a/b", "one"));
        let store = step(store);
        let mut event = appended(b"two");
        event.producer = Some(producer("p", 3, 0));
        event.stream_seq = Some(stream_seq("s1"));
        commit(&store, id, StreamEvent::Appended(event)).unwrap();
        let store = step(store);
        let mut event = appended(b"");
        event.producer = Some(producer("q", 0, 0));
        event.close = true;
        commit(&store, id, StreamEvent::Appended(event)).unwrap();
        let store = step(store);

        let state = load(&store, "a/b").unwrap().state;
        assert_eq!(state.core.id, id);
        assert_eq!(state.tail, Offset::new(6));
        assert_eq!(state.producers.len(), 2);
        assert_eq!(state.stream_seq, Some(stream_seq("s1")));
        assert_eq!(state.closed.clone().unwrap().by, Some(producer("q", 0, 0)));
        assert_eq!(read_all(&store, &state, 100), b"onetwo");
        assert!(load(&store, "a").is_none() && load(&store, "a/b/c").is_none());
    });
}

#[test]
fn reads_give_any_range_in_windows() {
    on_every_store(|store, step| {
        let id = create(&store, created("r", ""));
        let mut all = Vec::new();
        let mut store = store;
        for round in 0..4_u8 {
            for piece in 0..50_u8 {
                let data = vec![round ^ piece; usize::from(piece) * 40 + 1];
                append(&store, id, &data);
                all.extend_from_slice(&data);
            }
            store = step(store);
        }
        let state = load(&store, "r").unwrap().state;
        for window in [1 << 20, 4096, 999] {
            assert!(read_all(&store, &state, window) == all, "window {window}");
        }
        for (from, to) in [(0, 1), (1, 2), (17, 40_000), (41_000, 41_001), (0, all.len())] {
            let (start, end) = (Offset::new(from as u64), Offset::new(to as u64));
            let pieces = wait(store.read(id, start, end, 100)).unwrap();
            let got: Vec<u8> = pieces.concat();
            let expected = &all[from..to.min(from + 100)];
            assert!(!got.is_empty() && expected.starts_with(&got), "{from}..{to}");
        }
        let tail = state.tail;
        assert!(wait(store.read(id, tail, tail, 100)).unwrap().is_empty(), "nothing at the tail");
    });
}

#[test]
fn a_page_ends_where_an_append_ends() {
    on_every_store(|store, step| {
        let id = create(&store, created("s", "0123456789"));
        let mut store = step(store);
        for len in [1, 2, 300, 5, 70_000] {
            append(&store, id, &vec![b'x'; len]);
            store = step(store);
        }
        let ends = [10, 11, 13, 313, 318, 70_318];
        let froms = (0..320).chain([69_999, 70_000]);
        check_ends(&store, id, &ends, froms, &[0, 1, 2, 3, 10, 100, 305, 70_000, u64::MAX]);
        let end = |from, to, within| {
            wait(store.append_end(id, Offset::new(from), Offset::new(to), within)).unwrap()
        };
        assert_eq!(
            end(20, 50, 10),
            AppendEnd::At(Offset::new(50)),
            "a fork leaves the stream here"
        );
        assert_eq!(
            end(20, 50, 40),
            AppendEnd::At(Offset::new(50)),
            "a fork leaves the stream here"
        );
    });
}

#[test]
fn ends_of_many_small_appends_are_known_wherever_they_are() {
    on_every_store(|mut store, step| {
        let source = create(&store, created("source", "0123456789"));
        let fork = Some(fork_of(&load(&store, "source").unwrap(), 4));
        let forked = durable_streams_protocol::Created { fork, ..created("fork", "") };
        let fork = create(&store, forked);
        let mut json = created("json", "");
        json.content_type = ContentType::parse("application/json").unwrap();
        let json = create(&store, json);
        let (mut ends, mut fork_ends) = (vec![10], Vec::new());
        for round in 0..8 {
            // Few, so that they stay with the state; and more than a record of their own holds.
            let many = if round % 2 == 0 { 20 } else { 700 };
            let event = StreamEvent::Appended(appended(b""));
            let mut places = [source, fork, json].map(|id| place(&store, id, &event));
            for n in 0..many {
                let len = 1 + n % 5;
                ends.push(ends.last().unwrap() + len);
                fork_ends.push(fork_ends.last().unwrap_or(&4) + len);
                let event = || StreamEvent::Appended(appended(&vec![b'y'; len as usize]));
                for (id, place) in [source, fork, json].into_iter().zip(&mut places) {
                    let (epoch, sink, event) = (store.epoch(), Arc::new(Sink::default()), event());
                    let (here, version) = (*place, 1);
                    *place = place.after(&event);
                    store.commit(Commit { id, event, place: here, epoch, version, sink }).unwrap();
                }
            }
            // The place of what follows is that of the durable state.
            while places[0].position != load(&store, "source").unwrap().state.tail.position() {
                std::thread::yield_now();
            }
            append(&store, source, b"z");
            ends.push(ends.last().unwrap() + 1);
            store = step(store);
        }
        let withins = [0, 1, 7, 500, 4000];
        check_ends(&store, source, &ends, (0..ends[ends.len() - 1]).step_by(11), &withins);
        let forks = (4..fork_ends[fork_ends.len() - 1]).step_by(11);
        check_ends(&store, fork, &fork_ends, forks, &withins);
        let tail = load(&store, "json").unwrap().state.tail;
        let end = wait(store.append_end(json, Offset::new(1), tail, 7)).unwrap();
        assert_eq!(end, AppendEnd::Unknown);
        checkpoint(&store);
        rest(&store);
        rest(&store);
        check_ends(&store, source, &ends, (0..100).chain([1700, 3999]), &withins);
        check_ends(&store, fork, &fork_ends, (4..100).chain([1700, 3999]), &withins);
    });
}

#[test]
fn a_deleted_stream_frees_its_path_at_once() {
    on_every_store(|store, step| {
        let old = create(&store, created("d", "old"));
        let store = step(store);
        commit(&store, old, StreamEvent::Deleted { at: at(5) }).unwrap();
        assert!(load(&store, "d").is_none());
        let store = step(store);
        assert!(load(&store, "d").is_none());
        assert!(wait(store.list(None, 10)).unwrap().is_empty());
        let new = create(&store, created("d", "new"));
        assert_ne!(old, new, "ids are not used again");
        let store = step(store);
        let state = load(&store, "d").unwrap().state;
        assert_eq!((state.core.id, read_all(&store, &state, 100)), (new, b"new".to_vec()));
        assert!(store.next_id() > new);
        assert_eq!(store.stats().streams, 1);
    });
}

#[test]
fn totals_count_live_streams() {
    on_every_store(|store, step| {
        let gone = create(&store, created("gone", "12345"));
        let kept = create(&store, created("kept", "123"));
        append(&store, kept, b"4567");
        let store = step(store);
        commit(&store, gone, StreamEvent::Deleted { at: at(5) }).unwrap();
        checkpoint(&store);
        let store = step(store);
        assert_eq!((store.stats().streams, store.stats().bytes), (1, 7));
    });
}

#[test]
fn forks_are_known_to_their_source_until_deleted() {
    on_every_store(|store, step| {
        create(&store, created("source", "0123456789"));
        let store = step(store);
        let source = load(&store, "source").unwrap();
        let mut forks: Vec<_> = (0..3)
            .map(|n| {
                let fork = Some(fork_of(&source, 4));
                create(
                    &store,
                    durable_streams_protocol::Created { fork, ..created(&format!("f{n}"), "xy") },
                )
            })
            .collect();
        let store = step(store);
        commit(&store, forks.remove(1), StreamEvent::Deleted { at: at(3) }).unwrap();
        let store = step(store);
        let mut found = load(&store, "source").unwrap().forks;
        found.sort_unstable();
        assert_eq!(found, forks);
        let fork = load(&store, "f0").unwrap().state;
        assert_eq!((fork.core.own_start(), fork.tail), (Offset::new(4), Offset::new(6)));
        assert_eq!(read_all(&store, &fork, 1), b"xy");
    });
}

#[test]
fn streams_are_due_at_their_deadline_and_when_soft_deleted_without_forks() {
    on_every_store(|store, step| {
        let mut sliding = created("sliding", "");
        sliding.expiry = Expiry::Ttl(10);
        let sliding = create(&store, sliding);
        let mut fixed = created("fixed", "");
        fixed.expiry = Expiry::At(at(5_000));
        create(&store, fixed);
        create(&store, created("soft", "abc"));
        let store = step(store);
        let due = |store: &AnyStore, now| {
            let mut due = wait(store.due(at(now), 10)).unwrap();
            due.sort();
            due.iter().map(|path| path.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert!(due(&store, 4_999).is_empty());
        assert_eq!(due(&store, 5_000), ["fixed"]);
        assert_eq!(due(&store, 10_001), ["fixed", "sliding"]);
        assert_eq!(wait(store.due(at(20_000), 1)).unwrap().len(), 1, "no more than asked for");

        commit(&store, sliding, StreamEvent::Touched { at: at(9_000) }).unwrap();
        let store = step(store);
        assert_eq!(due(&store, 18_999), ["fixed"]);
        assert_eq!(due(&store, 19_000), ["fixed", "sliding"]);

        let soft = load(&store, "soft").unwrap();
        let fork = Some(fork_of(&soft, 2));
        let fork =
            create(&store, durable_streams_protocol::Created { fork, ..created("fork", "") });
        commit(&store, soft.state.core.id, StreamEvent::SoftDeleted { at: at(7) }).unwrap();
        let store = step(store);
        assert!(load(&store, "soft").unwrap().state.soft_deleted);
        assert!(due(&store, 0).is_empty(), "its fork needs it");
        commit(&store, fork, StreamEvent::Deleted { at: at(8) }).unwrap();
        let store = step(store);
        assert_eq!(due(&store, 0), ["soft"]);
    });
}

#[test]
fn paths_are_listed_in_byte_order_whatever_their_length() {
    on_every_store(|store, step| {
        let long = |n: usize, end: &str| format!("{}{end}", "x".repeat(n));
        let mut texts: Vec<String> = vec!["a".into(), "a/b".into(), "é".into(), "z".into()];
        for n in [1, 2, 498, 499, 500, 501, 502, 999, 1000, 1001, 1023] {
            texts.push(long(n, ""));
            texts.push(long(n, "!"));
            texts.push(long(n, "y"));
        }
        texts.sort();
        texts.dedup();
        let mut shuffled = texts.clone();
        shuffled.sort_by_key(|text| crc32c::crc32c(text.as_bytes()));
        let mut store = store;
        let mut ids = Vec::new();
        for (n, text) in shuffled.iter().enumerate() {
            ids.push((text.clone(), create(&store, created(text, ""))));
            if n == texts.len() / 2 {
                store = step(store);
            }
        }
        let mut store = step(store);
        let list = |store: &AnyStore, page: usize| {
            let (mut all, mut after) = (Vec::<String>::new(), None);
            loop {
                let paths = wait(store.list(after.as_ref(), page)).unwrap();
                assert!(paths.len() <= page);
                let Some(last) = paths.last() else { return all };
                after = Some(last.clone());
                all.extend(paths.iter().map(|path| path.as_str().to_owned()));
            }
        };
        for page in [1, 7, 1000] {
            assert_eq!(list(&store, page), texts, "pages of {page}");
        }
        for (text, id) in ids {
            assert_eq!(load(&store, &text).unwrap().state.core.id, id);
            commit(&store, id, StreamEvent::Deleted { at: at(9) }).unwrap();
            texts.retain(|other| *other != text);
            if texts.len().is_multiple_of(10) {
                store = step(store);
                assert_eq!(list(&store, 9), texts);
            }
        }
    });
}

#[test]
fn sinks_hear_of_every_commit_in_order() {
    on_every_store(|store, _| {
        let id = create(&store, created("s", ""));
        let sink = Arc::new(Sink::default());
        let mut queued = false;
        let mut next = EventPlace { events: 1, position: 0 };
        for version in 1..=1000 {
            let event = StreamEvent::Appended(appended(&version.to_string().into_bytes()));
            let (place, epoch) = (next, store.epoch());
            next = place.after(&event);
            let commit = Commit { id, event, place, epoch, version, sink: sink.clone() };
            queued =
                store.commit(commit).unwrap() == durable_streams_engine::store::Committed::Queued;
        }
        if queued {
            sink.wait_for(1000).unwrap();
            let told: Vec<u64> = sink.told().into_iter().map(Result::unwrap).collect();
            assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
            assert_eq!(told.last(), Some(&1000));
        }
        let expected: String = (1..=1000).map(|n: u64| n.to_string()).collect();
        let state = load(&store, "s").unwrap().state;
        assert_eq!(Bytes::from(read_all(&store, &state, 4096)), expected);
    });
}

#[test]
fn a_closed_file_store_refuses_commits_and_lets_others_have_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = file(dir.path());
    let id = create(&store, created("c", "1"));
    wait(store.close());
    let refused = commit(&store, id, StreamEvent::Touched { at: at(1) });
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
    drop(store);
    let store = file(dir.path());
    assert_eq!(load(&store, "c").unwrap().state.tail, Offset::new(1));
}
