//! Keys and values of the index. Keys have fixed-width big-endian numbers, so that byte order is numeric order.
//!
//! A sealed value is the CRC-32C of key and contents, then the contents, since LMDB has no checksums.

use std::ops::Bound;

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

/// Where a walk over records has come to.
///
/// LMDB finds a key among the others of a page and its branches by their order, which damage may change. It may then find
/// the last key of a walk's step again as the first of the next one, and a walk would never end: keys that are not above
/// the last one are passed over.
pub(super) struct Ascending<'k>(Bound<&'k [u8]>);

impl<'k> Ascending<'k> {
    /// A walk that begins at a bound.
    pub(super) fn begin(bound: Bound<&'k [u8]>) -> Self {
        Ascending(bound)
    }

    /// Whether the walk goes on with this key.
    pub(super) fn admits(&mut self, key: &'k [u8]) -> bool {
        let above = match self.0 {
            Bound::Unbounded => true,
            Bound::Included(least) => key >= least,
            Bound::Excluded(last) => key > last,
        };
        if above {
            self.0 = Bound::Excluded(key);
        }
        above
    }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::{DeadlineCursor, file::index::handle::IndexHandle};

    const RECORDS: u64 = 9;

    /// The steps that walks of one record at a time take; each is given up when it takes far too many.
    fn steps(index: &IndexHandle) -> Vec<u64> {
        let endless = |steps: u64| steps > 10 * RECORDS;
        let (mut files, mut after) = (0, None);
        while let Ok([(number, _)]) = index.segments_after(after, 1).as_deref()
            && !endless(files)
        {
            (files, after) = (files + 1, Some(*number));
        }
        let reading = index.read().unwrap();
        let (mut streams, mut next) = (0, Some(0));
        while let Some(from) = next.filter(|_| !endless(streams)) {
            streams += 1;
            next = reading.states_from(from, 1).map_or(None, |(_, next)| next);
        }
        let (mut due, mut next) = (0, Some(DeadlineCursor::default()));
        while let Some(from) = next.filter(|_| !endless(due)) {
            due += 1;
            next = reading.deadlines_from(from, 1).map_or(None, |(_, next)| next);
        }
        vec![files, streams, due]
    }

    #[test]
    fn a_value_is_opened_with_its_own_key_if_no_bit_of_it_has_changed() {
        let mut value = vec![1, 2, 3];
        seal(b"key", b"contents", &mut value);
        assert_eq!(value.len(), 4 + 8);
        assert_eq!(open(b"key", &value), Some(&b"contents"[..]));
        assert_eq!((open(b"kez", &value), open(b"key", &value[..3])), (None, None));
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(b"key", &flipped), None, "bit {bit}");
        }
        seal(b"", b"", &mut value);
        assert_eq!(open(b"", &value), Some(&b""[..]));
    }

    #[test]
    fn a_walk_goes_on_with_greater_keys_only() {
        let admitted = |bound| {
            let mut walk = Ascending::begin(bound);
            [&b"b"[..], b"b", b"a", b"bb", b"c"].map(|key| walk.admits(key))
        };
        let from = |first| [first, false, false, true, true];
        assert_eq!(admitted(Bound::Unbounded), from(true));
        assert_eq!(admitted(Bound::Included(b"b")), from(true));
        assert_eq!(admitted(Bound::Excluded(b"b")), from(false));
        assert_eq!(admitted(Bound::Included(b"bc")), [false, false, false, false, true]);
    }

    #[test]
    fn a_new_directory_begins_with_ids_that_clients_of_an_older_one_do_not_know() {
        let fresh: Vec<IndexMeta> = (0..100).map(|_| IndexMeta::fresh()).collect();
        for meta in &fresh {
            assert_eq!(meta.next_id & 0xffff_ffff, 1);
            assert!(meta.next_id < 1 << 53);
            let IndexMeta { next_node, format, next_segment, lsn, .. } = *meta;
            assert_eq!((next_node, format, next_segment, lsn), (1, 2, 1, 0));
        }
        assert!(fresh.iter().any(|meta| meta.next_id != fresh[0].next_id));
    }

    #[test]
    fn a_meta_record_of_every_version_is_read_and_no_other() {
        let mut records = [0; COUNTED];
        records.iter_mut().zip(20..).for_each(|(count, n)| *count = n);
        let meta = IndexMeta {
            lsn: 1,
            next_id: 2,
            next_node: 3,
            streams: 4,
            bytes: 5,
            format: 2,
            records: Some(records),
            next_segment: 6,
        };
        let whole = meta.encode();
        assert_eq!(IndexMeta::decode(&whole), Some(meta));
        // Before there were segments, and before records were counted.
        let mut older = records;
        older[COUNTED_WITHOUT_SEGMENTS..].fill(0);
        let before = IndexMeta { records: Some(older), next_segment: 1, ..meta };
        assert_eq!(IndexMeta::decode(&whole[..15 * 8]), Some(before));
        let mut first = whole[..6 * 8].to_vec();
        first[0] = 1;
        let before = IndexMeta { format: 1, records: None, next_segment: 1, ..meta };
        assert_eq!(IndexMeta::decode(&first), Some(before));
        for len in (0..whole.len()).filter(|len| *len != 15 * 8) {
            assert_eq!(IndexMeta::decode(&whole[..len]), None, "{len} bytes");
        }
        assert_eq!(IndexMeta::decode(&[&whole[..], &[0; 8]].concat()), None);
        assert_eq!(IndexMeta::decode(&[&first[..], &[0; 8]].concat()), None);
        first[0] = 3;
        assert_eq!(IndexMeta::decode(&first), None, "a later format");
    }

    #[test]
    fn a_walk_ends_whatever_bit_of_a_key_flips() {
        let dir = tempfile::tempdir().unwrap();
        let number = |n: u64| 0x5AA5_0000_0000_0000 + 3 * n;
        let made =
            IndexHandle::open(dir.path(), 1 << 20).unwrap().write(&|| Ok(()), |index, txn| {
                for n in 0..RECORDS {
                    let key = number(n).to_be_bytes();
                    index.segment_files.put(txn, &key, b"no record")?;
                    index.streams.put(txn, &key, b"no state")?;
                    index.deadlines.put(txn, &pair(number(n), n), &[])?;
                }
                Ok(())
            });
        made.unwrap();
        let file = dir.path().join("data.mdb");
        let whole = fs::read(&file).unwrap();
        let mut keys = Vec::new();
        for n in 0..RECORDS {
            keys.extend(memchr::memmem::find_iter(&whole, &number(n).to_be_bytes()));
        }
        assert!(keys.len() as u64 >= 3 * RECORDS);
        for (at, bit) in keys.into_iter().flat_map(|at| (0..64).map(move |bit| (at, bit))) {
            let mut flipped = whole.clone();
            flipped[at + bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &flipped).unwrap();
            let Ok(index) = IndexHandle::open(dir.path(), 1 << 20) else { continue };
            for steps in steps(&index) {
                assert!(steps <= RECORDS + 1, "{steps} steps with bit {bit} of byte {at} flipped");
            }
        }
    }
}
