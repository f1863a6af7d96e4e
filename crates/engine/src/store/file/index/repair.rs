//! Repairing the index: damaged records are found, what they cost is said, and the rest is made to fit together again.
//!
//! What can be derived from other records is written again: names, deadlines and forks follow from the states of the
//! streams. Bytes cannot: a damaged chunk becomes a dropped range of its stream. A stream whose state is damaged is
//! dropped as a whole.
//!
//! All of that is done on a copy that has the whole records only. In the index itself a changed key may mislead the
//! search for others.

//!
//! | module | what it is |
//! |---|---|
//! | here | what is lost; repairing the copy |
//! | `salvage` | making the copy |
//! | `plan` | finding what is missing in it |

mod plan;
mod salvage;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use durable_streams_protocol::StreamId;
use heed::{RoTxn, RwTxn};

use super::{
    env::IndexEnvironment,
    extents::{ExtentRecord, SegmentRecord},
    handle::{IndexHandle, WriteError},
    keys,
    streams::IndexedStream,
};
use crate::store::StoreError;

/// What a stream loses by a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostRecords {
    /// The stream's id.
    pub id: u64,
    /// The stream's path, if it is known.
    pub path: Option<String>,
    /// What is lost.
    pub part: LostPart,
}

/// A part of a stream that a repair drops.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostPart {
    /// All of it: its state is damaged. So many payload bytes can be read still, and are dropped.
    Stream {
        /// Payload bytes in whole chunks.
        bytes: u64,
    },
    /// The bytes from one position to another: to whole appends, or in JSON mode whole messages.
    Bytes {
        /// The first position that is lost.
        from: u64,
        /// The position after the last one that is lost.
        to: u64,
    },
    /// Where the appends before this position end; their bytes are whole.
    AppendEnds {
        /// The stream's tail.
        before: u64,
    },
    /// So many producers: a retry of their last append is not recognised.
    Producers {
        /// How many.
        count: u64,
    },
}

/// What is damaged in an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexDamage {
    /// What is lost, by stream.
    pub lost: Vec<LostRecords>,
    /// The databases that are written again from other records, at no loss.
    pub rewritten: Vec<&'static str>,
}

/// What is missing, and what else must be done.
#[derive(Default)]
pub(in crate::store::file) struct IndexRepair {
    pub(in crate::store::file) damage: IndexDamage,
    /// Keys of `chunks` that belong to no position of their stream, and those of `extents`.
    stray: Vec<Vec<u8>>,
    stray_extents: Vec<Vec<u8>>,
    /// Trimmed parts of extents that cannot be read.
    trimmed: Vec<(StreamId, u64, u64)>,
    /// The segment files that extents name, as they are.
    files: BTreeMap<u64, SegmentRecord>,
    segments: bool,
    /// Those of which a part cannot be read: the rest moves to new files.
    pub(in crate::store::file) damaged_files: BTreeSet<u64>,
    paths: bool,
    derived: bool,
    totals: bool,
}

impl IndexRepair {
    fn lose(&mut self, id: StreamId, path: Option<&str>, part: LostPart) {
        self.damage.lost.push(LostRecords { id: id.0, path: path.map(str::to_owned), part });
    }
}

/// A whole record of `streams`.
fn decode_stream<'v>(key: &[u8], value: &'v [u8]) -> Option<IndexedStream<'v>> {
    let id = keys::number(key).map(StreamId)?;
    IndexedStream::decode(id, keys::open(key, value)?)
}

impl IndexHandle {
    /// Does what [`ReadTxn::plan_repair`] has planned; nothing was written since.
    ///
    /// # Errors
    /// The index is unchanged then.
    pub(in crate::store::file) fn repair(&self, repair: &IndexRepair) -> Result<(), StoreError> {
        self.write(&|| Ok(()), |index, txn| {
            for key in &repair.stray {
                index.chunks.delete(txn, key)?;
            }
            for key in &repair.stray_extents {
                index.extents.delete(txn, key)?;
            }
            for (id, from, to) in &repair.trimmed {
                index.cut_extents(txn, *id, *from, *to)?;
            }
            for lost in &repair.damage.lost {
                index.repair_stream(txn, lost)?;
            }
            index.rewrite_segments(txn, &repair.files)?;
            let stream = |lost: &LostRecords| matches!(lost.part, LostPart::Stream { .. });
            if repair.paths
                || repair.derived
                || repair.totals
                || repair.damage.lost.iter().any(stream)
            {
                return index.rewrite_derived(txn);
            }
            let mut meta = index.meta(txn)?;
            Ok(index.put_meta(txn, &mut meta)?)
        })
    }
}

impl IndexEnvironment {
    fn repair_stream(&self, txn: &mut RwTxn<'_>, lost: &LostRecords) -> Result<(), WriteError> {
        let (id, key) = (StreamId(lost.id), lost.id.to_be_bytes());
        if let LostPart::Stream { .. } = lost.part {
            self.streams.delete(txn, &key)?;
            return Ok(self.purge.put(txn, &key, &[])?);
        }
        if let LostPart::Bytes { from, to } = lost.part {
            return self.drop_bytes(txn, id, from, to);
        }
        let Some(stream) = self.stream(txn, id)? else { return Ok(()) };
        let (mut state, mut lens) = (stream.state, stream.lens.to_vec());
        let mut producers = stream.producers;
        if let LostPart::AppendEnds { .. } = lost.part {
            state.delimited_from = state.tail;
            lens.clear();
            let mut records = Vec::new();
            for record in self.appends.prefix_iter(txn, &key)? {
                records.push(record?.0.to_vec());
            }
            for record in records {
                self.appends.delete(txn, &record)?;
            }
        }
        if producers.is_none() || matches!(lost.part, LostPart::Producers { .. }) {
            producers = Some(self.producers.prefix_iter(txn, &key)?.count() as u64);
        }
        let (mut contents, mut value) = (Vec::new(), Vec::new());
        IndexedStream::encode(&state, &lens, producers.unwrap_or_default(), &mut contents);
        keys::seal(&key, &contents, &mut value);
        Ok(self.streams.put(txn, &key, &value)?)
    }

    /// Writes the records of segment files again: what is live in each follows from the extents, the rest from the file.
    fn rewrite_segments(
        &self,
        txn: &mut RwTxn<'_>,
        files: &BTreeMap<u64, SegmentRecord>,
    ) -> Result<(), WriteError> {
        let mut useless = Vec::new();
        for record in self.extents.iter(txn)? {
            let (key, value) = record?;
            // Those of streams that are there were cut; these are of streams that are to be purged.
            if ExtentRecord::open(key, value).is_none_or(|(_, e)| !files.contains_key(&e.file)) {
                useless.push(key.to_vec());
            }
        }
        for key in useless {
            self.extents.delete(txn, &key)?;
        }
        let live = self.live_bytes(txn)?;
        self.segment_files.clear(txn)?;
        for (number, live) in live {
            if let Some(file) = files.get(&number) {
                self.put_segment(txn, number, &SegmentRecord { live, ..*file })?;
            }
        }
        Ok(())
    }

    /// The bytes that extents have in each segment file.
    fn live_bytes(&self, txn: &RoTxn<'_>) -> Result<BTreeMap<u64, u64>, heed::Error> {
        let mut live = BTreeMap::new();
        for record in self.extents.iter(txn)? {
            let (key, value) = record?;
            if let Some((_, extent)) = ExtentRecord::open(key, value) {
                *live.entry(extent.file).or_default() += extent.len();
            }
        }
        Ok(live)
    }

    /// Writes again what follows from the states: names, deadlines, forks, totals.
    pub(super) fn rewrite_derived(&self, txn: &mut RwTxn<'_>) -> Result<(), WriteError> {
        let mut meta = self.meta(txn)?;
        (meta.streams, meta.bytes) = (0, 0);
        self.deadlines.clear(txn)?;
        self.forks.clear(txn)?;
        self.paths.clear(txn)?;
        let mut after: Option<[u8; 8]> = None;
        loop {
            let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
            let mut walk = keys::Ascending::begin(from);
            let next = self
                .streams
                .range(txn, &(from, Bound::Unbounded))?
                .find(|record| record.as_ref().map_or(true, |(key, _)| walk.admits(key)));
            let Some(record) = next else { break };
            let Some(key) = record?.0.first_chunk::<8>().copied() else { break };
            after = Some(key);
            let Some(stream) = self.stream(txn, StreamId(u64::from_be_bytes(key)))? else { break };
            let (state, core) = (&stream.state, &stream.state.core);
            meta.streams += 1;
            meta.bytes += state.own_len();
            meta.next_id = meta.next_id.max(core.id.0 + 1);
            self.put_path(txn, &core.path, core.id, &mut meta.next_node)?;
            if let Some(at) = state.due_at() {
                self.deadlines.put(txn, &keys::deadline(at, core.id), &[])?;
            }
            if let Some(fork) = &core.fork {
                self.forks.put(txn, &keys::fork(fork.source, core.id), &[])?;
            }
        }
        Ok(self.put_meta(txn, &mut meta)?)
    }
}
