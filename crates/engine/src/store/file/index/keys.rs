//! Keys and values of the index. Keys have fixed-width big-endian numbers, so that byte order is numeric order.
//!
//! A sealed value is the CRC-32C of key and contents, then the contents, since LMDB has no checksums.

use durable_streams_protocol::{Offset, ProducerId, StreamId, Timestamp};

use crate::store::file::wal::Lsn;

/// `stream id`.
pub(super) fn id(id: StreamId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// `stream id, start`.
pub(super) fn chunk(id: StreamId, start: Offset) -> [u8; 16] {
    pair(id.0, start.position())
}

/// `deadline in milliseconds, stream id`.
pub(super) fn deadline(at: Timestamp, id: StreamId) -> [u8; 16] {
    pair(at.millis(), id.0)
}

/// `source id, fork id`.
pub(super) fn fork(source: StreamId, fork: StreamId) -> [u8; 16] {
    pair(source.0, fork.0)
}

/// `stream id, producer id`.
pub(super) fn producer(id: StreamId, producer: &ProducerId) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + producer.as_str().len());
    key.extend_from_slice(&id.0.to_be_bytes());
    key.extend_from_slice(producer.as_str().as_bytes());
    key
}

fn pair(a: u64, b: u64) -> [u8; 16] {
    (u128::from(a) << 64 | u128::from(b)).to_be_bytes()
}

pub(super) fn unpair(key: &[u8]) -> Option<(u64, u64)> {
    let both = u128::from_be_bytes(key.try_into().ok()?);
    Some(((both >> 64) as u64, both as u64))
}

pub(super) fn number(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

/// Replaces `out` with the checksum and `contents`.
pub(super) fn seal(key: &[u8], contents: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&checksum(key, contents).to_le_bytes());
    out.extend_from_slice(contents);
}

/// The contents of a sealed value; `None` when it is damaged.
pub(super) fn open<'v>(key: &[u8], value: &'v [u8]) -> Option<&'v [u8]> {
    let (crc, contents) = value.split_at_checked(4)?;
    (crc == checksum(key, contents).to_le_bytes()).then_some(contents)
}

fn checksum(key: &[u8], contents: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), contents)
}

/// The one record of the `meta` database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store::file) struct IndexMeta {
    /// The last event that the index has.
    pub(in crate::store::file) lsn: Lsn,
    /// No stream has had this id or a higher one.
    pub(in crate::store::file) next_id: u64,
    /// The next node of the path tree.
    pub(in crate::store::file) next_node: u64,
    /// Streams, soft-deleted ones included.
    pub(in crate::store::file) streams: u64,
    /// Their payload bytes.
    pub(in crate::store::file) bytes: u64,
    /// The format of the index: 1 before its migration.
    pub(in crate::store::file) format: u64,
    /// Records of each database but `meta`; format 1 did not count them.
    pub(in crate::store::file) records: Option<[u64; COUNTED]>,
    /// No segment file that the index has referenced had this number or a higher one.
    pub(in crate::store::file) next_segment: u64,
}

/// The databases whose records the meta record counts.
pub(super) const COUNTED: usize = 11;
/// Those that an index without segments counts: the first ones.
const COUNTED_WITHOUT_SEGMENTS: usize = 9;

/// The key of [`IndexMeta`].
pub(super) const META: &[u8] = b"meta";
pub(super) const FORMAT: u64 = 2;
/// The format before, without counts.
const FORMAT_1: u64 = 1;

impl IndexMeta {
    /// The number of a directory's first sealed segment.
    pub(in crate::store::file) const FIRST_SEGMENT: u64 = 1;

    /// Of an index without records.
    pub(super) fn fresh() -> Self {
        // Entity tags carry ids, and clients may keep them for longer than a data directory lives: a new directory
        // must not reuse an id that a client may know.
        let next_id = (fastrand::u64(..1 << 21) << 32) + 1;
        IndexMeta {
            next_id,
            next_node: 1,
            format: FORMAT,
            next_segment: Self::FIRST_SEGMENT,
            ..IndexMeta::default()
        }
    }

    /// The contents of the record, of this format.
    pub(super) fn encode(&self) -> Vec<u8> {
        let fields = [FORMAT, self.lsn, self.next_id, self.next_node, self.streams, self.bytes];
        let records = self.records.unwrap_or_default();
        let fields = fields.iter().chain(&records).chain([&self.next_segment]);
        fields.flat_map(|field| field.to_le_bytes()).collect()
    }

    pub(super) fn decode(contents: &[u8]) -> Option<Self> {
        let mut fields =
            contents.chunks(8).map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)));
        let mut field = || fields.next().flatten();
        let mut meta = IndexMeta {
            format: field()?,
            lsn: field()?,
            next_id: field()?,
            next_node: field()?,
            streams: field()?,
            bytes: field()?,
            records: None,
            next_segment: Self::FIRST_SEGMENT,
        };
        if meta.format == FORMAT {
            let mut records = [0; COUNTED];
            let without = contents.len() == (6 + COUNTED_WITHOUT_SEGMENTS) * 8;
            let counted = if without { COUNTED_WITHOUT_SEGMENTS } else { COUNTED };
            for count in records.iter_mut().take(counted) {
                *count = field()?;
            }
            meta.records = Some(records);
            if !without {
                meta.next_segment = field()?;
            }
        }
        let known = meta.format == FORMAT || meta.format == FORMAT_1;
        (known && fields.next().is_none()).then_some(meta)
    }
}
