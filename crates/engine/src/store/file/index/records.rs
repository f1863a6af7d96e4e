//! The `chunks` database: a stream's own bytes, in pieces of up to [`CHUNK`] bytes keyed by their start.

use std::ops::Bound;

use bytes::Bytes;
use durable_streams_protocol::{Offset, StreamId};
use heed::RwTxn;

use super::{
    appends,
    env::IndexEnvironment,
    extents::{ExtentRecord, SegmentPlace, SegmentRecord},
    handle::{ReadTxn, WriteError},
    keys,
    paths::is_link,
};
use crate::store::{StoreError, file::error::index_error};

/// The longest chunk, bytes.
pub(in crate::store::file) const CHUNK: usize = 64 << 10;
/// A last chunk shorter than this is rewritten with the next bytes; a longer one stays, so that a stream that grows
/// slowly is not rewritten much.
const APPEND_BELOW: usize = 16 << 10;

/// What a purge has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store::file) struct Purged {
    /// There were records of deleted or trimmed streams.
    pub(in crate::store::file) any: bool,
    /// There are more records of deleted streams.
    pub(in crate::store::file) more: bool,
    /// Segment files without live bytes, which the caller removes.
    pub(in crate::store::file) freed: Vec<u64>,
}

impl Purged {
    /// The first record of `purge` is not found by its key, which has changed: the records of deleted streams take their
    /// room until `repair`.
    fn stuck(freed: Vec<u64>) -> Self {
        tracing::error!("a record of `purge` in the index is damaged; `repair` removes it");
        Purged { any: true, more: false, freed }
    }
}

/// A part of a stream's own bytes.
pub(in crate::store::file) enum IndexPiece {
    /// From chunks, copied.
    Chunks(Bytes),
    /// In the segment file of this record: so many bytes from a position within the extent on.
    Segment { extent: ExtentRecord, record: SegmentRecord, from: u64, len: usize },
}

impl IndexPiece {
    /// Whether it is in an object only.
    pub(in crate::store::file) fn is_in_object(&self) -> bool {
        matches!(self, IndexPiece::Segment { record, .. } if record.place == SegmentPlace::Object)
    }
}

/// The first chunks of a stream that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::file) struct ChunkRun {
    pub(in crate::store::file) start: u64,
    pub(in crate::store::file) end: u64,
    /// Other chunks come behind a gap.
    pub(in crate::store::file) gap: bool,
}

impl ReadTxn<'_> {
    /// The first chunks of a stream, about `most` bytes of them; `None` when it has none. Reads keys and lengths only.
    pub(in crate::store::file) fn first_chunks(
        &self,
        id: StreamId,
        most: u64,
    ) -> Result<Option<ChunkRun>, StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let mut run: Option<ChunkRun> = None;
        for record in index.chunks.prefix_iter(&self.txn, &keys::id(id)).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            let damaged = || index.damaged(&format!("a chunk of stream {}", id.0));
            let (_, start) = keys::unpair(key).ok_or_else(damaged)?;
            let end = start + value.len().saturating_sub(4) as u64;
            match &mut run {
                None => run = Some(ChunkRun { start, end, gap: false }),
                Some(run) if run.end == start => run.end = end,
                Some(run) => {
                    run.gap = true;
                    break;
                }
            }
            // Behind it the end of an append may be searched for.
            if run.is_some_and(|run| run.end - run.start > most) {
                break;
            }
        }
        Ok(run)
    }

    /// The pieces of a stream's own bytes from `from` to at most `to`, at most `max` bytes together, up to the first gap.
    /// What is in segment files is read after this transaction.
    pub(in crate::store::file) fn pieces(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<IndexPiece>, StoreError> {
        let (mut pieces, mut at, mut left) = (Vec::new(), from, max);
        while at < to && left > 0 {
            let len = match self.segment_piece(id, at, to, left)? {
                Some((extent, record, len)) => {
                    let from = at.position();
                    pieces.push(IndexPiece::Segment { extent, record, from, len });
                    len
                }
                None => {
                    let bytes = self.bytes(id, at, to, left)?;
                    let len = bytes.len();
                    if len == 0 {
                        break;
                    }
                    pieces.push(IndexPiece::Chunks(bytes));
                    len
                }
            };
            at = at.advance(len as u64);
            left -= len;
        }
        Ok(pieces)
    }

    /// The part of a stream's own bytes from `from` to at most `to`, at most `max` bytes, that is in one segment file, and the
    /// record of that file; `None` where the byte at `from` is in none.
    pub(in crate::store::file) fn segment_piece(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Option<(ExtentRecord, SegmentRecord, usize)>, StoreError> {
        let Some(extent) = self.index().extent_at(&self.txn, id, from)? else { return Ok(None) };
        let there = extent.end.min(to.position()).saturating_sub(from.position());
        let record = self.file_of(&extent)?;
        let len = there.min(max as u64) as usize;
        Ok(Some((extent, record, len)))
    }

    /// Returns bytes in chunks from `from` to at most `to`, and at most `max`. They are a copy, since the map may change after
    /// this transaction, and one piece, which takes fewer calls to send than many.
    pub(in crate::store::file) fn bytes(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Bytes, StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let at = keys::chunk(id, from);
        let holder = index.chunks.get_lower_than_or_equal_to(&self.txn, &at).map_err(&failed)?;
        let first = match holder.and_then(|(key, _)| keys::unpair(key)) {
            Some((holder, start)) if holder == id.0 => keys::chunk(id, Offset::new(start)),
            _ => at,
        };
        let end = keys::chunk(id, to);
        let range = (Bound::Included(first.as_slice()), Bound::Excluded(end.as_slice()));
        let whole = to.position().saturating_sub(from.position()).min(max as u64) as usize;
        let (mut found, mut next) = (Vec::with_capacity(whole), from.position());
        for record in index.chunks.range(&self.txn, &range).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            let damaged = || index.damaged(&format!("a chunk of stream {}", id.0));
            let (_, start) = keys::unpair(key).ok_or_else(damaged)?;
            let contents = keys::open(key, value).ok_or_else(damaged)?;
            let end = start + contents.len() as u64;
            if end <= next {
                continue;
            }
            if start > next || found.len() == max {
                break;
            }
            let take = (end.min(to.position()) - next).min((max - found.len()) as u64) as usize;
            let skip = (next - start) as usize;
            let piece = contents.get(skip..skip + take).ok_or_else(damaged)?;
            found.extend_from_slice(piece);
            next += take as u64;
        }
        Ok(found.into())
    }
}

impl IndexEnvironment {
    /// Appends bytes to a stream that ends at `tail`.
    pub(super) fn append(
        &self,
        txn: &mut RwTxn<'_>,
        id: StreamId,
        tail: Offset,
        pieces: &[&Bytes],
    ) -> Result<(), WriteError> {
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Ok(());
        }
        let last = self.chunks.get_lower_than(txn, &keys::chunk(id, tail))?;
        let (mut start, mut chunk) = (tail.position(), Vec::with_capacity(CHUNK));
        if let Some((key, value)) = last
            && let Some((holder, at)) = keys::unpair(key)
            && holder == id.0
            && value.len() < APPEND_BELOW
        {
            let contents = keys::open(key, value);
            match contents.filter(|contents| at + contents.len() as u64 == start) {
                Some(contents) => {
                    chunk.extend_from_slice(contents);
                    start = at;
                }
                // The damaged range is refused to its readers; the stream, and every other one, goes on.
                None => tracing::error!(
                    stream = id.0,
                    position = at,
                    "a chunk of the index is damaged; new bytes of the stream go into another one"
                ),
            }
        }
        let mut value = Vec::with_capacity(CHUNK + 4);
        let mut put = |txn: &mut RwTxn<'_>, start: u64, chunk: &[u8]| {
            let key = keys::chunk(id, Offset::new(start));
            keys::seal(&key, chunk, &mut value);
            self.chunks.put(txn, &key, &value)
        };
        for piece in pieces {
            let mut piece: &[u8] = piece;
            while !piece.is_empty() {
                let (now, later) = piece.split_at(piece.len().min(CHUNK - chunk.len()));
                chunk.extend_from_slice(now);
                piece = later;
                if chunk.len() == CHUNK {
                    put(txn, start, &chunk)?;
                    start += chunk.len() as u64;
                    chunk.clear();
                }
            }
        }
        if !chunk.is_empty() {
            put(txn, start, &chunk)?;
        }
        Ok(())
    }

    /// Removes what leads to a stream whose state is damaged, and notes that its data is to be purged. Returns its payload
    /// bytes. Without the state, its records are searched for.
    pub(super) fn remove_damaged(
        &self,
        txn: &mut RwTxn<'_>,
        id: StreamId,
    ) -> Result<u64, WriteError> {
        let key = keys::id(id);
        let mut names = Vec::new();
        for record in self.paths.iter(txn)? {
            let (name, value) = record?;
            let target = keys::open(name, value).and_then(keys::number);
            if !is_link(name) && target == Some(id.0) {
                names.push(name.to_vec());
            }
        }
        let (mut deadlines, mut forks, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (table, found) in [(self.deadlines, &mut deadlines), (self.forks, &mut forks)] {
            for record in table.iter(txn)? {
                let (key, _) = record?;
                if keys::unpair(key).is_some_and(|(_, of)| of == id.0) {
                    found.push(key.to_vec());
                }
            }
        }
        bytes += self.extent_bytes(txn, id)?;
        for record in self.chunks.prefix_iter(txn, &key)? {
            bytes += record?.1.len().saturating_sub(4) as u64;
        }
        for (table, found) in
            [(self.paths, names), (self.deadlines, deadlines), (self.forks, forks)]
        {
            for key in found {
                table.delete(txn, &key)?;
            }
        }
        self.streams.delete(txn, &key)?;
        self.purge.put(txn, &key, &[])?;
        tracing::warn!(
            stream = id.0,
            bytes,
            "deleted a stream whose state was damaged; what else is damaged of it, `verify` finds and `repair` removes"
        );
        Ok(bytes)
    }

    /// Removes up to `max` records of deleted streams, and of the trimmed parts of others.
    pub(super) fn purge(&self, txn: &mut RwTxn<'_>, max: usize) -> Result<Purged, WriteError> {
        let (mut room, mut freed) = (max, Vec::new());
        while let Some((key, _)) = self.purge.first(txn)? {
            let id = key.to_vec();
            if let Some((stream, kept)) = keys::unpair(&id) {
                room -= self.purge_before(txn, (StreamId(stream), kept), room, &mut freed)?;
                if room == 0 {
                    return Ok(Purged { any: true, more: true, freed });
                }
                if !self.purge.delete(txn, &id)? {
                    return Ok(Purged::stuck(freed));
                }
                room -= 1;
                continue;
            }
            if self.streams.get(txn, &id)?.is_some() {
                // A bit of the key has changed: the stream of this id was not deleted.
                let stream = keys::number(&id);
                tracing::error!(
                    stream,
                    "a record of `purge` in the index is damaged; it is removed"
                );
                if !self.purge.delete(txn, &id)? {
                    return Ok(Purged::stuck(freed));
                }
                continue;
            }
            room -= self.remove_extents(txn, &id, room, &mut freed)?;
            for table in [self.chunks, self.appends, self.producers, self.dropped] {
                let mut found = Vec::new();
                for record in table.prefix_iter(txn, &id)?.take(room) {
                    found.push(record?.0.to_vec());
                }
                for key in &found {
                    table.delete(txn, key)?;
                }
                room -= found.len();
            }
            if room == 0 {
                return Ok(Purged { any: true, more: true, freed });
            }
            if !self.purge.delete(txn, &id)? {
                return Ok(Purged::stuck(freed));
            }
            room -= 1;
        }
        Ok(Purged { any: true, more: false, freed })
    }

    /// Removes up to `max` extents, chunks, and records of the ends of appends, that end at `kept` or before. Returns how many.
    fn purge_before(
        &self,
        txn: &mut RwTxn<'_>,
        (id, kept): (StreamId, u64),
        max: usize,
        freed: &mut Vec<u64>,
    ) -> Result<usize, WriteError> {
        let mut removed = self.trim_extents(txn, (id, kept), max, freed)?;
        for (table, length) in
            [(self.chunks, chunk_len as fn(&[u8]) -> u64), (self.appends, lens_len)]
        {
            let mut found = Vec::new();
            for record in table.prefix_iter(txn, &keys::id(id))?.take(max - removed) {
                let (key, value) = record?;
                let Some((_, start)) = keys::unpair(key) else { continue };
                if start.saturating_add(length(value)) > kept {
                    break;
                }
                found.push(key.to_vec());
            }
            for key in &found {
                table.delete(txn, key)?;
            }
            removed += found.len();
        }
        Ok(removed)
    }

    /// Whether a chunk holds the byte of a stream at `position`.
    pub(super) fn has_byte(
        &self,
        txn: &heed::RoTxn<'_>,
        id: StreamId,
        position: Offset,
    ) -> Result<bool, heed::Error> {
        let found = self.chunks.get_lower_than_or_equal_to(txn, &keys::chunk(id, position))?;
        Ok(found.is_some_and(|(key, value)| {
            keys::unpair(key).is_some_and(|(holder, start)| {
                holder == id.0 && position.position() < start + chunk_len(value)
            })
        }))
    }
}

/// Bytes of a stream in a sealed chunk.
fn chunk_len(value: &[u8]) -> u64 {
    value.len().saturating_sub(4) as u64
}

/// Bytes of the appends whose lengths a sealed record of `appends` has.
fn lens_len(value: &[u8]) -> u64 {
    value.get(4..).map_or(0, appends::total)
}
