//! Checking the whole index: every checksum, and that records fit together.

use super::{env::Reading, keys};
use crate::{
    protocol::{ProducerState, StreamId, StreamPath},
    store::{StoreError, file::error::index_error},
};

/// What the index holds.
pub(in crate::store::file) struct Indexed {
    pub(in crate::store::file) streams: u64,
    pub(in crate::store::file) chunks: u64,
    pub(in crate::store::file) bytes: u64,
}

impl Reading<'_> {
    /// Checks everything; `progress` gets the number of records done, every so often.
    pub(in crate::store::file) fn verify(
        &self,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Indexed, StoreError> {
        let index = self.index;
        let failed = index_error("read", index.path());
        let mut done = 0;
        let mut count = || {
            done += 1;
            if done % 1024 == 0 {
                progress(done);
            }
        };
        let mut found = Indexed { streams: 0, chunks: 0, bytes: 0 };
        for record in index.streams.iter(&self.txn).map_err(&failed)? {
            let (key, _) = record.map_err(&failed)?;
            let id = keys::number(key).ok_or_else(|| index.damaged("a key of `streams`"))?;
            let (chunks, bytes) = self.verify_stream(StreamId(id))?;
            found.streams += 1;
            found.chunks += chunks;
            found.bytes += bytes;
            count();
        }
        for record in index.producers.iter(&self.txn).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            if !matches!(keys::open(key, value).map(ProducerState::decode), Some(Ok(_))) {
                return Err(index.damaged("a producer"));
            }
            count();
        }
        let mut paths = 0;
        self.each_path(None, &mut |path, id| {
            let state = self.state(id)?.filter(|state| state.core.path.as_str() == path);
            if state.is_none() || StreamPath::system(&path).is_err() {
                return Err(
                    index.damaged(&format!("the path {path:?} names stream {}, which", id.0))
                );
            }
            paths += 1;
            count();
            Ok(true)
        })?;
        let meta = self.meta()?;
        if (found.streams, found.bytes, paths) != (meta.streams, meta.bytes, meta.streams) {
            let what = format!(
                "{} streams with {} bytes and {paths} paths are there, and {} with {} should be; the index",
                found.streams, found.bytes, meta.streams, meta.bytes
            );
            return Err(index.damaged(&what));
        }
        Ok(found)
    }

    /// Checks one stream: its state, and that its chunks are whole and without gaps. Gives how many chunks
    /// and bytes it has.
    fn verify_stream(&self, id: StreamId) -> Result<(u64, u64), StoreError> {
        let index = self.index;
        let failed = index_error("read", index.path());
        let damaged = |what: &str| index.damaged(&format!("{what} of stream {}", id.0));
        let state = self.state(id)?.ok_or_else(|| damaged("the state"))?;
        if index.path_id(&self.txn, &state.core.path)? != Some(id) {
            return Err(damaged("the path"));
        }
        let start = state.core.own_start().position();
        let (mut chunks, mut next) = (0, start);
        for record in index.chunks.prefix_iter(&self.txn, &keys::id(id)).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            let contents = keys::open(key, value).ok_or_else(|| damaged("a chunk"))?;
            if keys::unpair(key) != Some((id.0, next)) {
                return Err(damaged("the order of chunks"));
            }
            next += contents.len() as u64;
            chunks += 1;
        }
        if next != state.tail.position() {
            return Err(damaged("the last chunk"));
        }
        Ok((chunks, next - start))
    }
}
