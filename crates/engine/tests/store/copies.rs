//! What a copied data directory holds: the log and the secrets beside the index, and segments as objects only.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
};

use durable_streams_engine::store::{
    Store as _, StoreError,
    file::{
        Destination, keys_dir,
        offline::{self, BackupContents, SegmentRange, VerifiedTotals},
        segments::objects::SegmentPlace,
    },
};
use durable_streams_protocol::StreamEvent;

use crate::harness::*;
use crate::objects::{flip, moved};
use crate::segments::{self, append, create, files, large, open, seal, with};
use crate::tiering::{all, sealed, to_object};

fn backup(from: &Path, to: &Path) -> VerifiedTotals {
    offline::backup(&options(from), to, &[], &mut |_| {}).unwrap().0
}

/// The first event of a copied directory's log, which has one segment; its number is in the segment's header.
fn first_logged(dir: &Path) -> u64 {
    let names: Vec<_> = fs::read_dir(dir.join("wal")).unwrap().map(|name| name.unwrap()).collect();
    let [segment] = &names[..] else { panic!("{names:?}") };
    let header = fs::read(segment.path()).unwrap();
    u64::from_le_bytes(header[16..24].try_into().unwrap())
}

#[test]
fn a_backup_has_the_log_where_events_are_in_it_only_and_an_empty_one_else() {
    let (dir, parent) = (tempdir(), tempdir());
    let to = |name: &str| parent.path().join(name);
    let store = open(options(dir.path()));
    wait(store.close());
    drop(store);
    assert_eq!((backup(dir.path(), &to("0")).lsn, first_logged(&to("0"))), (0, 1));
    let store = open(options(dir.path()));
    let id = create(&store, created("s", "one"));
    append(&store, id, b"two");
    drop(store);
    let found = backup(dir.path(), &to("1"));
    assert_eq!((found.events, found.lsn, found.streams), (2, 2, 0), "nothing is in the index yet");
    assert_eq!(first_logged(&to("1")), 1);
    for dir in [dir.path(), &to("1")] {
        let store = open(options(dir));
        files(&store).checkpoint().unwrap();
        let state = load(&store, "s").unwrap().state;
        assert_eq!(read_all(&store, &state, 100), b"onetwo");
    }
    let found = backup(dir.path(), &to("2"));
    assert_eq!((found.events, found.lsn, found.streams, found.chunks), (0, 2, 1, 1));
    assert_eq!(first_logged(&to("2")), 3, "the log goes on after the index");
    assert!(to("2").join("wal/00000000000000000001.wal").exists(), "it is a new one");
}

#[test]
fn a_backup_without_a_stream_has_nothing_of_it_from_the_log_either() {
    let (dir, parent) = (tempdir(), tempdir());
    let store = open(options(dir.path()));
    let ids = ["a", "b"].map(|name| create(&store, created(name, "indexed")));
    files(&store).checkpoint().unwrap();
    ids.iter().for_each(|id| append(&store, *id, b" and logged"));
    create(&store, created("c", "logged"));
    drop(store);
    let (from, to) = (options(dir.path()), parent.path().join("to"));
    let without = [path("a"), path("c")];
    let (found, left_out) = offline::backup(&from, &to, &without, &mut |_| {}).unwrap();
    assert_eq!((found.streams, found.events, found.lsn), (1, 0, 5));
    let left_out: Vec<_> = left_out.iter().map(|one| (one.path.as_str(), one.bytes)).collect();
    assert_eq!(left_out, [("a", 18), ("c", 6)]);
    let store = open(options(&to));
    assert!(load(&store, "a").is_none() && load(&store, "c").is_none());
    let state = load(&store, "b").unwrap().state;
    assert_eq!(read_all(&store, &state, 100), b"indexed and logged");
}

#[test]
fn a_serving_store_is_copied_in_steps_while_segments_are_held() {
    let (dir, to) = (tempdir(), tempdir());
    let store = open(with(dir.path(), large()));
    let id = sealed(&store);
    let state = load(&store, "s").unwrap().state;
    let bytes = read_all(&store, &state, usize::MAX);
    let destination = Destination::prepare(to.path()).unwrap();
    let held = files(&store).hold_segments();
    let mut begun = 0;
    let file = destination.index_file().unwrap();
    files(&store).copy_index(&file, &mut |bytes| begun = bytes, &|| true).unwrap();
    let len = file.metadata().unwrap().len();
    assert!(begun > 0 && begun.abs_diff(len) <= len / 2, "{begun} of {len}");
    segments::commit(&store, id, StreamEvent::Deleted { at: at(9) });
    files(&store).checkpoint().unwrap();
    files(&store).maintain();
    let found = files(&store).complete_backup(destination).unwrap();
    drop(held);
    assert_eq!((found.streams, found.bytes), (1, bytes.len() as u64));
    assert_eq!(found.segments, segments::segments(to.path()).len() as u64);
    let copy = open(options(to.path()));
    assert!(read_all(&copy, &state, usize::MAX) == bytes);
}

#[test]
fn secrets_are_copied_with_their_directories_and_not_what_is_half_written() {
    let (dir, to) = (tempdir(), tempdir());
    drop(open(options(dir.path())));
    let (nothing, keys) = (tempdir(), dir.path().join("keys"));
    assert_eq!(keys_dir(dir.path()), keys);
    backup(dir.path(), nothing.path());
    assert!(!nothing.path().join("keys").exists(), "there are none");
    fs::create_dir_all(keys.join("tls/example.org")).unwrap();
    for name in ["webhook", "tls/root.pem", "tls/example.org/key.pem", "webhook.new"] {
        fs::write(keys.join(name), name).unwrap();
    }
    backup(dir.path(), to.path());
    let keys = to.path().join("keys");
    for name in ["webhook", "tls/root.pem", "tls/example.org/key.pem"] {
        assert_eq!(fs::read_to_string(keys.join(name)).unwrap(), name);
    }
    assert!(!keys.join("webhook.new").exists());
    // What cannot be listed is no directory without secrets.
    fs::remove_dir_all(dir.path().join("keys")).unwrap();
    fs::write(dir.path().join("keys"), "no directory").unwrap();
    let other = tempdir();
    let failed = offline::backup(&options(dir.path()), other.path(), &[], &mut |_| {});
    assert!(matches!(failed, Err(StoreError::Io { .. })), "{failed:?}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_directory_is_made_from_a_copy_of_the_index_and_its_objects() {
    let (dir, parent) = (tempdir(), tempdir());
    let store = open(with(dir.path(), large()));
    let id = sealed(&store);
    let small = create(&store, created("quite/unusual", "in the index"));
    let before = all(&store);
    to_object(&store, before[0].number);
    let mut copy = files(&store).copy_index_for_objects(&|| true).unwrap();
    let prepare = || {
        let destination = Destination::prepare(&parent.path().join("new")).unwrap();
        assert_eq!(destination.dir(), parent.path().join("new"));
        destination
    };
    // Nothing was written to it.
    let destination = prepare();
    fs::write(destination.dir().join("store/data.mdb"), [7; 8192]).unwrap();
    assert!(destination.open_index(64 << 20).is_err());
    assert!(!parent.path().join("new").exists(), "what is given up is removed");

    // A page hides its last record.
    let mut index = Vec::new();
    copy.file.rewind().unwrap();
    copy.file.read_to_end(&mut index).unwrap();
    let key = [&[0; 8], b"quite/unusual".as_slice()].concat();
    let is_leaf = |page: &&mut [u8]| {
        page[10..12] == [2, 0] && memchr::memmem::find(&page[16..], &key).is_some()
    };
    index.chunks_mut(4096).filter(is_leaf).for_each(|page| page[12] -= 2);
    let destination = prepare();
    destination.index_file().unwrap().write_all(&index).unwrap();
    let damaged = destination.open_index(64 << 20).unwrap();
    let refused = damaged.check(&mut |_| {}).unwrap_err().to_string();
    assert!(refused.contains("pages of it are damaged"), "{refused}");
    drop(damaged);

    let destination = prepare();
    copy.file.rewind().unwrap();
    io::copy(&mut copy.file, &mut destination.index_file().unwrap()).unwrap();
    let made = destination.open_index(64 << 20).unwrap();
    assert_eq!(made.dir(), parent.path().join("new"));
    let report = made.check(&mut |_| {}).unwrap();
    let found = report.found;
    assert_eq!((report.count, found.streams, found.events, found.lsn), (0, 2, 0, copy.event));
    assert_eq!((found.segments, found.objects), (before.len() as u64, before.len() as u64));
    assert_eq!(first_logged(made.dir()), copy.event + 1);
    let listed = made.segments_after(Some(before[0].number), 100).unwrap();
    assert_eq!(listed.len(), before.len() - 1);
    assert_eq!(made.segments_after(None, 1).unwrap()[0].number, before[0].number);
    assert!(listed.iter().all(|segment| segment.place == SegmentPlace::Object));
    let mut ranges = Vec::<SegmentRange>::new();
    let second: BTreeSet<u64> = [before[1].number].into();
    made.ranges_in(&second, &mut |range| ranges.push(range)).unwrap();
    let [range] = &ranges[..] else { panic!("{ranges:?}") };
    assert_eq!(
        (range.segment, range.id, range.path.as_deref()),
        (before[1].number, id.0, Some("s"))
    );
    assert_eq!((range.from, range.to), (before[0].data, before[0].data + before[1].data));
    made.finish().unwrap();

    let (next, lost) = (store.next_id(), store);
    let store = open(with(&parent.path().join("new"), large()));
    let state = load(&store, "quite/unusual").unwrap().state;
    assert_eq!((state.core.id, &read_all(&store, &state, 100)[..]), (small, &b"in the index"[..]));
    assert!(
        store.next_id().0 > next.0 + (1 << 31),
        "clients may know later streams of the lost server"
    );
    let id = create(&store, created("u", ""));
    (0..20).for_each(|n| append(&store, id, &segments::payload(n, 50_000)));
    assert!(seal(&store) > 0);
    let new = all(&store).last().unwrap().number;
    assert!(new > all(&lost).last().unwrap().number + (1 << 30), "{new} may be an object of it");
}

#[test]
fn damage_of_an_object_is_at_positions_of_its_stream_and_a_missing_one_is_damage() {
    let moved = moved(false);
    let paths = moved.objects_paths();
    flip(&paths[1], 70_000);
    let report = moved.verify().unwrap();
    let (problem, name) = (report.problems[0].to_string(), paths[1].file_name().unwrap());
    assert!(problem.contains(&format!("object {}", name.to_str().unwrap())), "{problem}");
    let [range] = &report.damaged[..] else { panic!("{:?}", report.damaged) };
    let first = report.damaged[0].from - 65_536;
    assert!(first > 0, "what the first segment has");
    assert_eq!((range.from, range.to), (first + 65_536, first + 131_072));
    flip(&paths[1], 70_000);

    fs::remove_file(&paths[1]).unwrap();
    let report = moved.verify().unwrap();
    let [range] = &report.damaged[..] else { panic!("{:?}", report.damaged) };
    assert_eq!(range.from, first, "all of it");
    let (to, objects) = (tempdir(), moved.objects());
    let contents = BackupContents { objects: Some(&objects), ..BackupContents::default() };
    let failed = offline::backup_with(&options(moved.dir.path()), to.path(), contents, &mut |_| {});
    assert!(matches!(failed, Err(StoreError::Corrupt { .. })), "{failed:?}");
}

#[test]
fn what_is_in_the_way_of_a_copy_is_removed_or_named() {
    let dir = tempdir();
    let store = open(options(dir.path()));
    create(&store, created("s", "one"));
    let copy = dir.path().join("store/tier.new");
    fs::write(&copy, "left by a crash").unwrap();
    drop(files(&store).copy_index_for_objects(&|| true).unwrap());
    assert!(!copy.exists());
    fs::create_dir(&copy).unwrap();
    let refused = files(&store).copy_index_for_objects(&|| true).err().unwrap().to_string();
    assert!(refused.contains("cannot remove"), "{refused}");
    let refused = Destination::prepare(&dir.path().join("none/new")).err().unwrap().to_string();
    assert!(refused.contains("cannot create"), "its parent must be there: {refused}");
}

#[test]
fn a_version_that_cannot_be_read_is_no_sign_of_another_directory() {
    let dir = tempdir();
    drop(open(options(dir.path())));
    fs::remove_file(dir.path().join("VERSION")).unwrap();
    let verify = || offline::verify(&options(dir.path()), &mut |_| {});
    assert!(matches!(verify(), Err(StoreError::Format { .. })), "there is none");
    fs::create_dir(dir.path().join("VERSION")).unwrap();
    let refused = verify();
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
}

#[test]
fn a_local_file_that_is_gone_while_its_segment_is_there_is_damage() {
    let dir = tempdir();
    let store = open(with(dir.path(), large()));
    sealed(&store);
    let number = all(&store)[0].number;
    fs::remove_file(files(&store).segment_path(number)).unwrap();
    assert!(files(&store).segment_file(number).is_err());
    assert!(files(&store).has_segment(number).unwrap());
    let path = files(&store).segment_path(number);
    drop(store);
    let to = tempdir();
    let backup = || offline::backup(&options(dir.path()), to.path(), &[], &mut |_| {});
    let failed = backup();
    assert!(matches!(failed, Err(StoreError::Corrupt { .. })), "{failed:?}");
    // What cannot be read is another matter.
    fs::create_dir(path).unwrap();
    let failed = backup();
    assert!(matches!(failed, Err(StoreError::Io { .. })), "{failed:?}");
}
