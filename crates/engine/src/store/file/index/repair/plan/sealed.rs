//! What of the segment files is whole.

use std::{borrow::Cow, collections::BTreeMap, io::ErrorKind};

use durable_streams_protocol::StreamId;

use super::RepairPlanner;
use crate::store::{
    StoreError,
    file::{
        disk::{Disk as _, RealDisk},
        error::index_error,
        index::extents::{ExtentRecord, SegmentEntry, SegmentPlace, SegmentRecord},
        segments::{
            check::{SegmentCheck, check_file, open_checked},
            files::SegmentReadError,
            format::{BLOCK, HEADER},
        },
    },
};

/// Whether a file is damaged, or not there.
fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Corrupt { .. } => true,
        StoreError::Io { source, .. } => source.kind() == ErrorKind::NotFound,
        _ => false,
    }
}

/// An object store that does not answer has lost nothing.
///
/// # Errors
/// That it does not answer.
fn unanswered(file: &SegmentRecord, error: SegmentReadError) -> Result<(), StoreError> {
    match error {
        SegmentReadError::Failed(error @ StoreError::Io { .. }) if !file.place.is_local() => {
            Err(error)
        }
        _ => Ok(()),
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
        // Neither a record nor a file. Where objects are not read, bytes that one may have are not dropped: a read tells.
        let assumes = self.segments.may_be_objects() && !self.segments.reads_objects();
        for (number, live) in absent.into_iter().filter(|_| assumes) {
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
                    let opened = RealDisk.open_to_read(&self.segments.path(number));
                    if opened.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                        // It was read from an object that the index has not noted.
                        *file = in_store;
                        self.repair.segments = true;
                    }
                }
            }
            SegmentPlace::Both => {
                let path = self.segments.path(number);
                match check_file(&RealDisk, &path, number, record) {
                    Ok(_) => drop(files.insert(number, *record)),
                    // The object was read back whole when it was made. The next start removes the file.
                    Err(error) if is_damage(&error) => {
                        self.segments.prefer_object(number);
                        self.repair.segments = true;
                        self.object(number, in_store)?;
                    }
                    Err(error) => return Err(error),
                }
            }
            SegmentPlace::Object => {
                self.segments.prefer_object(number);
                self.object(number, in_store)?;
            }
        }
        Ok(())
    }

    /// Takes what the object store has of a segment for whole where it is not read, and looks for its object otherwise.
    fn object(&mut self, number: u64, record: SegmentRecord) -> Result<(), StoreError> {
        if self.segments.reads_objects() {
            let path = self.segments.path(number);
            match SegmentCheck::begin(self.segments.disk(), &path, number, &record) {
                Err(error) if is_damage(&error) => {
                    self.repair.files.remove(&number);
                    return Ok(());
                }
                checked => drop(checked?),
            }
        }
        self.repair.files.insert(number, record);
        Ok(())
    }

    /// The ranges of an extent that cannot be read, block by block.
    pub(super) fn unreadable(&self, extent: &ExtentRecord) -> Result<Vec<(u64, u64)>, StoreError> {
        let Some(file) = self.repair.files.get(&extent.file) else {
            return Ok(vec![(extent.start, extent.end)]);
        };
        if !file.place.is_local() && !self.segments.reads_objects() {
            return Ok(Vec::new());
        }
        let (mut lost, mut at) = (Vec::<(u64, u64)>::new(), extent.start);
        while at < extent.end {
            // To the end of the block of the file.
            let offset = extent.offset + (at - extent.start) - HEADER as u64;
            let len = (BLOCK as u64 - offset % BLOCK as u64).min(extent.end - at);
            if let Err(error) = self.segments.read(extent, file.footer_crc, at, len as usize) {
                unanswered(file, error)?;
                lost.push((at, at + len));
            }
            at += len;
        }
        Ok(lost)
    }

    /// The ranges from `start` on of an extent that cannot be read. What comes before was trimmed, and is cut off where it
    /// cannot be read.
    pub(super) fn unreadable_kept(
        &mut self,
        extent: &ExtentRecord,
        id: StreamId,
        start: u64,
    ) -> Result<Vec<(u64, u64)>, StoreError> {
        let unreadable = self.unreadable(extent)?;
        if !unreadable.is_empty() {
            self.repair.damaged_files.insert(extent.file);
        }
        let trimmed = unreadable.iter().filter(|(from, _)| *from < start).map(|(_, to)| *to);
        if let Some(to) = trimmed.max() {
            self.repair.trimmed.push((id, extent.start, to.min(start)));
        }
        let kept = unreadable.into_iter().filter(|(_, to)| *to > start);
        Ok(kept.map(|(from, to)| (from.max(start), to)).collect())
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
        match read {
            Ok(bytes) => Ok(Some((start, Cow::Owned(bytes.to_vec())))),
            Err(error) => unanswered(file, error).map(|()| None),
        }
    }
}

#[cfg(test)]
mod tests;
