//! Rewriting the index without its free pages: what it removes first, what it leaves behind, and that it needs room.

use std::{fs, path::Path};

use durable_streams_engine::store::{
    StoreError,
    file::offline::{self, CompactedIndex, OperationPhase, OperationStep},
};
use durable_streams_protocol::StreamEvent;

use crate::harness::*;
use crate::segments::{append, commit, create, files, open};

fn compact(dir: &Path) -> Result<(CompactedIndex, Vec<OperationStep>), StoreError> {
    let mut steps = Vec::new();
    let done = offline::compact(&options(dir), &mut |step| steps.push(step))?;
    Ok((done, steps))
}

#[test]
fn deleted_streams_go_in_steps_and_what_was_begun_is_begun_again() {
    let dir = tempdir();
    let store = open(options(dir.path()));
    let kept = create(&store, created("kept", "one"));
    let gone: Vec<_> = (0..1300).map(|n| create(&store, created(&format!("{n}"), "x"))).collect();
    files(&store).checkpoint().unwrap();
    gone.iter().for_each(|id| commit(&store, *id, StreamEvent::Deleted { at: at(9) }));
    append(&store, kept, b"two");
    drop(store);
    let index = dir.path().join("store");
    // An earlier one was interrupted.
    fs::write(index.join("data.new"), "half of it").unwrap();
    let before = fs::metadata(index.join("data.mdb")).unwrap().len();
    let (done, steps) = compact(dir.path()).unwrap();
    let purges = steps.iter().filter(|step| step.what == OperationPhase::Purging);
    let purges: Vec<_> = purges.map(|step| (step.done, step.total)).collect();
    assert_eq!(purges, [(1, 0), (2, 0)]);
    assert_eq!((done.streams, done.lsn), (1, 1 + 1300 + 1300 + 1));
    assert!(done.before >= before && done.after < done.before, "{done:?}");
    assert_eq!(done.after, fs::metadata(index.join("data.mdb")).unwrap().len());
    assert!(!index.join("data.new").exists());
    let found = offline::verify(&options(dir.path()), &mut |_| {}).unwrap().whole().unwrap();
    assert_eq!((found.streams, found.bytes, found.events), (1, 6, 0));

    fs::create_dir(index.join("data.new")).unwrap();
    let refused = compact(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("cannot remove") && refused.contains("data.new"), "{refused}");
    let store = open(options(dir.path()));
    assert_eq!(read_all(&store, &load(&store, "kept").unwrap().state, 100), b"onetwo");
}

/// Changes a number in LMDB's record of the database of paths: how many overflow pages it has is 24 bytes in, how many records
/// 32.
fn set_in_record(index: &Path, place: usize, number: u64) {
    let mut bytes = fs::read(index).unwrap();
    let records: Vec<_> = memchr::memmem::find_iter(&bytes, b"\x05\0paths").collect();
    for at in records.iter().map(|at| at + 7 + place) {
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    fs::write(index, &bytes).unwrap();
}

#[test]
fn a_wrong_number_of_records_is_one_problem() {
    let dir = tempdir();
    let store = open(options(dir.path()));
    create(&store, created("s", "one"));
    files(&store).checkpoint().unwrap();
    drop(store);
    let verify = || offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
    assert_eq!(verify().count, 0);
    set_in_record(&dir.path().join("store/data.mdb"), 32, 2);
    let report = verify();
    assert_eq!(report.count, 1, "{:?}", report.problems);
}

#[test]
fn nothing_is_begun_where_there_is_no_room_for_a_second_index() {
    let dir = tempdir();
    let store = open(options(dir.path()));
    create(&store, created("s", "one"));
    files(&store).checkpoint().unwrap();
    drop(store);
    compact(dir.path()).unwrap();
    let index = dir.path().join("store/data.mdb");
    set_in_record(&index, 24, 1 << 40);
    let bytes = fs::read(&index).unwrap();
    let refused = compact(dir.path());
    assert!(
        matches!(&refused, Err(StoreError::Room { needed, room, .. }) if needed > room),
        "{refused:?}"
    );
    assert!(fs::read(&index).unwrap() == bytes);
    let store = open(options(dir.path()));
    let refused = files(&store).copy_index_for_objects(&|| true).err();
    assert!(matches!(refused, Some(StoreError::Room { .. })), "{refused:?}");
}
