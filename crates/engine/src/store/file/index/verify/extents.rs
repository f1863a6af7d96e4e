//! Checks an extent and that its segment file has room for it.

use super::IndexCheck;
use crate::store::{
    StoreError,
    file::{index::extents::ExtentRecord, segments::format::HEADER},
};

impl IndexCheck<'_, '_> {
    /// Checks an extent that begins at `next`; returns where it ends.
    pub(super) fn extent(
        &mut self,
        key: &[u8],
        value: &[u8],
        next: u64,
        name: &str,
    ) -> Result<u64, StoreError> {
        self.found.extents += 1;
        let Some((_, extent)) = ExtentRecord::open(key, value) else {
            self.wrong(Some(value), &format!("an extent of {name} does not match its checksum"));
            return Ok(next);
        };
        self.found.extent_bytes += extent.len();
        if extent.start != next {
            let what = format!("the bytes of {name} from position {next} on are missing");
            self.wrong(Some(value), &what);
        }
        let end = extent.offset + extent.len();
        // A damaged record is reported in its turn.
        let fits = self.reading.segment(extent.file).map_or(true, |record| {
            let first = HEADER as u64;
            record.is_some_and(|file| extent.offset >= first && end <= first + file.data)
        });
        if !fits {
            let what = format!("segment {} does not hold the bytes of {name}", extent.file);
            self.wrong(Some(value), &what);
        }
        Ok(extent.end)
    }
}
