//! Finding damage in the log, and dropping the events after it.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use durable_streams_protocol::{StreamEvent, StreamId};

use super::open_index;
use crate::store::{
    StoreError,
    file::{
        FileStoreOptions,
        disk::{Disk, RealDisk},
        error::io_error,
        index::handle::IndexHandle,
        layout::Layout,
        places::StreamPlaces,
        wal::{
            Lsn,
            end_mark::EndMark,
            frame::{self, FrameHeader},
            reader, recovery,
            segment::{self, WalSegment},
        },
    },
};

/// What `repair` drops, or would drop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogDamage {
    /// The segment in which it begins.
    pub path: PathBuf,
    /// Its byte offset in the segment.
    pub offset: u64,
    /// What is wrong there, in words.
    pub found: String,
    /// The first event that is lost; all later ones are, too.
    pub first_lost: u64,
    /// The last whole event after the damage, which is lost all the same; `None` when there is none.
    pub last_found: Option<u64>,
    /// The whole events after the damage, which are lost all the same, by stream.
    pub lost: Vec<LostEvents>,
    /// Later segments, which are set aside whole.
    pub segments: Vec<PathBuf>,
}

/// Whole events of one stream that are lost because they follow damage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostEvents {
    /// The stream's id.
    pub id: u64,
    /// The stream's path, if it is known.
    pub path: Option<String>,
    /// Number of events.
    pub events: u64,
    /// Their payload bytes.
    pub bytes: u64,
}

/// Finds damage in the log; with `apply`, drops every event from there on. Returns `None` when the directory opens as it
/// is.
///
/// Damage in the index is not repaired; it is an error here, and a backup must be restored.
///
/// # Errors
/// As for opening, except for damage in the log's frames.
pub fn repair(options: &FileStoreOptions, apply: bool) -> Result<Option<LogDamage>, StoreError> {
    let disk = RealDisk;
    let layout = Layout::open_existing(&disk, &options.dir)?;
    let index = open_index(&layout, options)?;
    let checkpoint = index.read()?.meta()?.lsn;
    let mut reached = checkpoint;
    let mut paths = HashMap::new();
    let reading = index.read()?;
    let base = |id| reading.state(id);
    let mut places = StreamPlaces::new(&base);
    let refused = recovery::recover(&disk, &layout.wal, checkpoint, &mut |logged| {
        let event = logged.event()?;
        places.follow(logged, &event)?;
        note_path(&mut paths, logged.header.id, &event);
        reached = logged.header.lsn;
        Ok(())
    });
    drop(reading);
    let (path, offset, found) = match refused {
        Ok(_) => return Ok(None),
        Err(StoreError::Corrupt { path, offset, found }) => (path, offset, found.to_string()),
        Err(other) => return Err(other),
    };
    let mut whole = BTreeMap::new();
    let mut segments = Vec::new();
    let mut number = 1;
    for there in segment::numbers_in(&disk, &layout.wal)? {
        number = there + 1;
        let file = layout.wal.join(segment::file_name(there));
        if file >= path
            && let Ok(segment) = WalSegment::open(&disk, &layout.wal, there)
        {
            whole_after(&segment, reached, &mut paths, &mut whole)?;
        }
        if file > path {
            segments.push(file);
        }
    }
    let last_found = whole.keys().last().copied();
    let lost = lost(&whole, &paths, &index)?;
    drop(index);
    let damage =
        LogDamage { path, offset, found, first_lost: reached + 1, last_found, lost, segments };
    if apply {
        cut(&layout, &damage, number, checkpoint)?;
        // Fails if there was more damage than was reported.
        recovery::recover(&disk, &layout.wal, checkpoint, &mut |logged| logged.event().map(drop))?;
    }
    Ok(Some(damage))
}

fn note_path(paths: &mut HashMap<StreamId, String>, id: StreamId, event: &StreamEvent) {
    if let StreamEvent::Created(created) = event {
        paths.insert(id, created.path.as_str().to_owned());
    }
}

/// Notes the stream and the payload bytes of each whole frame after `reached`, anywhere in a segment. An event may occur
/// twice: in a segment that was abandoned after a failed write, and in the next one.
fn whole_after(
    segment: &WalSegment,
    reached: Lsn,
    paths: &mut HashMap<StreamId, String>,
    whole: &mut BTreeMap<Lsn, (StreamId, u64)>,
) -> Result<(), StoreError> {
    let wanted = |header: &FrameHeader| header.lsn > reached;
    reader::scan(segment, segment::HEADER, &wanted, &mut |header, record, _| {
        let event = frame::event(record).ok();
        if let Some(event) = &event {
            note_path(paths, header.id, event);
        }
        let bytes = event.as_ref().and_then(StreamEvent::data).map_or(0, |data| data.len() as u64);
        whole.insert(header.lsn, (header.id, bytes));
        ControlFlow::Continue(())
    })
}

fn lost(
    whole: &BTreeMap<Lsn, (StreamId, u64)>,
    paths: &HashMap<StreamId, String>,
    index: &IndexHandle,
) -> Result<Vec<LostEvents>, StoreError> {
    let mut streams: BTreeMap<StreamId, (u64, u64)> = BTreeMap::new();
    for (id, bytes) in whole.values() {
        let sums = streams.entry(*id).or_default();
        *sums = (sums.0 + 1, sums.1 + bytes);
    }
    let reading = index.read()?;
    let named = streams.into_iter().map(|(id, (events, bytes))| {
        let path = match paths.get(&id) {
            Some(path) => Some(path.clone()),
            None => reading.state(id)?.map(|state| state.core.path.as_str().to_owned()),
        };
        Ok(LostEvents { id: id.0, path, events, bytes })
    });
    named.collect()
}

/// Drops the rest of the damaged segment and all later ones; copies stay beside the log under other names. When no
/// segment is left, creates segment `number`, which goes on after the index.
fn cut(
    layout: &Layout,
    damage: &LogDamage,
    number: u64,
    checkpoint: Lsn,
) -> Result<(), StoreError> {
    let disk = RealDisk;
    for later in &damage.segments {
        set_aside(later)?;
    }
    let path = &damage.path;
    if damage.offset >= segment::HEADER {
        let aside = aside(path)?;
        RealDisk::copy(path, &aside, &mut |_| {}).map_err(io_error("write", &aside))?;
        clear(path, damage.offset).map_err(io_error("write", path))?;
    } else if *path != layout.wal {
        set_aside(path)?;
    }
    if segment::numbers_in(&disk, &layout.wal)?.is_empty() {
        segment::begin_log(&disk, &layout.wal, number, checkpoint + 1)?;
    }
    EndMark::remove(&disk, &layout.wal)?;
    disk.sync_dir(&layout.wal).map_err(io_error("sync", &layout.wal))
}

/// A free name beside the log; an earlier repair may have used some.
pub(super) fn aside(path: &Path) -> Result<PathBuf, StoreError> {
    let mut taken = 1;
    loop {
        let ending = if taken == 1 { "dropped".to_owned() } else { format!("{taken}.dropped") };
        let aside = path.with_extension(ending);
        match RealDisk.open(&aside, false) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(aside),
            Err(error) => return Err(io_error("open", &aside)(error)),
            Ok(_) => taken += 1,
        }
    }
}

fn set_aside(path: &Path) -> Result<(), StoreError> {
    RealDisk.rename(path, &aside(path)?).map_err(io_error("rename", path))
}

/// Overwrites a file with zeros from an offset on.
fn clear(path: &Path, from: u64) -> std::io::Result<()> {
    const PIECE: u64 = 1 << 20;
    let file = RealDisk.open(path, false)?;
    let len = file.len()?;
    let zeros = vec![0; PIECE as usize];
    let mut at = from;
    while at < len {
        let rest = (len - at).min(PIECE);
        file.write_at(at, zeros.get(..rest as usize).unwrap_or(&zeros))?;
        at += rest;
    }
    file.sync()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_set_aside_gets_a_name_that_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.wal");
        for name in ["1.dropped", "1.2.dropped", "1.3.dropped"] {
            fs::write(&path, name).unwrap();
            set_aside(&path).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), name);
            assert!(!path.exists());
        }
        // What cannot be looked at is not taken for free.
        fs::create_dir(dir.path().join("1.4.dropped")).unwrap();
        fs::write(&path, "").unwrap();
        let refused = set_aside(&path).unwrap_err().to_string();
        assert!(refused.contains("cannot open"), "{refused}");
        assert!(path.exists());
    }

    #[test]
    fn a_file_is_cleared_to_its_end_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.wal");
        let (kept, len) = ((1 << 20) + 7, (3 << 20) + 5);
        fs::write(&path, vec![7; len]).unwrap();
        clear(&path, kept as u64).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), len);
        let (before, after) = bytes.split_at(kept);
        assert!(before.iter().all(|byte| *byte == 7) && after.iter().all(|byte| *byte == 0));
    }
}
