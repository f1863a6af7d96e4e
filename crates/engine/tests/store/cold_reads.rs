//! Reads of objects that are away: the index is looked at again, once.

use std::{
    fs,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use durable_streams_engine::store::{
    MessageForm, Store as _, StoreError, StoredPiece,
    file::segments::{
        cold::{ColdError, ColdSegments, SealedFile},
        objects::ColdPlace,
    },
};
use durable_streams_protocol::Offset;
use futures_util::future::BoxFuture;

use crate::harness::*;
use crate::objects::moved;
use crate::segments::{files, open, segments};

/// Objects in a directory, which are missing the next few times.
struct Away {
    objects: PathBuf,
    times: AtomicU32,
    asked: AtomicU32,
}

impl ColdSegments for Away {
    fn get_segment(
        &self,
        name: &str,
        _: SealedFile,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, ColdError>> {
        self.asked.fetch_add(1, Relaxed);
        let missing = self.times.fetch_update(Relaxed, Relaxed, |times| times.checked_sub(1));
        let bytes = Bytes::from(fs::read(self.objects.join(name)).unwrap());
        let bytes = bytes.slice(range.start as usize..range.end as usize);
        Box::pin(async move { if missing.is_ok() { Err(ColdError::NotFound) } else { Ok(bytes) } })
    }
}

#[test]
fn a_missing_object_is_looked_for_again_once() {
    let moved = moved(false);
    let objects = moved.objects.path().to_owned();
    let away = Arc::new(Away { objects, times: AtomicU32::new(0), asked: AtomicU32::new(0) });
    let store = open(options(moved.dir.path()));
    files(&store).read_objects_from(ColdPlace { store: away.clone(), prefix: String::new() });
    let (id, from, to) = (moved.id, Offset::new(10), Offset::new(1010));
    let expected = &moved.all[10..1010];
    let read = || wait(store.read(id, from, to, 5000)).map(|pieces| pieces.concat());
    let part = || {
        let form = MessageForm::Stored;
        match wait(store.read_or_part(id, from, to, 5000, 5000, form))? {
            StoredPiece::Bytes(pieces) => Ok::<_, StoreError>(pieces.concat()),
            StoredPiece::File(_) => panic!("there is no local file"),
        }
    };
    for read in [&read as &dyn Fn() -> _, &part] {
        for missing in 0..2 {
            away.times.store(missing, Relaxed);
            away.asked.store(0, Relaxed);
            assert_eq!(read().unwrap(), expected, "{missing}");
            assert!(away.asked.load(Relaxed) > missing, "after it was missing {missing} times");
        }
        away.times.store(2, Relaxed);
        assert!(matches!(read(), Err(StoreError::Corrupt { .. })));
        assert_eq!(away.times.load(Relaxed), 0, "it was looked for twice");
    }
}

#[test]
fn what_cannot_be_read_of_a_local_file_is_read_of_its_object() {
    let moved = moved(true);
    let paths = segments(moved.dir.path());
    fs::remove_file(&paths[0]).unwrap();
    let store = open(options(moved.dir.path()));
    let objects = moved.objects.path().to_owned();
    let cold = Arc::new(Away { objects, times: AtomicU32::new(0), asked: AtomicU32::new(0) });
    files(&store).read_objects_from(ColdPlace { store: cold.clone(), prefix: String::new() });
    let (id, from, to) = (moved.id, Offset::new(10), Offset::new(1010));
    let found = wait(store.read(id, from, to, 5000)).unwrap().concat();
    assert_eq!((found.as_slice(), cold.asked.load(Relaxed)), (&moved.all[10..1010], 1));
    let part = |from: u64, max| {
        let (from, to) = (Offset::new(from), Offset::new(from + 1000));
        wait(store.file_part(id, from, to, max, MessageForm::Stored)).unwrap()
    };
    assert!(part(10, 5000).is_none(), "a read finds its object");
    let first = files(&store).segments_after(None, 1).unwrap()[0].data;
    assert_eq!(part(first + 10, 500).unwrap().len(), 500);
    assert!(part(first + 10, 0).is_none(), "there is nothing to send");
}

#[test]
fn no_part_of_a_file_is_found_where_there_is_an_object_only() {
    let moved = moved(false);
    let store = open(options(moved.dir.path()));
    let part =
        store.file_part(moved.id, Offset::new(10), Offset::new(1010), 5000, MessageForm::Stored);
    assert!(wait(part).unwrap().is_none());
}
