//! Migration of an index of format 1: seals the records of `paths`, which format 1 stored without a checksum.
//!
//! Invariants
//! - Each transaction seals a bounded number of records; the last one says in the meta record that all are sealed.
//! - Whatever ends a migration, the next one goes on: a sealed record is longer than one of format 1.
//!
//! Records of the other databases stay as they are; see docs/storage.md, "Migration".

use std::{io, ops::Bound, sync::atomic::Ordering};

use heed::RwTxn;

use super::{
    env::IndexEnvironment,
    handle::{IndexHandle, WriteError},
    keys,
    paths::UNSEALED,
};
use crate::store::StoreError;

/// Records that one transaction seals.
const BATCH: usize = 16 << 10;

impl IndexHandle {
    /// Makes an index of format 1 one of format 2; returns how many records it sealed.
    ///
    /// # Errors
    /// What was sealed stays so.
    pub(in crate::store::file) fn migrate(
        &self,
        before_commit: &dyn Fn() -> io::Result<()>,
    ) -> Result<u64, StoreError> {
        self.migrate_by(before_commit, BATCH)
    }

    fn migrate_by(
        &self,
        before_commit: &dyn Fn() -> io::Result<()>,
        batch: usize,
    ) -> Result<u64, StoreError> {
        let (mut sealed, mut after) = (0, None);
        while !self.read()?.index().paths_sealed.load(Ordering::Acquire) {
            let keys = self.write(before_commit, |index, txn| {
                index.seal_paths(txn, after.as_deref(), batch)
            })?;
            sealed += keys.len() as u64;
            if keys.len() < batch {
                self.read()?.index().paths_sealed.store(true, Ordering::Release);
            }
            after = keys.into_iter().next_back();
        }
        Ok(sealed)
    }
}

impl IndexEnvironment {
    /// Seals up to `max` records after a key, and returns their keys. When there are fewer, the index has format 2.
    fn seal_paths(
        &self,
        txn: &mut RwTxn<'_>,
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Vec<u8>>, WriteError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut unsealed = Vec::new();
        for record in self.paths.range(txn, &(from, Bound::Unbounded))? {
            let (key, value) = record?;
            if value.len() == UNSEALED {
                unsealed.push((key.to_vec(), value.to_vec()));
                if unsealed.len() == max {
                    break;
                }
            }
        }
        let mut value = Vec::with_capacity(16);
        for (key, target) in &unsealed {
            keys::seal(key, target, &mut value);
            self.paths.put(txn, key, &value)?;
        }
        if unsealed.len() < max {
            let mut meta = self.meta(txn)?;
            self.put_meta(txn, &mut meta)?;
        }
        Ok(unsealed.into_iter().map(|(key, _)| key).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use durable_streams_protocol::{StreamId, StreamPath};

    use super::*;

    const PATHS: u64 = 100;

    fn path(n: u64) -> StreamPath {
        StreamPath::new(&format!("{}s/{n}", "long/".repeat(n as usize % 3 * 70))).unwrap()
    }

    /// Makes an index what format 1 wrote: paths without checksums, and its meta record.
    fn format_1(index: &IndexHandle) {
        let made = index.write(&|| Ok(()), |index, txn| {
            let mut meta = index.meta(txn)?;
            for n in 0..PATHS {
                index.put_path(txn, &path(n), StreamId(n + 7), &mut meta.next_node)?;
            }
            let mut records = Vec::new();
            for record in index.paths.iter(txn)? {
                let (key, value) = record?;
                records.push((key.to_vec(), value[4..].to_vec()));
            }
            for (key, value) in &records {
                index.paths.put(txn, key, value)?;
            }
            put_meta(index, txn)
        });
        made.unwrap();
    }

    fn put_meta(index: &IndexEnvironment, txn: &mut RwTxn<'_>) -> Result<(), WriteError> {
        let meta = index.meta(txn)?;
        let fields = [1, meta.lsn, meta.next_id, meta.next_node, meta.streams, meta.bytes];
        let contents: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        let mut value = Vec::new();
        keys::seal(keys::META, &contents, &mut value);
        Ok(index.meta.put(txn, keys::META, &value)?)
    }

    /// Memory of this process that is not of files.
    fn anonymous() -> String {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        status.lines().find(|line| line.starts_with("RssAnon")).unwrap_or_default().to_owned()
    }

    fn check(index: &IndexHandle, what: &str) {
        let reading = index.read().unwrap();
        for n in 0..PATHS {
            assert_eq!(reading.path_id(&path(n)).unwrap(), Some(StreamId(n + 7)), "{what}");
        }
        let mut paths = 0;
        reading
            .each_path(None, &mut |_, _| {
                paths += 1;
                Ok(true)
            })
            .unwrap();
        assert_eq!(paths, PATHS, "{what}");
        assert_eq!(reading.path_id(&StreamPath::new("none").unwrap()).unwrap(), None, "{what}");
    }

    /// `cargo test -p durable-streams-engine --lib -- --ignored --nocapture a_million`
    #[test]
    #[ignore = "measures the migration of a million streams"]
    fn a_million_streams_migrate() {
        let dir = tempfile::tempdir().unwrap();
        let open = || IndexHandle::open(dir.path(), 1 << 30).unwrap();
        let made = open();
        for thousand in 0..1000_u64 {
            let put = made.write(&|| Ok(()), |index, txn| {
                for n in thousand * 1000..(thousand + 1) * 1000 {
                    let path = format!("tenant-{:02}/stream-{n:06}", n % 100);
                    let key = [&0_u64.to_be_bytes(), path.as_bytes()].concat();
                    index.paths.put(txn, &key, &(n + 7).to_be_bytes())?;
                }
                put_meta(index, txn)
            });
            put.unwrap();
        }
        drop(made);
        let index = open();
        let (size, memory, began) = (index.size(), anonymous(), std::time::Instant::now());
        let sealed = index.migrate(&|| Ok(())).unwrap();
        let took = began.elapsed();
        println!("{sealed} records in {took:.1?}; {size} bytes became {}", index.size());
        println!("before: {memory}; after: {}", anonymous());
        assert_eq!(sealed, 1_000_000);
    }

    #[test]
    fn a_migration_that_ends_anywhere_goes_on() {
        for stop in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let open = || IndexHandle::open(dir.path(), 1 << 20).unwrap();
            format_1(&open());
            let index = open();
            check(&index, "before");
            let commits = Cell::new(0);
            let failing = || {
                commits.set(commits.get() + 1);
                if commits.get() > stop {
                    Err(io::Error::other("the disk says no"))
                } else {
                    Ok(())
                }
            };
            let whole = index.migrate_by(&failing, 16);
            check(&index, "in the process that failed");
            drop(index);
            let index = open();
            check(&index, "after the failure");
            let rest = index.migrate_by(&|| Ok(()), 16).unwrap();
            check(&index, "after the migration");
            assert_eq!(index.migrate_by(&failing, 16).unwrap(), 0, "it is over");
            drop(index);
            check(&open(), "opened again");
            if let Ok(sealed) = whole {
                assert!(
                    sealed >= PATHS && rest == 0 && stop > PATHS / 16,
                    "{sealed} {rest} {stop}"
                );
                return;
            }
            assert_eq!(rest % 16, (rest + stop * 16) % 16);
        }
    }
}
