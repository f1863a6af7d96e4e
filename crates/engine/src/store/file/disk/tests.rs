use super::*;

#[test]
fn what_is_not_there_is_told_from_what_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (file, missing) = (dir.path().join("file"), dir.path().join("missing"));
    fs::write(&file, b"12345").unwrap();
    RealDisk::remove_all(&missing).unwrap();
    RealDisk::remove_all(&file.join("below")).expect_err("a file is no directory");
    assert!(matches!(RealDisk::lock_to_read(&missing), Ok(Some(None))));
    assert!(matches!(RealDisk::lock_to_read(&file), Ok(Some(Some(_)))));
    RealDisk::lock_to_read(&file.join("below")).expect_err("a file is no directory");
    assert!(RealDisk::is_dir(dir.path()) && !RealDisk::is_dir(&file));
    assert!(!RealDisk::is_dir(&missing));
    RealDisk::remove_dir(dir.path()).expect_err("it is not empty");
    fs::create_dir(&missing).unwrap();
    RealDisk::remove_dir(&missing).unwrap();
    assert!(!missing.exists());
}

#[test]
fn the_room_is_that_of_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let room = RealDisk.room(dir.path()).unwrap();
    assert!(room > 1 << 20, "{room} bytes are free");
    assert_eq!(RealDisk.room(&dir.path().join("missing")), None);
}

#[test]
fn a_file_grows_when_space_is_reserved_and_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = RealDisk.open(&dir.path().join("file"), true).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_at(3, b"abc").unwrap();
    assert!(!file.is_empty().unwrap());
    file.allocate(10).unwrap();
    file.allocate(5).unwrap();
    assert_eq!(file.len().unwrap(), 10, "it never shrinks");
    let mut bytes = [1; 16];
    assert_eq!(file.read_at(2, &mut bytes).unwrap(), 8);
    assert_eq!(bytes[..8], *b"\0abc\0\0\0\0");
}

#[cfg(unix)]
#[test]
fn a_directory_that_others_may_look_into_is_told_from_one_of_its_group() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    for (mode, open) in
        [(0o700, false), (0o770, false), (0o701, true), (0o744, true), (0o1702, true)]
    {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(mode_open_to_others(dir.path()), open.then_some(mode), "{mode:o}");
    }
    assert_eq!(mode_open_to_others(&dir.path().join("none")), None);
}

#[cfg(target_os = "linux")]
#[test]
fn the_place_of_mapped_bytes_is_that_in_their_file() {
    // The program itself is mapped, and so is this constant.
    static HERE: [u8; 4] = *b"here";
    let place = mapped_at(&HERE).unwrap();
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(&program[place as usize..][..4], b"here");
    assert_eq!(mapped_at(&HERE[1..]), Some(place + 1));
}
