//! Directories that cannot be served: each is refused with exit code 1 and a message that says what to do,
//! and left as it was.

use std::fs;

use crate::{
    disk_full::Appender,
    server::{SMALL, Setup},
};

#[test]
fn a_second_process_is_told_that_the_directory_is_in_use() {
    let setup = Setup::new(SMALL);
    let server = setup.start();
    let mut stream = Appender::create(&mut server.client(), "locked");
    let log = setup.refused();
    assert!(log.contains("is in use by another process"), "{log}");
    assert!(log.contains(&*setup.data.to_string_lossy()), "names the directory: {log}");
    stream.until_accepted(&mut server.client());
    stream.check(&mut server.client());
}

#[test]
fn the_lock_of_a_killed_process_is_free() {
    let setup = Setup::new(SMALL);
    for _ in 0..3 {
        setup.start().kill();
    }
    setup.start();
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let setup = Setup::new(SMALL);
    fs::write(&setup.data, "precious").unwrap();
    let log = setup.refused();
    assert!(log.contains(&*setup.data.to_string_lossy()), "names the path: {log}");
    assert_eq!(fs::read_to_string(&setup.data).unwrap(), "precious");
}

#[test]
fn a_directory_with_something_else_in_it_is_refused() {
    let setup = Setup::new(SMALL);
    fs::create_dir(&setup.data).unwrap();
    fs::write(setup.data.join("thesis.txt"), "precious").unwrap();
    let log = setup.refused();
    assert!(log.contains("is not empty") && log.contains("thesis.txt"), "{log}");
    assert!(!setup.data.join("VERSION").exists(), "nothing was begun in it");
    assert_eq!(fs::read_to_string(setup.data.join("thesis.txt")).unwrap(), "precious");
}

/// `tls-root` and `rotate-keys` make keys before the first start.
#[test]
fn a_directory_with_keys_alone_becomes_a_data_directory() {
    let setup = Setup::new(SMALL);
    fs::create_dir_all(setup.data.join("keys")).unwrap();
    fs::write(setup.data.join("keys/root.pem"), "precious").unwrap();
    drop(setup.start());
    assert_eq!(fs::read_to_string(setup.data.join("keys/root.pem")).unwrap(), "precious");
}

#[test]
fn another_format_is_refused_and_named() {
    let setup = Setup::new(SMALL);
    let server = setup.start();
    let mut stream = Appender::create(&mut server.client(), "format");
    stream.until_accepted(&mut server.client());
    drop(server);
    let version = setup.data.join("VERSION");
    let ours = fs::read_to_string(&version).unwrap();
    let (prefix, number) = ours.trim_end().rsplit_once(' ').unwrap();
    let newer = number.parse::<u64>().unwrap() + 1;

    fs::write(&version, format!("{prefix} {newer}\n")).unwrap();
    let log = setup.refused();
    assert!(log.contains(&format!("holds data of format {newer}")), "{log}");
    fs::write(&version, "16\n").unwrap();
    let log = setup.refused();
    assert!(log.contains("did not write"), "{log}");

    fs::write(&version, ours).unwrap();
    stream.check(&mut setup.start().client());
}
