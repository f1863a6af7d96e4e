//! Bytes that a checkpoint seals itself, so that they never enter the index.

use std::{fs, path::Path, sync::Arc};

use durable_streams_engine::store::{
    AnyStore, FileStore, FileStoreOptions, Store,
    file::{SegmentOptions, WallClock, disk::RealDisk, offline},
};
use durable_streams_protocol::{ContentType, Created, Offset, StreamEvent, StreamId, Trimmed};

use crate::{
    harness::*,
    segments::{
        append, commit, create, files, footer, json, large, open, payload, seal, segments, with,
    },
};

fn ahead() -> SegmentOptions {
    SegmentOptions { ahead: 200_000, ..large() }
}

fn segment_files(store: &AnyStore) -> (u64, u64) {
    let stats = files(store).file_stats();
    (stats.segment_files, stats.segment_live_bytes)
}

/// A stream whose appends are known.
struct Grown {
    id: StreamId,
    is_json: bool,
    all: Vec<u8>,
    ends: Vec<u64>,
}

impl Grown {
    fn begin(store: &AnyStore, content_type: ContentType) -> Self {
        let is_json = content_type.is_json();
        let id = create(store, Created { content_type, ..created("s", "") });
        Grown { id, is_json, all: Vec::new(), ends: Vec::new() }
    }

    /// Appends of 9,000 bytes.
    fn grow(&mut self, store: &AnyStore, appends: usize) {
        for _ in 0..appends {
            let data = match self.is_json {
                true => [b"\"", &vec![b'a'; 4_497][..], b"\"\x1e"].concat().repeat(2),
                false => payload(self.ends.len(), 9_000),
            };
            append(store, self.id, &data);
            self.all.extend_from_slice(&data);
            self.ends.push(self.all.len() as u64);
        }
    }

    fn check(&self, store: &AnyStore) {
        let state = load(store, "s").unwrap().state;
        assert_eq!(state.tail.position(), self.all.len() as u64);
        for window in [1_000, 65_536, 300_001, usize::MAX] {
            assert!(read_all(store, &state, window) == self.all, "windows of {window}");
        }
        if !self.is_json {
            let from = [0, 9_000, 300_000, self.all.len() as u64 - 9_000];
            check_ends(store, self.id, &self.ends, from.into_iter(), &[0, 9_000, 40_000]);
        }
        assert_eq!(files(store).scrub(), 0);
    }
}

fn check_directory(store: AnyStore, dir: &Path, grown: &Grown) {
    wait(store.close());
    drop(store);
    let report = offline::verify(&options(dir), &mut |_| {}).unwrap();
    assert_eq!(report.count, 0, "{:?}", report.problems);
    // Also without sealing.
    grown.check(&open(options(dir)));
}

#[test]
fn many_new_bytes_of_a_stream_go_into_segments_at_once() {
    for content_type in [json(), ContentType::parse("text/plain").unwrap()] {
        let dir = tempdir();
        let store = open(with(dir.path(), ahead()));
        let mut grown = Grown::begin(&store, content_type);
        grown.grow(&store, 80);
        files(&store).checkpoint().unwrap();
        // 34 appends each reach the size of a segment; 12 are left, too few for another one.
        assert_eq!(segment_files(&store), (2, 68 * 9_000));
        assert_eq!(segments(dir.path()).len(), 2);
        assert_eq!(files(&store).file_stats().sealed_bytes, bytes_of(dir.path()));
        grown.check(&store);
        // Few bytes go into the index, where the last ones are.
        grown.grow(&store, 3);
        files(&store).checkpoint().unwrap();
        assert_eq!(segment_files(&store), (2, 68 * 9_000));
        grown.check(&store);
        // With many new bytes behind them they go into a segment as well: those 15 appends and 19 of the new ones.
        grown.grow(&store, 41);
        files(&store).checkpoint().unwrap();
        assert_eq!(segment_files(&store), (3, 102 * 9_000));
        grown.check(&store);
        grown.grow(&store, 30);
        files(&store).checkpoint().unwrap();
        // 22 and 12 in one; 18 are left.
        assert_eq!(segment_files(&store), (4, 136 * 9_000));
        grown.check(&store);
        // What is left is sealed as if it had been in the index all the time, but for the newest 50,000 bytes.
        assert_eq!(seal(&store), 12 * 9_000);
        grown.check(&store);
        check_directory(store, dir.path(), &grown);
    }
}

/// The first segment begins with what the index had.
#[test]
fn a_segment_has_the_lengths_of_its_appends_and_when_it_was_sealed() {
    for content_type in [json(), ContentType::parse("text/plain").unwrap()] {
        let dir = tempdir();
        let clock = WallClock(|| at(77));
        let options = FileStoreOptions { clock, ..with(dir.path(), ahead()) };
        let store = open(options);
        let mut grown = Grown::begin(&store, content_type);
        for appends in [3, 77] {
            grown.grow(&store, appends);
            files(&store).checkpoint().unwrap();
        }
        let paths = segments(dir.path());
        assert_eq!(paths.len(), 2);
        for path in paths {
            let [extent] = &footer(&path).extents[..] else { panic!("one extent") };
            assert_eq!(extent.len, 34 * 9_000);
            // Two bytes for each length; messages end by themselves.
            let appends = if grown.is_json { 0 } else { 34 };
            let first = extent.append_lens.get(..2).unwrap_or_default();
            assert_eq!(extent.append_lens, first.repeat(appends));
            assert_eq!(extent.append_lens.len(), 2 * appends);
        }
        let infos = files(&store).segments_after(None, 9).unwrap();
        assert!(infos.iter().all(|info| info.sealed_at == Some(at(77))), "{infos:?}");
    }
}

fn bytes_of(dir: &Path) -> u64 {
    segments(dir).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn a_creation_with_many_bytes_is_sealed_at_once() {
    let dir = tempdir();
    let store = open(with(dir.path(), ahead()));
    let data = payload(1, 200_000);
    let id = create(&store, Created { data: data.clone().into(), ..created("s", "") });
    // One byte less is not.
    let less = Created { data: payload(2, 199_999).into(), ..created("t", "") };
    create(&store, less);
    files(&store).checkpoint().unwrap();
    assert_eq!(segment_files(&store), (1, 200_000));
    let grown = Grown { id, is_json: false, all: data, ends: vec![200_000] };
    grown.check(&store);
    check_directory(store, dir.path(), &grown);
}

#[test]
fn messages_too_small_for_a_list_of_their_ends_are_sealed_as_they_are_stored() {
    let dir = tempdir();
    let options = SegmentOptions { ahead: 5_000_000, size: 8 << 20, ..large() };
    let store = open(with(dir.path(), options));
    let id = create(&store, Created { content_type: json(), ..created("s", "") });
    let data = b"1\x1e".repeat(3_000_000);
    append(&store, id, &data);
    files(&store).checkpoint().unwrap();
    assert_eq!(segment_files(&store), (1, data.len() as u64));
    let grown = Grown { id, is_json: true, all: data, ends: Vec::new() };
    grown.check(&store);
    check_directory(store, dir.path(), &grown);
}

#[test]
fn what_is_deleted_or_trimmed_before_the_checkpoint_leaves_no_file() {
    let dir = tempdir();
    let store = open(with(dir.path(), ahead()));
    let mut grown = Grown::begin(&store, json());
    grown.grow(&store, 40);
    commit(&store, grown.id, StreamEvent::Deleted { at: at(9) });
    files(&store).checkpoint().unwrap();
    assert_eq!((segment_files(&store), segments(dir.path()).len()), ((0, 0), 0));

    let mut grown = Grown::begin(&store, json());
    grown.grow(&store, 40);
    let before = Offset::new(38 * 9_000);
    let trimmed = Trimmed { at: at(9), before, kept: before, messages: None };
    commit(&store, grown.id, StreamEvent::Trimmed(trimmed));
    files(&store).checkpoint().unwrap();
    files(&store).maintain();
    assert_eq!((segment_files(&store), segments(dir.path()).len()), ((0, 0), 0), "34 appends");
    let state = load(&store, "s").unwrap().state;
    assert!(read_all(&store, &state, 1_000) == grown.all[38 * 9_000..]);
    wait(store.close());
    drop(store);
    let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
    assert_eq!(report.count, 0, "{:?}", report.problems);
}

/// How many segments a checkpoint makes of so many streams with 300 bytes each.
fn sealed_of(streams: usize, change: impl FnOnce(&mut FileStoreOptions)) -> u64 {
    let dir = tempdir();
    let segments = SegmentOptions { ahead: 300, max_local: Some(1 << 30), ..large() };
    let mut options = with(dir.path(), segments);
    change(&mut options);
    let store = FileStore::open_on(Arc::new(RealDisk), options).unwrap();
    let store = AnyStore::File(store);
    for n in 0..streams {
        create(&store, Created { data: payload(n, 300).into(), ..created(&format!("s{n}"), "") });
    }
    files(&store).checkpoint().unwrap();
    segment_files(&store).0
}

#[test]
fn with_many_streams_or_a_limit_everything_goes_through_the_index() {
    assert_eq!(sealed_of(2, |_| {}), 2);
    assert_eq!(sealed_of(257, |_| {}), 0);
    assert_eq!(sealed_of(2, |options| options.segments = None), 0);
    let limited = |options: &mut FileStoreOptions| options.max_disk = Some(1 << 30);
    assert_eq!(sealed_of(2, limited), 0);
}
