//! The checks of one record: its checksum, and the records that it calls for, in both directions.

use durable_streams_protocol::{
    Offset, ProducerId, ProducerState, StreamId, StreamState, Timestamp,
};

use super::ScrubSlice;
use crate::store::{
    StoreError,
    file::{
        disk::mapped_at,
        error::{corrupt, index_error},
        index::{
            env::IndexTable,
            extents::{ExtentRecord, SegmentRecord},
            keys::{self, IndexMeta},
            paths,
            records::CHUNK,
            streams::IndexedStream,
        },
        segments::format::HEADER,
    },
};

impl ScrubSlice<'_, '_> {
    /// Checks a record. What is missing is looked up in the same transaction.
    pub(super) fn record(
        &mut self,
        database: &str,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StoreError> {
        let wrong = match database {
            "meta" => self.meta(key, value),
            "paths" => self.name(key, value),
            "streams" => self.stream(key, value),
            "chunks" => self.chunk(key, value),
            "extents" => self.extent(key, value),
            "segment_files" => Ok(SegmentRecord::open(key, value).is_none().then(|| {
                let number = keys::number(key).unwrap_or_default();
                format!("the record of segment {number} does not match its checksum")
            })),
            "deadlines" => self.derived(key, "deadline", |state, (at, id)| {
                state.core.id.0 == id && state.due_at() == Some(Timestamp::from_millis(at))
            }),
            "forks" => self.derived(key, "fork", |state, (source, id)| {
                let fork = state.core.fork.as_ref();
                state.core.id.0 == id && fork.is_some_and(|fork| fork.source.0 == source)
            }),
            "purge" => self.purge(key, value),
            "producers" => self.producer(key, value),
            _ => self.owned(database, key, value),
        };
        match wrong {
            Ok(None) => Ok(()),
            Ok(Some(what)) => {
                let path = self.reading.index().path();
                // The place where LMDB has the value, for an operator who looks at the file.
                let table = self.reading.index().tables();
                let at = super::NAMES.iter().position(|name| *name == database);
                let place = at.and_then(|at| table[at].get(&self.reading.txn, key).ok().flatten());
                self.wrong(corrupt(path, place.and_then(mapped_at).unwrap_or(0), &what));
                Ok(())
            }
            // A record that it calls for is damaged, and is reported in its turn, or its page is.
            Err(StoreError::Corrupt { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn has(&self, table: IndexTable, key: &[u8]) -> Result<bool, StoreError> {
        let found = table.get(&self.reading.txn, key);
        Ok(found.map_err(index_error("read", self.reading.index().path()))?.is_some())
    }

    /// Whether a stream is there, or is still to be purged.
    fn is_owned(&self, key: &[u8]) -> Result<bool, StoreError> {
        let Some(id) = key.get(..8) else { return Ok(false) };
        let index = self.reading.index();
        Ok(self.has(index.streams, id)? || self.has(index.purge, id)?)
    }

    fn meta(&self, key: &[u8], value: &[u8]) -> Result<Option<String>, StoreError> {
        let whole =
            key == keys::META && keys::open(key, value).and_then(IndexMeta::decode).is_some();
        Ok((!whole).then(|| "the meta record does not match its checksum".to_owned()))
    }

    fn name(&self, key: &[u8], value: &[u8]) -> Result<Option<String>, StoreError> {
        let Some(target) = keys::open(key, value).and_then(keys::number) else {
            let name = String::from_utf8_lossy(key.get(8..).unwrap_or_default()).into_owned();
            return Ok(Some(format!("the name {name:?} does not match its checksum")));
        };
        if paths::is_link(key) {
            return Ok(None);
        }
        let piece = key.get(8..).unwrap_or_default();
        let state = self.reading.state(StreamId(target))?;
        let names = state.is_some_and(|state| state.core.path.as_str().as_bytes().ends_with(piece));
        let name = String::from_utf8_lossy(piece);
        Ok((!names)
            .then(|| format!("the name {name:?} leads to stream {target}, which has another")))
    }

    fn stream(&self, key: &[u8], value: &[u8]) -> Result<Option<String>, StoreError> {
        let index = self.reading.index();
        let id = keys::number(key).map(StreamId);
        let stream = id.and_then(|id| IndexedStream::decode(id, keys::open(key, value)?));
        let (Some(id), Some(stream)) = (id, stream) else {
            let id = id.map_or(0, |id| id.0);
            return Ok(Some(format!("the state of stream {id} does not match its checksum")));
        };
        let state = &stream.state;
        let name = format!("stream {} ({})", id.0, state.core.path.as_str());
        if index.path_id(&self.reading.txn, &state.core.path).ok().flatten() != Some(id) {
            self.health.note_missing_names();
            return Ok(Some(format!("the path of {name} does not lead to it")));
        }
        if let Some(at) = state.due_at()
            && !self.has(index.deadlines, &keys::deadline(at, id))?
        {
            return Ok(Some(format!("the deadline of {name} is missing")));
        }
        if let Some(fork) = &state.core.fork
            && !self.has(index.forks, &keys::fork(fork.source, id))?
        {
            return Ok(Some(format!("{name} is missing among the forks of its source")));
        }
        if let Some(expected) = stream.producers {
            let records = index.producers.prefix_iter(&self.reading.txn, key);
            let found = records.map_err(index_error("read", index.path()))?.count() as u64;
            if found != expected {
                return Ok(Some(format!(
                    "{name} has {found} producers and should have {expected}"
                )));
            }
        }
        let start = state.first_kept();
        let held = index.has_byte(&self.reading.txn, id, start);
        let bytes = start >= state.tail
            || held.map_err(index_error("read", index.path()))?
            || index.extent_at(&self.reading.txn, id, start)?.is_some()
            || self.round.dropped.past(id, start.position()).is_some();
        Ok((!bytes).then(|| format!("the first bytes of {name} are missing")))
    }

    fn chunk(&self, key: &[u8], value: &[u8]) -> Result<Option<String>, StoreError> {
        let Some((id, at)) = keys::unpair(key) else {
            return Ok(Some("a key of `chunks` is none".to_owned()));
        };
        let contents = keys::open(key, value).filter(|contents| contents.len() <= CHUNK);
        let Some(contents) = contents else {
            return Ok(Some(format!(
                "the bytes of stream {id} at position {at} do not match their checksum"
            )));
        };
        self.goes_on(StreamId(id), at + contents.len() as u64)
    }

    fn extent(&self, key: &[u8], value: &[u8]) -> Result<Option<String>, StoreError> {
        let id = key.get(..8).and_then(keys::number).unwrap_or_default();
        let Some((id, extent)) = ExtentRecord::open(key, value) else {
            return Ok(Some(format!("an extent of stream {id} does not match its checksum")));
        };
        let record = self.reading.segment(extent.file)?;
        let end = extent.offset + extent.len();
        let fits = |file: SegmentRecord| {
            extent.offset >= HEADER as u64 && end <= HEADER as u64 + file.data
        };
        if !record.is_some_and(fits) {
            let (file, id) = (extent.file, id.0);
            return Ok(Some(format!("segment {file} does not hold the bytes of stream {id}")));
        }
        self.goes_on(id, extent.end)
    }

    /// Whether more bytes of a stream begin at `end`, or it ends there.
    fn goes_on(&self, id: StreamId, end: u64) -> Result<Option<String>, StoreError> {
        let index = self.reading.index();
        let goes_on = self.has(index.chunks, &keys::chunk(id, Offset::new(end)))?
            || self.has(index.extents, &keys::chunk(id, Offset::new(end)))?
            || self.round.dropped.past(id, end).is_some()
            || self.has(index.purge, &keys::id(id))?;
        if goes_on {
            return Ok(None);
        }
        let state = self.reading.state(id)?;
        Ok(match state.map(|state| (state.first_kept().position(), state.tail.position())) {
            None => Some(format!("bytes belong to stream {}, which is not there", id.0)),
            // The last ones, or trimmed ones that are to be purged.
            Some((kept, tail)) if tail == end || end <= kept => None,
            Some((_, tail)) => Some(format!(
                "the bytes of stream {} from position {end} to {tail} are missing",
                id.0
            )),
        })
    }

    fn derived(
        &self,
        key: &[u8],
        what: &str,
        fits: impl FnOnce(&StreamState, (u64, u64)) -> bool,
    ) -> Result<Option<String>, StoreError> {
        let Some((first, id)) = keys::unpair(key) else {
            return Ok(Some(format!("the key of a {what} is none")));
        };
        let state = self.reading.state(StreamId(id))?;
        let fits = state.is_some_and(|state| fits(&state, (first, id)));
        Ok((!fits).then(|| format!("a {what} is noted of stream {id}, which has none such")))
    }

    fn purge(&self, key: &[u8], value: &[u8]) -> Result<Option<String>, StoreError> {
        let deleted = key.len() == 8 && !self.has(self.reading.index().streams, key)?;
        let wrong = !value.is_empty() || !(deleted || keys::unpair(key).is_some());
        Ok(wrong.then(|| {
            let id = keys::number(key).unwrap_or_default();
            format!("stream {id} is there, and deleted as well")
        }))
    }

    fn producer(&self, key: &[u8], value: &[u8]) -> Result<Option<String>, StoreError> {
        let id = key.get(..8).and_then(keys::number).unwrap_or_default();
        let name = key.get(8..).and_then(|name| std::str::from_utf8(name).ok());
        let known = keys::open(key, value).map(ProducerState::decode);
        if name.and_then(ProducerId::new).is_none() || !matches!(known, Some(Ok(_))) {
            return Ok(Some(format!("a producer of stream {id} does not match its checksum")));
        }
        let owned = self.is_owned(key)?;
        Ok((!owned).then(|| format!("a producer belongs to stream {id}, which is not there")))
    }

    /// A record of `appends` or `dropped`.
    fn owned(
        &self,
        database: &str,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<String>, StoreError> {
        let id = key.get(..8).and_then(keys::number).unwrap_or_default();
        if keys::unpair(key).is_none() || keys::open(key, value).is_none() {
            let what =
                format!("a record of `{database}` of stream {id} does not match its checksum");
            return Ok(Some(what));
        }
        let owned = self.is_owned(key)?;
        Ok((!owned).then(|| {
            format!("a record of `{database}` belongs to stream {id}, which is not there")
        }))
    }
}
