use std::fs;

use super::{Duration, IndexHandle, Ordering, StoreError};

#[test]
fn it_is_reopened_after_a_large_checkpoint_and_by_the_next_reader_if_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (here, away) = (dir.path().join("here"), dir.path().join("away"));
    fs::create_dir(&here).unwrap();
    let index = IndexHandle::open(&here, 1 << 20).unwrap();
    let many = 10;
    index.note_checkpoint_size(many);
    fs::rename(&here, &away).unwrap();
    index.release_idle_memory(many).unwrap();
    index.note_checkpoint_size(many + 1);
    index.release_idle_memory(many).expect("it does nothing right after a large one");
    index.release_idle_memory(many).expect_err("reopening fails, since it was moved");
    assert!(index.bloated.load(Ordering::Relaxed));
    assert!(index.read().is_err());
    assert_eq!(index.size(), 0);
    fs::rename(&away, &here).unwrap();
    assert!(index.read().is_err(), "not more often than the backoff allows");
    assert!(index.available().is_err());
    while index.available().is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(index.read().unwrap().meta().unwrap().streams, 0);
    assert_eq!(index.reopenings(), 1);
    index.release_idle_memory(many).unwrap();
    assert!(!index.bloated.load(Ordering::Relaxed));
}

#[test]
fn a_long_read_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let index = IndexHandle::open(dir.path(), 1 << 20).unwrap();
    index.note_checkpoint_size(2);
    index.release_idle_memory(1).unwrap();
    let reading = index.read().unwrap();
    index.release_idle_memory(1).unwrap();
    assert!(index.bloated.load(Ordering::Relaxed));
    drop(reading);
    index.release_idle_memory(1).unwrap();
    assert!(!index.bloated.load(Ordering::Relaxed));
}

#[cfg(target_os = "linux")]
#[test]
fn reads_go_on_while_the_index_cannot_be_opened_for_writing() {
    let dir = tempfile::tempdir().unwrap();
    let index = IndexHandle::open(dir.path(), 1 << 20).unwrap();
    let put = |value: &[u8]| {
        index.write(&|| Ok(()), |index, txn| Ok(index.purge.put(txn, &[0; 8], value)?))
    };
    let get = || {
        let txn = index.read()?;
        Ok::<_, StoreError>(txn.index().purge.get(&txn.txn, &[0; 8]).unwrap().map(<[u8]>::to_vec))
    };
    put(b"1").unwrap();
    break_meta_page(&fs::canonicalize(index.path()).unwrap());
    // As on a file system that has turned read-only: only writers need LMDB's lock file.
    let lock = dir.path().join("lock.mdb");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    put(b"2").unwrap_err();
    for _ in 0..3 {
        assert_eq!(get().unwrap(), Some(b"1".to_vec()), "as of the last commit");
        let reading = index.read().unwrap();
        assert!(put(b"3").is_err());
        drop(reading);
        std::thread::sleep(Duration::from_millis(150));
        assert!(index.available().is_err());
    }
    assert_eq!(index.reopenings(), 0);

    fs::remove_dir(&lock).unwrap();
    while put(b"4").is_err() {
        assert_eq!(get().unwrap(), Some(b"1".to_vec()));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((get().unwrap(), index.reopenings()), (Some(b"4".to_vec()), 1));
    index.available().unwrap();
}

/// Makes writes of LMDB's meta page fail: it has a descriptor of its own for that, with `O_DSYNC`.
#[cfg(target_os = "linux")]
fn break_meta_page(path: &std::path::Path) {
    use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
    const O_DSYNC: u32 = 0o10000;
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut broken = 0;
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let info = fs::read_to_string(format!(
            "/proc/self/fdinfo/{}",
            entry.file_name().to_string_lossy()
        ));
        let Ok(info) = info else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        if fs::read_link(entry.path()).is_ok_and(|to| to == path) && flags & O_DSYNC != 0 {
            let number = entry.file_name().to_string_lossy().parse().unwrap();
            #[expect(unsafe_code, reason = "there is no other way to LMDB's descriptor")]
            // SAFETY: the descriptor is open, and LMDB keeps owning it: it is not closed here.
            let mut descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            rustix::io::dup2(&full, &mut descriptor).unwrap();
            let _ = descriptor.into_raw_fd();
            broken += 1;
        }
    }
    assert_eq!(broken, 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_failed_write_of_the_meta_page_loses_one_commit_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let index = IndexHandle::open(dir.path(), 1 << 20).unwrap();
    let put = |value: &[u8]| {
        index.write(&|| Ok(()), |index, txn| Ok(index.purge.put(txn, &[0; 8], value)?))
    };
    let get = || {
        let txn = index.read().unwrap();
        txn.index().purge.get(&txn.txn, &[0; 8]).unwrap().map(<[u8]>::to_vec)
    };
    put(b"1").unwrap();
    break_meta_page(&fs::canonicalize(index.path()).unwrap());
    put(b"2").unwrap_err();
    assert_eq!(get(), Some(b"1".to_vec()), "as of the last commit");
    put(b"3").unwrap();
    assert_eq!(get(), Some(b"3".to_vec()));
    assert_eq!(index.reopenings(), 1);
}
