//! Where a segment is, as its record in the index says.

use super::SegmentRecord;
use crate::store::{StoreError, file::index::handle::IndexHandle};

/// Where a segment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegmentPlace {
    /// On the local disk.
    #[default]
    Local,
    /// On the local disk and in the object store.
    Both,
    /// In the object store.
    Object,
}

impl SegmentPlace {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Local, Self::Both, Self::Object];

    /// Its name, as metrics and the administration API have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Both => "both",
            Self::Object => "object",
        }
    }

    /// Whether there is a local file.
    pub fn is_local(self) -> bool {
        self != Self::Object
    }

    pub(super) fn encode(self) -> u8 {
        self as u8 + 1
    }

    pub(super) fn decode(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.encode() == byte)
    }
}

impl IndexHandle {
    /// Notes where a segment is now, if it was at `from`. Returns where it was; `None` when the index has no such segment.
    ///
    /// # Errors
    /// The index is unchanged then, unless the error was the commit's.
    pub(in crate::store::file) fn move_segment(
        &self,
        before_commit: &dyn Fn() -> std::io::Result<()>,
        number: u64,
        (from, to): (SegmentPlace, SegmentPlace),
    ) -> Result<Option<SegmentPlace>, StoreError> {
        self.write(before_commit, |index, txn| {
            let Some(record) = index.segment(txn, number)? else { return Ok(None) };
            if record.place == from {
                index.put_segment(txn, number, &SegmentRecord { place: to, ..record })?;
            }
            Ok(Some(record.place))
        })
    }
}
