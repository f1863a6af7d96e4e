//! Sealed segments: what leaves the index, how it is read, and what frees its files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, AppendEnd, FileStore, FileStoreOptions, LoadFor, Store, StoreError,
    file::{
        SegmentOptions,
        disk::RealDisk,
        offline::{self, LostPart},
        segments::format::{SegmentFooter, SegmentWriter, number_of},
    },
};
use durable_streams_protocol::{ContentType, Created, Offset, StreamEvent, StreamId, StreamState};

use crate::harness::*;

mod sharing;

/// Without threads, so that nothing is sealed but by [`seal`].
pub(crate) fn open(options: FileStoreOptions) -> AnyStore {
    AnyStore::File(FileStore::open_on(Arc::new(RealDisk), options).unwrap())
}

pub(crate) fn with(dir: &Path, segments: SegmentOptions) -> FileStoreOptions {
    FileStoreOptions { segments: Some(segments), cache: 0, ..options(dir) }
}

pub(crate) fn large() -> SegmentOptions {
    SegmentOptions {
        min: 100_000,
        keep: 50_000,
        size: 300_000,
        idle: Duration::from_secs(1 << 40),
        share: 1,
        ..SegmentOptions::DEFAULT
    }
}

pub(crate) fn files(store: &AnyStore) -> &FileStore {
    let AnyStore::File(files) = store else { panic!("a file store") };
    files
}

/// Commits in a store without threads.
pub(crate) fn commit(store: &AnyStore, id: StreamId, event: StreamEvent) {
    use durable_streams_engine::store::Commit;
    let sink = Arc::new(Sink::default());
    let (place, epoch) = (place(store, id, &event), store.epoch());
    store.commit(Commit { id, event, place, epoch, version: 1, sink: sink.clone() }).unwrap();
    files(store).step();
    sink.wait_for(1).unwrap();
}

pub(crate) fn create(store: &AnyStore, created: Created) -> StreamId {
    let id = store.next_id();
    commit(store, id, StreamEvent::Created(Box::new(created)));
    id
}

pub(crate) fn append(store: &AnyStore, id: StreamId, data: &[u8]) {
    commit(store, id, StreamEvent::Appended(appended(data)));
}

pub(crate) fn seal(store: &AnyStore) -> u64 {
    files(store).checkpoint().unwrap();
    rest(store);
    rest(store);
    files(store).seal().unwrap()
}

pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("segments")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

pub(crate) fn footer(path: &Path) -> SegmentFooter {
    let number = number_of(path.file_name().unwrap().to_str().unwrap()).unwrap();
    SegmentFooter::of_file(number, &fs::read(path).unwrap()).unwrap()
}

pub(crate) fn payload(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + seed * 7 + at / 251) as u8).collect()
}

fn verify(dir: &Path) {
    let report = offline::verify(&options(dir), &mut |_| {}).unwrap();
    assert_eq!(report.count, 0, "{:?}", report.problems);
}

pub(crate) fn json() -> ContentType {
    ContentType::parse("application/json").unwrap()
}

#[test]
fn a_large_stream_is_sealed_and_read_as_before() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    let mut all = Vec::new();
    let id = create(&store, created("s", ""));
    let mut ends = Vec::new();
    for n in 0..100 {
        let data = payload(n, 9_000 + n);
        append(&store, id, &data);
        all.extend_from_slice(&data);
        ends.push(all.len() as u64);
    }
    let sealed = seal(&store);
    assert!(sealed > 800_000 && sealed <= all.len() as u64 - 50_000, "{sealed} of {}", all.len());
    let stats = files(&store).file_stats();
    assert_eq!((stats.segment_files, stats.segment_live_bytes), (3, sealed));
    assert_eq!(segments(dir.path()).len(), 3);
    let mut next = 0;
    for path in segments(dir.path()) {
        let footer = footer(&path);
        let [extent] = &footer.extents[..] else { panic!("one extent") };
        assert_eq!((extent.stream, extent.start), (id.0, next));
        next += extent.len;
        assert!(ends.contains(&next), "it ends with a whole append");
        let lens: Vec<_> =
            ends.iter().filter(|end| **end > extent.start && **end <= next).collect();
        assert_eq!(extent.append_lens.len(), lens.len() * 2, "two bytes for each length");
    }
    let state = load(&store, "s").unwrap().state;
    for window in [1_000, 65_536, 100_000, 700_001, usize::MAX] {
        assert!(read_all(&store, &state, window) == all, "windows of {window}");
    }
    check_ends(&store, id, &ends, [0, 5, 9_000, 500_000].into_iter(), &[0, 9_000, 40_000]);
    // It goes on, and is sealed again.
    append(&store, id, b"more");
    all.extend_from_slice(b"more");
    assert_eq!(seal(&store), 0, "too little is new");
    let state = load(&store, "s").unwrap().state;
    assert!(read_all(&store, &state, 77_777) == all);
    wait(store.close());
    drop(store);
    verify(dir.path());
    let store = open(options(dir.path()));
    assert!(read_all(&store, &state, 77_777) == all, "after a start without sealing");
    assert_eq!(files(&store).scrub(), 0);
}

#[test]
fn messages_stay_whole_also_large_ones() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    let id = create(&store, Created { content_type: json(), ..created("j", "") });
    let mut all = Vec::new();
    // Appends of several messages, and one message that is larger than a segment.
    for n in 0..60 {
        let len = if n == 30 { 700_000 } else { 7_000 };
        let message = [b"\"".to_vec(), vec![b'a' + n % 26; len], b"\"\x1e".to_vec()].concat();
        let data = [&message[..], &b"1\x1e"[..]].concat();
        append(&store, id, &data);
        all.extend_from_slice(&data);
    }
    assert!(seal(&store) > 700_000);
    for path in segments(dir.path()) {
        for extent in footer(&path).extents {
            let end = (extent.start + extent.len) as usize;
            assert_eq!(all[end - 1], 0x1e, "it ends with a whole message");
            assert!(extent.append_lens.is_empty());
        }
    }
    let state = load(&store, "j").unwrap().state;
    assert!(read_all(&store, &state, 100_000) == all);
    wait(store.close());
    drop(store);
    verify(dir.path());
}

#[test]
fn idle_small_streams_share_a_file_and_leave_it() {
    let dir = tempdir();
    let store = open(with(dir.path(), SegmentOptions { idle: Duration::ZERO, ..large() }));
    let ids: Vec<_> = (0..50)
        .map(|n| {
            let data = Bytes::from(payload(n, 256 + n));
            create(&store, Created { data, ..created(&format!("s/{n}"), "") })
        })
        .collect();
    let check = |store: &AnyStore, n: usize, more: &[u8]| {
        let state = load(store, &format!("s/{n}")).unwrap().state;
        let expected = [&payload(n, 256 + n), more].concat();
        for window in [100, 10_000] {
            assert!(read_all(store, &state, window) == expected, "stream {n}");
        }
    };
    assert_eq!(seal(&store), (0..50).map(|n| 256 + n).sum::<u64>());
    let [path] = &segments(dir.path())[..] else { panic!("one file") };
    assert_eq!(footer(path).extents.len(), 50);
    (0..50).for_each(|n| check(&store, n, b""));
    // One goes on. Its few new bytes stay in the index.
    append(&store, ids[7], b"more");
    assert_eq!(seal(&store), 0);
    check(&store, 7, b"more");
    // Less than half of the file is live: what is live moves.
    for id in &ids[20..] {
        commit(&store, *id, StreamEvent::Deleted { at: at(9) });
    }
    files(&store).checkpoint().unwrap();
    files(&store).maintain();
    files(&store).seal().unwrap();
    let [rewritten] = &segments(dir.path())[..] else { panic!("one file") };
    assert!(rewritten != path, "a number is not used again");
    assert_eq!(footer(rewritten).extents.len(), 20);
    (0..20).for_each(|n| check(&store, n, if n == 7 { b"more" } else { b"" }));
    assert_eq!(files(&store).scrub(), 0);
    // A copy is being made: the file stays until its end.
    let held = files(&store).hold_segments();
    for id in &ids[..20] {
        commit(&store, *id, StreamEvent::Deleted { at: at(9) });
    }
    files(&store).checkpoint().unwrap();
    files(&store).maintain();
    assert_eq!((segments(dir.path()).len(), files(&store).file_stats().segment_files), (1, 0));
    drop(held);
    assert!(segments(dir.path()).is_empty());
    wait(store.close());
    drop(store);
    verify(dir.path());
}

#[test]
fn the_bytes_of_a_small_sealed_stream_come_with_its_state() {
    let dir = tempdir();
    let small = SegmentOptions { idle: Duration::ZERO, ..large() };
    let options = FileStoreOptions { cache: 1 << 20, ..with(dir.path(), small) };
    let store = open(options.clone());
    let name = |n: usize| format!("s/{n}");
    for n in 0..3 {
        let data = Bytes::from(payload(n, 256));
        let id = create(&store, Created { data, ..created(&name(n), "") });
        append(&store, id, b"sealed, too");
    }
    assert!(seal(&store) > 0);
    wait(store.close());
    drop(store);

    let store = open(options);
    let load_for =
        |n: usize, purpose| wait(store.load(&path(&name(n)), purpose)).unwrap().unwrap().state;
    let whole = load_for(0, LoadFor::Bytes);
    let state_only = load_for(1, LoadFor::State);
    let [sealed] = &segments(dir.path())[..] else { panic!("one file") };
    let mut bytes = fs::read(sealed).unwrap();
    bytes[32..32 + 3 * 256].fill(0);
    fs::write(sealed, &bytes).unwrap();
    let read =
        |state: &StreamState| wait(store.read(state.core.id, Offset::ZERO, state.tail, 10_000));
    let expected = [&payload(0, 256)[..], b"sealed, too"].concat();
    assert_eq!(read(&whole).unwrap().concat(), expected, "it was read with its state");
    assert_eq!(
        wait(store.append_end(whole.core.id, Offset::ZERO, whole.tail, 100)).unwrap(),
        AppendEnd::At(Offset::new(256)),
        "and so were the ends of its appends"
    );
    let damaged = read(&state_only).unwrap_err();
    assert!(matches!(damaged, StoreError::Corrupt { .. }), "{damaged}");
    // Damage is no reason to have no state.
    assert_eq!(load_for(2, LoadFor::Bytes).tail, Offset::new(256 + 11));
}

#[test]
fn what_nothing_references_is_swept_at_a_start() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    let id = create(&store, created("s", ""));
    append(&store, id, &payload(1, 400_000));
    append(&store, id, &payload(2, 100_000));
    assert!(seal(&store) > 0);
    let before = segments(dir.path());
    drop(store);
    let orphan =
        SegmentWriter::file(7, &[(id.0, 0, &[], b"of an extent that no stream has there")]);
    let put = |name: &str, bytes: &[u8]| {
        fs::write(dir.path().join("segments").join(name), bytes).unwrap();
    };
    put("00000000000000000007.seg", &orphan);
    put("00000000000000000009.new", b"x");
    put("00000000000000000008.seg", b"no segment: it is left alone");
    put("notes", b"an operator's");
    let store = open(with(dir.path(), large()));
    let mut after = before.clone();
    after.push(dir.path().join("segments/00000000000000000008.seg"));
    after.push(dir.path().join("segments/notes"));
    assert_eq!(segments(dir.path()), after);
    append(&store, id, &payload(3, 400_000));
    append(&store, id, &payload(2, 100_000));
    assert!(seal(&store) > 0);
    let last = dir.path().join("segments/00000000000000000010.seg");
    assert!(last.exists(), "a number is not used again: {:?}", segments(dir.path()));
}

/// A store with a sealed stream of 20 appends of 50,000 bytes, and other streams.
pub(crate) fn sealed_store(dir: &Path) -> (StreamId, Vec<u8>) {
    let store = open(with(dir, large()));
    let id = create(&store, created("s", ""));
    create(&store, created("other", "whole"));
    let mut all = Vec::new();
    for n in 0..20 {
        let data = payload(n, 50_000);
        append(&store, id, &data);
        all.extend_from_slice(&data);
    }
    assert!(seal(&store) > 800_000);
    wait(store.close());
    (id, all)
}

#[test]
fn a_damaged_block_is_refused_reported_and_dropped() {
    let dir = tempdir();
    let (id, all) = sealed_store(dir.path());
    let first = &segments(dir.path())[0];
    let mut bytes = fs::read(first).unwrap();
    bytes[32 + 130_000] ^= 1;
    fs::write(first, bytes).unwrap();
    let store = open(options(dir.path()));
    let state = load(&store, "s").unwrap().state;
    let read = |from: u64, to: u64| {
        let read = wait(store.read(id, from.into_offset(), to.into_offset(), usize::MAX));
        read.map(|pieces| pieces.concat())
    };
    assert!(read(0, 65_536).unwrap() == all[..65_536], "blocks before are whole");
    let damaged = read(120_000, 131_072);
    assert!(matches!(damaged, Err(StoreError::Corrupt { .. })), "{damaged:?}");
    assert!(read(131_072, 300_000).unwrap() == all[131_072..300_000], "and those behind");
    assert_eq!(files(&store).scrub(), 1);
    drop(store);
    let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
    assert_eq!(report.count, 1, "{:?}", report.problems);
    assert!(report.problems[0].to_string().contains("segments"), "{}", report.problems[0]);

    let damage = offline::repair_index(&options(dir.path()), true, &mut |_| {}).unwrap().unwrap();
    let [lost] = &damage.lost[..] else { panic!("{damage:?}") };
    let LostPart::Bytes { from, to } = lost.part else { panic!("{damage:?}") };
    // The block, widened to whole appends.
    assert_eq!((from, to), (50_000, 150_000));
    verify(dir.path());
    let store = open(with(dir.path(), large()));
    let dropped = store.dropped(id, 0.into_offset(), state.tail).unwrap();
    assert_eq!((dropped.0.position(), dropped.1.position()), (from, to));
    let read = |from: u64, to: u64| {
        wait(store.read(id, from.into_offset(), to.into_offset(), usize::MAX)).unwrap().concat()
    };
    assert!(read(0, 50_000) == all[..50_000]);
    assert!(read(150_000, 1_000_000) == all[150_000..]);
    assert_eq!(files(&store).scrub(), 0);
    seal(&store);
    commit(&store, id, StreamEvent::Deleted { at: at(9) });
    files(&store).checkpoint().unwrap();
    files(&store).maintain();
    let [aside] = &segments(dir.path())[..] else { panic!("{:?}", segments(dir.path())) };
    assert!(aside.ends_with("00000000000000000001.seg.dropped"), "for an operator");
}

#[test]
fn a_missing_file_and_another_one_are_refused_and_dropped() {
    for another in [false, true] {
        let dir = tempdir();
        let (id, all) = sealed_store(dir.path());
        let paths = segments(dir.path());
        if another {
            let elsewhere = tempdir();
            sealed_store(elsewhere.path());
            fs::copy(&segments(elsewhere.path())[1], &paths[1]).unwrap();
        } else {
            fs::remove_file(&paths[1]).unwrap();
        }
        let extent = footer(&paths[0]).extents[0].len;
        let store = open(options(dir.path()));
        let read = |from: u64, to: u64| {
            let read = wait(store.read(id, from.into_offset(), to.into_offset(), usize::MAX));
            read.map(|pieces| pieces.concat())
        };
        assert!(read(0, extent).unwrap() == all[..extent as usize]);
        let refused = read(extent, extent + 10);
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
        assert_eq!(files(&store).scrub(), 1);
        drop(store);
        assert!(offline::verify(&options(dir.path()), &mut |_| {}).unwrap().count > 0);
        let to = tempdir();
        let backup = offline::backup(&options(dir.path()), to.path(), &[], &mut |_| {});
        assert!(matches!(backup, Err(StoreError::Corrupt { .. })), "{backup:?}");
        let damage = offline::repair_index(&options(dir.path()), true, &mut |_| {});
        assert_eq!(damage.unwrap().unwrap().lost.len(), 1);
        verify(dir.path());
        let aside = paths[1].with_extension("seg.dropped");
        assert_eq!(aside.exists(), another, "what is there is kept for an operator");
        let store = open(options(dir.path()));
        let read = wait(store.read(id, 0.into_offset(), extent.into_offset(), usize::MAX));
        assert!(read.unwrap().concat() == all[..extent as usize]);
        assert!(store.dropped(id, 0.into_offset(), 1_000_000.into_offset()).is_some());
    }
}

#[test]
fn backups_have_the_segments_that_their_index_needs() {
    let dir = tempdir();
    let (_, all) = sealed_store(dir.path());
    let check = |dir: &Path| {
        verify(dir);
        let store = open(options(dir));
        let state = load(&store, "s").unwrap().state;
        assert!(read_all(&store, &state, 77_777) == all);
    };
    let (stopped, serving, restored, without) = (tempdir(), tempdir(), tempdir(), tempdir());
    offline::backup(&options(dir.path()), stopped.path(), &[], &mut |_| {}).unwrap();
    check(stopped.path());
    let left_out = [path("s")];
    let found = offline::backup(&options(dir.path()), without.path(), &left_out, &mut |_| {});
    let (found, left_out) = found.unwrap();
    assert_eq!((found.segments, left_out[0].bytes), (0, 1_000_000));
    assert!(segments(without.path()).is_empty());
    verify(without.path());
    let store = open(with(dir.path(), large()));
    files(&store).backup(serving.path()).unwrap();
    drop(store);
    check(serving.path());
    offline::restore(serving.path(), &options(restored.path()), &mut |_| {}).unwrap();
    check(restored.path());
    offline::compact(&options(restored.path()), &mut |_| {}).unwrap();
    check(restored.path());
}

/// A directory that today's earlier versions wrote has no databases for segments, and counts fewer.
#[test]
fn a_directory_without_segments_gets_them() {
    let dir = tempdir();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store/v2");
    for sub in ["wal", "store"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
        for entry in fs::read_dir(fixture.join(sub)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join(sub).join(entry.file_name())).unwrap();
        }
    }
    fs::copy(fixture.join("VERSION"), dir.path().join("VERSION")).unwrap();
    let tiny = SegmentOptions { min: 20_000, keep: 100, ..large() };
    let store = open(with(dir.path(), tiny));
    assert!(seal(&store) > 90_000);
    let long = load(&store, &"long/".repeat(150)).unwrap().state;
    let expected = [b"in the index".as_slice(), &[7; 100_000], b"in the log"].concat();
    assert!(read_all(&store, &long, 70_000) == expected);
    wait(store.close());
    drop(store);
    verify(dir.path());
}

#[test]
fn a_limit_on_disk_use_keeps_bytes_in_the_index() {
    let dir = tempdir();
    let limited = FileStoreOptions { max_disk: Some(64 << 20), ..with(dir.path(), large()) };
    let store = open(limited);
    let id = create(&store, created("s", ""));
    append(&store, id, &payload(1, 400_000));
    append(&store, id, &payload(2, 100_000));
    assert_eq!(seal(&store), 0);
    assert!(segments(dir.path()).is_empty());
}

/// A damaged key hides the record of a file: the start leaves the file alone, and `repair` writes the record again.
#[test]
fn a_file_whose_record_is_hidden_stays() {
    let dir = tempdir();
    let (_, all) = sealed_store(dir.path());
    let before = segments(dir.path());
    let index = dir.path().join("store/data.mdb");
    let mut bytes = fs::read(&index).unwrap();
    // The key of file 2, and the size of its value: 33 bytes.
    let node = [&[33, 0, 0, 0, 0, 0, 8, 0][..], &2_u64.to_be_bytes()].concat();
    let places: Vec<_> =
        (0..bytes.len() - node.len()).filter(|at| bytes[*at..].starts_with(&node)).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[at + 15] = 0x82);
    fs::write(&index, bytes).unwrap();
    let store = open(options(dir.path()));
    assert_eq!(segments(dir.path()), before);
    let state = load(&store, "s").unwrap().state;
    let read = wait(store.read(state.core.id, 0.into_offset(), state.tail, usize::MAX));
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    drop(store);
    let damage = offline::repair_index(&options(dir.path()), true, &mut |_| {}).unwrap().unwrap();
    assert_eq!((damage.lost.len(), damage.rewritten.contains(&"segment_files")), (0, true));
    verify(dir.path());
    let store = open(options(dir.path()));
    assert!(read_all(&store, &state, 77_777) == all);
}

trait IntoOffset {
    fn into_offset(self) -> durable_streams_protocol::Offset;
}

impl IntoOffset for u64 {
    fn into_offset(self) -> durable_streams_protocol::Offset {
        durable_streams_protocol::Offset::new(self)
    }
}
