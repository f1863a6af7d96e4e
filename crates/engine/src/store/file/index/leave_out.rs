//! Taking streams out of the copy of an index, whole or damaged ones.

use durable_streams_protocol::{StreamId, StreamPath, StreamState};
use heed::RwTxn;

use super::{
    env::IndexEnvironment,
    handle::{IndexHandle, WriteError},
    keys,
    streams::IndexedStream,
};
use crate::store::{StoreError, file::error::corrupt};

/// A stream that a backup leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// Its path.
    pub path: StreamPath,
    /// Its id.
    pub id: u64,
    /// Its payload bytes in whole chunks and extents.
    pub bytes: u64,
}

impl IndexHandle {
    /// Removes streams, in one transaction.
    ///
    /// # Errors
    /// [`StoreError::Format`] when a path is unknown, or a fork needs the bytes of a stream.
    pub(in crate::store::file) fn leave_out(
        &self,
        paths: &[StreamPath],
    ) -> Result<Vec<LeftOut>, StoreError> {
        self.write(&|| Ok(()), |index, txn| {
            let mut left_out = Vec::with_capacity(paths.len());
            for path in paths {
                let id = index.find(txn, path)?;
                let bytes = index.remove_stream(txn, id)?;
                left_out.push(LeftOut { path: path.clone(), id: id.0, bytes });
            }
            index.rewrite_derived(txn)?;
            for LeftOut { path, id, .. } in &left_out {
                if let Some(fork) = index.forks.prefix_iter(txn, &id.to_be_bytes())?.next() {
                    let fork =
                        keys::unpair(fork?.0).map_or(StreamId(0), |(_, fork)| StreamId(fork));
                    let name = index.stream(txn, fork)?.map(|fork| fork.state.core.path.clone());
                    let name = name.as_ref().map_or("?", StreamPath::as_str);
                    let found = format!(
                        "has a fork of {path}, {name}, which needs its bytes; leave out both"
                    );
                    return Err(index.refuse(&found).into());
                }
            }
            Ok(left_out)
        })
    }
}

impl IndexEnvironment {
    fn refuse(&self, found: &str) -> StoreError {
        StoreError::Format { path: self.path().to_owned(), found: found.into() }
    }

    /// The stream with a path: by its name or, where that is damaged, by its state.
    fn find(&self, txn: &RwTxn<'_>, path: &StreamPath) -> Result<StreamId, WriteError> {
        if let Ok(Some(id)) = self.path_id(txn, path) {
            return Ok(id);
        }
        for record in self.streams.iter(txn)? {
            let (key, value) = record?;
            let state = state_of(key, value);
            if let Some(state) = state.filter(|state| state.core.path == *path) {
                return Ok(state.core.id);
            }
        }
        Err(self.refuse(&format!("has no stream {path}")).into())
    }

    /// Removes a stream's records, save those that follow from its state. Returns its payload bytes.
    fn remove_stream(&self, txn: &mut RwTxn<'_>, id: StreamId) -> Result<u64, WriteError> {
        const RECORDS: usize = 1024;
        let prefix = keys::id(id);
        let (mut bytes, mut freed) = (self.extent_bytes(txn, id)?, Vec::new());
        self.streams.delete(txn, &prefix)?;
        while self.remove_extents(txn, &prefix, RECORDS, &mut freed)? > 0 {}
        for (which, table) in
            [self.chunks, self.appends, self.producers, self.dropped].into_iter().enumerate()
        {
            loop {
                let mut found = Vec::new();
                for record in table.prefix_iter(txn, &prefix)?.take(RECORDS) {
                    let (key, value) = record?;
                    let whole = keys::open(key, value).filter(|_| which == 0);
                    bytes += whole.map_or(0, |contents| contents.len() as u64);
                    found.push(key.to_vec());
                }
                if found.is_empty() {
                    break;
                }
                for key in &found {
                    if !table.delete(txn, key)? {
                        // A changed key misleads the search for others.
                        let what = "the keys of the index are damaged; use `repair` first";
                        return Err(corrupt(self.path(), 0, what).into());
                    }
                }
            }
        }
        Ok(bytes)
    }
}

fn state_of(key: &[u8], value: &[u8]) -> Option<StreamState> {
    let id = keys::number(key).map(StreamId)?;
    Some(IndexedStream::decode(id, keys::open(key, value)?)?.state)
}
