//! The control requests of §6 and §7, their statuses and their JSON.

use http::Method;
use serde_json::{Value, json};

use super::rig::{BASE, Rig, code, options, send, until};
use durable_streams_subscriptions::SubscriptionOptions;

fn webhook(url: &str) -> Value {
    json!({"type": "webhook", "pattern": "events/*", "webhook": {"url": url},
        "lease_ttl_ms": 1000, "description": "d"})
}

#[tokio::test]
async fn create_confirm_conflict_read_delete() {
    let rig = Rig::new(options()).await;
    let body = webhook("https://worker.example/hook");
    let (status, created) = rig.put("s%20one", body.clone()).await;
    assert_eq!(status, 201);
    assert_eq!(created["id"], "s one");
    assert_eq!(created["subscription_id"], "s one");
    assert_eq!(created["status"], "active");
    assert_eq!(created["wake_stream"], Value::Null);
    let signing = &created["webhook"]["signing"];
    assert_eq!(signing["alg"], "ed25519");
    assert_eq!(signing["jwks_url"], format!("{BASE}/__ds/jwks.json"));
    assert!(!created.to_string().contains("secret"));
    assert_eq!(rig.put("s%20one", body.clone()).await, (http::StatusCode::OK, created.clone()));
    assert_eq!(rig.get("s%20one").await, created);

    let (status, conflict) = rig.put("s%20one", webhook("https://other.example/")).await;
    assert_eq!((status.as_u16(), code(&conflict)), (409, "SUBSCRIPTION_ALREADY_EXISTS"));

    let path = "subscriptions/s%20one";
    for _ in 0..2 {
        assert_eq!(rig.call(Method::DELETE, path, None, Value::Null).await.0, 204);
    }
    let (status, gone) = rig.call(Method::GET, path, None, Value::Null).await;
    assert_eq!((status.as_u16(), code(&gone)), (404, "SUBSCRIPTION_NOT_FOUND"));
    assert_eq!(rig.put("s%20one", webhook("https://other.example/")).await.0, 201);
}

#[tokio::test]
async fn keys_are_published_with_caching() {
    let rig = Rig::new(options()).await;
    let headers = http::HeaderMap::new();
    let (status, headers, body) =
        send(&rig.subs, BASE, &Method::GET, "/jwks.json", &headers, bytes::Bytes::new()).await;
    assert_eq!(status, 200);
    assert_eq!(headers["content-type"], "application/jwk-set+json");
    assert_eq!(headers["cache-control"], "public, max-age=300");
    let keys: Value = serde_json::from_slice(&body).unwrap();
    let key = &keys["keys"][0];
    assert_eq!((&key["kty"], &key["crv"]), (&json!("OKP"), &json!("Ed25519")));
    assert_eq!((&key["use"], &key["alg"]), (&json!("sig"), &json!("EdDSA")));
    assert!(key["kid"].as_str().unwrap().starts_with("ds_"));
    assert!(key.get("d").is_none(), "the private half stays here");
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let rig = Rig::new(options()).await;
    let pull = json!({"type": "pull-wake", "pattern": "e/*", "wake_stream": "w"});
    assert_eq!(rig.put("pull", pull).await.0, 201);
    assert_eq!(rig.put("hook", webhook("https://w.example/")).await.0, 201);
    let ack = json!({"wake_id": "w", "generation": 1});
    for (method, path, token, body, status, expected) in [
        ("PUT", "subscriptions/x", None, json!({"type": "x"}), 400, "INVALID_REQUEST"),
        ("PUT", "subscriptions/x", None, json!([1]), 400, "INVALID_REQUEST"),
        ("PUT", "subscriptions/x", None, webhook("http://10.0.0.1/"), 400, "WEBHOOK_URL_REJECTED"),
        ("PUT", "subscriptions/", None, json!({}), 400, "INVALID_REQUEST"),
        ("GET", "subscriptions/none", None, Value::Null, 404, "SUBSCRIPTION_NOT_FOUND"),
        ("PATCH", "subscriptions/pull", None, Value::Null, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "subscriptions/pull/claim", None, Value::Null, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "nonsense", None, Value::Null, 404, "ROUTE_NOT_FOUND"),
        ("POST", "subscriptions/pull/nonsense", None, Value::Null, 404, "ROUTE_NOT_FOUND"),
        (
            "POST",
            "subscriptions/none/claim",
            None,
            json!({"worker": "w"}),
            404,
            "SUBSCRIPTION_NOT_FOUND",
        ),
        ("POST", "subscriptions/pull/claim", None, json!({}), 400, "INVALID_REQUEST"),
        ("POST", "subscriptions/hook/claim", None, json!({"worker": "w"}), 400, "INVALID_REQUEST"),
        ("POST", "subscriptions/pull/claim", None, json!({"worker": "w"}), 409, "NO_PENDING_WORK"),
        ("POST", "subscriptions/pull/ack", None, ack.clone(), 401, "TOKEN_INVALID"),
        ("POST", "subscriptions/pull/ack", Some("a.b"), ack.clone(), 401, "TOKEN_INVALID"),
        ("POST", "subscriptions/hook/ack", Some("a.b"), ack.clone(), 401, "TOKEN_INVALID"),
        ("POST", "subscriptions/pull/callback", Some("a.b"), ack.clone(), 401, "TOKEN_INVALID"),
        ("POST", "subscriptions/none/ack", None, ack.clone(), 401, "TOKEN_INVALID"),
        ("POST", "subscriptions/pull/release", None, ack, 401, "TOKEN_INVALID"),
        (
            "POST",
            "subscriptions/pull/streams",
            None,
            json!({"streams": []}),
            400,
            "INVALID_REQUEST",
        ),
        (
            "POST",
            "subscriptions/pull/streams",
            None,
            json!({"streams": ["w"]}),
            400,
            "INVALID_REQUEST",
        ),
        (
            "DELETE",
            "subscriptions/pull/streams/a%2F..%2Fb",
            None,
            Value::Null,
            400,
            "INVALID_REQUEST",
        ),
    ] {
        let got = rig.call(method.parse().unwrap(), path, token, body).await;
        assert_eq!((got.0.as_u16(), code(&got.1)), (status, expected), "{method} {path}: {got:?}");
        assert!(got.1["error"]["message"].is_string());
    }
}

#[tokio::test]
async fn existing_streams_are_linked_at_their_tail_and_new_ones_at_their_start() {
    let rig = Rig::new(options()).await;
    let old = rig.append("events/old", "1").await;
    rig.append("events/deep/er", "1").await;
    let named = rig.append("named/a", "1").await;
    let body = json!({"type": "pull-wake", "pattern": "events/*", "wake_stream": "w",
        "streams": ["named/a", "named/none", "events/old"]});
    let (_, created) = rig.put("s", body).await;
    let zero = "0000000000000000_0000000000000000";
    assert_eq!(
        created["streams"],
        json!([
            {"path": "events/old", "link_type": "explicit", "acked_offset": old},
            {"path": "named/a", "link_type": "explicit", "acked_offset": named},
            {"path": "named/none", "link_type": "explicit", "acked_offset": zero},
        ])
    );
    let tail = rig.append("events/new", "1").await;
    let (_, claim) = rig.post("s", "claim", None, json!({"worker": "w"})).await;
    assert_eq!(
        claim["streams"][0],
        json!({"path": "events/new", "link_type": "glob", "acked_offset": zero,
            "tail_offset": tail, "has_pending": true})
    );
    assert_eq!(claim["streams"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn explicit_links_come_and_go_and_the_pattern_keeps_its_own() {
    let rig = Rig::new(options()).await;
    rig.put("s", json!({"type": "pull-wake", "pattern": "events/*", "wake_stream": "w"})).await;
    rig.append("events/a", "1").await;
    rig.append("other/b", "1").await;
    let add = json!({"streams": ["events/a", "other/b"]});
    assert_eq!(rig.post("s", "streams", None, add.clone()).await.0, 204);
    assert_eq!(rig.post("s", "streams", None, add).await.0, 204);
    let links = rig.get("s").await["streams"].clone();
    assert_eq!(links[0]["link_type"], "explicit");
    assert_eq!(links[0]["acked_offset"], "0000000000000000_0000000000000000", "as it was");
    assert_ne!(links[1]["acked_offset"], "0000000000000000_0000000000000000", "at its tail");

    for path in ["events%2Fa", "other/b", "never/there"] {
        let path = format!("subscriptions/s/streams/{path}");
        assert_eq!(rig.call(Method::DELETE, &path, None, Value::Null).await.0, 204);
    }
    let links = rig.get("s").await["streams"].clone();
    assert_eq!(links.as_array().unwrap().len(), 1);
    assert_eq!((&links[0]["path"], &links[0]["link_type"]), (&json!("events/a"), &json!("glob")));
    rig.append("other/b", "2").await;
    let (_, claim) = rig.post("s", "claim", None, json!({"worker": "w"})).await;
    assert_eq!(claim["streams"].as_array().unwrap().len(), 1, "{claim}");
}

#[tokio::test]
async fn patterns_are_bounded() {
    let rig = Rig::new(options()).await;
    let put = async |pattern: &str| {
        let body = json!({"type": "pull-wake", "pattern": pattern, "wake_stream": "w"});
        let (status, body) = rig.put(&format!("s{}", pattern.len()), body).await;
        (status.as_u16(), code(&body).to_owned())
    };
    assert_eq!(put(&["*"; 32].join("/")).await.0, 201);
    assert_eq!(put(&["*"; 33].join("/")).await, (400, "INVALID_REQUEST".into()));
    assert_eq!(put("**/a/**/b/**/c/**").await.0, 201);
    assert_eq!(put("**/a/**/b/**/c/**/d/**").await, (400, "INVALID_REQUEST".into()));
}

#[tokio::test]
async fn long_lists_of_links_come_in_pages() {
    let rig = Rig::new(options()).await;
    let mut all: Vec<String> = (0..2_000).map(|n| format!("many/{n:04}")).collect();
    for path in &all {
        rig.create(path).await;
    }
    let pull = json!({"type": "pull-wake", "pattern": "many/*", "wake_stream": "w"});
    for sizes in [&[1_000, 1_000][..], &[1_000, 1_000, 1]] {
        // Also what the creation answers.
        let id = format!("s{}", sizes.len());
        let mut page = rig.put(&id, pull.clone()).await.1;
        let mut seen = Vec::new();
        for expected in sizes {
            assert_eq!(page["streams_total"], all.len());
            let links = page["streams"].as_array().unwrap();
            assert_eq!(links.len(), *expected);
            assert!(page.to_string().len() < 256 * 1024);
            seen.extend(links.iter().map(|link| link["path"].as_str().unwrap().to_owned()));
            if let Some(after) = page["streams_next"].as_str() {
                let after = after.replace('/', "%2F");
                page = rig.get(&format!("{id}?x=1&streams_after={after}")).await;
                assert_ne!(page["streams"], json!([]), "there is something behind");
            }
        }
        assert!(page.get("streams_next").is_none(), "the last page names no next");
        assert_eq!(seen, all, "each once, in order");
        all.push("many/2000".into());
        rig.create("many/2000").await;
    }
    let (status, body) =
        rig.call(Method::GET, "subscriptions/s2?streams_after=..", None, Value::Null).await;
    assert_eq!((status.as_u16(), code(&body)), (400, "INVALID_REQUEST"));
}

/// Streams are listed a thousand at a time.
#[tokio::test]
async fn a_stream_too_many_is_seen_behind_a_page_of_the_list() {
    let rig = Rig::new(SubscriptionOptions { max_links: 1_000, ..options() }).await;
    for n in 0..=1_000 {
        rig.create(&format!("many/{n:04}")).await;
    }
    let pull = |pattern: &str| json!({"type": "pull-wake", "pattern": pattern, "wake_stream": "w"});
    let (status, body) = rig.put("s", pull("many/*")).await;
    assert_eq!((status.as_u16(), code(&body)), (507, "LIMIT_REACHED"), "{body}");
    rig.delete("many/1000").await;
    assert_eq!(rig.put("s", pull("many/*")).await.0, 201);
}

#[tokio::test]
async fn links_over_all_subscriptions_are_bounded() {
    let rig = Rig::new(SubscriptionOptions { max_links: 10, ..options() }).await;
    for n in 0..7 {
        rig.create(&format!("many/{n}")).await;
    }
    let pull = |pattern: &str| json!({"type": "pull-wake", "pattern": pattern, "wake_stream": "w"});
    assert_eq!(rig.put("a", pull("many/*")).await.0, 201);
    let (status, body) = rig.put("b", pull("**")).await;
    assert_eq!((status.as_u16(), code(&body)), (507, "LIMIT_REACHED"), "{body}");
    assert_eq!(rig.subs.len(), 1, "what was refused is not there");
    let add =
        |count: usize| json!({"streams": (0..count).map(|n| format!("x/{n}")).collect::<Vec<_>>()});
    let (status, _) = rig.post("a", "streams", None, add(4)).await;
    assert_eq!(status, 507);
    assert_eq!(rig.post("a", "streams", None, add(3)).await.0, 204);
    assert_eq!(rig.post("a", "streams", None, add(3)).await.0, 204, "they are there already");
    until("the count", || async {
        (rig.post("a", "streams", None, add(4)).await.0 == 507).then_some(())
    })
    .await;
    rig.create("many/more").await;
    until("the new link", || async { (rig.get("a").await["streams_total"] == 11).then_some(()) })
        .await;
    rig.call(Method::DELETE, "subscriptions/a", None, Value::Null).await;
    assert_eq!(rig.put("b", pull("**")).await.0, 201, "deletion makes room");
}

#[tokio::test]
async fn a_soft_deleted_stream_is_no_longer_linked() {
    let rig = Rig::new(options()).await;
    rig.put("s", json!({"type": "pull-wake", "pattern": "events/*", "wake_stream": "w"})).await;
    rig.append("events/a", "1").await;
    rig.fork("fork", "events/a").await;
    assert_eq!(rig.get("s").await["streams"][0]["path"], "events/a");
    // The fork keeps its bytes, and nothing else.
    rig.delete("events/a").await;
    assert_eq!(rig.get("s").await["streams"], json!([]));
    let (_, body) = rig.post("s", "claim", None, json!({"worker": "w"})).await;
    assert_eq!(code(&body), "NO_PENDING_WORK");
}

#[tokio::test]
async fn a_wake_stream_of_another_kind_is_left_alone() {
    let rig = Rig::new(options()).await;
    rig.create_as("notes", "text/plain", "mine").await;
    let pull = json!({"type": "pull-wake", "pattern": "events/*", "wake_stream": "notes"});
    let (status, body) = rig.put("s", pull.clone()).await;
    assert_eq!((status.as_u16(), code(&body)), (400, "INVALID_REQUEST"));
    assert!(body.to_string().contains("text/plain"), "{body}");
    // Or it appears later, under a subscription that waits for it.
    rig.delete("notes").await;
    assert_eq!(rig.put("s", pull).await.0, 201);
    rig.create_as("notes", "text/plain", "mine").await;
    let before = rig.tail("notes").await;
    rig.append("events/a", "1").await;
    until("the failure", || async { (rig.get("s").await["status"] == "failed").then_some(()) })
        .await;
    assert_eq!(rig.tail("notes").await, before);
    // Work is claimed all the same.
    assert_eq!(rig.post("s", "claim", None, json!({"worker": "w"})).await.0, 200);
}

#[tokio::test]
async fn a_refusal_has_the_headers_that_its_status_asks_for() {
    let rig = Rig::new(SubscriptionOptions { max_body: 100, ..options() }).await;
    rig.put("s", json!({"type": "pull-wake", "pattern": "e/*", "wake_stream": "w"})).await;
    let ask = async |method: &Method, target: &str, body: &str| {
        let (headers, body) = (http::HeaderMap::new(), body.to_owned().into());
        let (status, headers, _) = send(&rig.subs, BASE, method, target, &headers, body).await;
        (status.as_u16(), headers)
    };
    for (method, target, allow) in [
        (Method::POST, "jwks.json", "GET, HEAD"),
        (Method::POST, "subscriptions/s", "GET, HEAD, PUT, DELETE"),
        (Method::GET, "subscriptions/s/streams", "POST"),
        (Method::GET, "subscriptions/s/streams/x", "DELETE"),
        (Method::GET, "subscriptions/s/callback", "POST"),
        (Method::GET, "subscriptions/s/ack", "POST"),
        (Method::GET, "subscriptions/s/release", "POST"),
    ] {
        let (status, headers) = ask(&method, target, "").await;
        assert_eq!((status, &headers["allow"]), (405, &allow.parse().unwrap()), "{target}");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["content-type"], "application/json");
    }
    let ack = r#"{"wake_id":"w","generation":1}"#;
    let (status, headers) = ask(&Method::POST, "subscriptions/s/ack", ack).await;
    assert_eq!((status, &headers["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
    let (status, headers) = ask(&Method::DELETE, "subscriptions/s", "").await;
    assert_eq!((status, &headers["cache-control"]), (204, &"no-store".parse().unwrap()));
    let padded = |bytes: usize| format!("{ack}{}", " ".repeat(bytes - ack.len()));
    assert_eq!(ask(&Method::POST, "subscriptions/s/ack", &padded(100)).await.0, 401);
    assert_eq!(ask(&Method::POST, "subscriptions/s/ack", &padded(101)).await.0, 413);
    assert_eq!(ask(&Method::HEAD, "/jwks.json", "").await.0, 200, "with or without a slash");
}

#[tokio::test]
async fn a_token_comes_with_any_spelling_of_bearer() {
    let rig = Rig::new(options()).await;
    rig.put("s", json!({"type": "pull-wake", "pattern": "e/*", "wake_stream": "w"})).await;
    rig.append("e/a", "1").await;
    let (_, claim) = rig.post("s", "claim", None, json!({"worker": "w"})).await;
    let body = json!({"wake_id": claim["wake_id"], "generation": claim["generation"]}).to_string();
    let token = claim["token"].as_str().unwrap();
    for (value, status) in [
        (format!("bearer {token}"), 200),
        (format!("BEARER  {token}"), 200),
        (format!("Basic {token}"), 401),
        (token.to_owned(), 401),
    ] {
        let mut headers = http::HeaderMap::new();
        headers.insert(http::header::AUTHORIZATION, value.parse().unwrap());
        let target = "subscriptions/s/ack";
        let body = body.clone().into();
        let (got, _, _) = send(&rig.subs, BASE, &Method::POST, target, &headers, body).await;
        assert_eq!(got, status, "{value}");
    }
}

/// Workers send their tokens to the callback's address, so only the operator names it.
#[tokio::test]
async fn without_an_address_of_its_own_a_server_takes_no_webhooks() {
    let rig = Rig::new(SubscriptionOptions { public_url: None, ..options() }).await;
    let (status, body) = rig.put("s", webhook("https://w.example/")).await;
    assert_eq!((status.as_u16(), code(&body)), (501, "WEBHOOKS_NOT_CONFIGURED"));
    assert_eq!(rig.subs.len(), 0);
    let pull = json!({"type": "pull-wake", "pattern": "e/*", "wake_stream": "w"});
    assert_eq!(rig.put("s", pull).await.0, 201);
}
