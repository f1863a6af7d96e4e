//! Credentials from the command line, and a server that takes them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Scene, binary, finish};

const CONFIG: &str = "listen: [\"127.0.0.1:0\"]\nauth: {credentials: credentials.json}\n";

/// A command of this program on the scene's configuration; its standard output, one line.
fn made(scene: &Scene, arguments: &[&str]) -> String {
    let seen = finish(command(scene).args(arguments).args(["--config", "streams.yaml"]));
    assert_eq!(seen.code, 0, "{arguments:?}: {}", seen.stderr);
    seen.stdout.trim().to_owned()
}

fn command(scene: &Scene) -> Command {
    let mut command = binary();
    command.current_dir(folder(scene));
    command
}

fn folder(scene: &Scene) -> std::path::PathBuf {
    scene.file().parent().map(Path::to_owned).expect("a folder")
}

/// A running server; ended when dropped.
pub(crate) struct Running {
    child: Child,
    address: String,
}

impl Running {
    pub(crate) fn start(scene: &Scene) -> Self {
        let mut child = command(scene)
            .args(["run", "--config", "streams.yaml", "--log-format", "json"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let address = lines
            .find_map(|line| {
                let line = line.ok()?;
                let (_, rest) = line.split_once("addresses")?;
                let at = rest.find("127.0.0.1:")?;
                let end = rest[at..].find([']', ',', '"', '\\'])?;
                Some(rest[at..at + end].to_owned())
            })
            .expect("the log names the address");
        std::thread::spawn(move || lines.for_each(drop));
        Running { child, address }
    }

    /// The status of one request.
    pub(crate) fn status(&self, method: &str, path: &str, token: &str) -> u16 {
        let reply = self.reply(method, path, token);
        reply.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    /// The whole reply to one request.
    pub(crate) fn reply(&self, method: &str, path: &str, token: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).expect("it listens");
        let auth = if token.is_empty() {
            String::new()
        } else {
            format!("authorization: Bearer {token}\r\n")
        };
        let request = format!(
            "{method} /v1/stream/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{auth}content-type: text/plain\r\ncontent-length: 0\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("sent");
        let mut reply = String::new();
        socket.read_to_string(&mut reply).expect("a reply");
        reply
    }

    fn eventually(&self, path: &str, token: &str, status: u16) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.status("GET", path, token) != status {
            assert!(Instant::now() < deadline, "{path} never answers {status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn credentials_are_made_used_and_withdrawn_while_the_server_runs() {
    let scene = Scene::with(CONFIG);
    let root = made(&scene, &["key", "create", "--name", "root", "--allow", "all"]);
    let server = Running::start(&scene);
    assert_eq!(server.status("PUT", "chat/a", ""), 401);
    assert_eq!(server.status("PUT", "chat/a", &root), 201);

    let made_later = ["key", "create", "--name", "reader", "--allow", "read", "--path", "chat/**"];
    let reader = made(&scene, &made_later);
    server.eventually("chat/a", &reader, 200);
    assert_eq!(server.status("GET", "other", &reader), 404);
    assert_eq!(server.status("DELETE", "chat/a", &reader), 403);
    made(&scene, &["key", "revoke", "reader"]);
    server.eventually("chat/a", &reader, 401);

    made(&scene, &["project", "create", "chat"]);
    let token = made(&scene, &["token", "issue", "--project", "chat", "--scope", "read"]);
    server.eventually("chat/a", &token, 200);
    made(&scene, &["project", "rotate", "chat", "--drop-older"]);
    server.eventually("chat/a", &token, 401);

    let url_key = ["url-key", "create", "--name", "site", "--allow", "read", "--path", "chat/*"];
    let url_key = made(&scene, &url_key);
    let (id, _) = url_key.split_once(' ').expect("id and secret");
    let query = made(&scene, &["sign", "--key", id, "chat/a"]);
    server.eventually(&format!("chat/a?{query}"), "", 200);
    assert_eq!(server.status("GET", &format!("chat/b?{query}"), ""), 401);
    made(&scene, &["url-key", "delete", id]);
    server.eventually(&format!("chat/a?{query}"), "", 401);

    let listed = made(&scene, &["key", "list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("read on chat/**") && listed.contains("revoked"), "{listed}");
    for secret in [&root, &reader] {
        let file = fs::read_to_string(folder(&scene).join("credentials.json")).expect("the file");
        assert!(!file.contains(&secret[16..48]), "no key is stored");
    }
}

#[test]
fn mistakes_are_said_and_change_nothing() {
    let scene = Scene::with(CONFIG);
    for (arguments, code, said) in [
        (&["key", "create", "--name", "x", "--allow", "reed"][..], 2, "is no operation"),
        (&["key", "create", "--name", "x", "--allow", "read", "--path", "a*"], 2, "whole segments"),
        (&["key", "create", "--name", "x", "--allow", "read", "--tenant", "a/b"], 2, "letters"),
        (&["key", "revoke", "nobody"], 1, "no key has this id or name"),
        (&["project", "create", "a/b"], 1, "letters"),
        (&["token", "issue", "--project", "x", "--scope", "read"], 1, "no project"),
        (&["sign", "--key", "x", "a/../b"], 2, "segment"),
    ] {
        let seen = finish(command(&scene).args(arguments).args(["--config", "streams.yaml"]));
        assert_eq!(seen.code, code, "{arguments:?}: {}", seen.stderr);
        assert!(seen.stderr.contains(said), "{arguments:?}: {}", seen.stderr);
    }
    assert!(!folder(&scene).join("credentials.json").exists());
    let without = Scene::with("listen: [\"127.0.0.1:0\"]\n");
    let seen = finish(command(&without).args(["key", "list", "--config", "streams.yaml"]));
    assert_eq!(seen.code, 1);
    assert!(seen.stderr.contains("no auth.credentials"), "{}", seen.stderr);
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused() {
    for (auth, said) in [
        ("{}", "lets nobody in"),
        ("{anonymous: [{paths: [a]}]}", "allows nothing"),
        ("{issuers: [{name: i, issuer: \"https://i\", allow: [read], paths: [a]}]}", "audience"),
        (
            "{issuers: [{name: i, issuer: \"https://i\", audience: [a], algorithms: [HS256], allow: [read], paths: [a]}]}",
            "secret_file",
        ),
        (
            "{issuers: [{name: i, issuer: \"https://i\", audience: [a], scope_claim: /s, paths: [a]}]}",
            "scopes",
        ),
        (
            "{issuers: [{name: i, issuer: \"https://i\", audience: [a], algorithms: [none], allow: [read], paths: [a]}]}",
            "algorithm",
        ),
        ("{client_certificates: [{dns: a.test, allow: [read], paths: [a]}]}", "no listener asks"),
        ("{client_certificates: [{allow: [read], paths: [a]}]}", "does not name certificates"),
        (
            "{client_certificates: [{dns: a, uri: b, allow: [read], paths: [a]}]}",
            "does not name certificates",
        ),
        ("{client_certificates: [{dns: \"*.*\", allow: [read], paths: [a]}]}", "one *"),
        ("{client_certificates: [{dns: a, allow: [read], paths: [\"{sub}\"]}]}", "{name}"),
        ("{client_certificates: [{dns: a, tenant: \"a/b\", allow: [read], paths: [a]}]}", "tenant"),
        ("{forward: {allow: [read], paths: [a]}}", "url"),
        ("{forward: {url: \"http://a/\", paths: [a]}}", "allow_header"),
        ("{forward: {url: \"http://a/\", allow: [read]}}", "paths_header"),
        (
            "{forward: {url: \"http://a/\", allow: [read], paths: [a], request_headers: [X-Forwarded-For]}}",
            "not taken from the client",
        ),
        (
            "{forward: {url: \"http://a/\", allow: [read], paths: [a]}, anonymous: [{allow: [read], paths: [a]}]}",
            "anonymous",
        ),
    ] {
        let seen = Scene::with(format!("auth: {auth}\n")).check(&[]);
        assert_eq!(seen.code, 1, "{auth}");
        assert!(seen.stderr.contains(said), "{auth}: {}", seen.stderr);
    }
}

#[test]
fn a_server_that_anybody_may_use_says_so() {
    for (config, warned) in [
        ("listen: [\"0.0.0.0:0\"]\n", true),
        ("listen: [\"127.0.0.1:0\"]\n", false),
        ("listen: [\"0.0.0.0:0\"]\nauth: {credentials: c.json}\n", false),
    ] {
        let scene = Scene::with(config);
        let mut child = command(&scene)
            .args(["run", "--config", "streams.yaml"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let mut seen = Vec::new();
        for line in lines.map_while(Result::ok) {
            let done = line.contains("listening");
            seen.push(line);
            if done {
                break;
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        let said = seen.iter().any(|line| line.contains("can read, write and delete every stream"));
        assert_eq!(said, warned, "{config}: {seen:?}");
    }
}
