//! Requests by prefix and by tenant.

use serde_json::{Value, json};

use crate::api::{Api, OPEN, configs, protected_with, put, send};
use crate::harness::eventually;
use crate::process::Process;

/// The usage once all requests have ended, which is after their responses: when `total`, as it is counted last, is this.
async fn usage_with(api: &Api, path: &str, total: impl Fn(&Value) -> Value, count: u64) -> Value {
    eventually(&format!("{count} requests are counted in {path}"), || async {
        total(&api.get(path).await) == count
    })
    .await;
    api.get(path).await
}

fn scope<'u>(usage: &'u Value, name: &str) -> &'u Value {
    let scopes = usage["scopes"].as_array().unwrap();
    let found = scopes.iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {usage}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_prefix() {
    for (config, _folder) in configs() {
        let counted = "telemetry: {usage: {prefixes: [chat, chat/rooms, other]}}\n";
        let server = Process::run(&format!("{config}{counted}")).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        for path in ["chat/1", "chat/rooms/1", "chatter"] {
            put(streams, path, "").await;
        }
        let text = "Content-Type: text/plain\r\n";
        for body in ["12345678", "x"] {
            let reply = send(streams, "POST", "/v1/stream/chat/rooms/1", text, body).await;
            assert_eq!(reply.status, 204);
        }
        assert_eq!(send(streams, "GET", "/v1/stream/chat/1?offset=-1", "", "").await.status, 200);
        assert_eq!(send(streams, "GET", "/v1/stream/chat/no?offset=-1", "", "").await.status, 404);
        // Through the admin listener it is the same stream.
        let data = "/admin/v1/data/chat/1?offset=-1";
        assert_eq!(send(admin, "GET", data, "", "").await.text(), "hello");

        let of_chat = |usage: &Value| scope(usage, "path:chat")["requests"]["total"].clone();
        let usage = usage_with(&api, "/usage", of_chat, 7).await;
        let chat = &scope(&usage, "path:chat")["requests"];
        assert_eq!(
            (&chat["appends"], &chat["reads"], &chat["others"], &chat["total"], &chat["refused"]),
            (&json!(2), &json!(3), &json!(2), &json!(7), &json!(1)),
            "{usage}"
        );
        assert_eq!(chat["bytes_in"], 5 + 5 + 8 + 1);
        let rooms = &scope(&usage, "path:chat/rooms")["requests"];
        assert_eq!((&rooms["appends"], &rooms["total"]), (&json!(2), &json!(3)), "{usage}");
        assert_eq!(scope(&usage, "path:other")["requests"]["total"], 0);
        assert_eq!(scope(&usage, "path:other")["streams"], Value::Null, "it has no quota");
        assert_eq!(
            (&usage["requests"]["total"], &usage["other_tenants"]),
            (&json!(8), &Value::Null)
        );

        for (prefix, requests) in
            [("chat", json!(7)), ("chat/rooms/", json!(3)), ("cha", Value::Null)]
        {
            let below = api.get(&format!("/usage?prefix={prefix}")).await;
            assert_eq!(below["requests"]["total"], requests, "{below}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_tenant_and_the_rest_together() {
    let folder = tempfile::tempdir().unwrap();
    let counted = ", quotas: {tenants: [{name: a, streams: 9}]}}\ntelemetry: {usage: {prefixes: [s], tenants: 2}";
    let (server, api) = protected_with(folder.path(), counted).await;
    let (streams, _) = server.addresses();
    let mut own = None;
    for (tenant, requests) in [("a", 1), ("b", 3), ("c", 4), ("d", 1)] {
        let grants = json!([{ "allow": ["all", "administer"], "paths": ["**"] }]);
        let body = json!({ "name": tenant, "tenant": tenant, "grants": grants });
        let (_, made) = api.ask("POST", "/keys", body).await;
        let fields = format!("Authorization: Bearer {}\r\n", made["key"].as_str().unwrap());
        for number in 0..requests {
            put(streams, &format!("s/{number}"), &fields).await;
        }
        own = Some(Api { admin: api.admin, fields });
    }
    let of_others = |usage: &Value| usage["other_tenants"]["total"].clone();
    let usage = usage_with(&api, "/usage", of_others, 5).await;
    assert_eq!(scope(&usage, "tenant:a")["requests"]["total"], 1, "{usage}");
    assert_eq!(scope(&usage, "tenant:a")["streams"], 1, "beside what its quota counts");
    assert_eq!(scope(&usage, "tenant:b")["requests"]["total"], 3);
    assert_eq!(usage["scopes"].as_array().unwrap().len(), 3, "two tenants and a prefix: {usage}");
    assert_eq!(scope(&usage, "path:s")["requests"]["total"], 0, "those are no tenant's");
    assert_eq!(api.get("/usage?tenant=b").await["requests"]["bytes_in"], 15);
    // A tenant that is not counted by itself sees nothing of the others.
    let d = own.unwrap().get("/usage").await;
    assert_eq!(
        (&d["streams"], &d["requests"], &d["other_tenants"]),
        (&json!(1), &Value::Null, &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_no_prefix_and_no_tenant_is_counted() {
    let server = Process::run(OPEN).await;
    let (streams, admin) = server.addresses();
    let api = Api { admin, fields: String::new() };
    put(streams, "chat/1", "").await;
    let of_all = |usage: &Value| usage["requests"]["total"].clone();
    let usage = usage_with(&api, "/usage", of_all, 1).await;
    assert_eq!((&usage["scopes"], &usage["other_tenants"]), (&json!([]), &Value::Null));
    assert_eq!(api.get("/usage?prefix=chat").await["requests"], Value::Null);
}
