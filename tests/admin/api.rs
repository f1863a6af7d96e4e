//! The administration API of the real binary: the list of streams, and keys that work at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::{Client, Reply};
use crate::process::Process;

pub(crate) const OPEN: &str =
    "listen: ['127.0.0.1:0']\nadmin: {listen: '127.0.0.1:0'}\nlog: {format: json}\n";

pub(crate) async fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    fields: &str,
    body: &str,
) -> Reply {
    let mut client = Client::connect(to).await;
    let length = body.len();
    client
        .send(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    client.reply().await
}

/// An administrator's request.
pub(crate) struct Api {
    pub(crate) admin: SocketAddr,
    pub(crate) fields: String,
}

impl Api {
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let fields = format!("Content-Type: application/json\r\n{}", self.fields);
        let reply = send(self.admin, method, &format!("/admin/v1{path}"), &fields, &text).await;
        (reply.status, serde_json::from_str(&reply.text()).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, value) = self.ask("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }
}

pub(crate) async fn put(streams: SocketAddr, path: &str, fields: &str) {
    let fields = format!("Content-Type: text/plain\r\n{fields}");
    let reply = send(streams, "PUT", &format!("/v1/stream/{path}"), &fields, "hello").await;
    assert_eq!(reply.status, 201, "{path}: {}", reply.text());
}

pub(crate) fn paths(page: &Value) -> Vec<String> {
    let streams = page["streams"].as_array().unwrap().iter();
    streams.map(|one| one["path"].as_str().unwrap().to_owned()).collect()
}

/// Both stores; the folder of the durable one is kept by its guard.
pub(crate) fn configs() -> Vec<(String, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    let durable = format!("{OPEN}data_dir: {}\n", folder.path().display());
    vec![(OPEN.to_owned(), None), (durable, Some(folder))]
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_listed_by_prefix_and_in_pages() {
    for (config, _folder) in configs() {
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        for number in 0..25 {
            put(streams, &format!("chat/{number:02}"), "").await;
        }
        put(streams, "chat", "Stream-TTL: 60\r\n").await;
        put(streams, "other/x", "Stream-Closed: true\r\n").await;

        let page = api.get("/streams?prefix=chat/&limit=10").await;
        assert_eq!(paths(&page), (0..10).map(|n| format!("chat/{n:02}")).collect::<Vec<_>>());
        let mut seen = paths(&page);
        let mut cursor = page["cursor"].as_str().map(str::to_owned);
        while let Some(at) = cursor {
            // Streams that come and go between the pages move no other from its page.
            put(streams, &format!("chat/{:02}-new", seen.len()), "").await;
            send(streams, "DELETE", &format!("/v1/stream/{}", seen[0]), "", "").await;
            let page = api.get(&format!("/streams?prefix=chat/&limit=10&cursor={at}")).await;
            seen.extend(paths(&page));
            cursor = page["cursor"].as_str().map(str::to_owned);
        }
        let original: BTreeSet<String> = (0..25).map(|n| format!("chat/{n:02}")).collect();
        let listed: Vec<_> = seen.iter().filter(|path| original.contains(*path)).collect();
        assert_eq!(listed.len(), 25, "each once: {seen:?}");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>().len(), 25);

        let page = api.get("/streams?prefix=chat&limit=1").await;
        let first = &page["streams"][0];
        assert_eq!((&first["path"], &first["ttl_seconds"]), (&json!("chat"), &json!(60)));
        let other = api.get("/streams/other/x").await;
        assert_eq!(
            (&other["position"], &other["closed"], &other["content_type"]),
            (&json!(5), &json!(true), &json!("text/plain"))
        );
        assert_eq!(api.ask("DELETE", "/streams/other/x", Value::Null).await.0, 204);
        assert_eq!(api.ask("GET", "/streams/other/x", Value::Null).await.0, 404);
        assert_eq!(paths(&api.get("/streams?prefix=other").await), Vec::<String>::new());
        let all = api.get("/streams?limit=1000").await;
        assert_eq!(all["cursor"], Value::Null);
        assert!(paths(&all).is_sorted());
        assert_eq!(
            all["streams"].as_array().unwrap().len() as u64,
            api.get("/status").await["streams"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lives_on_for_its_forks_is_shown_on_request() {
    let server = Process::run(OPEN).await;
    let (streams, admin) = server.addresses();
    let api = Api { admin, fields: String::new() };
    put(streams, "source", "").await;
    put(streams, "fork", "Stream-Forked-From: /v1/stream/source\r\n").await;
    assert_eq!(send(streams, "DELETE", "/v1/stream/source", "", "").await.status, 204);
    assert_eq!(paths(&api.get("/streams").await), ["fork"]);
    let all = api.get("/streams?deleted=true").await;
    assert_eq!(paths(&all), ["fork", "source"]);
    assert_eq!(all["streams"][0]["forked_from"]["path"], "source");
    assert_eq!(all["streams"][1]["soft_deleted"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_say_what_to_change() {
    let server = Process::run(OPEN).await;
    let (_, admin) = server.addresses();
    let api = Api { admin, fields: String::new() };
    for (method, path, status, code) in [
        ("GET", "/streams?limit=0", 400, "bad-limit"),
        ("GET", "/streams?limit=1001", 400, "bad-limit"),
        ("GET", "/streams?cursor=%00", 400, "bad-cursor"),
        ("GET", "/streams?order=size", 400, "unknown-parameter"),
        ("GET", "/streams?sort=name", 400, "bad-sort"),
        ("GET", "/streams?sort=size&delimiter=/", 400, "bad-sort"),
        ("GET", "/streams?delimiter=", 400, "bad-delimiter"),
        ("GET", "/streams?idle_since=yesterday", 400, "bad-time"),
        ("GET", "/streams?larger_than=-1", 400, "bad-size"),
        ("GET", "/tail/a?last=0", 400, "bad-last"),
        ("GET", "/producers/none", 404, "not-found"),
        ("GET", "/subscriptions/none", 404, "not-found"),
        ("GET", "/subscriptions?cursor=YQ", 400, "bad-cursor"),
        ("GET", "/streams?tenant=a/b", 400, "bad-tenant"),
        ("GET", "/streams/none", 404, "not-found"),
        ("GET", "/streams/%5F_ds/t/a/x", 400, "bad-path"),
        ("PUT", "/streams", 405, "method-not-allowed"),
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/keys", 409, "no-credentials-file"),
    ] {
        let (got, value) = api.ask(method, path, Value::Null).await;
        assert_eq!((got, &value["code"]), (status, &json!(code)), "{method} {path}: {value}");
    }
    let plain = send(admin, "POST", "/admin/v1/tokens", "Content-Type: text/plain\r\n", "{}").await;
    assert_eq!((plain.status, plain.code().as_str()), (415, "unsupported-media-type"));
    let large = format!("\"{}\"", "x".repeat(17 << 10));
    let fields = "Content-Type: application/json\r\n";
    let large = send(admin, "POST", "/admin/v1/tokens", fields, &large).await;
    assert_eq!((large.status, large.code().as_str()), (413, "body-too-large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_host_cannot_drive_it() {
    let server = Process::run(OPEN).await;
    let (streams, admin) = server.addresses();
    put(streams, "a", "").await;
    for fields in ["Origin: https://evil.example\r\n", "Origin: null\r\n"] {
        let reply = send(admin, "DELETE", "/admin/v1/streams/a", fields, "").await;
        assert_eq!(reply.status, 403, "{fields}");
    }
    let mut client = Client::connect(admin).await;
    client.send("GET /admin/v1/streams HTTP/1.1\r\nHost: rebound.example\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 403);
    let mine = send(admin, "DELETE", "/admin/v1/streams/a", "Origin: http://localhost\r\n", "");
    assert_eq!(mine.await.status, 204);
}

/// The real binary with access control, and a key that administers.
pub(crate) async fn protected(folder: &std::path::Path) -> (Process, Api) {
    protected_with(folder, "").await
}

pub(crate) async fn protected_with(folder: &std::path::Path, auth: &str) -> (Process, Api) {
    let file = folder.join("credentials.json");
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_durable-streams-server"))
        .args(["key", "create", "--name", "operator", "--allow", "administer", "--credentials"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap();
    let config = format!("{OPEN}auth: {{credentials: {}{auth}}}\n", file.display());
    let server = Process::run(&config).await;
    let (_, admin) = server.addresses();
    (server, Api { admin, fields: format!("Authorization: Bearer {}\r\n", key.trim()) })
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_administer_everything_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, api) = protected(folder.path()).await;
    let grants =
        |operations: &[&str], paths: &str| json!([{ "allow": operations, "paths": [paths] }]);
    let nobody = Api { admin: api.admin, fields: String::new() };
    assert_eq!(nobody.ask("GET", "/streams", Value::Null).await.0, 401);
    for (name, body) in [
        ("application", json!({ "name": "a", "grants": grants(&["all"], "**") })),
        ("narrow", json!({ "name": "n", "grants": grants(&["administer"], "a/**") })),
    ] {
        let (status, made) = api.ask("POST", "/keys", body).await;
        assert_eq!(status, 201, "{name}: {made}");
        let key = made["key"].as_str().unwrap();
        let other = Api { admin: api.admin, fields: format!("Authorization: Bearer {key}\r\n") };
        for (method, path) in
            [("GET", "/streams"), ("GET", "/keys"), ("POST", "/keys"), ("GET", "")]
        {
            let (status, value) = other.ask(method, path, Value::Null).await;
            assert_eq!(
                (status, &value["code"]),
                (403, &json!("not-allowed")),
                "{name}: {method} {path}"
            );
        }
    }
    // Health stays open.
    assert_eq!(send(api.admin, "GET", "/healthz", "", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_projects_and_urls_made_here_work_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (server, api) = protected(folder.path()).await;
    let (streams, _) = server.addresses();
    let all = json!([{ "allow": ["all"], "paths": ["**"] }]);
    let (_, made) = api.ask("POST", "/keys", json!({ "name": "app", "grants": all })).await;
    let key = format!("Authorization: Bearer {}\r\n", made["key"].as_str().unwrap());
    put(streams, "p/x", &key).await;
    assert_eq!(api.ask("DELETE", "/keys/app", Value::Null).await.0, 204);
    assert_eq!(send(streams, "GET", "/v1/stream/p/x", &key, "").await.status, 401, "revoked");
    let listed = api.get("/keys").await;
    assert!(listed["keys"].as_array().unwrap().iter().any(|one| one["revoked"].is_string()));
    assert!(!listed.to_string().contains("dsk_"), "no key is shown again");

    assert_eq!(api.ask("POST", "/projects", json!({ "name": "p" })).await.0, 201);
    assert_eq!(api.ask("POST", "/projects", json!({ "name": "p" })).await.0, 409, "it exists");
    let body = json!({ "project": "p", "scope": "read", "expires_in": 60 });
    let (_, token) = api.ask("POST", "/tokens", body).await;
    let token = format!("Authorization: Bearer {}\r\n", token["token"].as_str().unwrap());
    assert_eq!(send(streams, "GET", "/v1/stream/p/x", &token, "").await.status, 200);
    let (status, rotated) =
        api.ask("POST", "/projects/p/rotate", json!({ "drop_older": true })).await;
    assert!(status == 201 && rotated["secret"].as_str().unwrap().starts_with("dsp_"), "{rotated}");
    assert_eq!(send(streams, "GET", "/v1/stream/p/x", &token, "").await.status, 401, "dropped");
    assert_eq!(api.ask("DELETE", "/projects/p", Value::Null).await.0, 204);

    let (_, signer) = api.ask("POST", "/url-keys", json!({ "name": "links", "grants": all })).await;
    let id = signer["id"].as_str().unwrap();
    let (_, url) = api.ask("POST", "/signed-urls", json!({ "key": id, "path": "p/x" })).await;
    let target = format!("/v1/stream/p/x?{}", url["query"].as_str().unwrap());
    assert_eq!(send(streams, "GET", &target, "", "").await.status, 200);
    assert_eq!(api.ask("DELETE", &format!("/url-keys/{id}"), Value::Null).await.0, 204);
    assert_eq!(send(streams, "GET", &target, "", "").await.status, 401, "with its key");
    assert!(server.logged("administration").is_some(), "changes are logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_names_what_quotas_bound() {
    let folder = tempfile::tempdir().unwrap();
    let quotas =
        ", quotas: {tenants: [{name: acme, streams: 7}], paths: [{prefix: scratch, bytes: 1KiB}]}";
    let (server, api) = protected_with(folder.path(), quotas).await;
    let (streams, _) = server.addresses();
    let grants = json!([{ "allow": ["all"], "paths": ["**"] }]);
    for (name, tenant) in [("acme", json!("acme")), ("app", Value::Null)] {
        let body = json!({ "name": name, "tenant": tenant, "grants": grants });
        let (_, made) = api.ask("POST", "/keys", body).await;
        let key = format!("Authorization: Bearer {}\r\n", made["key"].as_str().unwrap());
        put(streams, "scratch/x", &key).await;
    }
    let usage = api.get("/usage").await;
    assert_eq!((&usage["streams"], &usage["bytes"]), (&json!(2), &json!(10)), "{usage}");
    let of = |name: &str| {
        let scopes = usage["scopes"].as_array().unwrap().iter();
        let mut found = scopes.filter(|one| one["name"].as_str().unwrap().contains(name));
        found.next().cloned().unwrap_or_else(|| panic!("no {name} in {usage}"))
    };
    let (acme, scratch) = (of("acme"), of("scratch"));
    assert_eq!((&acme["streams"], &acme["limits"]["streams"]), (&json!(1), &json!(7)));
    assert_eq!((&scratch["bytes"], &scratch["limits"]["bytes"]), (&json!(5), &json!(1024)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_streams_are_listed_by_its_own_paths() {
    let folder = tempfile::tempdir().unwrap();
    let (server, api) = protected(folder.path()).await;
    let (streams, _) = server.addresses();
    for tenant in ["acme", "acme2"] {
        let grants = json!([{ "allow": ["all"], "paths": ["**"] }]);
        let body = json!({ "name": tenant, "tenant": tenant, "grants": grants });
        let (_, made) = api.ask("POST", "/keys", body).await;
        let key = format!("Authorization: Bearer {}\r\n", made["key"].as_str().unwrap());
        put(streams, &format!("of-{tenant}"), &key).await;
    }
    let all = api.get("/streams").await;
    assert_eq!(paths(&all), ["of-acme", "of-acme2"]);
    assert_eq!(all["streams"][1]["tenant"], "acme2");
    assert_eq!(paths(&api.get("/streams?tenant=acme").await), ["of-acme"]);
    assert_eq!(api.get("/streams/of-acme?tenant=acme").await["tenant"], "acme");
    assert_eq!(api.ask("GET", "/streams/of-acme?tenant=acme2", Value::Null).await.0, 404);
}
