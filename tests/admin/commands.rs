//! The commands on a running server.

use std::process::Command;

use serde_json::Value;

use crate::api::{Api, configs, protected, put};
use crate::process::Process;

/// Exit code, standard output and standard error of a command on the server at `admin`.
fn command(admin: std::net::SocketAddr, arguments: &[&str]) -> (i32, String, String) {
    command_in(&[], &format!("http://{admin}"), arguments)
}

/// The same with these variables in its environment, for the admin listener at a URL.
fn command_in(
    environment: &[(&str, &str)],
    admin: &str,
    arguments: &[&str],
) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durable-streams-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STREAMS_") {
            command.env_remove(name);
        }
    }
    command.envs(environment.iter().copied());
    let seen = command.args(arguments).args(["--admin", admin]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (seen.status.code().unwrap(), text(seen.stdout), text(seen.stderr))
}

/// The lines of a command that succeeds, as JSON.
fn lines(admin: std::net::SocketAddr, arguments: &[&str]) -> Vec<Value> {
    let (code, out, error) = command(admin, arguments);
    assert_eq!(code, 0, "{arguments:?}: {error}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_is_listed_and_described_in_a_pipe() {
    for (config, _folder) in configs() {
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        for path in ["a/1", "a/2", "b"] {
            put(streams, path, "").await;
        }
        let paths = |seen: Vec<Value>| {
            seen.iter().map(|one| one["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(paths(lines(admin, &["streams"])), ["a/1", "a/2", "b"]);
        assert_eq!(paths(lines(admin, &["streams", "a/", "--json"])), ["a/1", "a/2"]);
        assert_eq!(paths(lines(admin, &["streams", "--limit", "1"])), ["a/1"]);
        assert_eq!(
            paths(lines(admin, &["streams", "--limit", "0", "--sort", "last-used"])).len(),
            3
        );
        assert_eq!(lines(admin, &["status"])[0]["streams"], 3);
        assert_eq!(lines(admin, &["usage"])[0]["bytes"], 15);
        assert_eq!(lines(admin, &["usage", "a/"])[0]["streams"], 2);
        assert_eq!(lines(admin, &["subscriptions"]), Vec::<Value>::new());
        let (code, _, error) = command(admin, &["subscriptions", "none", "--do", "pause"]);
        assert_eq!(code, 3, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_paused_resumed_and_deleted() {
    let server = Process::run(crate::api::OPEN).await;
    let (streams, admin) = server.addresses();
    let json_type = "Content-Type: application/json\r\n";
    crate::api::send(streams, "PUT", "/v1/stream/wakes", json_type, "").await;
    let body = r#"{"type":"pull-wake","pattern":"a/**","wake_stream":"wakes"}"#;
    let path = "/v1/stream/__ds/subscriptions/of%20mine";
    assert_eq!(crate::api::send(streams, "PUT", path, json_type, body).await.status, 201);
    for (action, state) in [("pause", "paused"), ("resume", "idle"), ("retry", "idle")] {
        let seen = lines(admin, &["subscriptions", "of mine", "--do", action]);
        assert_eq!(seen[0]["state"], state, "{action}");
    }
    assert_eq!(lines(admin, &["subscriptions"])[0]["id"], "of mine");
    assert_eq!(command(admin, &["subscriptions", "of mine", "--do", "delete"]).0, 0);
    assert_eq!(lines(admin, &["subscriptions"]).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_sent_and_a_refusal_has_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let (server, api) = protected(folder.path()).await;
    let (_, admin) = server.addresses();
    let Api { fields, .. } = &api;
    let key = fields.trim().strip_prefix("Authorization: Bearer ").unwrap();
    assert_eq!(command(admin, &["streams"]).0, 4, "without a key");
    assert_eq!(command(admin, &["streams", "--token", "wrong"]).0, 4);
    assert_eq!(command(admin, &["streams", "--token", key]).0, 0);
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    assert_eq!(command(admin, &["status", "--token-file", file.to_str().unwrap()]).0, 0);
    let closed = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let (code, _, error) = command(closed, &["status"]);
    assert_eq!(code, 6, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_takes_the_key_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let (server, api) = protected(folder.path()).await;
    let url = format!("http://{}", server.addresses().1);
    let key = api.fields.trim().strip_prefix("Authorization: Bearer ").unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let file = file.to_str().unwrap();
    for name in ["list", "streams", "usage", "status", "subscriptions"] {
        for (environment, code) in [
            (&[("STREAMS_ADMIN_TOKEN", key)][..], 0),
            (&[("STREAMS_ADMIN_TOKEN_FILE", file)], 0),
            (&[("STREAMS_TOKEN", key)], 0),
            (&[("STREAMS_TOKEN_FILE", file)], 0),
            // The key for the administration comes before one for streams.
            (&[("STREAMS_ADMIN_TOKEN", key), ("STREAMS_TOKEN", "of-an-application")], 0),
            (&[("STREAMS_ADMIN_TOKEN", "wrong"), ("STREAMS_TOKEN", key)], 4),
            (&[("STREAMS_ADMIN_TOKEN", ""), ("STREAMS_TOKEN", key)], 0),
            (&[], 4),
        ] {
            let (seen, _, error) = command_in(environment, &url, &[name]);
            assert_eq!(seen, code, "{name} with {environment:?}: {error}");
        }
        let option = if name == "list" { "--admin-token" } else { "--token" };
        let wrong = [("STREAMS_ADMIN_TOKEN", "wrong")];
        assert_eq!(command_in(&wrong, &url, &[name, option, key]).0, 0, "{name} {option}");
    }
}

/// Behind a proxy with TLS whose certificate the system does not trust.
#[tokio::test(flavor = "multi_thread")]
async fn authorities_of_a_file_are_trusted() {
    let server = Process::run(crate::api::OPEN).await;
    let (streams, admin) = server.addresses();
    put(streams, "a/1", "").await;
    let folder = tempfile::tempdir().unwrap();
    let proxy = Process::run(&format!(
        "listen: [{{address: '127.0.0.1:0', tls: internal}}]\nadmin: {{listen: '127.0.0.1:0'}}\nlog: {{format: json}}\n\
         data_dir: {}\nroute: /own\nupstreams: [{{servers: ['http://{admin}']}}]\n",
        folder.path().join("data").display()
    ))
    .await;
    let root = Command::new(env!("CARGO_BIN_EXE_durable-streams-server"))
        .args(["tls-root", "--config"])
        .arg(proxy.config())
        .output()
        .unwrap();
    let file = folder.path().join("root.pem");
    std::fs::write(&file, root.stdout).unwrap();
    let file = file.to_str().unwrap();
    let url = format!("https://localhost:{}", proxy.addresses().0.port());
    for name in ["list", "streams", "usage", "status", "subscriptions"] {
        let (code, _, error) = command_in(&[], &url, &[name]);
        assert_eq!(code, 6, "{name} trusts what it does not know: {error}");
        let (code, out, error) = command_in(&[], &url, &[name, "--cacert", file]);
        assert_eq!(code, 0, "{name}: {error}");
        assert!(name == "subscriptions" || !out.is_empty(), "{name}");
    }
    let to = tempfile::tempdir().unwrap();
    let other = Process::run(crate::api::OPEN).await;
    let (from, copy) = (format!("http://{streams}/v1/stream"), other.addresses());
    let target = format!("http://{}/v1/stream", copy.0);
    let maps = to.path().to_str().unwrap();
    let arguments = ["copy", &from, &target, "--prefix", "a/", "--map", maps, "--cacert", file];
    let (code, _, error) = command_in(&[], &url, &arguments);
    assert_eq!(code, 0, "{error}");
    let api = Api { admin: copy.1, fields: String::new() };
    assert_eq!(api.get("/streams/a/1").await["position"], 5);
}
