//! The file that makes a copy resumable, and that maps offsets of the source to those of the copy.
//!
//! Lines of fields separated by tabs:
//!
//! | line | fields |
//! |---|---|
//! | the first | `durable-streams copy 1`, URL of the source, URL of the copy, producer id |
//! | `>` | batch number, its bytes (of a JSON stream, messages), position in the source after it: about to be appended |
//! | `=` | batch number, position in the source after it, offset of the copy after it: appended |
//!
//! A batch without its `=` may have been appended. It is cut from the source in the same way again and repeated with
//! its number, so that the server recognizes it.

use std::path::Path;

use durable_streams_client::{StreamOffset, StreamPosition};

use super::error::StreamCommandError;
use super::files::LineLog;

const HEADING: &str = "durable-streams copy 1";

/// The map of a copy, open for more lines.
pub(super) struct CopyMap {
    /// Without a file the copy cannot be resumed.
    file: Option<LineLog>,
    pub(super) producer: String,
    /// The file existed: the copy was begun before.
    pub(super) resumed: bool,
    pub(super) next_seq: u64,
    /// In the source, after all that was appended.
    pub(super) position: StreamPosition,
    /// A batch that may have been appended.
    pub(super) unsure: Option<PlannedBatch>,
}

/// A batch as it was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedBatch {
    pub(super) units: u64,
    pub(super) end: StreamPosition,
}

impl CopyMap {
    /// Opens the map of this copy, or begins one.
    pub(super) fn open(
        path: Option<&Path>,
        from: &str,
        to: &str,
    ) -> Result<Self, StreamCommandError> {
        let mut map = CopyMap {
            file: None,
            producer: format!("copy-{:016x}", fastrand::u64(..)),
            resumed: false,
            next_seq: 0,
            position: StreamPosition::START,
            unsure: None,
        };
        let Some(path) = path else { return Ok(map) };
        let Some((text, file)) = LineLog::open(path)? else {
            let problem = format!("{} is in use by another copy", path.display());
            return Err(StreamCommandError::Copy(problem));
        };
        map.file = Some(file);
        let mut lines = text.lines();
        match lines.next() {
            None => map.write(&format!("{HEADING}\t{from}\t{to}\t{}", map.producer))?,
            Some(first) => {
                map.producer = heading(first, from, to).ok_or_else(|| {
                    let path = path.display();
                    StreamCommandError::Copy(format!(
                        "{path} is no map of a copy from {from} to {to}"
                    ))
                })?;
                map.resumed = true;
            }
        }
        for (number, line) in lines.enumerate() {
            map.take(line).ok_or_else(|| {
                let path = path.display();
                StreamCommandError::Copy(format!("{path}: line {} is damaged", number + 2))
            })?;
        }
        Ok(map)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            [">", seq, units, end] if seq.parse() == Ok(self.next_seq) => {
                let end = end.parse().ok()?;
                self.unsure = Some(PlannedBatch { units: units.parse().ok()?, end });
            }
            ["=", seq, position, offset] if seq.parse() == Ok(self.next_seq) => {
                StreamOffset::new(offset)?;
                self.position = position.parse().ok()?;
                self.next_seq += 1;
                self.unsure = None;
            }
            _ => return None,
        }
        Some(())
    }

    /// A batch is about to be appended.
    pub(super) fn plan(&mut self, batch: &PlannedBatch) -> Result<(), StreamCommandError> {
        self.write(&format!(">\t{}\t{}\t{}", self.next_seq, batch.units, batch.end))
    }

    /// It is appended.
    pub(super) fn done(
        &mut self,
        batch: PlannedBatch,
        offset: &StreamOffset,
    ) -> Result<(), StreamCommandError> {
        self.write(&format!("=\t{}\t{}\t{offset}", self.next_seq, batch.end))?;
        self.position = batch.end;
        self.next_seq += 1;
        self.unsure = None;
        Ok(())
    }

    fn write(&mut self, line: &str) -> Result<(), StreamCommandError> {
        match &mut self.file {
            Some(file) => file.add(line),
            None => Ok(()),
        }
    }
}

/// The producer id of a first line.
fn heading(line: &str, from: &str, to: &str) -> Option<String> {
    match line.split('\t').collect::<Vec<_>>().as_slice() {
        [HEADING, f, t, producer] if (*f, *t) == (from, to) => Some((*producer).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(units: u64, end: &str) -> PlannedBatch {
        PlannedBatch { units, end: end.parse().unwrap() }
    }

    #[test]
    fn a_map_remembers_what_is_appended_and_what_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        let open = |from| CopyMap::open(Some(&path), from, "b");
        let mut map = open("a").unwrap();
        assert!(!map.resumed);
        map.plan(&planned(3, "7")).unwrap();
        map.done(planned(3, "7"), &StreamOffset::new("1").unwrap()).unwrap();
        map.plan(&planned(5, "9,2")).unwrap();
        assert!(open("a").is_err(), "it is in use");
        let producer = map.producer.clone();
        drop(map);

        let mut cut = std::fs::read(&path).unwrap();
        cut.extend_from_slice(b"=\t1\t9");
        std::fs::write(&path, cut).unwrap();
        let map = open("a").unwrap();
        assert_eq!((map.resumed, map.next_seq, &map.producer), (true, 1, &producer));
        assert_eq!((map.position, map.unsure), ("7".parse().unwrap(), Some(planned(5, "9,2"))));
        assert!(open("other").is_err(), "of another copy");
    }

    #[test]
    fn a_damaged_map_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for bad in ["x", "=\t1\t7\t1", "=\t0\t7\tnow", ">\t0\tx\t7", ">\t0\t1\t"] {
            let path = directory.path().join("map");
            std::fs::write(&path, format!("{HEADING}\ta\tb\tp\n{bad}\n")).unwrap();
            let error = CopyMap::open(Some(&path), "a", "b").err().expect(bad);
            assert!(error.to_string().ends_with("line 2 is damaged"), "{bad}: {error}");
        }
    }
}
