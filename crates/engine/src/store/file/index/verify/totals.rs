//! Checks the totals, and that no record belongs to an unknown stream.

use super::IndexCheck;
use crate::store::{
    StoreError,
    file::{
        error::index_error,
        index::{
            env::{IndexTable, NAMES},
            extents::{ExtentRecord, SegmentRecord},
            keys,
        },
    },
};

impl IndexCheck<'_, '_> {
    pub(super) fn totals(&mut self) -> Result<(), StoreError> {
        let index = self.reading.index();
        if let Some(meta) = self.meta
            && (self.found.streams, self.found.bytes) != (meta.streams, meta.bytes)
        {
            let (streams, bytes) = (self.found.streams, self.found.bytes);
            let what = format!(
                "{streams} streams with {bytes} bytes are there, and {} with {} should be",
                meta.streams, meta.bytes
            );
            self.wrong(None, &what);
        }
        let (mut left, mut left_appends, mut left_extents) = (0, 0, 0);
        self.each("purge", index.purge, &[], |check, key, _| {
            if keys::unpair(key).is_some() {
                // The trimmed part of a stream.
                return Ok(());
            }
            if check.has(index.streams, key)? {
                let id = keys::number(key).unwrap_or_default();
                check.wrong(None, &format!("stream {id} is there, and deleted as well"));
            }
            check.each("appends", index.appends, key, |_, _, _| {
                left_appends += 1;
                Ok(())
            })?;
            check.each("extents", index.extents, key, |check, key, value| {
                left_extents += 1;
                let extent = ExtentRecord::open(key, value);
                check.found.extent_bytes += extent.map_or(0, |(_, extent)| extent.len());
                Ok(())
            })?;
            check.each("chunks", index.chunks, key, |_, _, _| {
                left += 1;
                Ok(())
            })
        })?;
        self.each("dropped", index.dropped, &[], |check, key, value| {
            let id = key.get(..8).unwrap_or(key);
            if !check.has(index.streams, id)? && !check.has(index.purge, id)? {
                let id = keys::number(id).unwrap_or_default();
                let what = format!("a dropped range belongs to stream {id}, which is not there");
                check.wrong(Some(value), &what);
            }
            Ok(())
        })?;
        let len = |table: IndexTable| {
            table.len(&self.reading.txn).map_err(index_error("read", index.path()))
        };
        let counted = self.meta.and_then(|meta| meta.records);
        if let Some(counted) = counted {
            let there =
                index.records(&self.reading.txn).map_err(index_error("read", index.path()))?;
            let [_, names @ ..] = NAMES;
            for (name, (there, expected)) in names.iter().zip(there.into_iter().zip(counted)) {
                if there != expected {
                    let what = format!("`{name}` has {there} records and should have {expected}");
                    self.wrong(None, &what);
                }
            }
        }
        for (name, there, expected) in [
            ("chunks", len(index.chunks)?, self.found.chunks + left),
            ("extents", len(index.extents)?, self.found.extents + left_extents),
            ("appends", len(index.appends)?, self.expected.appends + left_appends),
            ("deadlines", len(index.deadlines)?, self.expected.deadlines),
            ("forks", len(index.forks)?, self.expected.forks),
        ] {
            if there != expected {
                self.wrong(
                    None,
                    &format!("`{name}` has {there} records and should have {expected}"),
                );
            }
        }
        self.segments()
    }

    /// The live bytes of segment files are those of the extents.
    fn segments(&mut self) -> Result<(), StoreError> {
        let mut live = 0;
        self.each(
            "segment_files",
            self.reading.index().segment_files,
            &[],
            |check, key, value| {
                check.count();
                match SegmentRecord::open(key, value) {
                    Some((_, record)) => live += record.live,
                    None => {
                        let number = keys::number(key).unwrap_or_default();
                        let what =
                            format!("the record of segment {number} does not match its checksum");
                        check.wrong(Some(value), &what);
                    }
                }
                Ok(())
            },
        )?;
        let bytes = self.found.extent_bytes;
        if live != bytes {
            let what = format!("extents have {bytes} bytes, and segment files should have {live}");
            self.wrong(None, &what);
        }
        Ok(())
    }
}
