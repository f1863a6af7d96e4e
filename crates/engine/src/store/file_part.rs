//! Parts of open files, for callers that let the kernel send them.

use std::{fs::File, ops::Range, sync::Arc};

use bytes::Bytes;

/// A part of an open file, whose bytes never change.
#[derive(Clone, Debug)]
pub struct FilePart {
    /// The file.
    pub file: Arc<File>,
    /// Which bytes of it; not empty.
    pub range: Range<u64>,
}

/// Bytes of a stream, where it does not matter whether they are in memory or in a file.
#[derive(Clone, Debug)]
pub enum StoredPiece {
    /// In memory.
    Bytes(Vec<Bytes>),
    /// In a file.
    File(FilePart),
}

impl FilePart {
    /// Number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "a part is never empty")]
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Parts are equal that are the same bytes of the same open file.
impl PartialEq for FilePart {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.range == other.range
    }
}

impl Eq for FilePart {}

/// Whether the page with the byte at `at` of a file is in memory, as far as the kernel tells.
#[cfg(target_os = "linux")]
pub(super) fn is_in_memory(file: &File, at: u64) -> bool {
    let mut byte = [0];
    let mut one = [std::io::IoSliceMut::new(&mut byte)];
    rustix::io::preadv2(file, &mut one, at, rustix::io::ReadWriteFlags::NOWAIT) == Ok(1)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_in_memory(_: &File, _: u64) -> bool {
    false
}
