//! A server whose data directory is lost, built again from the object store alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    server::{PATIENCE, SMALL, Server, Setup},
    support::{Outcome, binary, finish},
};

const STREAMS: usize = 12;

/// A server, and a directory for its objects.
fn tiered() -> (Setup, tempfile::TempDir) {
    let objects = tempfile::tempdir().unwrap();
    let url = url::Url::from_file_path(objects.path()).unwrap();
    let tier = format!("tier: {{url: \"{url}\", local: 0B, index_interval: 100ms}}\n");
    (Setup::new(&(SMALL.to_owned() + &tier)), objects)
}

fn command(setup: &Setup, name: &str, rest: &[&str]) -> Outcome {
    command_of(setup, &[name], rest)
}

fn command_of(setup: &Setup, names: &[&str], rest: &[&str]) -> Outcome {
    let config = setup.path().join("server.yaml");
    finish(binary().args(names).arg("--config").arg(config).args(rest))
}

fn manifests(objects: &Path) -> Vec<serde_json::Value> {
    let entries = fs::read_dir(objects.join("index")).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let json = paths.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    json.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
}

/// Waits for a copy that was begun after this.
fn wait_for_copy(server: &Server, objects: &Path) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let (now, began) = (u64::try_from(now.as_millis()).unwrap(), Instant::now());
    let (mut client, kind) = (server.client(), [("content-type", "text/plain")]);
    // One of the same millisecond may have begun before.
    while !manifests(objects).iter().any(|copy| copy["made_at"].as_u64().unwrap() > now) {
        assert!(began.elapsed() < 2 * PATIENCE, "no copy of the index: {}", server.log());
        // There is no copy while nothing happens.
        assert!(client.must("PUT", "waiting", &kind, b"").status < 300);
        assert_eq!(client.must("POST", "waiting", &kind, b".").status, 204);
        thread::sleep(Duration::from_millis(100));
    }
}

fn text(stream: usize, part: usize) -> String {
    format!("stream {stream}, part {part}; ").repeat(20 + 40 * stream)
}

fn write(server: &Server, parts: std::ops::Range<usize>) {
    let mut client = server.client();
    let kind = [("content-type", "text/plain")];
    for stream in 0..STREAMS {
        for part in parts.clone() {
            let (path, body) = (format!("s{stream}"), text(stream, part));
            if part == 0 {
                assert_eq!(client.must("PUT", &path, &kind, body.as_bytes()).status, 201);
            } else {
                assert_eq!(client.must("POST", &path, &kind, body.as_bytes()).status, 204);
            }
        }
    }
}

/// A server that was killed once the object store had a copy of its index, with four parts of each stream.
fn copied_and_killed() -> (Setup, tempfile::TempDir) {
    let (setup, objects) = tiered();
    let mut server = setup.start();
    write(&server, 0..4);
    wait_for_copy(&server, objects.path());
    server.kill();
    (setup, objects)
}

fn segments_in(objects: &Path) -> Vec<PathBuf> {
    let owners = fs::read_dir(objects.join("segments")).into_iter().flatten();
    let files = owners.flat_map(|owner| fs::read_dir(owner.unwrap().path()).unwrap());
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Every stream has these parts, whole and in order, and perhaps more.
fn check(server: &Server, parts: usize) {
    let mut client = server.client();
    for stream in 0..STREAMS {
        let reply = client.must("GET", &format!("s{stream}"), &[], b"");
        assert_eq!(reply.status, 200, "stream {stream}");
        let expected: String = (0..parts).map(|part| text(stream, part)).collect();
        let found = String::from_utf8(reply.body).unwrap();
        assert!(found.starts_with(&expected), "stream {stream} is not whole");
    }
}

#[test]
fn a_lost_directory_is_restored_from_the_object_store_and_served() {
    let (setup, objects) = tiered();
    let mut server = setup.start();
    write(&server, 0..4);
    wait_for_copy(&server, objects.path());
    let copied_before = 4;
    // Some of this may be in a later copy, each append whole or not at all.
    write(&server, 4..5);
    server.kill();
    drop(server);
    assert!(!segments_in(objects.path()).is_empty(), "some bytes are objects");
    fs::remove_dir_all(&setup.data).unwrap();

    // What a kill has left of a restore is begun again; anything else is in the way.
    fs::create_dir(&setup.data).unwrap();
    let thesis = setup.data.join("thesis.txt");
    fs::write(&thesis, "").unwrap();
    let said = command(&setup, "restore", &["--from-tier"]);
    assert!(said.code == 1 && said.stderr.contains("is not empty"), "{}", said.stderr);
    fs::remove_file(&thesis).unwrap();
    fs::write(setup.data.join("UNFINISHED"), "").unwrap();
    fs::create_dir(setup.data.join("store")).unwrap();
    fs::write(setup.data.join("store/data.mdb"), "half of it").unwrap();

    // Without a take-over the prefix stays with the server that has it.
    let said = command(&setup, "restore", &["--from-tier"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{}", said.stdout);
    assert!(said.stdout.contains("restored 13 streams with"), "{}", said.stdout);
    assert!(said.stdout.contains("tier take-over"), "{}", said.stdout);
    let again = command(&setup, "restore", &["--from-tier"]);
    assert!(again.code == 1 && again.stderr.contains("is not empty"), "{}", again.stderr);
    let whole = command(&setup, "verify", &["--cold"]);
    assert_eq!(whole.code, 0, "{}{}", whole.stdout, whole.stderr);
    let refusal = setup.refused();
    assert!(refusal.contains("tier take-over"), "{refusal}");
    let taken = command_of(&setup, &["tier", "take-over"], &[]);
    assert_eq!(taken.code, 0, "{}", taken.stderr);

    let mut server = setup.start();
    check(&server, copied_before);
    // It goes on as before, and can be lost again.
    let kind = [("content-type", "text/plain")];
    let reply = server.client().must("PUT", "new", &kind, b"after the disaster");
    assert_eq!(reply.status, 201);
    wait_for_copy(&server, objects.path());
    server.kill();
    drop(server);
    fs::remove_dir_all(&setup.data).unwrap();
    let said = command(&setup, "restore", &["--from-tier", "--take-over"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(!said.stdout.contains("tier take-over"), "{}", said.stdout);
    let server = setup.start();
    check(&server, copied_before);
    assert_eq!(server.client().must("GET", "new", &[], b"").body, b"after the disaster");
}

#[test]
fn what_the_object_store_lacks_is_said_and_a_read_of_it_fails() {
    let (setup, objects) = copied_and_killed();
    fs::remove_dir_all(&setup.data).unwrap();
    for path in segments_in(objects.path()) {
        fs::remove_file(path).unwrap();
    }
    let said = command(&setup, "restore", &["--from-tier", "--take-over"]);
    assert_eq!(said.code, 1, "{}", said.stdout);
    assert!(said.stderr.contains("but for what is listed"), "{}", said.stderr);
    for part in ["is missing", "not readable: stream ", "from position 0 to "] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    let damaged = command(&setup, "verify", &["--cold"]);
    assert!(damaged.code == 1 && damaged.stdout.contains("not readable"), "{}", damaged.stdout);
    let server = setup.start();
    let mut refused = 0;
    for stream in 0..STREAMS {
        let path = format!("s{stream}");
        let whole: String = (0..4).map(|part| text(stream, part)).collect();
        // A read that fails midway ends its connection.
        match server.client().ask("GET", &path, &[], b"") {
            Ok(reply) if reply.status == 200 => {
                assert!(reply.body.starts_with(whole.as_bytes()), "stream {stream} is short");
            }
            _ => refused += 1,
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_restore_that_was_killed_is_begun_again_and_of_two_at_once_one_wins() {
    let (setup, _objects) = copied_and_killed();
    let begin = || {
        let config = setup.path().join("server.yaml");
        let mut restore = binary();
        restore.args(["restore", "--from-tier", "--take-over", "--config"]).arg(config);
        restore.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let whole = || setup.data.join("VERSION").exists();
    let mut unfinished = 0;
    for killed_after in 0..10 {
        fs::remove_dir_all(&setup.data).unwrap();
        let mut restore = begin();
        thread::sleep(Duration::from_millis(5 * killed_after));
        restore.kill().unwrap();
        restore.wait().unwrap();
        if whole() {
            continue;
        }
        unfinished += usize::from(setup.data.exists());
        let said = command(&setup, "restore", &["--from-tier", "--take-over"]);
        assert_eq!(said.code, 0, "{killed_after}: {}{}", said.stdout, said.stderr);
    }
    println!("{unfinished} restores were killed in the midst of it");
    fs::remove_dir_all(&setup.data).unwrap();
    let ended = [begin(), begin()].map(|mut restore| restore.wait().unwrap().success());
    assert_eq!(ended.iter().filter(|ended| **ended).count(), 1, "{ended:?}");
    let said = command(&setup, "verify", &["--cold"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    check(&setup.start(), 4);
}

#[test]
fn an_object_store_without_a_copy_or_without_an_address_is_refused() {
    let (setup, objects) = tiered();
    let said = command(&setup, "restore", &["--from-tier"]);
    assert!(said.code == 1 && said.stderr.contains("has no whole copy"), "{}", said.stderr);
    assert!(!setup.data.exists(), "nothing is left");
    let name = "00000000000000000001-00000000000000000001";
    let said = command(&setup, "restore", &["--from-tier", "--copy", name]);
    assert!(said.code == 1, "{}", said.stdout);
    let said = command(&setup, "restore", &["--from-tier", "--copy", "newest"]);
    assert!(said.code == 2 && said.stderr.contains("no copy is called that"), "{}", said.stderr);
    drop(objects);
    let said = command(&setup, "restore", &["--from-tier"]);
    assert!(said.code == 1, "{}", said.stderr);
    let without = Setup::new(SMALL);
    for (name, rest) in [("restore", "--from-tier"), ("verify", "--cold"), ("repair", "--cold")] {
        let said = command(&without, name, &[rest]);
        assert!(said.code == 1 && said.stderr.contains("with `tier`"), "{name}: {}", said.stderr);
    }
}

#[test]
fn a_backup_needs_the_objects_or_contains_them() {
    let (setup, objects) = tiered();
    let server = setup.start();
    write(&server, 0..4);
    wait_for_copy(&server, objects.path());
    // Beside the running server.
    let (listing, whole) = (setup.path().join("listing"), setup.path().join("whole"));
    let said = command(&setup, "backup", &[listing.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("listed in"), "{}", said.stdout);
    assert!(listing.join("OBJECTS").exists());
    assert!(server.stop().status.success());
    let said = command(&setup, "backup", &["--include-cold", whole.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(!said.stdout.contains("listed in"), "{}", said.stdout);
    fs::remove_dir_all(&setup.data).unwrap();
    drop(objects);
    let restored = Setup::new(SMALL);
    let data = restored.data.to_str().unwrap();
    let restore = |from: &Path| finish(binary().args(["restore", "--data-dir", data]).arg(from));
    assert_eq!(restore(&whole).code, 0);
    check(&restored.start(), 4);
}
