//! Permissions of the file store's files: only the user that the server runs as may read them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use durable_streams_engine::store::{FileStore, FileStoreOptions, StoreError};

/// Mode bits for group and others of everything below `dir`, `dir` included.
fn open_to_others(dir: &Path, found: &mut Vec<String>) {
    let metadata = fs::symlink_metadata(dir).unwrap();
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        found.push(format!("{} {mode:04o}", dir.display()));
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(dir).unwrap() {
            open_to_others(&entry.unwrap().path(), found);
        }
    }
}

#[test]
fn files_and_directories_are_for_the_servers_user_only() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("above/data");
    drop(FileStore::open(FileStoreOptions::new(&dir)).unwrap());
    let mut found = Vec::new();
    open_to_others(&parent.path().join("above"), &mut found);
    assert_eq!(found, Vec::<String>::new());
    assert!(
        fs::read_dir(dir.join("wal")).unwrap().next().is_some(),
        "there was something to look at"
    );
}

#[test]
fn a_lock_that_is_a_symbolic_link_is_refused_and_its_target_kept() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, target) = (parent.path().join("data"), parent.path().join("target"));
    fs::create_dir(&dir).unwrap();
    fs::write(&target, "precious").unwrap();
    symlink(&target, dir.join("LOCK")).unwrap();
    let error = FileStore::open(FileStoreOptions::new(&dir)).err().unwrap();
    assert!(matches!(&error, StoreError::Io { path, .. } if path.ends_with("LOCK")), "{error}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}
