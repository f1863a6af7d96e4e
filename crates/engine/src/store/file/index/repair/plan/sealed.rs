//! What of the segment files is whole.

use std::{borrow::Cow, collections::BTreeMap};

use durable_streams_protocol::StreamId;

use super::RepairPlanner;
use crate::store::{
    StoreError,
    file::{
        error::index_error,
        index::extents::{ExtentRecord, SegmentEntry, SegmentPlace, SegmentRecord},
        segments::{
            check::{check_file, open_checked},
            format::{BLOCK, HEADER},
        },
    },
};

/// Whether a file is damaged, or not there.
fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Corrupt { .. } => true,
        StoreError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Bytes of a stream, and where they start.
type BytesAround<'b> = (u64, Cow<'b, [u8]>);

impl RepairPlanner<'_, '_> {
    /// Looks at the segment files that extents name, and whether the index has their records.
    pub(super) fn files(&mut self) -> Result<(), StoreError> {
        let reading = self.reading;
        let failed = index_error("read", reading.index().path());
        let live = reading.index().live_bytes(&reading.txn).map_err(&failed)?;
        let mut absent = BTreeMap::new();
        for (number, bytes) in &live {
            let path = self.segments.path(*number);
            match open_checked(self.segments.disk(), &path, *number) {
                Ok((_, footer)) => {
                    let record = SegmentRecord {
                        file_len: footer.file_len(),
                        data: footer.data_end() - HEADER as u64,
                        live: 0,
                        footer_crc: footer.trailer.footer_crc,
                        place: SegmentPlace::Local,
                        sealed_at: None,
                    };
                    self.repair.files.insert(*number, record);
                }
                Err(StoreError::Corrupt { .. }) => {}
                Err(error) if is_damage(&error) => drop(absent.insert(*number, *bytes)),
                Err(error) => return Err(error),
            }
        }
        let records = reading.segments_after(None, usize::MAX)?;
        let wrong = |(number, record): &SegmentEntry| match record {
            Ok(record) => live.get(number) != Some(&record.live),
            Err(_) => true,
        };
        self.repair.segments = records.len() != live.len() || records.iter().any(wrong);
        let whole: Vec<_> = records.into_iter().filter_map(|(n, r)| Some((n, r.ok()?))).collect();
        for (number, record) in &whole {
            self.file(*number, record)?;
            absent.remove(number);
        }
        // Neither a record nor a file. No command that mends an index reads objects, so bytes that one may have are not
        // dropped: a read tells.
        let has_objects = self.segments.may_be_objects();
        for (number, live) in absent.into_iter().filter(|_| has_objects) {
            let file_len = HEADER as u64 + live;
            let place = SegmentPlace::Object;
            let assumed =
                SegmentRecord { file_len, data: live, live, footer_crc: 0, place, sealed_at: None };
            self.repair.files.insert(number, assumed);
        }
        Ok(())
    }

    /// Compares a segment file with its whole record.
    fn file(&mut self, number: u64, record: &SegmentRecord) -> Result<(), StoreError> {
        let files = &mut self.repair.files;
        let in_store = SegmentRecord { place: SegmentPlace::Object, ..*record };
        match record.place {
            SegmentPlace::Local => {
                // A file that is another than the one that the index has is of no use.
                if files.get(&number).is_some_and(|file| file.footer_crc != record.footer_crc) {
                    files.remove(&number);
                } else if let Some(file) = files.get_mut(&number) {
                    file.sealed_at = record.sealed_at;
                }
            }
            SegmentPlace::Both => {
                let path = self.segments.path(number);
                match check_file(self.segments.disk(), &path, number, record) {
                    Ok(_) => drop(files.insert(number, *record)),
                    // The object was read back whole when it was made. The next start removes the file.
                    Err(error) if is_damage(&error) => {
                        files.insert(number, in_store);
                        self.repair.segments = true;
                    }
                    Err(error) => return Err(error),
                }
            }
            // What the object store has is taken for whole.
            SegmentPlace::Object => drop(files.insert(number, in_store)),
        }
        Ok(())
    }

    /// The ranges of an extent that cannot be read.
    pub(super) fn unreadable(&self, extent: &ExtentRecord) -> Vec<(u64, u64)> {
        let Some(file) = self.repair.files.get(&extent.file) else {
            return vec![(extent.start, extent.end)];
        };
        if !file.place.is_local() {
            return Vec::new();
        }
        let (mut lost, mut at) = (Vec::<(u64, u64)>::new(), extent.start);
        while at < extent.end {
            // To the end of the block of the file.
            let offset = extent.offset + (at - extent.start) - HEADER as u64;
            let len = (BLOCK as u64 - offset % BLOCK as u64).min(extent.end - at);
            if self.segments.read(extent, file.footer_crc, at, len as usize).is_err() {
                match lost.last_mut() {
                    Some(last) if last.1 == at => last.1 = at + len,
                    _ => lost.push((at, at + len)),
                }
            }
            at += len;
        }
        lost
    }

    /// The ranges from `start` on of an extent that cannot be read. What comes before was trimmed, and is cut off where it
    /// cannot be read.
    pub(super) fn unreadable_kept(
        &mut self,
        extent: &ExtentRecord,
        id: StreamId,
        start: u64,
    ) -> Vec<(u64, u64)> {
        let unreadable = self.unreadable(extent);
        if !unreadable.is_empty() {
            self.repair.damaged_files.insert(extent.file);
        }
        let trimmed = unreadable.iter().filter(|(from, _)| *from < start).map(|(_, to)| *to);
        if let Some(to) = trimmed.max() {
            self.repair.trimmed.push((id, extent.start, to.min(start)));
        }
        let kept = unreadable.into_iter().filter(|(_, to)| *to > start);
        kept.map(|(from, to)| (from.max(start), to)).collect()
    }

    /// Whole bytes around a position, and where they start.
    pub(super) fn bytes_with(
        &self,
        id: StreamId,
        at: u64,
    ) -> Result<Option<BytesAround<'_>>, StoreError> {
        let extent = match self.reading.extent_at(id, at) {
            Err(StoreError::Corrupt { .. }) => return Ok(None),
            extent => extent?,
        };
        let Some(extent) = extent else {
            let chunk = self.chunk_with(id, at)?;
            return Ok(chunk.map(|(start, chunk)| (start, Cow::Borrowed(chunk))));
        };
        let Some(file) = self.repair.files.get(&extent.file) else { return Ok(None) };
        let offset = extent.offset + (at - extent.start) - HEADER as u64;
        let start = at.saturating_sub(offset % BLOCK as u64).max(extent.start);
        let end = (at + BLOCK as u64 - offset % BLOCK as u64).min(extent.end);
        let read = self.segments.read(&extent, file.footer_crc, start, (end - start) as usize);
        Ok(read.ok().map(|bytes| (start, Cow::Owned(bytes.to_vec()))))
    }
}
