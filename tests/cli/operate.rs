//! `backup`, `restore`, `verify`, `compact` and `repair` on directories that are good, damaged, in use, foreign.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    mount::SmallDisk,
    server::{SMALL, Server, Setup},
    support::{Outcome, binary, finish},
};

/// A command and its data directory, and what else it takes.
fn on(data: &Path, command: &str, rest: &[&Path]) -> Outcome {
    finish(binary().arg(command).arg("--data-dir").arg(data).args(rest))
}

fn succeeds(data: &Path, command: &str, rest: &[&Path]) -> String {
    let seen = on(data, command, rest);
    assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{command}: {}", seen.stdout);
    assert_eq!(seen.stdout.lines().count(), 1, "{}", seen.stdout);
    seen.stdout
}

fn fails(data: &Path, command: &str, rest: &[&Path], parts: &[&str]) -> Outcome {
    let seen = on(data, command, rest);
    assert_eq!(seen.code, 1, "{command}: {}{}", seen.stdout, seen.stderr);
    for part in parts {
        let said = format!("{}{}", seen.stdout, seen.stderr);
        assert!(said.contains(part), "{command} does not say {part:?}:\n{said}");
    }
    seen
}

/// A server with two streams of a few events each.
fn served() -> (Setup, Server) {
    // Nothing is sealed: bytes are looked for in the index.
    let setup = Setup::new(&SMALL.replace("segments: {", "segments: {enabled: false, "));
    let server = setup.start();
    let mut client = server.client();
    for path in ["one", "two"] {
        let kind = [("content-type", "text/plain")];
        assert_eq!(client.must("PUT", path, &kind, b"the first bytes;").status, 201);
        for text in ["some more bytes;", "the last bytes;"] {
            assert_eq!(client.must("POST", path, &kind, text.as_bytes()).status, 204);
        }
    }
    (setup, server)
}

fn stopped() -> Setup {
    let (setup, server) = served();
    assert!(server.stop().status.success());
    setup
}

/// A worker that outlived the command would keep the lock of the directory.
#[cfg(target_os = "linux")]
#[test]
fn a_verify_that_is_killed_takes_its_worker_along() {
    use std::{io::Write, os::unix::fs::OpenOptionsExt, thread, time::Duration};

    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

    let scratch = tempfile::tempdir().unwrap();
    // A pipe: the command waits for what is written to it, and then its worker does.
    let config = scratch.path().join("streams.yaml");
    mknodat(CWD, &config, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut command = binary().arg("verify").arg("--config").arg(&config).spawn().unwrap();
    let id = command.id();
    fs::write(&config, "data_dir: ./data\n").unwrap();
    let within = |seconds: u32, done: &mut dyn FnMut() -> bool| {
        (0..seconds * 100).any(|_| {
            done() || {
                thread::sleep(Duration::from_millis(10));
                false
            }
        })
    };
    let children = format!("/proc/{id}/task/{id}/children");
    assert!(within(30, &mut || fs::read_to_string(&children).is_ok_and(|ids| !ids.is_empty())));
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    let open = || fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(&config).ok();
    let mut pipe = None;
    assert!(
        within(30, &mut || {
            pipe = open();
            pipe.is_some()
        }),
        "the worker reads, too"
    );

    command.kill().unwrap();
    command.wait().unwrap();
    let mut pipe = pipe.unwrap();
    assert!(within(30, &mut || pipe.write_all(b"#").is_err()), "the worker reads on");
}

/// A secret is text of its own: a flipped bit in it makes another secret, which no syntax betrays.
#[test]
fn a_damaged_key_file_is_found_and_said() {
    let setup = stopped();
    let file = setup.data.join("keys/subscriptions.json");
    let whole = fs::read(&file).unwrap();
    let seed = b"\"signing_seed\": \"";
    let at = whole.windows(seed.len()).position(|window| window == seed).unwrap() + seed.len();
    let mut damaged = whole.clone();
    damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
    let scratch = setup.data.parent().unwrap();
    let (good, bad, again) = (scratch.join("good"), scratch.join("bad"), scratch.join("again"));

    succeeds(&setup.data, "backup", &[&good]);
    fs::write(&file, &damaged).unwrap();
    let parts = ["subscriptions.json is damaged: its checksum is wrong; restore it"];
    fails(&setup.data, "verify", &[], &["there is damage", "1 problem found", parts[0]]);
    fails(&setup.data, "backup", &[&bad], &parts);
    fails(&again, "restore", &[&bad], &parts);
    assert!(setup.refused().contains(parts[0]));

    fs::copy(good.join("keys/subscriptions.json"), &file).unwrap();
    succeeds(&setup.data, "verify", &[]);
    assert_eq!(fs::read(&file).unwrap(), whole);
    drop(setup.start());
}

/// A data directory whose log has everything, because its server was killed before a checkpoint.
fn killed() -> Setup {
    let settings = "storage: {checkpoint_interval: 1h, wal_segment: 1MiB}\n\
                    limits: {max_append: 512KiB}\n";
    let setup = Setup::new(settings);
    let mut server = setup.start();
    let mut client = server.client();
    let kind = [("content-type", "text/plain")];
    for (method, path, text) in [
        ("PUT", "kept", "whole;"),
        ("POST", "kept", "damage me;"),
        ("PUT", "dropped", "1234567;"),
        ("POST", "kept", "unlucky;"),
    ] {
        assert!(client.must(method, path, &kind, text.as_bytes()).status < 300);
    }
    server.kill();
    setup
}

/// Puts `to` wherever `from` is in a file, current or left over.
fn change(path: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = fs::read(path).expect("readable");
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, from).collect();
    assert!(!places.is_empty(), "the bytes are there");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    fs::write(path, bytes).expect("writable");
}

/// The log segment that has some bytes.
fn segment_with(data: &Path, bytes: &[u8]) -> PathBuf {
    let files = fs::read_dir(data.join("wal")).expect("a log").map(|file| file.unwrap().path());
    let mut with = files.filter(|file| {
        file.extension().is_some_and(|ending| ending == "wal")
            && memchr::memmem::find(&fs::read(file).unwrap(), bytes).is_some()
    });
    with.next().expect("a segment has them")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

fn text_of(server: &Server, path: &str) -> String {
    let reply = server.client().must("GET", path, &[], b"");
    assert_eq!(reply.status, 200, "{path}");
    String::from_utf8(reply.body).expect("text")
}

const TEXT: &str = "the first bytes;some more bytes;the last bytes;";

#[test]
fn a_stopped_directory_is_backed_up_restored_and_served() {
    let setup = stopped();
    let backup = setup.path().join("backup");
    // What `tls: internal` and `tls: auto` keep there, and a file that is being written.
    let certificates = setup.data.join("keys/tls/acme/host");
    fs::create_dir_all(&certificates).unwrap();
    for (name, text) in [("../../root.key", "root"), ("key", "host"), ("key.new", "half")] {
        fs::write(certificates.join(name), text).unwrap();
    }
    let said = succeeds(&setup.data, "backup", &[&backup]);
    assert!(said.contains("2 streams with 94 B up to event 6"), "{said}");
    assert!(said.contains("every checksum matches"), "{said}");
    assert_eq!(fs::read(backup.join("keys/tls/root.key")).unwrap(), b"root");
    let copied = backup.join("keys/tls/acme/host");
    assert_eq!((mode(&copied), mode(&copied.join("key"))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&copied).unwrap().count(), 1, "what is half written is not copied");
    assert_eq!((mode(&backup), mode(&backup.join("keys"))), (0o700, 0o700));
    assert_eq!(mode(&backup.join("store/data.mdb")), 0o600);
    assert_eq!(mode(&backup.join("keys/subscriptions.json")), 0o600);

    let again = Setup::on(SMALL, &setup.path().join("restored"));
    let said = succeeds(&again.data, "restore", &[&backup]);
    assert!(said.contains("2 streams with 94 B up to event 6"), "{said}");
    let secrets = |data: &Path| fs::read(data.join("keys/subscriptions.json")).unwrap();
    assert_eq!(secrets(&again.data), secrets(&setup.data));
    let server = again.start();
    assert_eq!((text_of(&server, "one").as_str(), text_of(&server, "two").as_str()), (TEXT, TEXT));
}

#[test]
fn a_directory_whose_log_is_ahead_is_backed_up_without_being_changed() {
    let setup = killed();
    let read = |name: &str| fs::read(setup.data.join(name)).unwrap();
    let log = segment_with(&setup.data, b"damage me");
    let before = (read("store/data.mdb"), fs::read(&log).unwrap());
    let backup = setup.path().join("backup");
    let said = succeeds(&setup.data, "backup", &[&backup]);
    assert!(said.contains("up to event 4"), "{said}");
    assert!(before == (read("store/data.mdb"), fs::read(&log).unwrap()), "it was changed");
    let again = Setup::on(SMALL, &backup);
    assert_eq!(text_of(&again.start(), "kept"), "whole;damage me;unlucky;");
}

#[test]
fn the_configuration_may_name_the_directory() {
    let setup = stopped();
    let file = setup.path().join("server.yaml");
    let run = |environment: &[(&str, &Path)], arguments: &[&str]| {
        finish(binary().arg("verify").args(arguments).envs(environment.iter().copied()))
    };
    let file_text = file.to_str().expect("text");
    for seen in [
        run(&[], &["--config", file_text]),
        run(&[("DURABLE_STREAMS_CONFIG", &file)], &[]),
        run(&[("DURABLE_STREAMS_DATA_DIR", &setup.data)], &[]),
    ] {
        assert_eq!(seen.code, 0, "{}{}", seen.stdout, seen.stderr);
        assert!(seen.stdout.contains("checked 2 streams with 94 B"), "{}", seen.stdout);
    }
    let nothing = run(&[], &[]);
    assert_eq!(nothing.code, 2, "{}", nothing.stderr);
    assert!(nothing.stderr.contains("--data-dir"), "{}", nothing.stderr);
    fs::write(&file, "route: /s\n").expect("written");
    let memory = run(&[], &["--config", file_text]);
    assert_eq!(memory.code, 1);
    assert!(memory.stderr.contains("use --data-dir"), "{}", memory.stderr);
}

#[test]
fn a_directory_in_use_is_left_alone_and_its_process_named() {
    let (setup, mut server) = served();
    let pid = format!("(process {})", server.pid());
    let backup = setup.path().join("backup");
    for command in ["verify", "compact", "repair"] {
        fails(&setup.data, command, &[], &["in use by another process", &pid]);
    }
    let said = succeeds(&setup.data, "backup", &[&backup]);
    assert!(said.contains("2 streams with 94 B up to event 6"), "{said}");
    // Into the directory of a server, and from one.
    fails(&setup.data, "restore", &[&backup], &["is not empty", "nothing is overwritten"]);
    let other = setup.path().join("other");
    fails(&other, "restore", &[&setup.data], &["in use by another process", &pid]);
    assert!(!other.exists());
    let second = Setup::on(SMALL, &setup.data).refused();
    assert!(second.contains(&pid), "{second}");
    // Who is killed leaves the socket, and the next one takes its place.
    server.kill();
    assert!(setup.data.join("control").exists());
    let server = setup.start();
    succeeds(&setup.data, "backup", &[&setup.path().join("another")]);
    assert_eq!(mode(&setup.data.join("control")), 0o600);
    assert!(server.stop().status.success());
    assert!(!setup.data.join("control").exists());
}

#[test]
fn a_path_that_is_too_long_for_a_socket_costs_backups_beside_a_server_only() {
    let scene = tempfile::tempdir().expect("a directory");
    let setup = Setup::on(SMALL, &scene.path().join("d".repeat(120)));
    let server = setup.start();
    server.until_logged("no backups while the server runs");
    let to = scene.path().join("to");
    fails(&setup.data, "backup", &[&to], &["does not answer on", "shorter", "stop the process"]);
    assert!(server.stop().status.success());
    succeeds(&setup.data, "backup", &[&to]);
}

#[test]
fn a_lock_without_a_server_is_explained() {
    let setup = stopped();
    assert_eq!(fs::read(setup.data.join("LOCK")).unwrap(), b"", "nobody has it");
    let lock = fs::File::open(setup.data.join("LOCK")).expect("a lock");
    lock.lock().expect("locked");
    let to = setup.path().join("backup");
    fails(&setup.data, "backup", &[&to], &["does not answer on", "control", "try again"]);
    assert!(!to.exists(), "something is left");
}

#[test]
fn what_is_no_data_directory_is_refused_and_not_touched() {
    let scene = tempfile::tempdir().expect("a directory");
    let (foreign, to) = (scene.path().join("foreign"), scene.path().join("to"));
    fs::create_dir(&foreign).expect("made");
    fs::write(foreign.join("letter"), "dear").expect("written");
    for (data, parts) in [
        (&foreign, ["is not a data directory", "no VERSION file"]),
        (&scene.path().join("nowhere"), ["is not a data directory", "no VERSION file"]),
    ] {
        for command in ["verify", "compact", "repair"] {
            fails(data, command, &[], &parts);
        }
        fails(data, "backup", &[&to], &parts);
        fails(&to, "restore", &[data], &parts);
    }
    assert!(!to.exists());
    let refused = Setup::on(SMALL, &foreign).refused();
    assert!(refused.contains("is not empty"), "{refused}");
    let left: Vec<_> =
        fs::read_dir(&foreign).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["letter"]);

    fs::write(foreign.join("VERSION"), "durable-streams-server data, format 3\n").expect("written");
    let parts = ["holds data of format 3", "this version knows format 2", "use the version"];
    fails(&foreign, "verify", &[], &parts);
    fails(&to, "restore", &[&foreign], &parts);
    let refused = Setup::on(SMALL, &foreign).refused();
    assert!(refused.contains("use the version that wrote it"), "{refused}");
    fs::write(foreign.join("VERSION"), "17\n").expect("written");
    fails(&foreign, "verify", &[], &["this server did not write", "choose another"]);
}

#[test]
fn nothing_is_overwritten() {
    let setup = stopped();
    let to = setup.path().join("to");
    succeeds(&setup.data, "backup", &[&to]);
    let before = fs::read(to.join("store/data.mdb")).unwrap();
    fails(&setup.data, "backup", &[&to], &["is not empty", "nothing is overwritten"]);
    fails(&setup.data, "restore", &[&to], &["is not empty", "nothing is overwritten"]);
    assert_eq!(fs::read(to.join("store/data.mdb")).unwrap(), before);
    let missing = setup.path().join("no/such/parent");
    fails(&setup.data, "backup", &[&missing], &["cannot create", "no/such/parent"]);
    let empty = setup.path().join("empty");
    fs::create_dir(&empty).expect("made");
    succeeds(&empty, "restore", &[&to]);
}

#[test]
fn damage_in_the_index_is_named_and_never_backed_up() {
    let setup = stopped();
    let index = setup.data.join("store/data.mdb");
    let bytes = fs::read(&index).unwrap();
    // A record is four bytes of checksum and the text.
    let text = memchr::memmem::find_iter(&bytes, b"the first bytes;some more");
    let records: Vec<usize> = text.map(|at| at - 4).collect();
    change(&index, b"some more bytes;the", b"sOme");
    let parts = ["data.mdb is damaged", "(one) at position 0", "(two) at", "2 problems found"];
    let seen = fails(&setup.data, "verify", &[], &parts);
    if cfg!(target_os = "linux") {
        let said = seen.stdout.split(" at byte ").nth(1).and_then(|rest| rest.split(':').next());
        let said: usize = said.and_then(|said| said.parse().ok()).expect("a number");
        assert!(records.contains(&said), "{said} is none of {records:?}");
    }
    let to = setup.path().join("to");
    fails(&setup.data, "backup", &[&to], &["is damaged"]);
    assert!(!to.exists(), "something is left");
    fails(&setup.data, "restore", &[&setup.data], &["is not empty"]);
    fails(&to, "restore", &[&setup.data], &["is damaged"]);
    assert!(!to.exists(), "something is left");
    fs::remove_file(&index).expect("removed");
    for command in ["verify", "repair", "compact"] {
        fails(&setup.data, command, &[], &["the index is gone", "restore a backup"]);
    }
    assert!(!index.exists(), "an empty one was made");
}

#[test]
fn damage_in_the_index_is_weighed_dropped_and_left_out_of_backups() {
    let setup = stopped();
    let index = setup.data.join("store/data.mdb");
    let long = [b'l'; 20_000];
    let server = setup.start();
    let mut client = server.client();
    let kind = [("content-type", "text/plain")];
    assert_eq!(client.must("PUT", "long", &kind, b"whole;").status, 201);
    assert_eq!(client.must("POST", "long", &kind, &long).status, 204);
    assert!(server.stop().status.success());
    // A chunk of that size is full: what comes from here on is in another one.
    let server = setup.start();
    assert_eq!(server.client().must("POST", "long", &kind, b"also whole;").status, 204);
    assert!(server.stop().status.success());
    change(&index, &long[..1000], b"L");
    let before = fs::read(&index).unwrap();
    let server = setup.start();
    assert_eq!(server.client().must("GET", "long", &[], b"").status, 500);
    let (to, again) = (setup.path().join("to"), setup.path().join("again"));
    fails(&setup.data, "backup", &[&to], &["is damaged"]);
    let (without, path) = (Path::new("--without"), Path::new("long"));
    let left_out = |to: &Path| {
        let seen = on(&setup.data, "backup", &[to, without, path]);
        assert_eq!((seen.code, seen.stderr.as_str()), (0, ""));
        assert!(seen.stdout.contains("left out long (stream "), "{}", seen.stdout);
        assert!(seen.stdout.contains("backed up 2 streams with 94 B"), "{}", seen.stdout);
        succeeds(to, "verify", &[]);
    };
    left_out(&to);
    assert!(server.stop().status.success());
    left_out(&again);
    let unknown = [&setup.path().join("not"), without, Path::new("unknown")];
    fails(&setup.data, "backup", &unknown, &["has no stream unknown"]);
    assert_eq!(text_of(&Setup::on(SMALL, &to).start(), "one"), TEXT);

    let lost = "(long): the bytes from position 0 to 20006: 19.5 KiB";
    fails(&setup.data, "repair", &[], &[lost, "nothing was changed", "--apply"]);
    let seen = on(&setup.data, "repair", &[Path::new("--apply")]);
    assert_eq!((seen.code, seen.stderr.as_str()), (0, ""));
    assert!(seen.stdout.contains(lost), "{}", seen.stdout);
    let kept = fs::read(index.with_extension("dropped")).unwrap();
    assert_eq!(kept.len(), before.len(), "the old index is kept aside");
    succeeds(&setup.data, "verify", &[]);
    succeeds(&setup.data, "backup", &[&setup.path().join("whole")]);
    let server = setup.start();
    assert_eq!(text_of(&server, "long"), "also whole;");
    assert_eq!(text_of(&server, "one"), TEXT);
}

#[test]
fn an_index_that_lmdb_cannot_walk_is_a_finding_like_others() {
    let setup = stopped();
    let index = setup.data.join("store/data.mdb");
    let whole = fs::read(&index).unwrap();
    let mut rng = fastrand::Rng::with_seed(7);
    for round in 0..24 {
        let mut bytes = whole.clone();
        // Pages 0 and 1 say where the others begin; without them the file is refused at once.
        let pages = bytes.len() / 4096;
        let page = if round == 0 { 0 } else { rng.usize(2..pages) };
        rng.fill(&mut bytes[page * 4096..(page + 1) * 4096]);
        fs::write(&index, bytes).expect("written");
        let seen = on(&setup.data, "verify", &[]);
        // A page may be free, and then nothing is wrong.
        let clean = seen.code == 0 && seen.stdout.contains("all is well");
        let told = seen.code == 1 && seen.stderr.contains("restore a backup");
        assert!(clean || told, "round {round}: {} {}{}", seen.code, seen.stdout, seen.stderr);
        assert!(told || round > 0, "{}", seen.stdout);
    }
}

#[test]
fn damage_in_the_log_is_named_weighed_and_dropped_when_told_to() {
    let setup = killed();
    let log = segment_with(&setup.data, b"damage me");
    succeeds(&setup.data, "verify", &[]);
    succeeds(&setup.data, "repair", &[]);
    change(&log, b"damage me", b"D");
    let name = log.to_str().expect("text");
    let parts = [name, "event 2 (of stream ", "is missing or broken", "1 problem found"];
    fails(&setup.data, "verify", &[], &parts);
    let refused = setup.refused();
    assert!(refused.contains("is missing or broken"), "{refused}");
    let before = fs::read(&log).unwrap();
    let listed = [
        name,
        "every event from 2 on",
        "2 events up to 4 can be read still",
        "(dropped): 1 event with 8 B",
        "(kept): 1 event with 8 B",
        "nothing was changed",
        "--apply",
    ];
    fails(&setup.data, "repair", &[], &listed);
    assert!(fs::read(&log).unwrap() == before, "it was changed");

    let seen = on(&setup.data, "repair", &[Path::new("--apply")]);
    assert_eq!((seen.code, seen.stderr.as_str()), (0, ""));
    assert!(seen.stdout.contains("its last event is 1"), "{}", seen.stdout);
    assert!(fs::read(log.with_extension("dropped")).unwrap() == before, "kept aside");
    succeeds(&setup.data, "verify", &[]);
    let server = setup.start();
    assert_eq!(text_of(&server, "kept"), "whole;");
    assert_eq!(server.client().must("GET", "dropped", &[], b"").status, 404);
}

#[test]
fn a_second_repair_keeps_what_the_first_one_dropped() {
    let setup = killed();
    let log = segment_with(&setup.data, b"damage me");
    let mut kept = Vec::new();
    for (from, last) in [("1234567;", "its last event is 2"), ("whole;", "its last event is 0")] {
        change(&log, from.as_bytes(), b"#");
        kept.push(fs::read(&log).unwrap());
        let seen = on(&setup.data, "repair", &[Path::new("--apply")]);
        assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{}", seen.stdout);
        assert!(seen.stdout.contains(last), "{}", seen.stdout);
    }
    for (ending, kept) in ["dropped", "2.dropped"].iter().zip(kept) {
        assert!(fs::read(log.with_extension(ending)).unwrap() == kept, "{ending}");
    }
    assert_eq!(setup.start().client().must("GET", "kept", &[], b"").status, 404);
}

#[test]
fn a_log_that_is_gone_can_be_repaired() {
    let setup = stopped();
    fs::remove_dir_all(setup.data.join("wal")).expect("removed");
    fs::create_dir(setup.data.join("wal")).expect("made");
    fails(&setup.data, "verify", &[], &["the log is gone"]);
    fails(&setup.data, "repair", &[], &["the log is gone", "no whole event was found"]);
    let seen = on(&setup.data, "repair", &[Path::new("--apply")]);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    succeeds(&setup.data, "verify", &[]);
    assert_eq!(text_of(&setup.start(), "one"), TEXT);
}

#[test]
fn compact_gives_room_back_and_says_how_much() {
    let (setup, server) = served();
    let mut client = server.client();
    let kind = [("content-type", "text/plain")];
    for number in 0..16 {
        let path = format!("large{number}");
        assert_eq!(client.must("PUT", &path, &kind, &vec![b'x'; 500_000]).status, 201);
    }
    server.until_logged("listening");
    for number in 0..16 {
        assert_eq!(client.must("DELETE", &format!("large{number}"), &[], b"").status, 204);
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    assert!(server.stop().status.success());
    let index = setup.data.join("store/data.mdb");
    // What a compaction that was cut short leaves.
    fs::write(setup.data.join("store/data.new"), "half").expect("written");
    let before = fs::metadata(&index).unwrap().len();
    let said = succeeds(&setup.data, "compact", &[]);
    let after = fs::metadata(&index).unwrap().len();
    assert!(after < before / 2, "{before} to {after}");
    assert!(said.contains(&format!("({before} bytes)")), "{before}: {said}");
    assert!(said.contains(&format!("({after} bytes)")), "{after}: {said}");
    assert!(!setup.data.join("store/data.new").exists());
    succeeds(&setup.data, "verify", &[]);
    assert_eq!(text_of(&setup.start(), "two"), TEXT);
}

/// Also shows that it is the command that opens the destination: the server does not see that disk.
#[test]
fn a_full_destination_is_left_as_it_was() {
    let (setup, server) = served();
    let mut client = server.client();
    let kind = [("content-type", "text/plain")];
    for number in 0..8 {
        let path = format!("large{number}");
        assert_eq!(client.must("PUT", &path, &kind, &vec![b'x'; 500_000]).status, 201);
    }
    let Some(disk) = SmallDisk::mount("1m") else { return };
    let run = |disk: &SmallDisk, command: &str, data: &Path, other: &Path| {
        let prefix = disk.prefix();
        let mut line = std::process::Command::new(&prefix[0]);
        line.args(&prefix[1..]).arg(env!("CARGO_BIN_EXE_durable-streams-server"));
        finish(line.args([command, "--data-dir"]).arg(data).arg(other))
    };
    let to = disk.path.join("backup");
    let seen = run(&disk, "backup", &setup.data, &to);
    assert_eq!(seen.code, 1, "{}", seen.stdout);
    assert!(seen.stderr.contains("no space left in the backup"), "{}", seen.stderr);
    assert!(!disk.seen_from_here(&to).exists(), "something is left");
    assert_eq!(text_of(&server, "one"), TEXT);
    // The other way round: there is room, and the directory is restored from what cannot be written to.
    disk.remount("size=64m");
    let seen = run(&disk, "backup", &setup.data, &to);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    disk.remount("ro");
    let seen = run(&disk, "verify", &to, Path::new("--"));
    assert_eq!(seen.code, 1);
    assert!(seen.stderr.contains("mounted read-only"), "{}", seen.stderr);
    let again = setup.path().join("restored");
    let seen = run(&disk, "restore", &again, &to);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    assert_eq!(text_of(&Setup::on(SMALL, &again).start(), "two"), TEXT);
    // Without a server the command itself runs out of room.
    assert!(server.stop().status.success());
    let Some(small) = SmallDisk::mount("1m") else { return };
    let to = small.path.join("backup");
    let seen = run(&small, "backup", &setup.data, &to);
    assert_eq!(seen.code, 1, "{}", seen.stdout);
    assert!(seen.stderr.contains("no space left"), "{}", seen.stderr);
    assert!(!small.seen_from_here(&to).exists(), "something is left");
}
