//! Reading a segment: at the edges of what is read at once, and at the end of the file.

use std::ops::ControlFlow;

use super::*;
use crate::store::file::wal::{
    reader::{self, ReadWindow, SegmentEnd, WINDOW},
    segment::WalSegment,
};

/// Frames of a segment, one after the other.
struct Frames {
    bytes: Vec<u8>,
    next: Lsn,
    synced: Lsn,
}

impl Frames {
    fn new() -> Self {
        Frames { bytes: segment::header(7, 1).to_vec(), next: 1, synced: 1 }
    }

    /// Returns where it begins.
    fn add(&mut self, queued: &QueuedCommit) -> u64 {
        let at = self.bytes.len() as u64;
        frame::encode(&mut self.bytes, 7, self.next, self.synced, queued);
        self.next += 1;
        at
    }

    /// An append whose frame ends at `end`.
    fn add_up_to(&mut self, end: usize) {
        self.add(&append(end - self.bytes.len() - APPEND));
    }

    fn segment(&self, dir: &Path) -> WalSegment {
        fs::write(dir.join(segment::file_name(7)), &self.bytes).unwrap();
        WalSegment::open(&RealDisk, dir, 7).unwrap()
    }

    fn read(&self, limit: Option<Lsn>) -> Result<(SegmentEnd, Vec<Lsn>), StoreError> {
        let dir = tempfile::tempdir().unwrap();
        let segment = self.segment(dir.path());
        let mut found = Vec::new();
        let end = reader::read(&segment, limit, &mut |logged| {
            found.push(logged.header.lsn);
            Ok(())
        })?;
        assert_eq!(found, Vec::from_iter(1..end.next));
        Ok((end, found))
    }
}

fn pair() -> [QueuedCommit; 2] {
    QueuedCommit::pair(commit(1, append_of(20)), commit(2, append_of(30)))
}

#[test]
fn the_window_shows_the_bytes_of_the_file_wherever_it_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    let mut frames = Frames::new();
    frames.bytes.extend((0..3 * WINDOW + 17).map(|at| (at * 7 + at / 256) as u8));
    let segment = frames.segment(dir.path());
    let all = frames.bytes.len();
    let mut window = ReadWindow { segment: &segment, bytes: Vec::new(), start: 0 };
    let places = [0, 32, 5, WINDOW - 1, WINDOW + 4, WINDOW + 5, 6, 2 * WINDOW, all - 3, 40, all];
    for (at, len) in places.into_iter().flat_map(|at| [1, 52, 53, WINDOW + 9].map(|len| (at, len)))
    {
        let shown = window.at(at as u64, len).unwrap();
        assert!(shown.len() >= len.min(all - at), "{} of {len} bytes at {at}", shown.len());
        assert_eq!(shown, &frames.bytes[at..at + shown.len()], "at {at}");
    }
    assert_eq!(window.at(all as u64 + 100, 52).unwrap(), b"");
}

/// Frames are found whole wherever the window ends in them.
#[test]
fn frames_are_read_across_the_end_of_a_window() {
    for before in [0, 1, 2, 35, 36, 37, 51, 52, 53, 54, 62, 63, 64, 65, 83, 84, 85, 136, 137] {
        for torn in [false, true] {
            let mut frames = Frames::new();
            // The window begins with the first frame.
            frames.add_up_to(32 + WINDOW - before);
            let first = pair().map(|queued| frames.add(&queued))[0];
            let last = frames.bytes.len() - 1;
            frames.bytes[last] ^= u8::from(torn);
            frames.bytes.extend([0; 200]);
            let (end, events) = frames.read(None).unwrap();
            let expected = if torn { (vec![1], first) } else { (vec![1, 2, 3], last as u64 + 1) };
            assert_eq!((events, end.offset), expected, "{before} bytes before the end, {torn}");
        }
    }
}

#[test]
fn a_frame_that_ends_with_the_file_is_whole_and_one_byte_less_is_torn() {
    for paired in [false, true] {
        let mut frames = Frames::new();
        let mut begins = vec![frames.add(&touch()), frames.add(&append(100))];
        begins.extend(if paired { pair().map(|one| frames.add(&one)) } else { [0; 2] });
        begins.retain(|at| *at > 0);
        let (end, events) = frames.read(None).unwrap();
        assert_eq!((events.len(), end.offset), (begins.len(), frames.bytes.len() as u64));
        frames.bytes.pop();
        let whole = if paired { 2 } else { 1 };
        let (end, events) = frames.read(None).unwrap();
        assert_eq!((events.len(), end.offset), (whole, begins[whole]), "a pair counts as a whole");
    }
}

#[test]
fn reading_stops_before_the_first_event_of_the_next_segment() {
    let mut frames = Frames::new();
    let begins: Vec<u64> = (0..4).map(|_| frames.add(&touch())).collect();
    for limit in 1..=4 {
        let (end, events) = frames.read(Some(limit)).unwrap();
        assert_eq!((events.len() as u64 + 1, end.next), (limit, limit));
        assert_eq!(end.offset, begins[limit as usize - 1]);
    }
    assert_eq!(frames.read(Some(9)).unwrap().0.next, 5, "there are no more");
    // What is behind it was left by a write that failed, whatever it says.
    frames.synced = 5;
    frames.add(&touch());
    frames.bytes[begins[1] as usize] ^= 1;
    assert_eq!(frames.read(Some(2)).unwrap().0.next, 2);
    assert!(frames.read(Some(3)).is_err() && frames.read(None).is_err());
}

#[test]
fn a_whole_frame_of_another_number_is_the_end() {
    for paired in [false, true] {
        let mut frames = Frames::new();
        frames.add(&touch());
        let end = frames.bytes.len() as u64;
        let [first, second] = pair();
        if paired {
            frames.add(&first);
        }
        frames.next += 1;
        frames.add(&second);
        frames.bytes.extend([0; 100]);
        let (found, events) = frames.read(None).unwrap();
        assert_eq!((events, found.offset), (vec![1], end));
    }
}

/// A frame that says that all before it was durable when it was written.
#[test]
fn the_last_frame_that_followed_a_sync_is_told() {
    let mut frames = Frames::new();
    frames.synced = 0;
    frames.add(&touch());
    assert_eq!(frames.read(None).unwrap().0.synced_before, None);
    frames.synced = 2;
    let second = frames.add(&touch());
    frames.add(&touch());
    assert_eq!(frames.read(None).unwrap().0.synced_before, Some(second));
    frames.synced = 4;
    let fourth = frames.add(&touch());
    assert_eq!(frames.read(None).unwrap().0.synced_before, Some(fourth));
}

/// Whether an event that is broken was durable is what a later frame says of it.
#[test]
fn a_broken_event_is_damage_only_if_a_later_one_followed_its_sync() {
    for (synced, damage) in [(1, false), (2, false), (3, true), (4, true)] {
        let mut frames = Frames::new();
        frames.add(&touch());
        let broken = frames.add(&append(10));
        frames.add(&touch());
        frames.synced = synced;
        frames.add(&touch());
        frames.bytes[broken as usize + APPEND] ^= 1;
        match frames.read(None) {
            Ok((end, _)) => assert_eq!((end.next, end.offset, damage), (2, broken, false)),
            Err(StoreError::Corrupt { offset, found, .. }) => {
                assert!(damage, "synced {synced}: {found}");
                let expected = "event 2 (of stream 1) is missing or broken, but event 4 after it";
                assert!(offset == broken && found.starts_with(expected), "{found}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    // Its header does not say whose it was.
    let mut frames = Frames::new();
    let broken = frames.add(&touch());
    frames.synced = 2;
    frames.add(&touch());
    frames.bytes[broken as usize + 12] ^= 4;
    let Err(StoreError::Corrupt { found, .. }) = frames.read(None) else { panic!("it is damage") };
    assert!(found.starts_with("event 1 is missing or broken, but event 2 after it"), "{found}");
}

#[test]
fn a_scan_finds_every_whole_frame_across_windows_and_up_to_the_last_byte() {
    let old = |lsn: u64| {
        // A frame of format 1 without a record: the shortest that there may be.
        let mut bytes = Vec::new();
        let queued = touch();
        frame::encode(&mut bytes, 7, lsn, 1, &queued);
        bytes.truncate(frame::HEADER_1);
        bytes[3] = b'1';
        bytes[4..8].fill(0);
        let mut seed = [0; 12];
        seed[..8].copy_from_slice(&7_u64.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&seed), &bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    for before in [0, 1, 2, 3, 4, 9, 10, 11, 12, 35, 36, 37, 52, 53] {
        let mut frames = Frames::new();
        frames.bytes.resize(32 + WINDOW - before, b'D');
        let mut expected = vec![(1, frames.add(&append(10)))];
        frames.bytes.extend(b"DSDSfDSf2");
        expected.push((2, frames.add(&touch())));
        frames.bytes.extend([0; 40]);
        expected.push((9, frames.bytes.len() as u64));
        frames.bytes.extend(old(9));
        let dir = tempfile::tempdir().unwrap();
        let segment = frames.segment(dir.path());
        let mut found = Vec::new();
        reader::scan(&segment, 32, &|_| true, &mut |header, _, offset| {
            found.push((header.lsn, offset));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(found, expected, "{before} bytes before the end of the window");
        let (mut first, from) = (Vec::new(), expected[0].1 + 1);
        reader::scan(&segment, from, &|header| header.lsn != 2, &mut |header, _, _| {
            first.push(header.lsn);
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(first, [9]);
    }
}
