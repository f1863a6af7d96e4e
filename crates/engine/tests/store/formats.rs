//! What is on disk, byte for byte: a change here is a change of the format. See docs/storage.md.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, AppendEnd, FileStore, FileStoreOptions, MessageForm, Store,
    file::{
        disk::Disk,
        offline,
        segments::format::{SegmentFooter, SegmentWriter},
    },
};
use durable_streams_protocol::{Created, Expiry, Offset, StreamEvent};

use crate::{
    fault_disk::{FaultDisk, Faults},
    harness::*,
    workload::Rng,
};

/// Every kind of event, in a log of its own.
fn write_everything(store: &AnyStore) {
    let mut first = created("a", "hi");
    first.incarnation = 7;
    first.expiry = Expiry::Ttl(60);
    let first = create(store, first);
    let mut event = appended(b"!");
    event.producer = Some(producer("p", 1, 0));
    event.stream_seq = Some(stream_seq("q"));
    event.close = true;
    commit(store, first, StreamEvent::Appended(event)).unwrap();
    commit(store, first, StreamEvent::Touched { at: at(3) }).unwrap();
    let source = load(store, "a").unwrap();
    let fork = Some(fork_of(&source, 2));
    let second = create(store, Created { fork, incarnation: 8, ..created("b", "") });
    commit(store, first, StreamEvent::SoftDeleted { at: at(4) }).unwrap();
    commit(store, second, StreamEvent::Deleted { at: at(5) }).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksum of a frame in segment 1.
fn checksum(frame: &[u8]) -> [u8; 4] {
    let covered = [&1u64.to_le_bytes(), &frame[4..8], &frame[12..]].concat();
    crc32c::crc32c(&covered).to_le_bytes()
}

#[test]
fn the_log_is_written_as_documented() {
    let dir = tempdir();
    let options = FileStoreOptions { wal_segment: 1024, ..options(dir.path()) };
    let store = AnyStore::File(FileStore::open(options).unwrap());
    write_everything(&store);
    drop(store);
    let log = std::fs::read(dir.path().join("wal/00000000000000000001.wal")).unwrap();
    assert_eq!(log.len(), 1024);
    let mut found = vec![hex(&log[..32])];
    let mut at = 32;
    // Ids begin at random in each directory; only that part differs from run to run, and the checksum with it.
    let first_id = log[60..68].to_vec();
    assert_eq!(u64::from_le_bytes(first_id[..].try_into().unwrap()) as u32, 1);
    while log[at..].starts_with(b"DSf2") {
        let len = u32::from_le_bytes(log[at + 4..at + 8].try_into().unwrap()) as usize;
        let mut frame = log[at..at + 52 + len].to_vec();
        assert_eq!(frame[8..12], checksum(&frame), "as docs/storage.md has it");
        for start in 12..frame.len() - 8 {
            if frame[start + 4..start + 8] == first_id[4..] {
                frame[start + 4..start + 8].fill(0);
            }
        }
        let of_the_rest = checksum(&frame);
        frame[8..12].copy_from_slice(&of_the_rest);
        found.push(hex(&frame));
        at += 52 + len;
    }
    assert!(log[at..].iter().all(|byte| *byte == 0), "nothing after the last frame");
    let golden = include_str!("golden/wal.hex");
    let expected: Vec<&str> = golden.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(found, expected, "the format of the log changed:\n{}", found.join("\n"));
    let version = std::fs::read_to_string(dir.path().join("VERSION")).unwrap();
    assert_eq!(version, "durable-streams-server data, format 2\n");
}

/// The bytes were made by hand from the tables of docs/storage.md.
#[test]
fn a_sealed_segment_is_written_as_documented() {
    let json: &[u8] = b"1\x1e2\x1e";
    let file = SegmentWriter::file(3, &[(7, 100, &[2, 1], b"hi!"), (9, 0, &[], json)]);
    let golden = include_str!("golden/segment.hex");
    let expected: String = golden.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(hex(&file), expected, "the format of sealed segments changed");
    let footer = SegmentFooter::of_file(3, &file).unwrap();
    assert_eq!((footer.extents.len(), footer.data_end()), (2, 39));
    // With commas in the place of terminators.
    let file = SegmentWriter::file_as(3, MessageForm::Array, &[(9, 0, &[], json)]);
    let golden = include_str!("golden/segment_array.hex");
    let expected: String = golden.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(hex(&file), expected, "the format of segments with arrays changed");
}

fn fixture(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store").join(format)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What the fixtures hold: a checkpoint, and events after it.
fn write_fixture(store: &AnyStore) {
    write_everything(store);
    let long = create(store, created(&"long/".repeat(150), "in the index"));
    append(store, long, &[7; 100_000]);
    checkpoint(store);
    append(store, long, b"in the log");
    create(store, created("new", "also in the log"));
}

#[test]
fn a_directory_of_format_1_opens() {
    let dir = tempdir();
    copy(&fixture("v1"), dir.path());
    let store = file(dir.path());
    check_format_1(&store);
    let version = std::fs::read_to_string(dir.path().join("VERSION")).unwrap();
    assert_eq!(version, "durable-streams-server data, format 2\n", "older versions refuse it");
}

/// The fixture's directory, its log and `VERSION` on a disk that crashes.
fn faulty_format_1(dir: &Path) -> FaultDisk {
    copy(&fixture("v1").join("store"), &dir.join("store"));
    let disk = FaultDisk::default();
    let log = std::fs::read_dir(fixture("v1").join("wal")).unwrap();
    let log = log.map(|entry| Path::new("wal").join(entry.unwrap().file_name()));
    for name in log.chain([PathBuf::from("VERSION")]) {
        let bytes = std::fs::read(fixture("v1").join(&name)).unwrap();
        disk.open(&dir.join(name), true).unwrap().write_at(0, &bytes).unwrap();
    }
    disk.copy()
}

#[test]
fn a_migration_survives_a_crash_at_any_moment() {
    let mut rng = Rng(1);
    for stop in 1.. {
        let mut opened = true;
        for (kill, sync) in [(false, 0), (true, 0), (false, stop)] {
            let dir = tempdir();
            let disk = faulty_format_1(dir.path());
            let stop_at = if sync == 0 { stop } else { 0 };
            disk.set_faults(Faults { stop_at, sync, ..Faults::default() });
            let open =
                |disk: &FaultDisk| FileStore::open_on(Arc::new(disk.clone()), options(dir.path()));
            let first = open(&disk);
            opened &= first.is_ok();
            drop(first);
            let disk =
                if kill { disk.after_kill(&mut rng) } else { disk.after_power_cut(&mut rng) };
            let store =
                AnyStore::File(open(&disk).unwrap_or_else(|e| panic!("{stop} {sync}: {e}")));
            check_format_1(&store);
            let version = disk.read(&dir.path().join("VERSION")).unwrap();
            assert_eq!(version, b"durable-streams-server data, format 2\n");
        }
        if opened {
            assert!(stop > 5, "the crashes were during the migration");
            return;
        }
    }
}

/// What the fixtures hold.
fn check_format_1(store: &AnyStore) {
    let paths = wait(store.list(None, 10)).unwrap();
    let long = "long/".repeat(150);
    assert_eq!(paths.iter().map(|p| p.as_str()).collect::<Vec<_>>(), ["a", &long, "new"]);

    let first = load(store, "a").unwrap().state;
    assert!(first.soft_deleted && first.producers.len() == 1);
    assert_eq!(first.closed.clone().unwrap().by, Some(producer("p", 1, 0)));
    assert_eq!((first.stream_seq.clone(), first.touched), (Some(stream_seq("q")), at(3)));
    assert_eq!(read_all(store, &first, 100), b"hi!");

    let long = load(store, &long).unwrap().state;
    let expected = [b"in the index".as_slice(), &[7; 100_000], b"in the log"].concat();
    assert_eq!(Bytes::from(read_all(store, &long, 70_000)), expected);
    assert_eq!(load(store, "new").unwrap().state.tail, Offset::new(15));
    assert!(store.next_id() > load(store, "new").unwrap().state.core.id);
}

#[test]
fn ends_of_appends_are_known_from_format_2_on() {
    let dir = tempdir();
    copy(&fixture("v1"), dir.path());
    let path = "long/".repeat(150);
    for round in 0..3 {
        let store = file(dir.path());
        let id = load(&store, &path).unwrap().state.core.id;
        if round > 0 {
            append(&store, id, b"more");
        }
        let tail = load(&store, &path).unwrap().state.tail;
        let end =
            |from, within| wait(store.append_end(id, Offset::new(from), tail, within)).unwrap();
        // 100,012 bytes were in the index of format 1; an append of 10 bytes was in its log.
        assert_eq!(end(0, 100), AppendEnd::Unknown, "round {round}");
        assert_eq!(end(90_000, 10_012), AppendEnd::At(Offset::new(100_012)), "round {round}");
        assert_eq!(end(90_000, 10_020), AppendEnd::At(Offset::new(100_012)), "round {round}");
        assert_eq!(end(100_012, 3), AppendEnd::At(Offset::new(100_022)), "round {round}");
        if round > 0 {
            assert_eq!(end(100_015, 9), AppendEnd::At(Offset::new(100_022)), "round {round}");
            assert_eq!(end(100_022, 3), AppendEnd::At(Offset::new(100_026)), "round {round}");
        }
        wait(store.close());
        drop(store);
        let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
        assert_eq!(report.count, 0, "{:?}", report.problems);
    }
}

#[test]
fn a_directory_of_format_2_opens() {
    let dir = tempdir();
    copy(&fixture("v2"), dir.path());
    let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
    assert_eq!(report.count, 0, "{:?}", report.problems);
    let store = file(dir.path());
    let (first, new) = (load(&store, "a").unwrap().state, load(&store, "new").unwrap().state);
    assert_eq!((first.core.incarnation, first.events), (7, 4));
    assert_eq!(first.tail.to_string(), "0000000000000007_0000000000000003");
    assert_eq!((read_all(&store, &first, 100), new.events), (b"hi!".to_vec(), 1));
    let long = load(&store, &"long/".repeat(150)).unwrap().state;
    let expected = [b"in the index".as_slice(), &[7; 100_000], b"in the log"].concat();
    assert_eq!(Bytes::from(read_all(&store, &long, 70_000)), expected);
    check_ends(
        &store,
        long.core.id,
        &[12, 100_012, 100_022],
        [0, 5, 12, 99_999].into_iter(),
        &[0, 12, 20, 100_020],
    );
}

/// Writes the fixture of the present format. Run it once for a new format, and never again.
#[test]
#[ignore = "writes into the source tree"]
fn write_the_fixture() {
    let to = fixture("v2");
    assert!(!to.exists(), "{} is there already", to.display());
    let dir = tempdir();
    let options = FileStoreOptions { wal_segment: 4096, map_size: 1 << 20, ..options(dir.path()) };
    let store = AnyStore::File(FileStore::open(options).unwrap());
    write_fixture(&store);
    drop(store);
    copy(dir.path(), &to);
    std::fs::remove_file(to.join("store/lock.mdb")).unwrap();
    std::fs::remove_file(to.join("LOCK")).unwrap();
    // Made a moment after the opening, or not.
    let _ = std::fs::remove_file(to.join("wal/reserve"));
}
