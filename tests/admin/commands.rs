//! The commands on a running server.

use std::process::Command;

use serde_json::Value;

use crate::api::{Api, configs, protected, put};
use crate::process::Process;

/// Exit code, standard output and standard error of a command on the server at `admin`.
fn command(admin: std::net::SocketAddr, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durable-streams-server"));
    for name in ["STREAMS_TOKEN", "STREAMS_TOKEN_FILE", "STREAMS_ADMIN_URL"] {
        command.env_remove(name);
    }
    let url = format!("http://{admin}");
    let seen = command.args(arguments).args(["--admin", &url]).output().unwrap();
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
