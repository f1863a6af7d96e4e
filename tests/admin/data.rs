//! The data of streams on the admin listener: the protocol, without another origin.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Api, OPEN, configs, protected, put, send};
use crate::harness::Client;
use crate::process::Process;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_created_read_appended_closed_forked_and_deleted_on_one_origin() {
    for (config, _folder) in configs() {
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        let data = "/admin/v1/data/room/1%2F2";
        let text = "Content-Type: text/plain\r\n";
        let made = send(admin, "PUT", data, text, "one").await;
        assert_eq!(made.status, 201);
        assert_eq!(made.header("location"), Some("http://localhost/admin/v1/data/room/1/2"));
        assert_eq!(send(admin, "POST", data, text, "two").await.status, 204);
        let read = send(admin, "GET", &format!("{data}?offset=-1"), "", "").await;
        assert_eq!((read.status, read.text().as_str()), (200, "onetwo"));
        // It is the stream of the stream route.
        let other = send(streams, "GET", "/v1/stream/room/1/2?offset=-1", "", "").await;
        assert_eq!((other.text(), other.offset), ("onetwo".to_owned(), read.offset));
        let fork = "Stream-Forked-From: /admin/v1/data/room/1/2\r\n";
        assert_eq!(send(admin, "PUT", "/admin/v1/data/fork", fork, "").await.status, 201);
        let close = "Stream-Closed: true\r\n";
        assert_eq!(send(admin, "POST", data, close, "").await.status, 204);
        let head = send(admin, "GET", &format!("{data}?offset=now"), "", "").await;
        assert_eq!(head.header("stream-closed"), Some("true"));
        let refused = send(admin, "POST", data, text, "three").await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "stream-closed"));
        assert_eq!(send(admin, "DELETE", data, "", "").await.status, 204);
        let fork = send(admin, "GET", "/admin/v1/data/fork?offset=-1", "", "").await;
        assert_eq!(fork.text(), "onetwo");
        let nothing = send(admin, "GET", "/admin/v1/data/none?offset=-1", "", "").await;
        assert_eq!((nothing.status, nothing.code().as_str()), (404, "not-found"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_those_of_the_api_is_appended() {
    let server = Process::run(OPEN).await;
    let (_, admin) = server.addresses();
    let body = "x".repeat(3 << 20);
    let fields = "Content-Type: text/plain\r\n";
    assert_eq!(send(admin, "PUT", "/admin/v1/data/large", fields, &body).await.status, 201);
    let read = send(admin, "GET", "/admin/v1/data/large?offset=-1", "", "").await;
    assert!(read.text() == body[..read.body.len()] && !read.body.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_tail_delivers_at_once_and_outlives_the_other_requests() {
    let server = Process::run(OPEN).await;
    let (streams, admin) = server.addresses();
    put(streams, "a", "").await;
    let mut tail = Client::connect(admin).await;
    tail.send("GET /admin/v1/data/a?offset=-1&live=sse HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(tail.head().await.status, 200);
    tail.until(b"data:hello").await;
    let api = Api { admin, fields: String::new() };
    assert_eq!(api.get("/streams/a").await["live_readers"], 1);
    // Longer than the listener gives a request that is not for data.
    tokio::time::sleep(Duration::from_secs(27)).await;
    let fields = "Content-Type: text/plain\r\n";
    assert_eq!(send(admin, "POST", "/admin/v1/data/a", fields, "later").await.status, 204);
    tail.until(b"data:later").await;
    drop(tail);
    let mut poll = Client::connect(admin).await;
    let next = api.get("/streams/a").await["next_offset"].as_str().unwrap().to_owned();
    poll.send(format!(
        "GET /admin/v1/data/a?offset={next}&live=long-poll HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ))
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    put_more(admin, "last").await;
    assert_eq!(poll.reply().await.text(), "last");
}

async fn put_more(admin: std::net::SocketAddr, body: &str) {
    let fields = "Content-Type: text/plain\r\n";
    assert_eq!(send(admin, "POST", "/admin/v1/data/a", fields, body).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_needs_the_credentials_of_an_administrator() {
    let folder = tempfile::tempdir().unwrap();
    let (server, api) = protected(folder.path()).await;
    let (_, admin) = server.addresses();
    let grants = json!([{ "allow": ["all"], "paths": ["**"] }]);
    let (_, made) = api.ask("POST", "/keys", json!({ "name": "app", "grants": grants })).await;
    let application = format!("Authorization: Bearer {}\r\n", made["key"].as_str().unwrap());
    for (fields, status) in [("", 401), (&*application, 403), (&*api.fields, 201)] {
        let reply = send(admin, "PUT", "/admin/v1/data/a", fields, "").await;
        assert_eq!(reply.status, status, "{fields}");
    }
    // A page of another origin that has the browser send a cookie or a client certificate along.
    for other in ["Origin: https://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        let fields = format!("{}{other}", api.fields);
        let reply = send(admin, "POST", "/admin/v1/data/a", &fields, "x").await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "origin-not-allowed"), "{other}");
    }
    let own = format!("{}Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n", api.fields);
    let reply = send(admin, "GET", "/admin/v1/data/a?offset=-1", &own, "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

/// Another page of this machine has a host that the listener answers, and no credentials are asked for.
#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_a_page_of_another_local_origin_changes_nothing() {
    let server = Process::run(OPEN).await;
    let (streams, admin) = server.addresses();
    put(streams, "a", "").await;
    let level = r#"{"level": "debug"}"#;
    let job = r#"{"kind": "delete-prefix", "prefix": "a"}"#;
    let json_type = "Content-Type: application/json\r\n";
    let other_pages = [
        "Origin: http://localhost:3000\r\n",
        "Origin: http://127.0.0.1\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: cross-site\r\nOrigin: http://localhost\r\n",
    ];
    for (method, path, body) in [
        ("PUT", "/admin/v1/log-level", level),
        ("DELETE", "/admin/v1/log-level", ""),
        ("POST", "/admin/v1/reload", "{}"),
        ("POST", "/admin/v1/backups", r#"{"name": "x"}"#),
        ("POST", "/admin/v1/jobs", job),
        ("DELETE", "/admin/v1/jobs/1", ""),
        ("DELETE", "/admin/v1/streams/a", ""),
        ("POST", "/admin/v1/subscriptions/s/pause", "{}"),
        ("DELETE", "/admin/v1/subscriptions/s", ""),
        ("POST", "/admin/v1/keys", "{}"),
        ("PUT", "/admin/v1/data/a", ""),
        ("POST", "/admin/v1/data/a", "x"),
        ("DELETE", "/admin/v1/data/a", ""),
        ("GET", "/admin/v1/data/a?offset=-1", ""),
    ] {
        for other in other_pages {
            let fields = format!("{json_type}{other}");
            let reply = send(admin, method, path, &fields, body).await;
            assert_eq!(reply.status, 403, "{method} {path} from {other}: {}", reply.text());
            assert_eq!(reply.code(), "origin-not-allowed", "{method} {path} from {other}");
        }
    }
    let api = Api { admin, fields: String::new() };
    assert_eq!(api.get("/log-level").await["level"], "info");
    assert_eq!(api.get("/jobs").await["jobs"], json!([]));
    assert_eq!(api.get("/status").await["streams"], 1);
    // The page of this listener, and clients that are no browsers.
    for own in ["Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n", ""] {
        let fields = format!("{json_type}{own}");
        let reply = send(admin, "PUT", "/admin/v1/log-level", &fields, level).await;
        assert_eq!(reply.status, 200, "{own}: {}", reply.text());
    }
}

/// A revoked key ends the live tails that it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_tail_ends_with_its_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let (server, api) = protected(folder.path()).await;
    let (_, admin) = server.addresses();
    let grants = json!([{ "allow": ["administer"], "paths": ["**"] }]);
    let (_, made) = api.ask("POST", "/keys", json!({ "name": "second", "grants": grants })).await;
    let key = made["key"].as_str().unwrap();
    assert_eq!(send(admin, "PUT", "/admin/v1/data/a", &api.fields, "").await.status, 201);
    let mut tail = Client::connect(admin).await;
    tail.send(format!(
        "GET /admin/v1/data/a?offset=-1&live=sse HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"
    ))
    .await;
    assert_eq!(tail.head().await.status, 200);
    assert_eq!(api.ask("DELETE", "/keys/second", Value::Null).await.0, 204);
    tail.until(b"0\r\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_trimmed_and_its_expiry_changed_in_both_ways() {
    for (config, _folder) in configs() {
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        let text = "Content-Type: text/plain\r\n";
        assert_eq!(send(streams, "PUT", "/v1/stream/a", text, "one").await.status, 201);
        let shown = api.get("/streams/a").await;
        assert_eq!(shown["earliest_offset"], "0000000000000000_0000000000000000");
        assert_eq!((&shown["messages"], &shown["bytes"]), (&json!(1), &json!(3)));
        assert_eq!(shown["created"], shown["last_append"]);
        let end = shown["next_offset"].as_str().unwrap().to_owned();
        let trim = json!({ "trim_before": end, "ttl_seconds": 3600 });
        let (status, done) = api.ask("PATCH", "/streams/a", trim).await;
        assert_eq!((status, &done["earliest_offset"]), (200, &json!(end)));
        let shown = api.get("/streams/a").await;
        assert_eq!((&shown["messages"], &shown["bytes"]), (&json!(0), &json!(0)));
        assert_eq!((&shown["ttl_seconds"], &shown["earliest_offset"]), (&json!(3600), &json!(end)));
        let never = "Stream-Expires-At: never\r\n";
        assert_eq!(send(admin, "PATCH", "/admin/v1/data/a", never, "").await.status, 204);
        assert_eq!(api.get("/streams/a").await["ttl_seconds"], Value::Null);
        for (body, code) in [
            (json!({}), "empty-patch"),
            (json!({ "trim_before": "now" }), "bad-offset"),
            (json!({ "expires_at": "soon" }), "bad-time"),
            (json!({ "ttl_seconds": 1, "expires_at": "never" }), "two-expiries"),
            (json!({ "trim": 1 }), "bad-body"),
        ] {
            let (status, refused) = api.ask("PATCH", "/streams/a", body.clone()).await;
            assert_eq!((status, refused["code"].as_str()), (400, Some(code)), "{body}");
        }
        let past = json!({ "expires_at": "2001-01-31T12:00:00Z" });
        let (status, done) = api.ask("PATCH", "/streams/a", past).await;
        assert_eq!((status, &done["earliest_offset"]), (200, &Value::Null));
        assert_eq!(api.ask("PATCH", "/streams/a", json!({ "ttl_seconds": 1 })).await.0, 404);
    }
}
