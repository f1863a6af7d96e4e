use std::fs;

use super::{DiskLimit, Duration, IndexHandle, Ordering, StoreError, map_bytes};

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
    assert!(!index.bloated.load(Ordering::Relaxed), "not so many are large");
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

fn map_size(index: &IndexHandle) -> usize {
    index.environment().unwrap().env.info().map_size
}

/// One value of so many bytes in `purge`, where there is no other.
fn put_value(index: &IndexHandle, bytes: usize) -> Result<(), StoreError> {
    let value = vec![7; bytes];
    index.write(&|| Ok(()), |index, txn| Ok(index.purge.put(txn, &[0; 8], &value)?))
}

const MIB: usize = 1 << 20;

#[test]
fn a_map_grows_by_doubling_when_it_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let index = IndexHandle::open(dir.path(), MIB).unwrap();
    assert_eq!(map_size(&index), MIB);
    put_value(&index, 3 * MIB).unwrap();
    assert_eq!(map_size(&index), 4 * MIB);
    assert_eq!(index.with_reserve(|| Ok(5)).unwrap(), 5);
    assert_eq!(map_size(&index), 4 * MIB);
}

/// The last part is for what makes room.
#[test]
fn a_limited_map_grows_to_its_limit_and_into_the_reserve_for_deletes_only() {
    let dir = tempfile::tempdir().unwrap();
    let mib = MIB as u64;
    let limit = DiskLimit { total: 9 * mib, log: mib, index: 4 * mib + 5, index_reserve: mib };
    let index = IndexHandle::open_limited(dir.path(), MIB, Some(limit)).unwrap();
    assert_eq!(map_size(&index), MIB);
    index.with_reserve(|| Ok(())).unwrap();
    assert_eq!(map_size(&index), MIB, "nothing needed more");
    index.grow().unwrap();
    index.grow().unwrap();
    assert_eq!(map_size(&index), 3 * MIB);
    assert!(matches!(index.grow(), Err(StoreError::Full { .. })));
    assert!(matches!(put_value(&index, 3 * MIB), Err(StoreError::Full { .. })));
    let inside = index.with_reserve(|| {
        put_value(&index, 3 * MIB)?;
        Ok(map_size(&index))
    });
    assert_eq!(inside.unwrap(), 4 * MIB);
    assert!(map_size(&index) >= 3 * MIB, "LMDB keeps what is in use");
    put_value(&index, 10).unwrap_err();
    index.with_reserve(|| put_value(&index, 10)).unwrap();
    drop(index);

    let other = tempfile::tempdir().unwrap();
    let index = IndexHandle::open_limited(other.path(), 64 * MIB, Some(limit)).unwrap();
    assert_eq!(map_size(&index), 3 * MIB);
    index.with_reserve(|| index.grow()).unwrap();
    assert_eq!(map_size(&index), 3 * MIB, "it is made small again");
    let failed: Result<(), _> = index.with_reserve(|| Err(index.missing("x")));
    assert!(failed.is_err());
    assert!(matches!(index.grow(), Err(StoreError::Full { .. })), "the reserve is closed again");
    assert_eq!([0, 65_535, 65_536, 131_071].map(map_bytes), [0, 0, 65_536, 65_536]);
}

#[test]
fn pages_that_hold_records_are_told_from_those_that_are_free() {
    let dir = tempfile::tempdir().unwrap();
    let index = IndexHandle::open(dir.path(), MIB).unwrap();
    let (used, grown) = index.extent().unwrap();
    assert_eq!(used, index.used_size().unwrap());
    // Ten pages of their own, and the one with its key.
    put_value(&index, 10 * 4096 - 16).unwrap();
    assert_eq!(index.used_size().unwrap(), used + 11 * 4096);
    let after = index.extent().unwrap().1;
    assert!(after >= grown + 11 * 4096);
    let reading = index.read().unwrap();
    let meta = reading.index().pages.meta(reading.txn.id() as u64).unwrap().unwrap().unwrap();
    assert_eq!(after, (meta.last + 1) * 4096, "to the end of the last page in use");
    drop(reading);
    assert_eq!(index.records().unwrap(), 2, "with the meta record");
    put_value(&index, 1).unwrap();
    assert_eq!(index.used_size().unwrap(), used + 4096);
    assert!(index.extent().unwrap().1 >= after && index.size() >= after);
}

#[test]
fn a_copy_has_every_record_and_ends_when_nobody_wants_it() {
    for (bytes, expected) in [(100 << 10, MIB), (600 << 10, 2 * MIB)] {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        [&from, &to].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
        let index = IndexHandle::open(&from, MIB).unwrap();
        put_value(&index, bytes).unwrap();
        let path = to.join("data.mdb");
        let file = fs::File::create_new(&path).unwrap();
        let ended = index.copy_into(&file, &path, &|| false).unwrap_err().to_string();
        assert!(ended.contains("the command that asked for it has ended"), "{ended}");
        fs::remove_file(&path).unwrap();
        let file = fs::File::create_new(&path).unwrap();
        index.copy_into(&file, &path, &|| true).unwrap();
        // More than half of it was in use, and what is written meanwhile needs room.
        assert_eq!(map_size(&index), expected, "{bytes} bytes");
        let copy = IndexHandle::open(&to, MIB).unwrap();
        assert_eq!(copy.records().unwrap(), 2);
        let reading = copy.read().unwrap();
        let value = reading.index().purge.get(&reading.txn, &[0; 8]).unwrap();
        assert!(value.unwrap() == vec![7; bytes]);
    }
}

#[test]
fn errors_name_the_file_and_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let index = IndexHandle::open(dir.path(), MIB).unwrap();
    assert_eq!(index.path(), dir.path().join("data.mdb"));
    let text = |error: StoreError| match error {
        StoreError::Corrupt { path, offset: 0, found } if path == index.path() => found.to_string(),
        other => panic!("{other}"),
    };
    assert_eq!(text(index.missing("it")), "it is missing; restore a backup");
    assert_eq!(text(index.damaged("it")), "it is damaged");
    assert!(text(index.hidden_names()).starts_with("names are missing in the index"));
    let commit = index.write(&|| Err(std::io::ErrorKind::Other.into()), |_, _| Ok(()));
    assert!(matches!(commit, Err(StoreError::Io { operation: "commit", .. })), "{commit:?}");
}
