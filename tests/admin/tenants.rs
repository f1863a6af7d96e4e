//! Administrators of a tenant: they see and steer what is their tenant's, and nothing else.

use serde_json::{Value, json};

use crate::api::{Api, paths, protected, put, send};

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_of_a_tenant_is_confined_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let (server, global) = protected(folder.path()).await;
    let (streams, admin) = server.addresses();
    let mut keys = Vec::new();
    for (name, tenant, operations) in [
        ("acme-app", "acme", ["all"]),
        ("acme-admin", "acme", ["administer"]),
        ("other-app", "other", ["all"]),
    ] {
        let grants = json!([{ "allow": operations, "paths": ["**"] }]);
        let body = json!({ "name": name, "tenant": tenant, "grants": grants });
        let (status, made) = global.ask("POST", "/keys", body).await;
        assert_eq!(status, 201, "{made}");
        keys.push(format!("Authorization: Bearer {}\r\n", made["key"].as_str().unwrap()));
    }
    put(streams, "mine", &keys[0]).await;
    put(streams, "theirs", &keys[2]).await;
    let json_type = |key: &str| format!("Content-Type: application/json\r\n{key}");
    for key in [&keys[0], &keys[2]] {
        send(streams, "PUT", "/v1/stream/wakes", &json_type(key), "").await;
        let pull = json!({ "type": "pull-wake", "pattern": "a/**", "wake_stream": "wakes" });
        let path = "/v1/stream/__ds/subscriptions/s";
        let made = send(streams, "PUT", path, &json_type(key), &pull.to_string()).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let own = Api { admin, fields: keys[1].clone() };
    let me = own.get("/me").await;
    assert_eq!((&me["tenant"], &me["global"]), (&json!("acme"), &json!(false)));
    assert_eq!(global.get("/me").await["global"], true);
    assert_eq!(paths(&own.get("/streams").await), ["mine", "wakes"]);
    assert_eq!(
        global.get("/tenants").await,
        json!({ "tenants": ["acme", "other"], "cursor": null })
    );
    let first = global.get("/tenants?limit=1").await;
    assert_eq!(first["tenants"], json!(["acme"]));
    let second = format!("/tenants?limit=1&cursor={}", first["cursor"].as_str().unwrap());
    assert_eq!(global.get(&second).await["tenants"], json!(["other"]));
    assert_eq!(own.get("/streams/mine").await["tenant"], "acme");
    assert_eq!(own.get("/usage").await["streams"], 2);
    let subscriptions = own.get("/subscriptions").await;
    assert_eq!(subscriptions["subscriptions"].as_array().unwrap().len(), 1);
    assert_eq!(own.get("/subscriptions/s").await["tenant"], "acme");
    let read = send(admin, "GET", "/admin/v1/data/mine?offset=-1", &own.fields, "").await;
    assert_eq!(read.text(), "hello");
    let fork = format!("{}Stream-Forked-From: /admin/v1/data/mine\r\n", own.fields);
    assert_eq!(send(admin, "PUT", "/admin/v1/data/fork", &fork, "").await.status, 201);
    for (method, path, body, status) in [
        ("GET", "/streams?tenant=acme", Value::Null, 200),
        ("GET", "/streams?tenant=other", Value::Null, 403),
        ("GET", "/streams/theirs", Value::Null, 404),
        ("GET", "/streams/theirs?tenant=other", Value::Null, 403),
        ("DELETE", "/streams/theirs?tenant=other", Value::Null, 403),
        ("GET", "/producers/theirs?tenant=other", Value::Null, 403),
        ("GET", "/tail/theirs?tenant=other", Value::Null, 403),
        ("GET", "/data/theirs?offset=-1", Value::Null, 404),
        ("GET", "/data/theirs?offset=-1&tenant=other", Value::Null, 403),
        ("GET", "/usage?tenant=other", Value::Null, 403),
        ("GET", "/subscriptions?tenant=other", Value::Null, 403),
        ("DELETE", "/subscriptions/s?tenant=other", Value::Null, 403),
        ("POST", "/subscriptions/s/pause?tenant=other", json!({}), 403),
        ("POST", "/subscriptions/s/pause", json!({}), 200),
        ("GET", "", Value::Null, 200),
        ("GET", "/openapi.json", Value::Null, 200),
        ("GET", "/status", Value::Null, 403),
        ("GET", "/tenants", Value::Null, 403),
        ("GET", "/overview", Value::Null, 403),
        ("GET", "/keys", Value::Null, 403),
        ("POST", "/keys", json!({ "name": "x", "grants": [] }), 403),
        ("GET", "/projects", Value::Null, 403),
        ("POST", "/tokens", json!({}), 403),
        ("GET", "/url-keys", Value::Null, 403),
        ("POST", "/signed-urls", json!({}), 403),
        ("DELETE", "/streams/mine", Value::Null, 204),
    ] {
        let (got, value) = own.ask(method, path, body).await;
        assert_eq!(got, status, "{method} {path}: {value}");
    }
    // Nothing of the other tenant has changed.
    assert_eq!(paths(&global.get("/streams?tenant=other").await), ["theirs", "wakes"]);
    assert_eq!(global.get("/subscriptions/s?tenant=other").await["paused"], false);
}
