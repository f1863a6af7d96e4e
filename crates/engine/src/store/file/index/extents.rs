//! The `extents` and `segment_files` databases: which bytes of streams are in which sealed segments.
//!
//! Invariants
//! - Extents and chunks together cover a stream's own bytes without gap or overlap, the extents first.
//! - The live bytes of a segment file are the lengths of the extents that name it. A file without live bytes has no record.
//! - A file is referenced only once it is durable under its name, and removed only once a commit without it is.

use durable_streams_protocol::{Offset, StreamId, Timestamp};
use heed::{RoTxn, RwTxn};

use super::{
    env::IndexEnvironment,
    handle::{IndexHandle, WriteError},
    keys,
};
use crate::store::{SegmentTotals, StoreError, file::error::index_error};

mod objects;
mod place;
mod reads;
mod seal;

pub use place::SegmentPlace;
pub(in crate::store::file) use seal::{HandedOver, NewExtent, NewSegment};

/// A record of `extents`: a range of a stream's own bytes in a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::file) struct ExtentRecord {
    /// Its first position in the stream.
    pub(in crate::store::file) start: u64,
    /// The position after its last byte.
    pub(in crate::store::file) end: u64,
    /// The number of the segment file.
    pub(in crate::store::file) file: u64,
    /// The place of its first byte in that file.
    pub(in crate::store::file) offset: u64,
    /// The checksum of its bytes. An extent that `repair` has cut has none; blocks of the file are checked then.
    pub(in crate::store::file) crc: Option<u32>,
}

impl ExtentRecord {
    pub(in crate::store::file) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// The contents of a record.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28);
        for field in [self.end, self.file, self.offset] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend(self.crc.iter().flat_map(|crc| crc.to_le_bytes()));
        out
    }

    fn decode(start: u64, contents: &[u8]) -> Option<Self> {
        let (end, rest) = contents.split_first_chunk()?;
        let (file, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let crc = match rest {
            [] => None,
            crc => Some(u32::from_le_bytes(crc.try_into().ok()?)),
        };
        let [end, file, offset] = [end, file, offset].map(|field| u64::from_le_bytes(*field));
        let extent = ExtentRecord { start, end, file, offset, crc };
        (start < end && offset.checked_add(end - start).is_some()).then_some(extent)
    }

    /// A whole record, and the stream that it is of.
    pub(super) fn open(key: &[u8], value: &[u8]) -> Option<(StreamId, Self)> {
        let (id, start) = keys::unpair(key)?;
        Some((StreamId(id), Self::decode(start, keys::open(key, value)?)?))
    }
}

/// A record of `segment_files`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::file) struct SegmentRecord {
    /// Size of the file, bytes.
    pub(in crate::store::file) file_len: u64,
    /// Bytes of data in it.
    pub(in crate::store::file) data: u64,
    /// Those that a stream still has.
    pub(in crate::store::file) live: u64,
    /// The checksum of its footer.
    pub(in crate::store::file) footer_crc: u32,
    pub(in crate::store::file) place: SegmentPlace,
    /// When it was sealed, by the store's clock; `None` where that was not noted.
    pub(in crate::store::file) sealed_at: Option<Timestamp>,
}

impl SegmentRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(37);
        for field in [self.file_len, self.data, self.live] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.footer_crc.to_le_bytes());
        out.push(self.place.encode());
        out.extend(self.sealed_at.iter().flat_map(|at| at.millis().to_le_bytes()));
        out
    }

    fn decode(contents: &[u8]) -> Option<Self> {
        let (file_len, rest) = contents.split_first_chunk()?;
        let (data, rest) = rest.split_first_chunk()?;
        let (live, rest) = rest.split_first_chunk()?;
        let (crc, rest) = rest.split_first_chunk()?;
        let [file_len, data, live] = [file_len, data, live].map(|field| u64::from_le_bytes(*field));
        let (&[place], rest) = rest.split_first_chunk()?;
        let sealed_at = match rest {
            [] => None,
            at => Some(Timestamp::from_millis(u64::from_le_bytes(at.try_into().ok()?))),
        };
        let (footer_crc, place) = (u32::from_le_bytes(*crc), SegmentPlace::decode(place)?);
        let record = SegmentRecord { file_len, data, live, footer_crc, place, sealed_at };
        (live > 0 && live <= data).then_some(record)
    }

    /// A whole record, and the number of its file.
    pub(super) fn open(key: &[u8], value: &[u8]) -> Option<(u64, Self)> {
        Some((keys::number(key)?, Self::decode(keys::open(key, value)?)?))
    }
}

/// A key of `extents` and its record, `None` when it is damaged.
pub(in crate::store::file) type ExtentEntry = (Vec<u8>, Option<ExtentRecord>);

/// The number of a segment file and its record.
pub(in crate::store::file) type SegmentEntry = (u64, Result<SegmentRecord, StoreError>);

impl IndexEnvironment {
    /// The extent that holds a position of a stream.
    pub(super) fn extent_at(
        &self,
        txn: &RoTxn<'_>,
        id: StreamId,
        at: Offset,
    ) -> Result<Option<ExtentRecord>, StoreError> {
        let extent = self.last_extent(txn, id, at)?;
        Ok(extent.filter(|extent| at.position() < extent.end))
    }

    /// The last extent of a stream that begins at a position or before.
    pub(super) fn last_extent(
        &self,
        txn: &RoTxn<'_>,
        id: StreamId,
        at: Offset,
    ) -> Result<Option<ExtentRecord>, StoreError> {
        let key = keys::chunk(id, at);
        let found = self.extents.get_lower_than_or_equal_to(txn, &key);
        let Some((key, value)) = found.map_err(index_error("read", self.path()))? else {
            return Ok(None);
        };
        if !key.starts_with(&keys::id(id)) {
            return Ok(None);
        }
        let damaged = || self.damaged(&format!("an extent of stream {}", id.0));
        let (_, extent) = ExtentRecord::open(key, value).ok_or_else(damaged)?;
        Ok(Some(extent))
    }

    /// A segment file's record.
    pub(super) fn segment(
        &self,
        txn: &RoTxn<'_>,
        number: u64,
    ) -> Result<Option<SegmentRecord>, StoreError> {
        let key = number.to_be_bytes();
        let found = self.segment_files.get(txn, &key);
        let Some(value) = found.map_err(index_error("read", self.path()))? else {
            return Ok(None);
        };
        let damaged = || self.damaged(&format!("the record of segment {number}"));
        SegmentRecord::open(&key, value).map(|(_, record)| Some(record)).ok_or_else(damaged)
    }

    pub(super) fn put_extent(
        &self,
        txn: &mut RwTxn<'_>,
        id: StreamId,
        extent: &ExtentRecord,
    ) -> Result<(), WriteError> {
        let key = keys::chunk(id, Offset::new(extent.start));
        let mut value = Vec::new();
        keys::seal(&key, &extent.encode(), &mut value);
        Ok(self.extents.put(txn, &key, &value)?)
    }

    pub(super) fn put_segment(
        &self,
        txn: &mut RwTxn<'_>,
        number: u64,
        record: &SegmentRecord,
    ) -> Result<(), WriteError> {
        let key = number.to_be_bytes();
        let mut value = Vec::new();
        keys::seal(&key, &record.encode(), &mut value);
        Ok(self.segment_files.put(txn, &key, &value)?)
    }

    /// Removes up to `max` extents of a stream, and from their files what is live. Returns how many it removed; adds files
    /// without live bytes to `freed`, which the caller removes once the commit is durable.
    pub(super) fn remove_extents(
        &self,
        txn: &mut RwTxn<'_>,
        id: &[u8],
        max: usize,
        freed: &mut Vec<u64>,
    ) -> Result<usize, WriteError> {
        let mut found = Vec::new();
        for record in self.extents.prefix_iter(txn, id)?.take(max) {
            let (key, value) = record?;
            found.push((key.to_vec(), ExtentRecord::open(key, value)));
        }
        let mut removed = 0;
        for (key, extent) in &found {
            // A changed key misleads the search for others: what is not found stays, and is not counted.
            if !self.extents.delete(txn, key)? {
                continue;
            }
            removed += 1;
            // The live bytes of the file of a damaged extent stay too many, which `verify` says and `repair` ends.
            let Some((_, extent)) = extent else { continue };
            self.release(txn, extent.file, extent.len(), freed)?;
        }
        Ok(removed)
    }

    /// Removes up to `max` extents of a stream that end at `kept` or before, and cuts the one that `kept` lies in. As for
    /// [`remove_extents`](Self::remove_extents).
    pub(super) fn trim_extents(
        &self,
        txn: &mut RwTxn<'_>,
        (id, kept): (StreamId, u64),
        max: usize,
        freed: &mut Vec<u64>,
    ) -> Result<usize, WriteError> {
        let mut found = Vec::new();
        for record in self.extents.prefix_iter(txn, &keys::id(id))?.take(max) {
            let (key, value) = record?;
            // A damaged one stays, and what is behind it: readers are refused, and `repair` ends it.
            let Some((_, extent)) = ExtentRecord::open(key, value) else { break };
            if extent.start >= kept {
                break;
            }
            found.push((key.to_vec(), extent));
        }
        for (key, extent) in &found {
            self.extents.delete(txn, key)?;
            let trimmed = extent.end.min(kept) - extent.start;
            if trimmed < extent.len() {
                let offset = extent.offset + trimmed;
                let rest = ExtentRecord { start: kept, offset, crc: None, ..*extent };
                self.put_extent(txn, id, &rest)?;
            }
            self.release(txn, extent.file, trimmed, freed)?;
        }
        Ok(found.len())
    }

    /// Notes that bytes of a segment file are no longer of a stream.
    fn release(
        &self,
        txn: &mut RwTxn<'_>,
        file: u64,
        bytes: u64,
        freed: &mut Vec<u64>,
    ) -> Result<(), WriteError> {
        let mut record = match self.segment(txn, file) {
            Ok(Some(record)) => record,
            Ok(None) | Err(StoreError::Corrupt { .. }) => {
                tracing::error!(segment = file, "the record of a segment file is damaged");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        record.live = record.live.saturating_sub(bytes);
        if record.live > 0 {
            return self.put_segment(txn, file, &record);
        }
        self.segment_files.delete(txn, &file.to_be_bytes())?;
        freed.push(file);
        Ok(())
    }

    /// Removes a range of a stream from its extents; those that reach into it keep the rest. The live bytes of their files
    /// are counted again by the caller.
    pub(super) fn cut_extents(
        &self,
        txn: &mut RwTxn<'_>,
        id: StreamId,
        start: u64,
        end: u64,
    ) -> Result<(), WriteError> {
        let mut touched = Vec::new();
        for record in self.extents.prefix_iter(txn, &keys::id(id))? {
            let (key, value) = record?;
            let extent = ExtentRecord::open(key, value).map(|(_, extent)| extent);
            if extent.is_none_or(|extent| extent.start < end && extent.end > start) {
                touched.push((key.to_vec(), extent));
            }
        }
        for (key, extent) in touched {
            self.extents.delete(txn, &key)?;
            let Some(extent) = extent else { continue };
            let before = ExtentRecord { end: start, crc: None, ..extent };
            let offset = extent.offset + end.saturating_sub(extent.start);
            let after = ExtentRecord { start: end, offset, crc: None, ..extent };
            for rest in [before, after] {
                if rest.start < rest.end {
                    self.put_extent(txn, id, &rest)?;
                }
            }
        }
        Ok(())
    }

    /// Own bytes of a stream in its extents, for one whose state is damaged.
    pub(super) fn extent_bytes(&self, txn: &RoTxn<'_>, id: StreamId) -> Result<u64, heed::Error> {
        let mut bytes = 0;
        for record in self.extents.prefix_iter(txn, &keys::id(id))? {
            let (key, value) = record?;
            bytes += ExtentRecord::open(key, value).map_or(0, |(_, extent)| extent.len());
        }
        Ok(bytes)
    }
}

impl IndexHandle {
    /// The next segment files after a number, in order, at most `max`. A damaged record is an error in its place.
    pub(in crate::store::file) fn segments_after(
        &self,
        after: Option<u64>,
        max: usize,
    ) -> Result<Vec<SegmentEntry>, StoreError> {
        self.read()?.segments_after(after, max)
    }

    /// What segments take, by place, in the order of [`SegmentPlace::ALL`]; damaged records count nothing.
    pub(in crate::store::file) fn segment_totals(&self) -> Result<[SegmentTotals; 3], StoreError> {
        let reading = self.read()?;
        let mut totals = [SegmentTotals::default(); 3];
        for (_, record) in reading.segments_after(None, usize::MAX)? {
            let Ok(record) = record else { continue };
            let Some(of_place) = totals.get_mut(record.place as usize) else { continue };
            of_place.files += 1;
            of_place.bytes += record.file_len;
            of_place.live += record.live;
        }
        Ok(totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let whole = ExtentRecord { start: 5, end: 9, file: 3, offset: 32, crc: Some(7) };
        let (cut, record) = (
            ExtentRecord { crc: None, ..whole },
            SegmentRecord {
                file_len: 200,
                data: 9,
                live: 4,
                footer_crc: 1,
                place: SegmentPlace::Both,
                sealed_at: Some(Timestamp::from_millis(7)),
            },
        );
        for extent in [whole, cut] {
            assert_eq!(ExtentRecord::decode(5, &extent.encode()), Some(extent));
        }
        assert_eq!(SegmentRecord::decode(&record.encode()), Some(record));
        let unknown = SegmentRecord { sealed_at: None, ..record };
        assert_eq!(SegmentRecord::decode(&unknown.encode()), Some(unknown));
        assert_eq!(SegmentRecord::decode(&record.encode()[..36]), None, "a part of the time");
        assert_eq!(ExtentRecord::decode(9, &whole.encode()), None, "it ends where it starts");
        assert_eq!(ExtentRecord::decode(5, &whole.encode()[..27]), None);
        for (offset, fits) in [(u64::MAX - 4, true), (u64::MAX - 3, false)] {
            let last = ExtentRecord { offset, ..whole };
            assert_eq!(ExtentRecord::decode(5, &last.encode()), fits.then_some(last));
        }
        let dead = SegmentRecord { live: 0, ..record };
        assert_eq!(SegmentRecord::decode(&dead.encode()), None);
    }

    #[test]
    fn places_have_names_and_numbers_of_their_own() {
        assert_eq!(SegmentPlace::ALL.map(SegmentPlace::name), ["local", "both", "object"]);
        for place in SegmentPlace::ALL {
            assert_eq!(SegmentPlace::decode(place.encode()), Some(place));
        }
        assert_eq!((SegmentPlace::decode(0), SegmentPlace::decode(4)), (None, None));
        assert_eq!(SegmentPlace::ALL.map(SegmentPlace::is_local), [true, true, false]);
    }
}
