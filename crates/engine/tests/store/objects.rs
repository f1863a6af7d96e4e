//! Commands on a directory whose segments are objects: `verify --cold`, backups with and without them, `repair`.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;

use durable_streams_engine::store::{
    Store as _, StoreError,
    file::{
        disk::{Disk as _, DiskFile, RealDisk},
        offline::{self, BackupContents, LostPart},
        segments::{
            cold::{ColdError, ColdSegments, SealedFile},
            format::file_name,
            object_files::SegmentObjects,
            objects::{ColdPlace, SegmentInfo, SegmentPlace},
        },
    },
};
use durable_streams_engine::{Clock, Engine, EngineLimits};
use durable_streams_protocol::{Offset, Rejection, StreamId, StreamPath};
use futures_util::future::BoxFuture;

use crate::{
    harness::{created, options, tempdir, wait},
    segments::{append, create, files, large, open, payload, seal, segments, with},
};

/// What a copy of the index keeps in memory for each segment that is no object yet.
const _: () = assert!(size_of::<SegmentInfo>() <= 80);

/// Objects in a directory.
struct ObjectsIn(PathBuf);

impl SegmentObjects for ObjectsIn {
    fn open(&self, number: u64) -> io::Result<Box<dyn DiskFile>> {
        if !self.0.exists() {
            return Err(io::Error::other("the object store does not answer"));
        }
        RealDisk.open_to_read(&self.0.join(file_name(number)))
    }
}

/// A directory with a stream of 1,000,000 bytes of which all that is sealed has moved to objects.
pub(crate) struct Moved {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) objects: tempfile::TempDir,
    pub(crate) id: StreamId,
    pub(crate) all: Vec<u8>,
}

/// With local files, too, if `both` is set.
pub(crate) fn moved(both: bool) -> Moved {
    let (dir, objects) = (tempdir(), tempdir());
    let store = open(with(dir.path(), large()));
    let id = create(&store, created("s", ""));
    let mut all = Vec::new();
    for n in 0..20 {
        let data = payload(n, 50_000);
        append(&store, id, &data);
        all.extend(data);
    }
    assert!(seal(&store) > 0);
    for path in segments(dir.path()) {
        fs::copy(&path, objects.path().join(path.file_name().unwrap())).unwrap();
    }
    for segment in files(&store).segments_after(None, 100).unwrap() {
        assert!(files(&store).note_object(segment.number).unwrap());
        assert!(both || files(&store).drop_local(segment.number).unwrap());
    }
    assert_eq!(segments(dir.path()).is_empty(), !both);
    drop(store);
    Moved { dir, objects, id, all }
}

impl Moved {
    pub(crate) fn objects(&self) -> Arc<dyn SegmentObjects> {
        Arc::new(ObjectsIn(self.objects.path().to_owned()))
    }

    pub(crate) fn objects_paths(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.objects.path()).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    pub(crate) fn verify(&self) -> Result<offline::VerifyReport, StoreError> {
        let options = options(self.dir.path());
        offline::verify_with(&options, Some(&self.objects()), &mut |_| {})
    }
}

fn read(dir: &Path, id: StreamId, from: usize, to: usize) -> Result<Vec<u8>, StoreError> {
    let store = open(options(dir));
    let (from, to) = (Offset::new(from as u64), Offset::new(to as u64));
    wait(store.read(id, from, to, usize::MAX)).map(|pieces| pieces.concat())
}

pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_object_is_read_and_what_is_damaged_is_said_by_stream_and_range() {
    let moved = moved(false);
    let report = moved.verify().unwrap();
    assert_eq!((report.count, report.damaged_count), (0, 0), "{:?}", report.problems);
    assert!(report.found.objects >= 3 && report.found.object_bytes > 900_000);
    let paths = moved.objects_paths();
    // Two blocks that follow each other, and one elsewhere.
    for at in [70_000, 140_000, 210_000] {
        flip(&paths[0], at);
    }
    let unread = offline::verify(&options(moved.dir.path()), &mut |_| {}).unwrap();
    assert_eq!(unread.count, 0, "objects are not read without being told");
    let report = moved.verify().unwrap();
    assert_eq!(report.count, 3, "{:?}", report.problems);
    let ranges: Vec<_> = report.damaged.iter().map(|range| (range.from, range.to)).collect();
    assert_eq!(ranges, [(65_536, 262_144)], "{:?}", report.damaged);
    assert_eq!(report.damaged[0].path.as_deref(), Some("s"));

    fs::remove_file(&paths[1]).unwrap();
    let report = moved.verify().unwrap();
    assert_eq!((report.count, report.damaged.len()), (4, 2), "{:?}", report.damaged);
    assert_eq!(report.damaged[1].segment, report.damaged[0].segment + 1);
    // An object store that does not answer is no damage.
    let away = moved.objects.path().with_extension("away");
    fs::rename(moved.objects.path(), &away).unwrap();
    assert!(matches!(moved.verify(), Err(StoreError::Io { .. })));
    fs::rename(&away, moved.objects.path()).unwrap();
}

#[test]
fn a_backup_lists_the_objects_that_it_needs_or_contains_them() {
    let moved = moved(false);
    let (listing, whole, again) = (tempdir(), tempdir(), tempdir());
    let from = options(moved.dir.path());
    let (found, _) = offline::backup(&from, listing.path(), &[], &mut |_| {}).unwrap();
    assert!(found.objects >= 3);
    let list = fs::read_to_string(listing.path().join("OBJECTS")).unwrap();
    let expected: String = moved
        .objects_paths()
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            format!("{name} {}\n", fs::metadata(path).unwrap().len())
        })
        .collect();
    assert_eq!(list, expected);

    let objects = moved.objects();
    let contents = BackupContents { objects: Some(&objects), ..BackupContents::default() };
    let (found, _) = offline::backup_with(&from, whole.path(), contents, &mut |_| {}).unwrap();
    assert_eq!((found.objects, found.object_bytes), (0, 0));
    assert!(!whole.path().join("OBJECTS").exists());
    fs::remove_dir_all(moved.objects.path()).unwrap();
    offline::restore(whole.path(), &options(again.path()), &mut |_| {}).unwrap();
    assert!(read(again.path(), moved.id, 0, moved.all.len()).unwrap() == moved.all);
    // A damaged or missing object is in no backup.
    let none = tempdir();
    let failed = offline::backup_with(&from, none.path(), contents, &mut |_| {});
    assert!(failed.is_err());
    assert_eq!(fs::read_dir(none.path()).unwrap().count(), 0, "nothing is left");
    fs::create_dir(moved.objects.path()).unwrap();
}

#[test]
fn a_backup_does_not_take_a_damaged_object() {
    let moved = moved(false);
    flip(&moved.objects_paths()[0], 100_000);
    let (to, objects) = (tempdir(), moved.objects());
    let contents = BackupContents { objects: Some(&objects), ..BackupContents::default() };
    let failed = offline::backup_with(&options(moved.dir.path()), to.path(), contents, &mut |_| {});
    assert!(matches!(failed, Err(StoreError::Corrupt { .. })), "{failed:?}");
}

#[test]
fn repair_drops_what_is_damaged_in_objects_only_when_it_reads_them() {
    let moved = moved(false);
    let options = options(moved.dir.path());
    let paths = moved.objects_paths();
    flip(&paths[0], 70_000);
    fs::remove_file(&paths[2]).unwrap();
    assert_eq!(offline::repair_index(&options, true, &mut |_| {}).unwrap(), None);
    let objects = moved.objects();
    let away = moved.objects.path().with_extension("away");
    fs::rename(moved.objects.path(), &away).unwrap();
    let failed = offline::repair_index_with(&options, true, Some(&objects), &mut |_| {});
    assert!(matches!(failed, Err(StoreError::Io { .. })), "{failed:?}");
    fs::rename(&away, moved.objects.path()).unwrap();
    let damage = offline::repair_index_with(&options, true, Some(&objects), &mut |_| {});
    let damage = damage.unwrap().unwrap();
    let lost: Vec<_> = damage.lost.iter().map(|lost| &lost.part).collect();
    let [LostPart::Bytes { from, to }, LostPart::Bytes { .. }] = lost[..] else {
        panic!("{damage:?}");
    };
    // Whole appends around the block.
    assert_eq!((*from, *to), (50_000, 150_000));
    assert_eq!(moved.verify().unwrap().count, 0);
    // What was whole beside the damaged block is local now.
    assert!(read(moved.dir.path(), moved.id, 0, 50_000).unwrap() == moved.all[..50_000]);
    assert!(
        read(moved.dir.path(), moved.id, 150_000, 200_000).unwrap() == moved.all[150_000..200_000]
    );
}

#[test]
fn a_lost_local_file_is_no_loss_where_the_object_is() {
    for missing in [false, true] {
        let moved = moved(true);
        let paths = segments(moved.dir.path());
        if missing {
            fs::remove_file(&paths[0]).unwrap();
        } else {
            flip(&paths[0], 70_000);
        }
        let options = options(moved.dir.path());
        let damage = offline::repair_index(&options, true, &mut |_| {}).unwrap().unwrap();
        assert_eq!(damage.lost, [], "{missing}");
        assert_eq!(moved.verify().unwrap().count, 0, "{missing}");
        let store = open(options);
        let all = files(&store).segments_after(None, 100).unwrap();
        assert_eq!(all[0].place, SegmentPlace::Object);
        assert!(all[1..].iter().all(|segment| segment.place == SegmentPlace::Both));
        assert_eq!(segments(moved.dir.path()).len(), all.len() - 1, "{missing}");
    }
}

#[test]
fn what_is_damaged_on_the_disk_and_in_the_object_is_dropped_when_objects_are_read() {
    let moved = moved(true);
    for path in [&segments(moved.dir.path())[0], &moved.objects_paths()[0]] {
        flip(path, 70_000);
    }
    let objects = moved.objects();
    let damage =
        offline::repair_index_with(&options(moved.dir.path()), true, Some(&objects), &mut |_| {});
    let damage = damage.unwrap().unwrap();
    let lost: Vec<_> = damage.lost.iter().map(|lost| &lost.part).collect();
    assert!(matches!(lost[..], [LostPart::Bytes { from: 50_000, to: 150_000 }]), "{damage:?}");
    assert_eq!(moved.verify().unwrap().count, 0);
    let rest = read(moved.dir.path(), moved.id, 150_000, 200_000).unwrap();
    assert!(rest == moved.all[150_000..200_000]);
}

#[test]
fn an_object_that_the_index_has_not_noted_takes_the_place_of_a_lost_file() {
    let moved = moved(false);
    let store = open(with(moved.dir.path(), large()));
    let mut all = moved.all.clone();
    for n in 20..30 {
        let data = payload(n, 50_000);
        append(&store, moved.id, &data);
        all.extend(data);
    }
    assert!(seal(&store) > 0);
    drop(store);
    let local = segments(moved.dir.path());
    for path in &local {
        fs::rename(path, moved.objects.path().join(path.file_name().unwrap())).unwrap();
    }
    let objects = moved.objects();
    let options = options(moved.dir.path());
    let damage = offline::repair_index_with(&options, true, Some(&objects), &mut |_| {});
    assert_eq!(damage.unwrap().unwrap().lost, []);
    assert_eq!(moved.verify().unwrap().count, 0);
    let store = open(options);
    let all = files(&store).segments_after(None, 100).unwrap();
    assert!(all.iter().all(|segment| segment.place == SegmentPlace::Object), "{all:?}");
}

#[test]
fn what_a_kill_has_left_of_a_copy_is_begun_again_and_nothing_else_is_removed() {
    let (moved, dir) = (moved(false), tempdir());
    let from = options(moved.dir.path());
    let entry = |name: &str| dir.path().join(name);
    for name in ["store", "wal", "segments", "keys"] {
        fs::create_dir(entry(name)).unwrap();
        fs::write(entry(name).join("half"), "half of it").unwrap();
    }
    let backup = || offline::backup(&from, dir.path(), &[], &mut |_| {});
    assert!(matches!(backup(), Err(StoreError::Format { .. })), "it is not known to be one");
    fs::write(entry("UNFINISHED"), "").unwrap();
    fs::write(entry("thesis.txt"), "").unwrap();
    assert!(matches!(backup(), Err(StoreError::Format { .. })), "there is something else");
    fs::remove_file(entry("thesis.txt")).unwrap();
    backup().unwrap();
    assert!(!entry("UNFINISHED").exists() && !entry("wal/half").exists());
    // Whole now, whatever a crash at the end has left.
    fs::write(entry("UNFINISHED"), "").unwrap();
    assert!(matches!(backup(), Err(StoreError::Format { .. })), "it is whole");
    assert_eq!(offline::verify(&options(dir.path()), &mut |_| {}).unwrap().count, 0);
}

/// An object store over a directory.
struct Cold {
    objects: PathBuf,
    answer: Mutex<Answer>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Bytes,
    Short,
    Unavailable,
    NotFound,
    Refused,
}

impl ColdSegments for Cold {
    fn get_segment(
        &self,
        name: &str,
        segment: SealedFile,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, ColdError>> {
        let file = name.strip_prefix("prefix/").map(|file| self.objects.join(file));
        let all = fs::read(file.unwrap()).unwrap();
        assert_eq!(all.len() as u64, segment.len);
        let mut bytes = Bytes::from(all).slice(range.start as usize..range.end as usize);
        let answer = *self.answer.lock().unwrap();
        Box::pin(async move {
            match answer {
                Answer::Bytes => Ok(bytes),
                Answer::Short => Ok(bytes.split_to(bytes.len() - 1)),
                Answer::Unavailable => {
                    let (retry_after, reason) = (Duration::from_secs(7), "busy".into());
                    Err(ColdError::Unavailable { retry_after, reason })
                }
                Answer::NotFound => Err(ColdError::NotFound),
                Answer::Refused => Err(ColdError::Refused("no such key".into())),
            }
        })
    }
}

#[test]
fn streams_are_read_from_objects_and_a_read_that_cannot_be_is_refused_before_it_begins() {
    let moved = moved(false);
    let cold =
        Arc::new(Cold { objects: moved.objects.path().into(), answer: Mutex::new(Answer::Bytes) });
    let store = open(options(moved.dir.path()));
    let place = ColdPlace { store: cold.clone(), prefix: "prefix/".into() };
    files(&store).read_objects_from(place);
    let engine = Engine::new(store, Clock::System, EngineLimits::default());
    let view = wait(engine.head(&StreamPath::new("s").unwrap())).unwrap();
    let (core, tail) = (view.core, view.tail.offset);
    let read = |from: u64| {
        let slice = wait(engine.read(&core, Offset::new(from), tail, usize::MAX))?;
        Ok::<_, Rejection>(slice.chunks.concat())
    };
    for from in [0, 1, 65_535, 65_536, 400_001, 999_999] {
        assert!(read(from).unwrap() == moved.all[from as usize..], "from {from}");
    }
    let check = |from: u64| wait(engine.check_offset(&core, Offset::new(from), tail));
    let later =
        |seconds| Rejection::ObjectStoreUnavailable { retry_after: Duration::from_secs(seconds) };
    for (answer, refusal) in [
        (Answer::Short, Rejection::Damaged),
        (Answer::NotFound, Rejection::Damaged),
        (Answer::Unavailable, later(7)),
        (Answer::Refused, later(30)),
    ] {
        *cold.answer.lock().unwrap() = answer;
        for from in [0, 400_001] {
            assert_eq!(check(from), Err(refusal.clone()));
            assert_eq!(read(from), Err(refusal.clone()));
        }
        assert_eq!(check(999_999), Ok(()), "the last appends are local");
        assert_eq!(check(1_000_000), Ok(()), "the tail");
    }
    *cold.answer.lock().unwrap() = Answer::Bytes;
    assert_eq!(check(0), Ok(()));
}
