use std::fs;

use super::*;
use crate::store::{
    MessageForm,
    file::{
        disk::RealDisk,
        segments::{check::check_file, draft::SegmentDraft, format::HEADER},
    },
};

#[test]
fn open_files_are_bounded_in_number_and_in_bytes() {
    let half = OPEN_BYTES / 2;
    for (sizes, closed) in [
        (vec![0; OPEN], 0),
        (vec![0; OPEN + 1], 1),
        (vec![half, half], 0),
        (vec![half, half, 1], 1),
        (vec![1, half, half], 1),
        (vec![half, half, OPEN_BYTES], 2),
        (vec![1, 1, OPEN_BYTES + 1], 2),
        (vec![OPEN_BYTES + 1], 0),
        (vec![], 0),
    ] {
        assert_eq!(too_many(&sizes), closed, "{sizes:?}");
    }
}

fn files(dir: &tempfile::TempDir, next: u64) -> SegmentFiles {
    let files = SegmentFiles::new(Arc::new(RealDisk), &dir.path().join("segments"), next);
    fs::create_dir_all(files.dir()).unwrap();
    files
}

/// A file with so many bytes of a stream.
fn sealed(
    files: &SegmentFiles,
    len: usize,
) -> (u64, crate::store::file::index::extents::SegmentRecord) {
    let mut draft = SegmentDraft::begin(files).unwrap();
    draft.begin_extent(
        durable_streams_protocol::StreamId(7),
        0,
        Vec::new(),
        MessageForm::Stored,
        None,
    );
    (0..len).step_by(1 << 20).for_each(|at| {
        draft.write(&vec![at as u8; (len - at).min(1 << 20)]).unwrap();
    });
    let segment = draft.finish().unwrap();
    (segment.number, segment.record)
}

#[test]
fn a_directory_knows_whether_it_has_had_segments_and_whether_they_may_be_objects() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(&dir, IndexMeta::FIRST_SEGMENT);
    assert!(!files.any() && !files.may_be_objects());
    assert_eq!(files.next_number(), IndexMeta::FIRST_SEGMENT);
    assert!(files.any());
    files.note_number(5);
    files.note_number(3);
    assert_eq!(files.next_number(), 6);
    fs::create_dir_all(keys_dir(dir.path())).unwrap();
    fs::write(keys_dir(dir.path()).join(TIER_IDENTITY), "{}").unwrap();
    assert!(files.may_be_objects());
}

#[test]
fn a_file_is_opened_once_and_a_missing_one_is_told_from_one_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(&dir, 1);
    let (number, _) = sealed(&files, 100);
    assert!(files.opened(number).is_none(), "nobody has read it");
    let first = files.open(number).ok().unwrap();
    let known = files.opened(number).unwrap();
    assert!(Arc::ptr_eq(&first, &known) && Arc::ptr_eq(&first, &files.open(number).ok().unwrap()));
    assert!(matches!(files.open(9), Err(SegmentReadError::Missing(_))));
    fs::create_dir(files.path(9)).unwrap();
    let unreadable = files.open(9).err().unwrap();
    assert!(matches!(unreadable, SegmentReadError::Failed(StoreError::Io { .. })));
    // Those that are open go in the order of their last use.
    let (second, third) = (sealed(&files, 5).0, sealed(&files, 5).0);
    for number in [second, third, number] {
        files.open(number).ok().unwrap();
    }
    let order: Vec<u64> = files.open.lock().iter().map(|(number, _)| *number).collect();
    assert_eq!(order, [second, third, number]);
    files.remove(&[third]);
    assert!(files.opened(third).is_none() && !files.path(third).exists());
    assert!(files.opened(second).is_some() && files.opened(number).is_some());
    assert_eq!((files.take_freed(), files.take_freed()), (vec![third], vec![]));
}

#[test]
fn all_of_a_file_is_checked_slice_by_slice() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(&dir, 1);
    let (number, record) = sealed(&files, (2 << 20) + 100);
    let path = files.path(number);
    let check = || check_file(&RealDisk, &path, number, &record);
    assert_eq!(check().unwrap().data_end(), (HEADER + (2 << 20) + 100) as u64);
    let whole = fs::read(&path).unwrap();
    for at in [HEADER, HEADER + (1 << 20) - 1, HEADER + (1 << 20), HEADER + (2 << 20) + 99] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, damaged).unwrap();
        let found = check().unwrap_err().to_string();
        let block = (at - HEADER) / format::BLOCK * format::BLOCK + HEADER;
        assert!(found.contains(&block.to_string()), "{at}: {found}");
    }
}

#[test]
fn a_directory_may_be_missing_and_not_be_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(&dir, 1);
    let (number, _) = sealed(&files, 5);
    assert_eq!(files.names().unwrap(), [format::file_name(number)]);
    fs::remove_dir_all(files.dir()).unwrap();
    assert_eq!(files.names().unwrap(), [""; 0]);
    fs::write(files.dir(), "a file").unwrap();
    assert!(matches!(files.names(), Err(StoreError::Io { .. })));
}

#[test]
fn a_held_file_that_is_needed_again_stays() {
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::new(files(&dir, 1));
    let [one, other] = [5, 6].map(|len| sealed(&files, len).0);
    let hold = files.hold();
    assert!(files.is_held());
    files.remove(&[one, other]);
    assert!(files.path(one).exists() && files.path(other).exists(), "a backup may copy them");
    files.need_again(other);
    drop(hold);
    assert!(!files.is_held() && !files.path(one).exists() && files.path(other).exists());
}

#[test]
fn a_file_that_was_cut_since_it_was_opened_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(&dir, 1);
    let (number, record) = sealed(&files, 200_000);
    let extent = ExtentRecord { start: 0, end: 200_000, file: number, offset: 32, crc: None };
    assert!(files.read(&extent, record.footer_crc, 150_000, 10).is_ok());
    fs::File::options().write(true).open(files.path(number)).unwrap().set_len(140_000).unwrap();
    assert!(files.read(&extent, record.footer_crc, 100_000, 10).is_ok());
    let cut = files.read(&extent, record.footer_crc, 150_000, 10).err().unwrap().into_error();
    assert!(cut.to_string().contains("the file ends before its data"), "{cut}");
}

/// A reader that stalls keeps what it was given.
#[test]
fn a_small_read_keeps_no_more_than_its_bytes_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(&dir, 1);
    let (number, record) = sealed(&files, 200_000);
    let extent = ExtentRecord { start: 0, end: 200_000, file: number, offset: 32, crc: None };
    let read = |from, len| {
        let read = files.read(&extent, record.footer_crc, from, len).ok().unwrap();
        assert_eq!(read.len(), len);
        read.try_into_mut().unwrap().capacity()
    };
    assert_eq!((read(5, 10), read(65_530, 20), read(0, 40_000)), (10, 20, 40_000));
    assert!(
        read(0, 65_536) >= 65_536 && read(0, 60_000) > 60_000,
        "nearly all of a block is not copied"
    );
}
