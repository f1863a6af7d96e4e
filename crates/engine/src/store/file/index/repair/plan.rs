//! Finds what is missing in a copy of an index that has whole records only.

mod sealed;

use std::{collections::HashMap, ops::Bound};

use durable_streams_protocol::{MESSAGE_END, Offset, StreamId, StreamState};

use super::{IndexRepair, LostPart, LostRecords, decode_stream};
use crate::store::{
    StoreError,
    file::{
        error::index_error,
        index::{
            appends, dropped::DroppedRanges, env::IndexTable, handle::ReadTxn, keys,
            streams::IndexedStream,
        },
        segments::files::SegmentFiles,
    },
};

impl ReadTxn<'_> {
    /// Finds what is missing in a copy that [`salvage`](IndexHandle::salvage) has made.
    pub(in crate::store::file) fn plan_repair(
        &self,
        segments: &SegmentFiles,
    ) -> Result<IndexRepair, StoreError> {
        let meta = self.meta()?;
        let (dropped, repair) = (self.dropped()?, IndexRepair::default());
        let mut planner =
            RepairPlanner { reading: self, segments, dropped, repair, found: Totals::default() };
        planner.files()?;
        planner.streams()?;
        planner.paths()?;
        planner.orphans()?;
        let (found, mut repair) = (planner.found, planner.repair);
        let index = self.index();
        let failed = index_error("read", index.path());
        repair.derived |= index.deadlines.len(&self.txn).map_err(&failed)? != found.deadlines
            || index.forks.len(&self.txn).map_err(&failed)? != found.forks;
        let counted = index.records(&self.txn).map_err(&failed)?;
        repair.totals = (meta.streams, meta.bytes) != (found.streams, found.bytes)
            || meta.next_id < found.next_id
            || meta.records.is_some_and(|records| records != counted);
        for (name, needed) in [
            ("paths", repair.paths),
            ("deadlines and forks", repair.derived),
            ("segment_files", repair.segments),
            ("totals", repair.totals),
        ] {
            if needed {
                repair.damage.rewritten.push(name);
            }
        }
        Ok(repair)
    }
}

/// What the whole states call for.
#[derive(Default)]
struct Totals {
    streams: u64,
    bytes: u64,
    deadlines: u64,
    forks: u64,
    /// The least id that no stream has had, as far as the states tell.
    next_id: u64,
}

struct RepairPlanner<'p, 'r> {
    reading: &'p ReadTxn<'r>,
    segments: &'p SegmentFiles,
    dropped: DroppedRanges,
    repair: IndexRepair,
    found: Totals,
}

impl RepairPlanner<'_, '_> {
    /// Calls `each` with every record whose key begins with `prefix`.
    fn each(
        &mut self,
        table: IndexTable,
        prefix: &[u8],
        mut each: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let reading = self.reading;
        let failed = index_error("read", reading.index().path());
        let from = if prefix.is_empty() { Bound::Unbounded } else { Bound::Included(prefix) };
        for record in table.range(&reading.txn, &(from, Bound::Unbounded)).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            if !key.starts_with(prefix) {
                break;
            }
            each(self, key, value)?;
        }
        Ok(())
    }

    fn has(&self, table: IndexTable, key: &[u8]) -> Result<bool, StoreError> {
        let found = table.get(&self.reading.txn, key);
        Ok(found.map_err(index_error("read", self.reading.index().path()))?.is_some())
    }

    fn streams(&mut self) -> Result<(), StoreError> {
        self.each(self.reading.index().streams, &[], |planner, key, value| {
            let stream = decode_stream(key, value);
            stream.map_or(Ok(()), |stream| planner.stream(&stream))
        })
    }

    fn lose_stream(&mut self, id: StreamId, path: Option<&str>) -> Result<(), StoreError> {
        let mut bytes = 0;
        self.each(self.reading.index().chunks, &keys::id(id), |_, key, value| {
            bytes += keys::open(key, value).map_or(0, |contents| contents.len() as u64);
            Ok(())
        })?;
        let extents = self.reading.extents(id)?.into_iter().filter_map(|(_, extent)| extent);
        bytes += extents.map(|extent| extent.len()).sum::<u64>();
        self.repair.lose(id, path, LostPart::Stream { bytes });
        Ok(())
    }

    fn stream(&mut self, stream: &IndexedStream<'_>) -> Result<(), StoreError> {
        let index = self.reading.index();
        let (state, core) = (&stream.state, &stream.state.core);
        self.found.streams += 1;
        self.found.bytes += state.own_len();
        self.found.next_id = self.found.next_id.max(core.id.0 + 1);
        if index.path_id(&self.reading.txn, &core.path).ok().flatten() != Some(core.id) {
            self.repair.paths = true;
        }
        if let Some(at) = state.due_at() {
            self.found.deadlines += 1;
            self.repair.derived |= !self.has(index.deadlines, &keys::deadline(at, core.id))?;
        }
        if let Some(fork) = &core.fork {
            self.found.forks += 1;
            self.repair.derived |= !self.has(index.forks, &keys::fork(fork.source, core.id))?;
        }
        self.producers(stream)?;
        self.appends(stream)?;
        self.chunks(state)
    }

    fn producers(&mut self, stream: &IndexedStream<'_>) -> Result<(), StoreError> {
        let (index, core) = (self.reading.index(), &stream.state.core);
        let mut whole = 0;
        self.each(index.producers, &keys::id(core.id), |_, _, _| {
            whole += 1;
            Ok(())
        })?;
        if let Some(count) = stream.producers.and_then(|count| count.checked_sub(whole))
            && count > 0
        {
            self.repair.lose(core.id, Some(core.path.as_str()), LostPart::Producers { count });
        }
        Ok(())
    }

    fn appends(&mut self, stream: &IndexedStream<'_>) -> Result<(), StoreError> {
        let (index, state) = (self.reading.index(), &stream.state);
        let (id, path) = (state.core.id, state.core.path.as_str());
        let known_from = state.delimited_from.max(state.first_kept()).position();
        let (mut next, mut first) = (state.delimited_from.position(), true);
        let mut damaged = false;
        let json = state.core.content_type.is_json();
        self.each(index.appends, &keys::id(id), |_, key, value| {
            let at = keys::unpair(key).map(|(_, at)| at);
            // What was trimmed is gone, or will be.
            let begins = std::mem::take(&mut first) && at.is_some_and(|at| at <= known_from);
            next = at.filter(|_| begins).unwrap_or(next);
            match (keys::unpair(key), keys::open(key, value)) {
                (Some((_, at)), Some(lens)) if at == next => next += appends::total(lens),
                _ => damaged = true,
            }
            Ok(())
        })?;
        let inline = index.inline_start(state, stream.lens).ok();
        let reaches = inline == Some(next) || (first && inline.is_some_and(|at| at <= known_from));
        damaged |= !json && !reaches;
        if damaged {
            let before = state.tail.position();
            self.repair.lose(id, Some(path), LostPart::AppendEnds { before });
        }
        Ok(())
    }

    /// Finds the ranges of a stream without whole chunks or extents.
    fn chunks(&mut self, state: &StreamState) -> Result<(), StoreError> {
        let (index, id) = (self.reading.index(), state.core.id);
        let (start, tail) = (state.first_kept().position(), state.tail.position());
        let (mut next, mut gaps) = (start, Vec::new());
        for (key, extent) in self.reading.extents(id)? {
            while let Some(end) = self.dropped.past(id, next) {
                next = end;
            }
            match extent {
                // The first byte that the stream keeps may lie within an extent; whole ones before it were trimmed.
                Some(extent) if extent.start < start && next == start && extent.end <= tail => {
                    if extent.end > start {
                        gaps.extend(self.unreadable_kept(&extent, id, start)?);
                        next = extent.end;
                    } else {
                        self.repair.stray_extents.push(key);
                    }
                }
                Some(extent) if extent.start >= next && extent.end <= tail => {
                    if extent.start > next {
                        gaps.push((next, extent.start));
                    }
                    let unreadable = self.unreadable(&extent)?;
                    if !unreadable.is_empty() {
                        self.repair.damaged_files.insert(extent.file);
                    }
                    gaps.extend(unreadable);
                    next = extent.end;
                }
                _ => self.repair.stray_extents.push(key),
            }
        }
        self.each(index.chunks, &keys::id(id), |planner, key, value| {
            while let Some(end) = planner.dropped.past(id, next) {
                next = end;
            }
            match (keys::unpair(key), keys::open(key, value)) {
                // The first byte that the stream keeps may lie within a chunk; whole ones before it were trimmed.
                (Some((_, at)), Some(contents)) if at < start && next == start => {
                    let end = at + contents.len() as u64;
                    if end > start {
                        next = end;
                    } else {
                        planner.repair.stray.push(key.to_vec());
                    }
                }
                (Some((_, at)), Some(contents)) if at >= next && at < tail => {
                    if at > next {
                        gaps.push((next, at));
                    }
                    next = at + contents.len() as u64;
                }
                _ => planner.repair.stray.push(key.to_vec()),
            }
            Ok(())
        })?;
        while let Some(end) = self.dropped.past(id, next) {
            next = end;
        }
        if next < tail {
            gaps.push((next, tail));
        }
        for (from, to) in gaps {
            let (from, to) = self.whole_units(state, from, to)?;
            let path = state.core.path.as_str();
            let merged = self.repair.damage.lost.last_mut().filter(|last| last.id == id.0);
            if let Some(LostRecords { part: LostPart::Bytes { to: last, .. }, .. }) = merged
                && *last >= from
            {
                *last = to.max(*last);
                continue;
            }
            self.repair.lose(id, Some(path), LostPart::Bytes { from, to });
        }
        Ok(())
    }

    /// Widens a range to whole messages or, where their ends are known, whole appends.
    fn whole_units(
        &self,
        state: &StreamState,
        from: u64,
        to: u64,
    ) -> Result<(u64, u64), StoreError> {
        let (id, start, tail) =
            (state.core.id, state.first_kept().position(), state.tail.position());
        if !state.core.content_type.is_json() {
            let end_around = |at: u64| self.reading.ends_around(id, Offset::new(at)).ok().flatten();
            let first = end_around(from).map_or(from, |around| around.last.min(from));
            // The append that the last lost byte belongs to ends here.
            let last = end_around(to.saturating_sub(1)).and_then(|around| around.next);
            return Ok((first.max(start), last.map_or(to, |last| last.max(to)).min(tail)));
        }
        Ok((self.message_start(id, start, from)?, self.message_end(id, to, tail)?))
    }

    /// Where the message begins that the byte at `at` belongs to, as far as the chunks before are whole.
    fn message_start(&self, id: StreamId, start: u64, at: u64) -> Result<u64, StoreError> {
        let mut until = at;
        while until > start {
            let Some((from, chunk)) = self.bytes_with(id, until - 1)? else { return Ok(until) };
            let before = chunk.get(..(until - from) as usize).unwrap_or(&chunk);
            if let Some(end) = memchr::memrchr(MESSAGE_END, before) {
                return Ok(from + end as u64 + 1);
            }
            until = from;
        }
        Ok(start)
    }

    /// Where the message ends that has begun before `at`, as far as the chunks from there are whole.
    fn message_end(&self, id: StreamId, at: u64, tail: u64) -> Result<u64, StoreError> {
        let mut from = at;
        while from < tail {
            let Some((start, chunk)) = self.bytes_with(id, from)? else { return Ok(from) };
            let rest = chunk.get((from - start) as usize..).unwrap_or(&[]);
            if let Some(end) = memchr::memchr(MESSAGE_END, rest) {
                return Ok(from + end as u64 + 1);
            }
            from = start + chunk.len() as u64;
        }
        Ok(tail)
    }

    /// The whole chunk that holds the byte at a position, and its start.
    fn chunk_with(&self, id: StreamId, at: u64) -> Result<Option<(u64, &[u8])>, StoreError> {
        let index = self.reading.index();
        let key = keys::chunk(id, Offset::new(at));
        let found = index.chunks.get_lower_than_or_equal_to(&self.reading.txn, &key);
        let found = found.map_err(index_error("read", index.path()))?;
        let whole =
            found.and_then(|(key, value)| Some((keys::unpair(key)?, keys::open(key, value)?)));
        Ok(whole.and_then(|((holder, start), chunk)| {
            let within = holder == id.0 && at - start < chunk.len() as u64;
            within.then_some((start, chunk))
        }))
    }

    /// Finds names that are missing, or that lead to no stream.
    fn paths(&mut self) -> Result<(), StoreError> {
        let reading = self.reading;
        let (mut names, mut unknown) = (0, HashMap::new());
        let walked = reading.each_path(None, &mut |path, id| {
            names += 1;
            match reading.state(id) {
                Ok(Some(state)) => self.repair.paths |= state.core.path.as_str() != path,
                Ok(None) => {
                    unknown.insert(id.0, path);
                }
                Err(error) => return Err(error),
            }
            Ok(true)
        });
        walked?;
        self.repair.paths |= names != self.found.streams;
        for (id, path) in unknown {
            self.repair.paths = true;
            self.lose_stream(StreamId(id), Some(&path))?;
        }
        Ok(())
    }

    /// Finds records of streams that are neither there nor to be purged.
    fn orphans(&mut self) -> Result<(), StoreError> {
        let index = self.reading.index();
        for table in [index.chunks, index.extents, index.appends, index.producers, index.dropped] {
            let mut next = Some(0_u64);
            while let Some(from) = next {
                let id = self.holder_from(table, from)?;
                next = id.and_then(|id| id.checked_add(1));
                if let Some(id) = id {
                    self.orphan(id)?;
                }
            }
        }
        Ok(())
    }

    /// The first stream id of a table's keys that is `from` or higher.
    fn holder_from(&self, table: IndexTable, from: u64) -> Result<Option<u64>, StoreError> {
        let failed = index_error("read", self.reading.index().path());
        let least = from.to_be_bytes();
        let range = (Bound::Included(&least[..]), Bound::Unbounded);
        let mut walk = keys::Ascending::begin(range.0);
        for record in table.range(&self.reading.txn, &range).map_err(&failed)? {
            let (key, _) = record.map_err(&failed)?;
            if walk.admits(key) {
                return Ok(key.first_chunk::<8>().map(|id| u64::from_be_bytes(*id)));
            }
        }
        Ok(None)
    }

    fn orphan(&mut self, id: u64) -> Result<(), StoreError> {
        let (index, prefix) = (self.reading.index(), id.to_be_bytes());
        let known = self.has(index.streams, &prefix)?
            || self.has(index.purge, &prefix)?
            || self.repair.damage.lost.iter().any(|lost| lost.id == id);
        if known { Ok(()) } else { self.lose_stream(StreamId(id), None) }
    }
}
