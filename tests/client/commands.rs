//! The commands on streams, as scripts use them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{
    scene::{PATIENCE, Scene},
    server::Setup,
};

fn command(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durable-streams-server"));
    command.args(arguments).env("STREAMS_URL", url).stdin(Stdio::null());
    for name in ["STREAMS_TOKEN", "STREAMS_TOKEN_FILE", "STREAMS_TO_TOKEN"] {
        command.env_remove(name);
    }
    command
}

fn output(url: &str, arguments: &[&str]) -> Output {
    command(url, arguments).output().expect("the binary runs")
}

/// What a command that succeeds and says nothing on standard error prints.
pub(crate) fn printed(url: &str, arguments: &[&str]) -> String {
    let output = output(url, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code of a command that fails and prints nothing to standard output.
pub(crate) fn code(url: &str, arguments: &[&str]) -> i32 {
    let output = output(url, arguments);
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}: {output:?}");
    output.status.code().unwrap()
}

fn fed(url: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(url, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// A command that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_stream_from_create_to_delete() {
    let scene = Scene::start();
    let url = &scene.url();
    assert_eq!(printed(url, &["create", "a/b", "--type", "text/plain", "--ttl", "1h"]), "");
    assert_eq!(fed(url, &["append", "a/b"], b"one\ntwo\n").status.code(), Some(0));
    let offset = printed(url, &["append", "a/b", "--data", "three\n", "--print-offset"]);
    assert_eq!(printed(url, &["read", "a/b"]), "one\ntwo\nthree\n");
    assert_eq!(printed(url, &["read", "a/b", "--last", "2"]), "two\nthree\n");
    assert_eq!(printed(url, &["read", "a/b", "--from", "now"]), "");
    assert_eq!(printed(url, &["read", &format!("{url}/a/b"), "--last", "1"]), "three\n");
    let head = printed(url, &["head", "a/b"]);
    assert!(
        head.contains("content_type: text/plain\n") && head.contains("ttl_seconds: 3600\n"),
        "{head}"
    );
    let head: serde_json::Value =
        serde_json::from_str(&printed(url, &["head", "a/b", "--json"])).unwrap();
    assert_eq!((&head["offset"], &head["closed"]), (&offset.trim().into(), &false.into()));
    assert_eq!(printed(url, &["close", "a/b"]), "");
    assert_eq!(printed(url, &["follow", "a/b", "--last", "1"]), "three\n", "it ends, being closed");
    assert_eq!(code(url, &["append", "a/b", "--data", "x"]), 5, "it is closed");
    assert_eq!(code(url, &["create", "a/b"]), 5, "it exists with another type");
    assert_eq!(printed(url, &["delete", "a/b"]), "");
    for arguments in [
        &["read", "a/b"][..],
        &["head", "a/b"],
        &["delete", "a/b"],
        &["append", "a/b", "--data", "x"],
    ] {
        assert_eq!(code(url, arguments), 3, "{arguments:?}");
    }
    assert_eq!(code(url, &["read", "a/b", "--from", "last week"]), 2);
    assert_eq!(code("http://127.0.0.1:9/v1/stream", &["head", "a", "--patience", "100ms"]), 6);
}

#[test]
fn json_messages_are_lines() {
    let scene = Scene::start();
    let url = &scene.url();
    printed(url, &["create", "j", "--json"]);
    let appended = fed(url, &["append", "j", "--close"], b"{\"a\":1}\n[2]\n\n\"x\"");
    assert!(appended.status.success(), "{appended:?}");
    assert_eq!(printed(url, &["read", "j"]), "{\"a\":1}\n[2]\n\"x\"\n");
    assert_eq!(printed(url, &["read", "j", "--last", "1"]), "\"x\"\n");
    let batch: serde_json::Value =
        serde_json::from_str(&printed(url, &["read", "j", "--json"])).unwrap();
    assert_eq!(batch["messages"], serde_json::json!([{"a": 1}, [2], "x"]));
    printed(url, &["create", "k", "--json"]);
    assert!(fed(url, &["append", "k", "--input", "lines"], b"a \"b\"\r\n{\n").status.success());
    assert_eq!(printed(url, &["read", "k"]), "\"a \\\"b\\\"\"\n\"{\"\n");
    let refused = fed(url, &["append", "k"], b"1\n{\n2\n");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(printed(url, &["read", "k"]).ends_with("\n1\n"), "what came before it is appended");
}

#[test]
fn the_same_input_with_the_same_epoch_is_appended_once() {
    let scene = Scene::start();
    let url = &scene.url();
    let input: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    let append = ["append", "s", "--create", "text/plain", "--producer-id", "job", "--epoch", "3"];
    for _ in 0..2 {
        assert!(fed(url, &append, input.as_bytes()).status.success());
    }
    assert!(printed(url, &["read", "s"]) == input);
    let newer = ["append", "s", "--producer-id", "job", "--data", "end\n"];
    printed(url, &newer);
    assert_eq!(
        code(url, &["append", "s", "--producer-id", "job", "--epoch", "3", "--data", "x"]),
        5,
        "fenced"
    );
    assert_eq!(printed(url, &["read", "s", "--last", "1"]), "end\n");
}

#[test]
fn bytes_pass_unchanged() {
    let scene = Scene::start();
    let url = &scene.url();
    let data: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    printed(url, &["create", "bytes"]);
    assert!(fed(url, &["append", "bytes"], &data).status.success());
    assert!(output(url, &["read", "bytes"]).stdout == data);
    let described = printed(url, &["read", "bytes", "--json"]);
    assert!(
        described.lines().all(|line| line.contains("\"base64\":") || line.contains("\"text\":"))
    );
    // A reader of the pipe that leaves is no failure.
    let mut child = command(url, &["read", "bytes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_token_comes_from_a_flag_the_environment_or_a_file() {
    let setup = Setup::new("");
    let credentials = setup.path().join("credentials.yaml");
    let make = ["key", "create", "--name", "t", "--allow", "all", "--credentials"];
    let made = Command::new(env!("CARGO_BIN_EXE_durable-streams-server"))
        .args(make)
        .arg(&credentials)
        .output();
    let key = String::from_utf8(made.unwrap().stdout).unwrap().trim().to_owned();
    let file = setup.path().join("token");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let scene = Scene::with(&format!("auth: {{credentials: {credentials:?}}}\n"));
    let url = &scene.url();
    assert_eq!(code(url, &["create", "a"]), 4);
    printed(url, &["create", "a", "--token", &key]);
    printed(url, &["head", "a", "--token-file", file.to_str().unwrap()]);
    printed(url, &["head", "a", "-H", &format!("authorization: Bearer {key}")]);
    let by_environment = command(url, &["head", "a"]).env("STREAMS_TOKEN", &key).output().unwrap();
    assert!(by_environment.status.success());
    let help = command(url, &["head", "--help"]).env("STREAMS_TOKEN", &key).output().unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains(&key), "help shows no token");
}

#[test]
fn follow_survives_a_restart_of_the_server() {
    let setup = Setup::new("");
    let mut server = setup.start();
    // The address must stay: another start takes the same port.
    let address = server.address.to_string();
    let url = format!("http://{address}/v1/stream");
    printed(&url, &["create", "f", "--json"]);
    printed(&url, &["append", "f", "--data", "0"]);
    let mut follow = command(&url, &["follow", "f"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut follow = Running(follow);
    assert_eq!(lines.next().unwrap().unwrap(), "0");
    let config = setup.path().join("server.yaml");
    let text = std::fs::read_to_string(&config).unwrap().replace("127.0.0.1:0", &address);
    std::fs::write(&config, text).unwrap();
    for number in 1..3 {
        server.kill();
        drop(server);
        server = setup.start();
        printed(&url, &["append", "f", "--data", &number.to_string()]);
        assert_eq!(lines.next().unwrap().unwrap(), number.to_string());
    }
    printed(&url, &["close", "f"]);
    assert!(lines.next().is_none());
    assert!(follow.0.wait().unwrap().success());
    drop(server);
}

#[test]
fn what_is_typed_is_followed_at_once() {
    let scene = Scene::start();
    let url = &scene.url();
    printed(url, &["create", "typed", "--type", "text/plain"]);
    let mut append =
        Running(command(url, &["append", "typed"]).stdin(Stdio::piped()).spawn().unwrap());
    let mut follow =
        Running(command(url, &["follow", "typed"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut out = follow.0.stdout.take().unwrap();
    let mut keyboard = append.0.stdin.take().unwrap();
    for word in ["hello\n", "world\n"] {
        let began = Instant::now();
        keyboard.write_all(word.as_bytes()).unwrap();
        let mut seen = vec![0; word.len()];
        out.read_exact(&mut seen).unwrap();
        assert_eq!(seen, word.as_bytes());
        assert!(began.elapsed() < PATIENCE);
    }
    drop(keyboard);
    assert!(append.0.wait().unwrap().success());
}

/// Every prefix of a copy's work, and its kill at any moment, leads to the same copy.
#[test]
fn a_copy_is_resumed_and_complete() {
    let (source, target) = (Scene::start(), Scene::with("limits: {max_read: 64KiB}\n"));
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (source.url(), target.url());
    for (path, kind, input) in [
        (
            "json",
            "application/json",
            (0..3000).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>(),
        ),
        ("text", "text/plain", (0..90_000).map(|n| format!("line {n}\r\n")).collect()),
        ("bytes", "application/octet-stream", (0..90_000).map(|n| format!("{n:x}")).collect()),
    ] {
        let map = directory.path().join(path);
        let (from_url, to_url) = (format!("{from}/{path}"), format!("{to}/{path}"));
        assert!(fed(&from, &["append", path, "--create", kind], input.as_bytes()).status.success());
        let copy = ["copy", &from_url, &to_url, "--map", map.to_str().unwrap()];
        for _ in 0..6 {
            let mut child = Running(command(&from, &copy).spawn().unwrap());
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..120)));
            let _ = child.0.kill();
            let _ = child.0.wait();
        }
        printed(&from, &copy);
        let copied = |url: &str| printed(url, &["read", path]);
        assert!(copied(&to) == copied(&from), "{path}");
        let more = fed(&from, &["append", path, "--close"], b"7\n");
        assert!(more.status.success(), "{more:?}");
        printed(&from, &copy);
        printed(&from, &copy);
        assert!(copied(&to) == copied(&from), "{path}: what came later");
        assert!(printed(&to, &["head", path]).contains("closed: true"), "closure is carried");
        check_map(&map, &from_url);
        let other = ["copy", &from_url, &to_url];
        assert_eq!(code(&from, &other), 5, "without its map it is another copy");
    }
}

/// Every offset of the copy that a map names is one that its server returned.
fn check_map(map: &Path, from: &str) {
    let text = std::fs::read_to_string(map).unwrap();
    assert!(text.lines().next().unwrap().contains(from));
    let done: Vec<&str> = text.lines().filter(|line| line.starts_with('=')).collect();
    assert!(!done.is_empty(), "{text}");
    for (number, line) in done.iter().enumerate() {
        assert!(line.starts_with(&format!("=\t{number}\t")), "{line}");
    }
}

#[test]
fn a_list_of_streams_is_copied_with_what_they_expire_by() {
    let scene = Scene::start();
    let url = &scene.url();
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("list");
    std::fs::write(&list, "old/a\n\nold/b\n").unwrap();
    printed(url, &["create", "old/a", "--json", "--ttl", "2h", "--data", "[1,2]"]);
    printed(url, &["create", "old/b", "--closed", "--expires-at", "2090-01-01T00:00:00Z"]);
    let maps = directory.path().to_str().unwrap();
    printed(
        url,
        &["copy", url, &format!("{url}/new"), "--list", list.to_str().unwrap(), "--map", maps],
    );
    assert_eq!(printed(url, &["read", "new/old/a"]), "1\n2\n");
    assert!(printed(url, &["head", "new/old/a"]).contains("ttl_seconds: 7200"));
    let head = printed(url, &["head", "new/old/b"]);
    assert!(
        head.contains("closed: true") && head.contains("expires_at: 2090-01-01T00:00:00Z"),
        "{head}"
    );
    let refused = output(url, &["copy", &format!("{url}/old/a"), &format!("{url}/new/old/a")]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("give the --map"), "{refused:?}");
}

/// A copied append is one event: one or more whole appends of the source.
#[test]
fn a_copy_cuts_no_append() {
    let scene = Scene::start();
    let url = &scene.url();
    let directory = tempfile::tempdir().unwrap();
    let map = directory.path().join("map");
    printed(url, &["create", "whole"]);
    let ends: Vec<String> = [40_000, 30_000, 50_000, 20_000, 45_000, 60_000]
        .iter()
        .map(|size| {
            let data = "x".repeat(*size);
            let append = ["append", "whole", "--data", &data, "--print-offset"];
            printed(url, &append).trim().to_owned()
        })
        .collect();
    let (from, to) = (format!("{url}/whole"), format!("{url}/copy"));
    printed(url, &["copy", &from, &to, "--map", map.to_str().unwrap()]);
    let map = std::fs::read_to_string(map).unwrap();
    let appends: Vec<&str> = map.lines().filter(|line| line.starts_with('=')).collect();
    assert!(appends.len() > 1, "{map}");
    for append in appends {
        let position = append.split('\t').nth(2).unwrap();
        assert!(ends.iter().any(|end| end == position), "{append} ends within an append\n{map}");
    }
}

/// A server with an administration API, and its URL.
fn administered() -> (Scene, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let scene = Scene::with(&format!("admin: {{listen: \"127.0.0.1:{port}\"}}\n"));
    (scene, format!("http://127.0.0.1:{port}"))
}

#[test]
fn streams_are_listed_and_copied_by_prefix() {
    let (source, admin) = administered();
    let target = Scene::start();
    let (url, to) = (&source.url(), &target.url());
    for (path, data) in [("chat/1", "one"), ("chat/b ä?", "two"), ("other", "three")] {
        printed(url, &["create", path, "--type", "text/plain", "--data", data]);
    }
    printed(url, &["close", "chat/1"]);
    assert_eq!(printed(url, &["list", "--admin", &admin]), "chat/1\nchat/b ä?\nother\n");
    let listed = printed(url, &["list", "chat/", "--json", "--admin", &admin]);
    let streams: Vec<serde_json::Value> =
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(streams.len(), 2);
    assert_eq!((&streams[0]["closed"], &streams[1]["position"]), (&true.into(), &3.into()));
    assert_eq!(printed(url, &["list", "none/", "--admin", &admin]), "");
    assert_eq!(code(url, &["list", "--admin", url]), 3, "the API is elsewhere");
    assert_eq!(code(url, &["list", "--admin", "http://127.0.0.1:9"]), 6);

    let maps = tempfile::tempdir().unwrap();
    let maps = maps.path().to_str().unwrap();
    let copy = ["copy", url, to, "--prefix", "chat/", "--admin", &admin, "--map", maps];
    printed(url, &copy);
    printed(url, &["append", "chat/b ä?", "--data", "more"]);
    printed(url, &copy);
    assert_eq!(printed(to, &["read", "chat/b ä?"]), "twomore", "the second run goes on");
    assert!(printed(to, &["head", "chat/1"]).contains("closed: true"));
    assert_eq!(code(to, &["head", "other"]), 3);
    let paths = printed(url, &["list", "other", "--admin", &admin]);
    assert!(fed(url, &["copy", url, to, "--list", "-"], paths.as_bytes()).status.success());
    assert_eq!(printed(to, &["read", "other"]), "three");
}

#[test]
fn a_signed_url_is_read_and_followed() {
    let setup = Setup::new("");
    let credentials = setup.path().join("credentials.yaml");
    let keep = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_durable-streams-server"));
        let output = command.args(arguments).arg("--credentials").arg(&credentials).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
    };
    let key = keep(&["key", "create", "--name", "t", "--allow", "all"]);
    let signer = keep(&["url-key", "create", "--name", "links", "--allow", "read"]);
    let signer = signer.split(' ').next().unwrap();
    let query = keep(&["sign", "signed", "--key", signer]);
    let scene = Scene::with(&format!("auth: {{credentials: {credentials:?}}}\n"));
    let url = &scene.url();
    printed(url, &["create", "signed", "--json", "--data", "[1]", "--closed", "--token", &key]);
    assert_eq!(code(url, &["read", "signed"]), 4);
    let place = format!("{url}/signed?{query}");
    for command in ["read", "follow"] {
        assert_eq!(printed(url, &[command, &place]), "1\n", "{query}");
    }
    let head = printed(url, &["head", &place]);
    assert!(!head.contains(&query), "the signature is shown nowhere: {head}");
}
