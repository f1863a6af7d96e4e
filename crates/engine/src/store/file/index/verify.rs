//! Checking the whole index: every checksum, and that records fit together.
//!
//! It runs in one read transaction. That pins pages, which would make a serving index grow; here nothing writes, since
//! the directory is locked. Memory does not grow with the index: each database is walked once, in key order, and the
//! records that must match are looked up.

mod extents;
mod totals;

use std::ops::Bound;

use durable_streams_protocol::{ProducerId, ProducerState, StreamId, StreamPath, StreamState};

use super::{
    appends,
    dropped::DroppedRanges,
    env::IndexTable,
    handle::ReadTxn,
    keys::{self, IndexMeta},
    records::CHUNK,
    streams::IndexedStream,
};
use crate::store::{
    StoreError,
    file::{
        disk::mapped_at,
        error::{corrupt, index_error},
    },
};

#[derive(Default)]
pub(in crate::store::file) struct IndexTotals {
    pub(in crate::store::file) streams: u64,
    pub(in crate::store::file) chunks: u64,
    pub(in crate::store::file) bytes: u64,
    /// Extents, and the bytes in them.
    extents: u64,
    extent_bytes: u64,
}

/// Receives each problem.
pub(in crate::store::file) type OnProblem<'p> = dyn FnMut(StoreError) + 'p;

impl ReadTxn<'_> {
    /// Checks everything; `progress` receives the number of records checked, every 256 records.
    pub(in crate::store::file) fn verify(
        &self,
        progress: &mut dyn FnMut(u64),
        problem: &mut OnProblem<'_>,
    ) -> Result<IndexTotals, StoreError> {
        let meta = match self.meta() {
            Ok(meta) => Some(meta),
            Err(error) => {
                problem(error);
                None
            }
        };
        let expected = ExpectedRecords::default();
        let mut check = IndexCheck {
            reading: self,
            meta,
            dropped: DroppedRanges::default(),
            expected,
            found: IndexTotals::default(),
            wrong: false,
            done: 0,
            progress,
            problem,
        };
        match check.all() {
            // LMDB refuses to go on with a transaction that met damage.
            Err(error) if check.wrong => {
                check.wrong(
                    None,
                    &format!("what is left cannot be checked: {error}; restore a backup"),
                );
            }
            checked => checked?,
        }
        Ok(check.found)
    }
}

/// Records that the states of the streams call for.
#[derive(Default)]
struct ExpectedRecords {
    appends: u64,
    deadlines: u64,
    forks: u64,
}

struct IndexCheck<'c, 'r> {
    reading: &'c ReadTxn<'r>,
    meta: Option<IndexMeta>,
    /// Ranges without chunks that are no damage.
    dropped: DroppedRanges,
    expected: ExpectedRecords,
    found: IndexTotals,
    /// A problem was found.
    wrong: bool,
    done: u64,
    progress: &'c mut dyn FnMut(u64),
    problem: &'c mut OnProblem<'c>,
}

impl IndexCheck<'_, '_> {
    fn all(&mut self) -> Result<(), StoreError> {
        match self.reading.dropped() {
            Ok(dropped) => self.dropped = dropped,
            Err(problem) => {
                self.wrong = true;
                (self.problem)(problem);
            }
        }
        self.streams()?;
        self.producers()?;
        self.paths()?;
        self.totals()
    }

    fn count(&mut self) {
        self.done += 1;
        if self.done.is_multiple_of(256) {
            (self.progress)(self.done);
        }
    }

    /// Notes a problem, with the place of `value` in the file if it is known.
    fn wrong(&mut self, value: Option<&[u8]>, what: &str) {
        self.wrong = true;
        let offset = value.and_then(mapped_at).unwrap_or(0);
        (self.problem)(corrupt(self.reading.index().path(), offset, what));
    }

    /// Walks a database; notes a problem when LMDB cannot walk it to its end.
    fn each(
        &mut self,
        name: &str,
        table: IndexTable,
        prefix: &[u8],
        mut each: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let reading = self.reading;
        let failed = index_error("read", reading.index().path());
        let mut walk = || {
            // LMDB refuses an empty key.
            let from = if prefix.is_empty() { Bound::Unbounded } else { Bound::Included(prefix) };
            let range = (from, Bound::Unbounded);
            for record in table.range(&reading.txn, &range).map_err(&failed)? {
                let (key, value) = record.map_err(&failed)?;
                if !key.starts_with(prefix) {
                    break;
                }
                each(self, key, value)?;
            }
            Ok(())
        };
        match walk() {
            Err(StoreError::Corrupt { found, .. }) => {
                self.wrong(None, &format!("`{name}` cannot be read to its end: {found}"));
                Ok(())
            }
            walked => walked,
        }
    }

    fn has(&self, table: IndexTable, key: &[u8]) -> Result<bool, StoreError> {
        let found = table.get(&self.reading.txn, key);
        Ok(found.map_err(index_error("read", self.reading.index().path()))?.is_some())
    }

    fn streams(&mut self) -> Result<(), StoreError> {
        self.each("streams", self.reading.index().streams, &[], |check, key, value| {
            check.count();
            check.found.streams += 1;
            let Some(id) = keys::number(key).map(StreamId) else {
                check.wrong(Some(value), "a key of `streams` is not a stream id");
                return Ok(());
            };
            let stream =
                keys::open(key, value).and_then(|stored| IndexedStream::decode(id, stored));
            let Some(stream) = stream else {
                let what = format!("the state of stream {} does not match its checksum", id.0);
                check.wrong(Some(value), &what);
                return Ok(());
            };
            check.stream(id, &stream)
        })
    }

    /// Checks what belongs to one stream.
    fn stream(&mut self, id: StreamId, stream: &IndexedStream<'_>) -> Result<(), StoreError> {
        let index = self.reading.index();
        let state = &stream.state;
        let name = format!("stream {} ({})", id.0, state.core.path.as_str());
        if self.meta.is_some_and(|meta| id.0 >= meta.next_id) {
            self.wrong(None, &format!("{name} has an id that was not given out yet"));
        }
        if index.path_id(&self.reading.txn, &state.core.path).ok().flatten() != Some(id) {
            self.wrong(None, &format!("the path of {name} does not lead to it"));
        }
        if let Some(at) = state.due_at() {
            self.expected.deadlines += 1;
            if !self.has(index.deadlines, &keys::deadline(at, id))? {
                self.wrong(None, &format!("the deadline of {name} is missing"));
            }
        }
        if let Some(fork) = &state.core.fork {
            self.expected.forks += 1;
            if !self.has(index.forks, &keys::fork(fork.source, id))? {
                self.wrong(None, &format!("{name} is missing among the forks of its source"));
            }
        }
        if let Some(expected) = stream.producers {
            let mut found = 0;
            self.each("producers", index.producers, &keys::id(id), |_, _, _| {
                found += 1;
                Ok(())
            })?;
            if found != expected {
                let what = format!("{name} has {found} producers and should have {expected}");
                self.wrong(None, &what);
            }
        }
        self.chunks(id, state, &name)?;
        self.appends(id, stream, &name)
    }

    /// The lengths of a stream's appends are whole and without gaps from where they are known to its tail.
    fn appends(
        &mut self,
        id: StreamId,
        stream: &IndexedStream<'_>,
        name: &str,
    ) -> Result<(), StoreError> {
        let index = self.reading.index();
        let state = &stream.state;
        if state.core.content_type.is_json() {
            return Ok(());
        }
        let known_from = state.delimited_from.max(state.first_kept()).position();
        let (mut next, mut first) = (state.delimited_from.position(), true);
        self.each("appends", index.appends, &keys::id(id), |check, key, value| {
            check.count();
            check.expected.appends += 1;
            let at = keys::unpair(key).map(|(_, at)| at);
            // What was trimmed is gone, or will be.
            let begins = std::mem::take(&mut first) && at.is_some_and(|at| at <= known_from);
            next = at.filter(|_| begins).unwrap_or(next);
            match (keys::unpair(key), keys::open(key, value)) {
                (Some((_, at)), Some(lens)) if at == next => next += appends::total(lens),
                _ => {
                    let what = format!(
                        "the ends of the appends of {name} from position {next} on are missing or damaged"
                    );
                    check.wrong(Some(value), &what);
                }
            }
            Ok(())
        })?;
        let inline = index.inline_start(state, stream.lens).ok();
        // Without older records those in the state reach back as far as bytes are kept.
        let reaches = inline == Some(next) || (first && inline.is_some_and(|at| at <= known_from));
        if !reaches {
            let what = format!("the ends of the appends of {name} do not reach to its tail");
            self.wrong(None, &what);
        }
        Ok(())
    }

    /// A stream's extents and chunks are whole and without gaps from the first byte that it keeps to its tail.
    fn chunks(&mut self, id: StreamId, state: &StreamState, name: &str) -> Result<(), StoreError> {
        let start = state.first_kept().position();
        let trimmed = state.kept > state.core.own_start();
        let (mut next, mut first) = (start, true);
        self.each("extents", self.reading.index().extents, &keys::id(id), |check, key, value| {
            check.count();
            let at = keys::unpair(key).map(|(_, at)| at);
            // Bytes before it were trimmed, and whole extents of them are to be purged.
            let begins = std::mem::take(&mut first) && trimmed && at.is_some_and(|at| at < start);
            next = at.filter(|_| begins).unwrap_or_else(|| check.after_dropped(id, next));
            next = check.extent(key, value, next, name)?;
            Ok(())
        })?;
        self.each("chunks", self.reading.index().chunks, &keys::id(id), |check, key, value| {
            check.count();
            check.found.chunks += 1;
            let contents = keys::open(key, value);
            let at = keys::unpair(key).map(|(_, at)| at);
            // Bytes before it were trimmed, and those in whole chunks are to be purged.
            let begins = std::mem::take(&mut first) && trimmed && at.is_some_and(|at| at < start);
            next = at.filter(|_| begins).unwrap_or_else(|| check.after_dropped(id, next));
            if at != Some(next) {
                let what = format!("the bytes of {name} from position {next} on are missing");
                check.wrong(Some(value), &what);
            } else if contents.is_none_or(|contents| contents.len() > CHUNK) {
                let what =
                    format!("the bytes of {name} at position {next} do not match their checksum");
                check.wrong(Some(value), &what);
            }
            next = at.unwrap_or(next) + value.len().saturating_sub(4) as u64;
            Ok(())
        })?;
        next = self.after_dropped(id, next);
        if next != state.tail.position() {
            let tail = state.tail.position();
            self.wrong(
                None,
                &format!("the bytes of {name} end at {next} and should end at {tail}"),
            );
        }
        self.found.bytes += next.saturating_sub(start);
        Ok(())
    }

    /// The position behind the ranges that `repair` has dropped at `next`.
    fn after_dropped(&self, id: StreamId, mut next: u64) -> u64 {
        while let Some(end) = self.dropped.past(id, next) {
            next = end;
        }
        next
    }

    fn producers(&mut self) -> Result<(), StoreError> {
        let index = self.reading.index();
        self.each("producers", index.producers, &[], |check, key, value| {
            check.count();
            let (id, producer) = key.split_at_checked(8).unwrap_or((key, &[]));
            let producer = std::str::from_utf8(producer).ok().and_then(ProducerId::new);
            let known = keys::open(key, value).map(ProducerState::decode);
            if producer.is_none() || !matches!(known, Some(Ok(_))) {
                let id = keys::number(id).unwrap_or_default();
                check.wrong(
                    Some(value),
                    &format!("a producer of stream {id} does not match its checksum"),
                );
            } else if !check.has(index.streams, id)? && !check.has(index.purge, id)? {
                let id = keys::number(id).unwrap_or_default();
                check.wrong(
                    Some(value),
                    &format!("a producer belongs to stream {id}, which is not there"),
                );
            }
            Ok(())
        })
    }

    fn paths(&mut self) -> Result<(), StoreError> {
        let mut paths = 0;
        let reading = self.reading;
        let walked = reading.each_path(None, &mut |path, id| {
            let state = reading.state(id).ok().flatten();
            let names = state.is_some_and(|state| state.core.path.as_str() == path);
            if !names || StreamPath::system(&path).is_err() {
                self.wrong(
                    None,
                    &format!("the path {path:?} names stream {}, which does not have it", id.0),
                );
            }
            paths += 1;
            self.count();
            Ok(true)
        });
        match walked {
            Err(StoreError::Corrupt { found, .. }) => {
                self.wrong(None, &format!("`paths` cannot be read to its end: {found}"));
            }
            walked => walked?,
        }
        if self.meta.is_some_and(|meta| paths != meta.streams) {
            self.wrong(
                None,
                &format!("there are {paths} paths for {} streams", self.found.streams),
            );
        }
        Ok(())
    }
}
