//! Converts errors of the operating system and of LMDB into a [`StoreError`] that names the file.

use std::{io, path::Path, sync::Arc};

use crate::store::StoreError;

/// For `map_err` on I/O; `operation` is a verb, as in "cannot {operation} {path}".
pub(super) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full { path: path.clone() }
        }
        _ => StoreError::Io { operation, path: path.clone(), source: Arc::new(source) },
    }
}

/// For `map_err` on copying a file: a full disk is the destination's.
pub(super) fn copy_error(from: &Path, to: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let (full, other) = (io_error("copy to", to), io_error("copy", from));
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(source),
        _ => other(source),
    }
}

/// For `map_err` on LMDB; see [`io_error`].
pub(super) fn index_error(
    operation: &'static str,
    path: &Path,
) -> impl Fn(heed::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |error| match error {
        heed::Error::Io(source) => io_error(operation, &path)(source),
        heed::Error::Mdb(heed::MdbError::MapFull) => StoreError::Full { path: path.clone() },
        heed::Error::Mdb(
            kind @ (heed::MdbError::Corrupted
            | heed::MdbError::PageNotFound
            | heed::MdbError::Invalid
            | heed::MdbError::VersionMismatch
            // Flags of a table, or of the table of tables, that this server never sets.
            | heed::MdbError::Incompatible
            // Pages that lead too deep, and such that have less room than their header says.
            | heed::MdbError::CursorFull
            | heed::MdbError::PageFull
            | heed::MdbError::Problem
            // What a transaction returns after it has met one of the others.
            | heed::MdbError::BadTxn),
        ) => corrupt(&path, 0, &format!("LMDB says: {kind}; restore a backup")),
        other => io_error(operation, &path)(io::Error::other(other.to_string())),
    }
}

pub(super) fn corrupt(path: &Path, offset: u64, found: &str) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), offset, found: found.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_onto_a_full_disk_names_the_destination() {
        let error = copy_error(Path::new("from"), Path::new("to"));
        assert_eq!(error(io::ErrorKind::StorageFull.into()).to_string(), "no space left in to");
        let other = error(io::ErrorKind::UnexpectedEof.into()).to_string();
        assert!(other.starts_with("cannot copy from: "), "{other}");
    }

    #[test]
    fn what_only_damage_explains_says_so() {
        use heed::MdbError;
        let of = |kind| index_error("open", Path::new("data.mdb"))(heed::Error::Mdb(kind));
        for kind in [
            MdbError::Corrupted,
            MdbError::PageNotFound,
            MdbError::Incompatible,
            MdbError::CursorFull,
            MdbError::PageFull,
            MdbError::Problem,
        ] {
            let error = of(kind);
            assert!(matches!(error, StoreError::Corrupt { .. }), "{kind:?}: {error}");
            assert!(error.to_string().contains("restore a backup"), "{error}");
        }
        assert!(matches!(of(MdbError::MapFull), StoreError::Full { .. }));
        assert!(matches!(of(MdbError::ReadersFull), StoreError::Io { .. }));
    }

    #[cfg(unix)]
    #[test]
    fn a_map_that_does_not_fit_names_its_key() {
        let error = io_error("open", Path::new("data.mdb"))(io::Error::from_raw_os_error(12));
        assert!(error.to_string().contains("storage.map_size"), "{error}");
    }
}
