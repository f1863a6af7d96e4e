//! Parts of sealed segments that the kernel sends by itself: they are the stream's bytes, and damage is not sent.

use std::{fs, os::unix::fs::FileExt, time::Duration};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, FilePart, FileStoreOptions, MessageForm, Store, StoreError, StoredPiece,
    file::{SegmentOptions, offline},
};
use durable_streams_engine::{Clock, Engine, EngineLimits};
use durable_streams_protocol::{
    ArrayFramer, Created, Decision, MESSAGE_END, Offset, StreamEvent, StreamId, StreamPath,
    StreamState, frame_array,
};

use crate::{
    harness::{at, created, load, options, tempdir, wait},
    segments::{append, commit, create, files, json, large, open, payload, seal, segments, with},
};

const ALL: usize = 900_000;

fn sealed(store: &AnyStore) -> (StreamId, Vec<u8>) {
    let id = create(store, created("s", ""));
    let all = payload(3, ALL);
    all.chunks(9_000).for_each(|data| append(store, id, data));
    assert!(seal(store) > 500_000);
    (id, all)
}

/// A directory with such a stream, of whose first file one bit has flipped; and the bytes of that file.
fn damaged() -> (tempfile::TempDir, StreamId, Vec<u8>) {
    let dir = tempdir();
    let id = {
        let store = open(with(dir.path(), large()));
        sealed(&store).0
    };
    let path = &segments(dir.path())[0];
    let mut file = fs::read(path).unwrap();
    file[32 + 70_000] ^= 0x10;
    fs::write(path, &file).unwrap();
    (dir, id, file)
}

fn part(
    store: &AnyStore,
    id: StreamId,
    from: u64,
    max: usize,
) -> Result<Option<FilePart>, StoreError> {
    part_as(store, id, from, max, MessageForm::Stored)
}

fn part_as(
    store: &AnyStore,
    id: StreamId,
    from: u64,
    max: usize,
    form: MessageForm,
) -> Result<Option<FilePart>, StoreError> {
    wait(store.file_part(id, Offset::new(from), Offset::new(ALL as u64), max, form))
}

/// All bytes of a stream from a position on.
fn read_from(store: &AnyStore, state: &StreamState, from: u64) -> Vec<u8> {
    let (id, mut at, mut all) = (state.core.id, Offset::new(from), Vec::new());
    while at < state.tail {
        let read = wait(store.read(id, at, state.tail, 50_001)).unwrap().concat();
        at = at.advance(read.len() as u64);
        all.extend(read);
    }
    all
}

fn memchr(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == MESSAGE_END).unwrap()
}

fn bytes(part: &FilePart) -> Vec<u8> {
    let mut bytes = vec![0; (part.range.end - part.range.start) as usize];
    part.file.read_exact_at(&mut bytes, part.range.start).unwrap();
    bytes
}

#[test]
fn parts_are_the_streams_bytes_from_any_position_to_where_the_index_has_them() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    let (id, all) = sealed(&store);
    for start in [0, 1, 8_999, 65_504, 65_505, 131_072, 299_000, 400_001] {
        let mut at = start;
        while let Some(part) = part(&store, id, at, 200_000).unwrap() {
            let found = bytes(&part);
            assert!(found.len() <= 200_000);
            assert_eq!(found, all[at as usize..at as usize + found.len()], "from {at}");
            at += found.len() as u64;
        }
        let places = wait(store.places(id)).unwrap().unwrap();
        assert_eq!(
            (places.sealed_to, places.indexed_to.position()),
            (Some(Offset::new(at)), ALL as u64)
        );
        // Only what was not sealed is left. It is read, and joins without a gap.
        let rest =
            wait(store.read(id, Offset::new(at), Offset::new(ALL as u64), ALL)).unwrap().concat();
        assert!((50_000..60_000).contains(&rest.len()), "{} from {start}", rest.len());
        assert!(rest == all[at as usize..], "from {at}");
    }
    let small = part(&store, id, 100, 10_000).unwrap().unwrap();
    assert_eq!(bytes(&small), all[100..10_100]);
    assert!(part(&store, id, ALL as u64 - 10, 200_000).unwrap().is_none(), "it is in the index");
}

/// A sealed JSON stream with so many messages of so many digits, in files of its own.
fn sealed_messages(store: &AnyStore, count: usize, digits: usize) -> (StreamId, Vec<u8>) {
    let kind = Created { content_type: json(), ..created("j", "") };
    let id = create(store, kind);
    let messages: Vec<String> = (0..count).map(|n| format!("[{n:0digits$},[{n}]]\u{1e}")).collect();
    messages.chunks(count / 50).for_each(|some| append(store, id, some.concat().as_bytes()));
    assert!(seal(store) > 0);
    (id, messages.concat().into_bytes())
}

#[test]
fn messages_are_sent_with_commas_and_read_with_their_terminators() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    let (id, stored) = sealed_messages(&store, 3_000, 200);
    let comma = |byte: &u8| if *byte == MESSAGE_END { b',' } else { *byte };
    let commas: Vec<u8> = stored.iter().map(comma).collect();
    let check = |floor: usize| {
        let mut at = floor;
        while let Some(part) = part_as(&store, id, at as u64, 70_001, MessageForm::Array).unwrap() {
            let found = bytes(&part);
            assert!(found == commas[at..at + found.len()], "from {at}");
            at += found.len();
        }
        assert!(at > 300_000, "{at} bytes are sealed");
        assert!(part(&store, id, floor as u64, 1_000).unwrap().is_none(), "of another form");
        for from in [floor, floor + 1, 65_503, 65_504, 65_505, 131_071, 250_000, at - 7] {
            for len in [1, 500, 65_536, 200_000] {
                let (from, to) = (from as u64, (from + len).min(stored.len()));
                let read = wait(store.read(id, Offset::new(from), Offset::new(to as u64), len));
                let read = read.unwrap().concat();
                assert!(!read.is_empty() && stored[from as usize..to].starts_with(&read), "{from}");
            }
        }
        let state = load(&store, "j").unwrap().state;
        assert!(read_from(&store, &state, floor as u64) == stored[floor..]);
    };
    check(0);
    // The file is written again, in the same form; a trim leaves the rest of it.
    let number = files(&store).segments_after(None, 1).unwrap()[0].number;
    files(&store).renew_segment(number).unwrap();
    check(0);
    let message = stored.len() / 3_000 * 7;
    let floor = message + 1 + memchr(&stored[message..]);
    let state = load(&store, "j").unwrap().state;
    let trimmed = state.trim(Offset::new(floor as u64), None, false, at(9)).unwrap();
    let Decision::Commit(event, _) = trimmed else { panic!("nothing to trim") };
    commit(&store, id, event);
    files(&store).checkpoint().unwrap();
    files(&store).maintain();
    check(floor);
    drop(store);
    let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
    assert_eq!(report.count, 0, "{:?}", report.problems);
}

/// The list of their ends would take as much room as the messages.
#[test]
fn tiny_messages_are_sealed_as_they_are() {
    let dir = tempdir();
    let store = open(with(dir.path(), SegmentOptions { size: 1 << 20, ..large() }));
    let (id, stored) = sealed_messages(&store, 100_000, 1);
    assert!(part_as(&store, id, 0, 1_000, MessageForm::Array).unwrap().is_none());
    let state = load(&store, "j").unwrap().state;
    assert!(read_from(&store, &state, 0) == stored);
    // One file of each part, and nothing of the attempts before it.
    let numbers = files(&store).segments_after(None, 100).unwrap();
    assert_eq!(segments(dir.path()).len(), numbers.len());
}

/// In one file: what is worth sending, what is not, and bytes that look like terminators and are none.
#[test]
fn streams_that_share_a_file_are_each_in_a_form_of_their_own() {
    let dir = tempdir();
    let store = open(with(dir.path(), SegmentOptions { idle: Duration::ZERO, ..large() }));
    let message = |n: usize| format!("[\"{}\"]\u{1e}", "x".repeat(200 + n % 50));
    let messages = |count: usize| (0..count).map(message).collect::<String>().into_bytes();
    let (much, few) = (messages(400), messages(200));
    let bytes: Vec<u8> = payload(3, 80_000).iter().map(|byte| byte % 0x20).collect();
    assert!(much.len() > 65_536 && few.len() < 65_536 && bytes.contains(&MESSAGE_END));
    let mut ids = Vec::new();
    for (path, data) in [("c", &bytes), ("a", &few), ("b", &much), ("d", &bytes)] {
        let mut kind = created(path, "");
        if path < "c" {
            kind.content_type = json();
        }
        let id = create(&store, kind);
        append(&store, id, data);
        ids.push(id);
    }
    let [c, a, b, d] = ids[..] else { panic!() };
    assert!(seal(&store) > 0);
    assert_eq!(segments(dir.path()).len(), 1);
    let check = || {
        let sent = |id, form| {
            let part = part_as(&store, id, 0, 70_000, form).unwrap();
            part.map(|part| self::bytes(&part))
        };
        let commas = |data: &[u8]| -> Vec<u8> {
            let comma = |byte: &u8| if *byte == MESSAGE_END { b',' } else { *byte };
            data.iter().map(comma).collect()
        };
        assert_eq!(sent(a, MessageForm::Array), None, "it is small");
        assert!(sent(b, MessageForm::Array).unwrap() == commas(&much[..70_000]));
        assert_eq!(sent(b, MessageForm::Stored), None, "it has commas");
        for id in [c, d] {
            assert!(sent(id, MessageForm::Stored).unwrap() == bytes[..70_000]);
        }
        for (path, data) in [("a", &few), ("b", &much), ("c", &bytes), ("d", &bytes)] {
            let state = load(&store, path).unwrap().state;
            assert!(read_from(&store, &state, 0) == *data, "{path}");
        }
    };
    check();
    let number = files(&store).segments_after(None, 1).unwrap()[0].number;
    files(&store).renew_segment(number).unwrap();
    check();
}

#[test]
fn a_small_extent_is_read() {
    let dir = tempdir();
    let store = open(with(dir.path(), SegmentOptions { idle: Duration::ZERO, ..large() }));
    let id = create(&store, created("s", ""));
    append(&store, id, &payload(1, 60_000));
    files(&store).checkpoint().unwrap();
    assert_eq!(wait(store.places(id)).unwrap().unwrap().sealed_to, None);
    assert!(seal(&store) > 0);
    assert!(part(&store, id, 0, 200_000).unwrap().is_none());
    let read = wait(store.read(id, Offset::ZERO, Offset::new(60_000), ALL)).unwrap().concat();
    assert!(read == payload(1, 60_000));
}

#[test]
fn a_part_of_a_deleted_stream_can_be_sent_to_its_end() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    let (id, all) = sealed(&store);
    let part = part(&store, id, 0, 200_000).unwrap().unwrap();
    commit(&store, id, StreamEvent::Deleted { at: at(9) });
    files(&store).checkpoint().unwrap();
    files(&store).maintain();
    assert!(segments(dir.path()).is_empty());
    assert_eq!(bytes(&part), all[..200_000]);
}

/// The second look does not ask the index, where the file system tells what is in memory: one in memory does not.
#[test]
fn a_part_that_was_found_before_is_found_as_long_as_it_is_there() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = open(with(dir.path(), large()));
    let (id, all) = sealed(&store);
    let whole = |from: u64| {
        let mut found = Vec::new();
        while let Some(part) = part(&store, id, from + found.len() as u64, 70_000).unwrap() {
            found.extend(bytes(&part));
        }
        found
    };
    let sealed = whole(0);
    assert!(sealed.len() > 500_000 && sealed == all[..sealed.len()]);
    for from in [0, 1, 69_999, 131_072, 299_999, 300_001, 450_000] {
        assert!(whole(from) == sealed[from as usize..], "from {from}");
    }
    let end = part(&store, id, sealed.len() as u64 - 1, 100).unwrap().unwrap();
    assert_eq!(bytes(&end), sealed[sealed.len() - 1..]);
    // The bytes of one file move to another.
    let old = segments(dir.path());
    let number = files(&store).segments_after(None, 1).unwrap()[0].number;
    files(&store).renew_segment(number).unwrap();
    assert_ne!(segments(dir.path()), old);
    assert!(whole(0) == sealed);
    // A trim leaves a part of an extent, and its file.
    let state = load(&store, "s").unwrap().state;
    let trimmed = state.trim(Offset::new(100_000), None, false, at(9)).unwrap();
    let Decision::Commit(event, _) = trimmed else { panic!("nothing to trim") };
    commit(&store, id, event);
    assert!(whole(100_001) == sealed[100_001..]);
    files(&store).checkpoint().unwrap();
    files(&store).maintain();
    for from in [0, 99_999] {
        assert!(part(&store, id, from, 100).unwrap().is_none(), "{from} was trimmed");
    }
    assert!(whole(100_000) == sealed[100_000..]);
    commit(&store, id, StreamEvent::Deleted { at: at(9) });
    files(&store).checkpoint().unwrap();
    files(&store).maintain();
    assert!(part(&store, id, 0, 100).unwrap().is_none());
}

#[test]
fn a_read_gets_a_part_of_a_file_or_the_bytes_themselves() {
    let dir = tempdir();
    let store = open(FileStoreOptions { cache: 1, ..with(dir.path(), large()) });
    let (id, all) = sealed(&store);
    let to = Offset::new(ALL as u64);
    let read = |from: u64| {
        wait(store.read_or_part(id, Offset::new(from), to, 1_000, 50_000, MessageForm::Stored))
            .unwrap()
    };
    let places = wait(store.places(id)).unwrap().unwrap();
    let indexed = places.sealed_to.unwrap().position();
    for _ in 0..2 {
        let StoredPiece::File(part) = read(7) else { panic!("it is in a segment") };
        assert_eq!(bytes(&part), all[7..50_007]);
        let StoredPiece::Bytes(found) = read(indexed) else { panic!("it is in the index") };
        let found = found.concat();
        assert!((1..=1_000).contains(&found.len()), "{}", found.len());
        assert_eq!(found, all[indexed as usize..indexed as usize + found.len()]);
    }
}

#[test]
fn damage_is_noticed_when_bytes_come_from_the_disk() {
    let (dir, id, _) = damaged();
    let store = open(with(dir.path(), large()));
    let damaged = part(&store, id, 0, 200_000).unwrap_err();
    assert!(matches!(damaged, StoreError::Corrupt { .. }), "{damaged}");
    assert!(damaged.to_string().contains(".seg"), "{damaged}");
    let whole = part(&store, id, 140_000, 100_000).unwrap().unwrap();
    assert_eq!(bytes(&whole).len(), 100_000);
}

/// Without checks clients get what the disk has. Everything else notices damage as before.
#[test]
fn reads_without_checks_are_those_of_clients_alone() {
    let (dir, id, file) = damaged();
    let unchecked = FileStoreOptions { check_segment_reads: false, ..with(dir.path(), large()) };
    let store = open(unchecked);
    let sent = part(&store, id, 0, 200_000).unwrap().unwrap();
    assert!(bytes(&sent) == file[32..200_032]);
    let read = wait(store.read(id, Offset::new(69_999), Offset::new(70_010), 11)).unwrap();
    assert_eq!(read.concat(), file[32 + 69_999..32 + 70_010]);
    assert_eq!(files(&store).scrub(), 1);
    // Damage gets no checksum of its own in a new file.
    let number = files(&store).segments_after(None, 1).unwrap()[0].number;
    let renewed = files(&store).renew_segment(number).unwrap_err();
    assert!(matches!(renewed, StoreError::Corrupt { .. }), "{renewed}");
    drop(store);
    let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
    assert_eq!(report.count, 1, "{:?}", report.problems);
}

/// As a server reads that can send files: parts of files where there are some, and pieces of memory.
#[test]
fn a_plan_to_send_is_the_stream_in_parts_of_files_and_in_pieces() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    let (_, all) = sealed(&store);
    let engine = Engine::new(store, Clock::System, EngineLimits::default());
    let view = wait(engine.head(&StreamPath::new("s").unwrap())).unwrap();
    let (core, tail) = (view.core, view.tail.offset);
    for from in [0, 70_000, 899_000] {
        let from = Offset::new(from);
        let read = wait(engine.plan(&core, from, tail, None)).unwrap();
        assert!(!read.is_in_file(), "this caller cannot send files");
        let mut plan = wait(engine.plan_to_send(&core, from, tail, None)).unwrap();
        assert_eq!(plan.is_in_file(), from.position() < 800_000);
        assert_eq!(plan.len(), tail.position() - from.position());
        let (mut found, mut in_files) = (plan.take_first().chunks.concat(), 0);
        while !plan.is_empty() {
            if let Some(part) = wait(engine.next_file_part(&core, &mut plan, 100_000)).unwrap() {
                found.extend(bytes(&part));
                in_files += part.len();
            } else {
                let piece = wait(engine.next_piece(&core, &mut plan, 100_000)).unwrap();
                found.extend(piece.unwrap().concat());
            }
        }
        assert!(found == all[from.position() as usize..], "from {from}");
        assert_eq!(in_files > 0, from.position() < 800_000);
        assert_eq!(wait(engine.next_file_part(&core, &mut plan, 1)).unwrap(), None, "the end");
    }
}

/// As a server sends it: a bracket, parts of files with commas and pieces with terminators, and a bracket.
#[test]
fn a_plan_to_send_messages_leaves_the_last_terminator_to_its_caller() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    let (id, stored) = sealed_messages(&store, 3_000, 200);
    let places = wait(store.places(id)).unwrap().unwrap();
    let sealed = places.sealed_to.unwrap().position() as usize;
    let engine = Engine::new(store, Clock::System, EngineLimits::default());
    let view = wait(engine.head(&StreamPath::new("j").unwrap())).unwrap();
    let core = view.core;
    let ends: Vec<usize> = memchr::memchr_iter(MESSAGE_END, &stored).map(|at| at + 1).collect();
    let last_sealed = ends.iter().rposition(|end| *end == sealed).unwrap();
    for (from, to, in_file) in [
        (0, ends[last_sealed], true),
        (0, ends[400], true),
        (0, stored.len(), true),
        // A message before it is looked at.
        (ends[10], ends[last_sealed], false),
        (ends[last_sealed], stored.len(), false),
    ] {
        let case = format!("from {from} to {to}");
        let (start, tail) = (Offset::new(from as u64), Offset::new(to as u64));
        let mut plan = wait(engine.plan_to_send(&core, start, tail, None)).unwrap();
        assert_eq!((plan.is_in_file(), plan.len()), (in_file, (to - from) as u64), "{case}");
        let mut framer = ArrayFramer::new(plan.len());
        let (mut array, mut in_files) = (Vec::new(), 0);
        framer.begin(&mut array);
        plan.take_first().chunks.iter().for_each(|chunk| framer.put(&mut array, chunk));
        while plan.len() > 1 {
            let most = (plan.len() as usize - 1).min(100_000);
            if let Some(part) = wait(engine.next_file_part(&core, &mut plan, most)).unwrap() {
                framer.pass(part.len());
                array.extend(bytes(&part));
                in_files += part.len() as usize;
            } else {
                let piece = wait(engine.next_piece(&core, &mut plan, 100_000)).unwrap();
                piece.unwrap().iter().for_each(|chunk| framer.put(&mut array, chunk));
            }
        }
        if !plan.is_empty() {
            plan.skip_last();
            framer.put(&mut array, &[MESSAGE_END]);
        }
        assert!(plan.is_empty() && wait(engine.next_piece(&core, &mut plan, 1)).unwrap().is_none());
        assert!(array == frame_array(&[Bytes::copy_from_slice(&stored[from..to])]), "{case}");
        let read_first = if in_file { 0 } else { 64 << 10 };
        let sent = (to.min(sealed) - from.min(sealed)).saturating_sub(read_first);
        assert_eq!(in_files, sent - usize::from(sent > 0 && to <= sealed), "{case}");
    }
    // A page is read, and what is behind it of a page that goes on is not.
    let page = wait(engine.plan_to_send(&core, Offset::ZERO, view.tail.offset, Some(100_000)));
    assert!(!page.unwrap().is_in_file());
}

#[test]
fn of_an_extent_that_was_sent_before_no_block_is_sent_unchecked() {
    let (dir, id, _) = damaged();
    let store = open(with(dir.path(), large()));
    let state = load(&store, "s").unwrap().state;
    let all = payload(3, ALL);
    // Of the first block only, and again, without a look at the index.
    for _ in 0..2 {
        let first = part(&store, id, 10, 60_000).unwrap().unwrap();
        assert!(bytes(&first) == all[10..60_010]);
    }
    let damaged = part(&store, id, 66_000, 10_000);
    assert!(matches!(damaged, Err(StoreError::Corrupt { .. })), "{damaged:?}");
    let both = part(&store, id, 60_000, 20_000);
    assert!(matches!(both, Err(StoreError::Corrupt { .. })), "{both:?}");
    let behind = part(&store, id, 131_072, 60_000).unwrap().unwrap();
    assert!(bytes(&behind) == all[131_072..191_072]);
    assert_eq!(state.tail.position(), ALL as u64);
}
