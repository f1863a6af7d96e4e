use std::{os::unix::fs::FileExt as _, sync::Arc};

use super::*;
use crate::store::file::{
    disk::RealDisk, index::extents::NewSegment, segments::draft::SegmentDraft,
};
use crate::store::file_part::tests::folder_on_disk;

const ID: StreamId = StreamId(7);
const LEN: u64 = 300_000;

fn data(len: u64) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

/// A file with so many bytes of the stream from position 1,000 on, behind 50 bytes of another one.
fn sealed(files: &SegmentFiles, len: u64, form: MessageForm) -> (ExtentRecord, u32) {
    std::fs::create_dir_all(files.dir()).unwrap();
    let mut draft = SegmentDraft::begin(files).unwrap();
    draft.begin_extent(StreamId(8), 0, Vec::new(), MessageForm::Stored, None);
    draft.write(&[1; 50]).unwrap();
    draft.begin_extent(ID, 1_000, Vec::new(), form, None);
    draft.write(&data(len)).unwrap();
    let NewSegment { extents, record, .. } = draft.finish().unwrap();
    (extents[1].extent, record.footer_crc)
}

fn files(dir: &tempfile::TempDir) -> SegmentFiles {
    SegmentFiles::new(Arc::new(RealDisk), &dir.path().join("segments"), 3)
}

fn known(files: &SegmentFiles, from: u64, to: u64, max: usize) -> Option<Range<u64>> {
    let stored = MessageForm::Stored;
    let part = files.known_part(ID, Offset::new(from), Offset::new(to), max, stored)?;
    let mut bytes = vec![0; part.len() as usize];
    part.file.read_exact_at(&mut bytes, part.range.start).unwrap();
    let from = (from - 1_000) as usize;
    assert!(bytes == data(LEN)[from..from + bytes.len()], "from {from}");
    Some(part.range)
}

#[test]
fn checked_blocks_are_those_that_were_noted() {
    let checked = CheckedBlocks::none_of(200);
    let noted = [0, 5, 63, 64, 127, 130, 199];
    noted.iter().for_each(|block| checked.note(*block));
    for block in 0..300 {
        assert_eq!(checked.has(block), noted.contains(&block), "{block}");
    }
    checked.note(300);
    assert!(!checked.has(300), "there is no such block");
    let (first, block) = (HEADER as u64, BLOCK as u64);
    for (at, expected) in
        [(first, 0), (first + block - 1, 0), (first + block, 1), (first + 9 * block, 9)]
    {
        assert_eq!(block_at(at), expected, "{at}");
    }
}

fn extent(id: u64, start: u64, end: u64, file: u64) -> KnownExtent {
    let extent = ExtentRecord { start, end, file, offset: 32, crc: None };
    KnownExtent { id: StreamId(id), extent, footer_crc: 0 }
}

#[test]
fn extents_are_found_by_the_positions_that_they_hold() {
    let known = KnownExtents::default();
    let file_at = |id, at| known.find(StreamId(id), at).map(|found| found.extent.file);
    let now = IndexLook(0);
    for new in [extent(1, 10, 20, 1), extent(1, 20, 30, 2), extent(2, 10, 20, 3)] {
        known.note(now, new);
    }
    let found: Vec<_> = [9, 10, 19, 20, 29, 30].map(|at| file_at(1, at)).into();
    assert_eq!(found, [None, Some(1), Some(1), Some(2), Some(2), None]);
    assert_eq!((file_at(2, 15), file_at(3, 15)), (Some(3), None));
    // Moved to another file.
    known.note(now, extent(1, 10, 20, 4));
    assert_eq!((file_at(1, 15), file_at(1, 25), file_at(2, 15)), (Some(4), Some(2), Some(3)));
    assert_eq!(known.0.lock().extents.len(), 3);
    // The one that was used least lately goes first.
    file_at(1, 15);
    for id in 100..100 + KNOWN as u64 - 1 {
        known.note(now, extent(id, 0, 9, id));
    }
    assert_eq!(known.0.lock().extents.len(), KNOWN);
    assert_eq!((file_at(1, 15), file_at(1, 25), file_at(2, 15)), (Some(4), None, None));
    assert_eq!((file_at(100, 0), file_at(162, 8)), (Some(100), Some(162)));
}

/// A look that began before extents were removed may have found one of them.
#[test]
fn what_a_look_has_found_is_not_noted_once_extents_are_gone() {
    let dir = folder_on_disk();
    let files = files(&dir);
    let (extent, crc) = sealed(&files, LEN, MessageForm::Stored);
    let part = |look| {
        files.part(look, ID, &extent, crc, 1_000..1_100, MessageForm::Stored).ok().unwrap().unwrap()
    };
    let early = files.index_look();
    part(early);
    assert!(known(&files, 1_000, 1_100, 100).is_some());
    files.forget_extents();
    assert!(known(&files, 1_000, 1_100, 100).is_none());
    part(early);
    assert!(known(&files, 1_000, 1_100, 100).is_none());
    part(files.index_look());
    assert!(known(&files, 1_000, 1_100, 100).is_some());
}

#[test]
fn a_part_is_known_as_far_as_its_blocks_were_checked() {
    let dir = folder_on_disk();
    let files = files(&dir);
    let (extent, crc) = sealed(&files, LEN, MessageForm::Stored);
    let end = 1_000 + LEN;
    assert_eq!((extent.start, extent.end, extent.offset), (1_000, end, 82));
    assert_eq!(known(&files, 1_000, end, 10), None, "nothing is known yet");
    let look = files.index_look();
    let part = |range: Range<u64>| {
        let part = files.part(look, ID, &extent, crc, range, MessageForm::Stored).ok().unwrap();
        part.map(|part| part.range)
    };
    assert_eq!(part(1_010..61_010), Some(92..60_092));
    assert_eq!(files.part_bytes(), 60_000);
    // What is asked for, of what lies there.
    assert_eq!(known(&files, 1_000, end, 500), Some(82..582));
    assert_eq!(known(&files, 1_100, 1_150, 500), Some(182..232));
    assert_eq!(files.part_bytes(), 60_550);
    assert_eq!(known(&files, 1_100, 1_100, 500), None);
    assert_eq!(known(&files, 1_100, 1_200, 0), None);
    let array = MessageForm::Array;
    assert!(files.known_part(ID, Offset::new(1_100), Offset::new(1_200), 9, array).is_none());
    assert!(files.part(look, ID, &extent, crc, 1_100..1_200, array).ok().unwrap().is_none());
    // The first block ends at place 65,568.
    assert_eq!(known(&files, 1_000, end, 65_486), Some(82..65_568));
    assert_eq!(known(&files, 1_000, end, 65_487), None, "the next block was not checked");
    assert_eq!(known(&files, 150_000, end, 10), None);
    assert_eq!(part(150_000..150_010), Some(149_082..149_092));
    assert_eq!(known(&files, 150_000, end, 10), Some(149_082..149_092));
    assert_eq!(part(1_000..end), Some(82..82 + LEN));
    assert_eq!(known(&files, end - 1, end + 5, 10), Some(82 + LEN - 1..82 + LEN));
    assert_eq!(known(&files, end, end + 5, 10), None, "another extent has it");
    // Another file has that number now.
    assert!(files.part(look, ID, &extent, crc ^ 1, 1_000..1_010, MessageForm::Stored).is_err());
    files.known.note(look, KnownExtent { id: ID, extent, footer_crc: crc ^ 1 });
    assert_eq!(known(&files, 1_000, end, 10), None);
}

#[test]
fn a_block_is_checked_before_its_first_part_and_no_more() {
    let dir = folder_on_disk();
    let (extent, crc) = sealed(&files(&dir), LEN, MessageForm::Stored);
    let number = extent.file;
    let path = files(&dir).path(number);
    let flip = || {
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 70_000).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 70_000).unwrap();
    };
    let part = |files: &SegmentFiles, range: Range<u64>| {
        let look = files.index_look();
        files.part(look, ID, &extent, crc, range, MessageForm::Stored).map(|part| part.is_some())
    };
    let checked = files(&dir);
    assert!(part(&checked, 1_000..2_000).is_ok_and(|sent| sent));
    flip();
    assert!(part(&checked, 1_000..2_000).is_ok_and(|sent| sent), "in the first block");
    assert!(part(&checked, 1_000..100_000).is_err() && part(&checked, 66_000..67_000).is_err());
    assert!(part(&checked, 140_000..150_000).is_ok_and(|sent| sent), "behind it");
    flip();
    assert!(part(&checked, 66_000..67_000).is_ok_and(|sent| sent));
    // It stays in memory, and is not read again.
    flip();
    assert!(part(&checked, 66_000..67_000).is_ok_and(|sent| sent));
    let unchecked = files(&dir).checking_reads(false);
    assert!(part(&unchecked, 66_000..67_000).is_ok_and(|sent| sent));
    assert!(
        unchecked
            .known_part(ID, Offset::new(150_000), Offset::new(160_000), 9, MessageForm::Stored)
            .is_some()
    );
}

#[test]
fn a_small_extent_and_what_lies_behind_the_data_are_no_parts() {
    let dir = folder_on_disk();
    let files = files(&dir);
    let least = SegmentOptions::LEAST_SENT;
    for (len, is_sent) in [(least - 1, false), (least, true)] {
        let (extent, crc) = sealed(&files, len, MessageForm::Stored);
        let part =
            |range| files.part(files.index_look(), ID, &extent, crc, range, MessageForm::Stored);
        assert_eq!(part(1_000..1_010).ok().unwrap().is_some(), is_sent, "{len}");
        let longer = part(1_000..1_001 + len);
        assert!(matches!(longer, Err(SegmentReadError::Failed(_))), "{len}");
    }
}

#[test]
fn messages_are_sent_with_commas_only() {
    let dir = folder_on_disk();
    let files = files(&dir);
    // Its bytes have terminators here and there.
    let (extent, crc) = sealed(&files, LEN, MessageForm::Array);
    let part = |form| {
        let part = files.part(files.index_look(), ID, &extent, crc, 1_000..1_300, form);
        part.ok().unwrap().is_some()
    };
    assert!(part(MessageForm::Array) && !part(MessageForm::Stored));
    let known = |form| files.known_part(ID, Offset::new(1_000), Offset::new(9_000), 300, form);
    assert!(known(MessageForm::Array).is_some() && known(MessageForm::Stored).is_none());
}
