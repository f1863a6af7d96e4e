//! Parts of open files, for callers that let the kernel send them.

use std::{fs::File, ops::Range, sync::Arc};

/// A part of an open file, whose bytes never change.
#[derive(Clone, Debug)]
pub struct FilePart {
    /// The file.
    pub file: Arc<File>,
    /// Which bytes of it; not empty.
    pub range: Range<u64>,
}

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
