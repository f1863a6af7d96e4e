//! The list of all segments: what is on its pages, and which streams have bytes in each segment.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, FileStoreOptions, Store,
    file::{
        SegmentOptions, WallClock,
        offline::StoppedSegments,
        segments::{
            catalog::{ListedSegment, SegmentPage, SegmentQuery},
            objects::SegmentPlace,
        },
    },
};
use durable_streams_protocol::{Created, StreamEvent, StreamId, Timestamp};

use crate::harness::*;
use crate::segments::{append, commit, create, files, large, open, payload, seal, segments, with};

const ALL: SegmentQuery =
    SegmentQuery { after: None, place: None, max: 1000, shares: 3, extents: u64::MAX };

fn list(store: &AnyStore, query: SegmentQuery) -> SegmentPage {
    files(store).list_segments(&query).unwrap()
}

fn shares(segment: &ListedSegment) -> Vec<(String, u64)> {
    let path = |path: &Option<_>| path.as_ref().map_or("?".to_owned(), ToString::to_string);
    segment.shares.iter().map(|share| (path(&share.path), share.bytes)).collect()
}

fn small(store: &AnyStore, name: &str, len: usize) -> StreamId {
    create(store, Created { data: Bytes::from(payload(1, len)), ..created(name, "") })
}

fn delete(store: &AnyStore, id: StreamId) {
    commit(store, id, StreamEvent::Deleted { at: at(9) });
    files(store).checkpoint().unwrap();
    files(store).maintain();
}

#[test]
fn segments_are_listed_with_the_streams_that_have_bytes_in_them() {
    let dir = tempdir();
    let segments_of = SegmentOptions { idle: Duration::ZERO, ..large() };
    let options = FileStoreOptions { clock: WallClock(|| at(77)), ..with(dir.path(), segments_of) };
    let store = open(options.clone());
    assert_eq!((list(&store, ALL).segments.len(), list(&store, ALL).next), (0, None));
    let big = create(&store, created("big", ""));
    append(&store, big, &payload(1, 250_000));
    append(&store, big, &payload(2, 100_000));
    let smalls: Vec<_> = [("s/1", 500), ("s/2", 900), ("s/3", 100), ("s/4", 700)]
        .map(|(n, len)| small(&store, n, len))
        .into();
    seal(&store);
    let page = list(&store, ALL);
    let [own, shared] = &page.segments[..] else { panic!("{page:?}") };
    assert_eq!((page.next, page.partial), (None, false));
    assert_eq!((own.streams, shares(own)), (Some(1), vec![("big".into(), own.info.live)]));
    let largest = vec![("s/2".into(), 900), ("s/4".into(), 700), ("s/1".into(), 500)];
    assert_eq!((shared.streams, shares(shared)), (Some(4), largest));
    for (segment, path) in page.segments.iter().zip(segments(dir.path())) {
        let info = segment.info;
        assert_eq!((info.place, info.sealed_at), (SegmentPlace::Local, Some(at(77))));
        assert_eq!(info.file_len, fs::metadata(path).unwrap().len());
        assert_eq!(info.live, info.data);
    }
    // Without owners the index is not walked.
    let plain = list(&store, SegmentQuery { shares: 0, ..ALL });
    assert!(plain.segments.iter().all(|one| one.streams.is_none() && one.shares.is_empty()));
    let partial = list(&store, SegmentQuery { extents: 2, ..ALL });
    assert!(partial.partial, "it has looked at two extents of five");
    assert_eq!(partial.segments[1].streams, Some(1));
    assert!(!list(&store, SegmentQuery { extents: 5, ..ALL }).partial);

    // A stream that goes takes its share along, before the file is rewritten.
    delete(&store, smalls[1]);
    let page = list(&store, ALL);
    let [_, shared] = &page.segments[..] else { panic!("{page:?}") };
    assert_eq!((shared.streams, shared.info.live), (Some(3), 1300));
    assert_eq!(shares(shared)[0], ("s/4".into(), 700));

    // The same of the stopped server's directory.
    let totals = files(&store).segment_totals().unwrap();
    wait(store.close());
    drop(store);
    let stopped = StoppedSegments::open(&options).unwrap();
    let found = stopped.page(&ALL).unwrap();
    assert_eq!(format!("{found:?}"), format!("{page:?}"));
    assert_eq!(stopped.totals().unwrap(), totals);
    let bytes: u64 = page.segments.iter().map(|one| one.info.file_len).sum();
    assert_eq!((totals[0].files, totals[0].bytes, totals[2].files), (2, bytes, 0));
}

#[test]
fn pages_and_places_together_have_every_segment_once() {
    let dir = tempdir();
    let store = open(with(dir.path(), SegmentOptions { keep: 0, ..large() }));
    let id = create(&store, created("s", ""));
    for n in 0..14 {
        append(&store, id, &payload(n, 100_000));
    }
    while seal(&store) > 0 {}
    let numbers = |page: &SegmentPage| -> Vec<u64> {
        page.segments.iter().map(|one| one.info.number).collect()
    };
    let all = numbers(&list(&store, ALL));
    assert!(all.len() >= 4, "{all:?}");
    files(&store).note_object(all[0]).unwrap();
    files(&store).note_object(all[2]).unwrap();
    files(&store).drop_local(all[2]).unwrap();
    let mut seen = Vec::new();
    for place in
        [None, Some(SegmentPlace::Local), Some(SegmentPlace::Both), Some(SegmentPlace::Object)]
    {
        let (mut found, mut after) = (Vec::new(), None);
        // One page more than there are segments, at most.
        for _ in 0..=all.len() {
            let page = list(&store, SegmentQuery { after, place, max: 1, ..ALL });
            found.extend(numbers(&page));
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        match place {
            None => assert_eq!(found, all),
            Some(_) => seen.push(found),
        }
    }
    assert_eq!(seen[1..], [vec![all[0]], vec![all[2]]]);
    assert_eq!(seen[0].len(), all.len() - 2);
    let totals = files(&store).segment_totals().unwrap();
    assert_eq!(totals.map(|one| one.files), [all.len() as u64 - 2, 1, 1]);
    let stats = files(&store).file_stats();
    assert_eq!((stats.segment_files, stats.segments_by_place), (all.len() as u64, totals));
}

/// The store's clock in the test below, days.
static DAY: AtomicU64 = AtomicU64::new(1);

fn clock() -> Timestamp {
    Timestamp::from_millis(DAY.load(Ordering::Relaxed) * 24 * 3600 * 1000)
}

#[test]
fn deleted_bytes_leave_a_segment_within_thirty_days_however_few_they_are() {
    let dir = tempdir();
    let segments_of = SegmentOptions { idle: Duration::ZERO, ..large() };
    let options = FileStoreOptions { clock: WallClock(clock), ..with(dir.path(), segments_of) };
    let store = open(options);
    let ids: Vec<_> = (0..9).map(|n| small(&store, &format!("s/{n}"), 1000)).collect();
    seal(&store);
    delete(&store, ids[4]);
    let look = || {
        files(&store).seal().unwrap();
        let page = list(&store, SegmentQuery { shares: 0, ..ALL });
        let [segment] = &page.segments[..] else { panic!("{page:?}") };
        (segment.info.number, segment.info.live, segment.info.data)
    };
    let (number, live, data) = look();
    assert_eq!((live, data), (8000, 9000), "most of it is live");
    DAY.store(30, Ordering::Relaxed);
    assert_eq!(look(), (number, live, data), "29 days later");
    DAY.store(31, Ordering::Relaxed);
    let rewritten = look();
    assert!(rewritten.0 > number && (rewritten.1, rewritten.2) == (8000, 8000), "{rewritten:?}");
    DAY.store(90, Ordering::Relaxed);
    assert_eq!(look(), rewritten, "nothing of it is dead");
    for n in [0, 8] {
        let state = load(&store, &format!("s/{n}")).unwrap().state;
        assert!(read_all(&store, &state, 100) == payload(1, 1000));
    }
}
