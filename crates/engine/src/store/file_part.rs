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

/// How bytes of a JSON stream end each message. Both forms have the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageForm {
    /// With the terminator, as the stream is stored; bytes of any other stream are always so.
    Stored,
    /// With a comma, as in an array.
    Array,
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder on the disk of the test's program: the temporary one may be in memory as a whole, where the kernel does not tell
    /// what of a file is.
    #[cfg(target_os = "linux")]
    pub(crate) fn folder_on_disk() -> tempfile::TempDir {
        let program = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let mut probe = tempfile::tempfile_in(folder.path()).unwrap();
        std::io::Write::write_all(&mut probe, &[7]).unwrap();
        assert!(is_in_memory(&probe, 0), "the kernel does not tell in {}", folder.path().display());
        folder
    }

    #[test]
    fn parts_of_one_open_file_with_the_same_bytes_are_equal() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let part = |file: &Arc<File>, range| FilePart { file: file.clone(), range };
        assert_eq!(part(&file, 1..3), part(&file, 1..3));
        assert_ne!(part(&file, 1..3), part(&file, 1..4));
        let other = Arc::new(tempfile::tempfile().unwrap());
        assert_ne!(part(&file, 1..3), part(&other, 1..3));
        assert_eq!(part(&file, 1..3).len(), 2);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_behind_the_end_of_a_file_is_not_in_memory() {
        use std::io::Write;
        let mut file = tempfile::tempfile_in(folder_on_disk().path()).unwrap();
        file.write_all(&[7; 5000]).unwrap();
        assert!(is_in_memory(&file, 0) && is_in_memory(&file, 4999));
        assert!(!is_in_memory(&file, 5000) && !is_in_memory(&file, 1 << 30));
    }
}
