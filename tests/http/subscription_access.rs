//! Subscriptions under access control: who may have which, and what tenants see of each other's.

use std::{sync::Arc, time::Duration};

use durable_streams_auth::{
    AccessClosures, AccessGuard, AnonymousAccess, BearerValidator, GuardOptions, Principal,
    ProviderChain, TenantId, bearer,
};
use durable_streams_protocol::subscription::TargetRules;
use durable_streams_subscriptions::SubscriptionOptions;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::access::{auth, grant};
use crate::support::{PATIENCE, Reply};
use crate::world::{Kind, ROUTE, World, soon};

for_each_kind![
    a_subscription_needs_all_that_it_links,
    a_subscription_that_may_not_be_seen_looks_as_if_there_were_none,
    tenants_share_no_subscription_and_no_stream,
    a_wake_token_opens_its_own_subscription_only,
    a_webhook_names_streams_as_its_tenant_does,
    a_provider_without_grants_decides_about_streams_by_name,
];

/// Tokens are names of principals.
fn guard(hide_unreadable: bool) -> AccessGuard {
    let names = BearerValidator::new("names", |token| async move {
        let principal = Principal::new(token.clone());
        let tenant = TenantId::new(token.split('.').next().unwrap()).ok();
        Ok(match token.as_str() {
            "root" => Some(principal.with_grant(grant(&["all"], "**"))),
            "reader" => Some(principal.with_grant(grant(&["read"], "**"))),
            "chat" => Some(
                principal
                    .with_grant(grant(&["read", "subscribe"], "chat/**"))
                    .with_grant(grant(&["append"], "wake/chat")),
            ),
            "deaf" => Some(
                principal
                    .with_grant(grant(&["subscribe"], "**"))
                    .with_grant(grant(&["read"], "chat/**")),
            ),
            "acme" | "globex" => {
                Some(principal.with_tenant(tenant).with_grant(grant(&["all"], "**")))
            }
            "acme.narrow" => Some(
                principal.with_tenant(tenant).with_grant(grant(&["read", "subscribe"], "open/**")),
            ),
            _ => None,
        })
    });
    let mut chain = ProviderChain::new();
    chain.push(Arc::new(names)).unwrap();
    chain.push(Arc::new(AnonymousAccess::new(vec![grant(&["read"], "open/**")]))).unwrap();
    AccessGuard::new(Arc::new(chain), GuardOptions { hide_unreadable, ..GuardOptions::default() })
}

fn options() -> SubscriptionOptions {
    SubscriptionOptions {
        targets: TargetRules { allow_http_localhost: true, ..TargetRules::default() },
        public_url: Some(format!("https://streams.example{ROUTE}")),
        ..SubscriptionOptions::default()
    }
}

fn world(kind: Kind, guard: AccessGuard) -> World {
    World::with(kind, |setup| {
        setup.access = Some(guard);
        setup.subscriptions = Some(options());
    })
}

async fn call(world: &World, token: &str, method: &str, target: &str, body: Value) -> Reply {
    let fields = format!("{}content-type: application/json\r\n", auth(token));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    world.ask(method, &format!("/__ds/{target}"), &fields, body.as_bytes()).await
}

fn json_of(reply: &Reply) -> Value {
    serde_json::from_str(&reply.text()).unwrap_or_else(|_| panic!("{reply:?}"))
}

async fn append(world: &World, token: &str, path: &str) {
    let fields = format!("{}content-type: application/json\r\n", auth(token));
    let made = world.put(path, &fields, "").await;
    assert!(matches!(made.status, 200 | 201), "{made:?}");
    let appended = world.post(path, &fields, r#"{"n":1}"#).await;
    assert_eq!(appended.status, 204, "{appended:?}");
}

fn pull(pattern: &str, wake: &str) -> Value {
    json!({"type": "pull-wake", "pattern": pattern, "wake_stream": wake})
}

async fn a_subscription_needs_all_that_it_links(kind: Kind) {
    let world = world(kind, guard(true));
    let named = |streams: &[&str], wake: &str| json!({"type": "pull-wake", "streams": streams, "wake_stream": wake});
    for (token, body, status) in [
        ("", pull("open/**", "w"), 401),
        ("nobody", pull("open/**", "w"), 401),
        ("reader", pull("chat/**", "wake/chat"), 403),
        ("chat", pull("chat/**", "wake/chat"), 201),
        ("chat", pull("chat/*/messages", "wake/chat"), 201),
        ("chat", pull("**", "wake/chat"), 403),
        ("chat", pull("*/room", "wake/chat"), 403),
        ("chat", pull("chat*", "wake/chat"), 400),
        ("chat", pull("chats/**", "wake/chat"), 403),
        ("chat", pull("chat/**", "wake/other"), 403),
        ("chat", pull("chat/**", "chat/wake"), 403),
        ("chat", named(&["chat/a", "chat/b"], "wake/chat"), 201),
        ("chat", named(&["chat/a", "logs/b"], "wake/chat"), 403),
        (
            "chat",
            json!({"type": "pull-wake", "pattern": "chat/**", "streams": ["logs/a"],
            "wake_stream": "wake/chat"}),
            403,
        ),
        ("deaf", pull("chat/**", "wake/chat"), 403),
        ("root", pull("**", "wake/all"), 201),
        ("root", named(&["__ds/t/acme/a"], "wake/all"), 400),
        ("root", pull("chat/**", "__ds/t/acme/w"), 400),
        ("acme", pull("**", "w"), 201),
    ] {
        let made = call(&world, token, "PUT", "subscriptions/s", body.clone()).await;
        assert_eq!(made.status, status, "{token} {body}: {made:?}");
        assert_eq!(made.header("www-authenticate").is_some(), status == 401, "{made:?}");
        if status == 201 {
            let gone = call(&world, token, "DELETE", "subscriptions/s", Value::Null).await;
            assert_eq!(gone.status, 204, "{token} {body}");
        }
    }
    // A stream that is linked later needs the same.
    let made = call(&world, "chat", "PUT", "subscriptions/s", pull("chat/**", "wake/chat")).await;
    assert_eq!(made.status, 201);
    for (token, stream, status) in
        [("chat", "chat/a", 204), ("chat", "logs/a", 403), ("deaf", "chat/a", 204)]
    {
        let body = json!({"streams": [stream]});
        let linked = call(&world, token, "POST", "subscriptions/s/streams", body).await;
        assert_eq!(linked.status, status, "{token} {stream}: {linked:?}");
    }
    for (method, target, token) in
        [("GET", "jwks.json", ""), ("OPTIONS", "subscriptions/s", ""), ("OPTIONS", "x", "nobody")]
    {
        let seen = call(&world, token, method, target, Value::Null).await;
        assert!(seen.status < 300, "{method} {target}: {seen:?}");
    }
}

async fn a_subscription_that_may_not_be_seen_looks_as_if_there_were_none(kind: Kind) {
    for hidden in [true, false] {
        let world = world(kind, guard(hidden));
        let made = call(&world, "root", "PUT", "subscriptions/s", pull("logs/**", "w")).await;
        assert_eq!(made.status, 201);
        append(&world, "root", "/logs/secret").await;
        let requests = [
            ("GET", "", Value::Null),
            ("POST", "/streams", json!({"streams": ["chat/a"]})),
            ("DELETE", "/streams/chat/a", Value::Null),
            ("POST", "/claim", json!({"worker": "w"})),
        ];
        for (method, action, body) in requests {
            let ask = async |id: &str| {
                let target = format!("subscriptions/{id}{action}");
                let reply = call(&world, "chat", method, &target, body.clone()).await;
                (reply.status, reply.text())
            };
            let (there, absent) = (ask("s").await, ask("none").await);
            assert_eq!(absent.0, 404, "{method} {action}");
            if hidden {
                assert_eq!(there, absent, "{method} {action}");
            } else {
                assert_eq!(there.0, 403, "{method} {action}: {there:?}");
            }
        }
        let refused = call(&world, "chat", "DELETE", "subscriptions/s", Value::Null).await;
        assert_eq!(refused.status, 403, "204 would say that it is gone");
        let seen = call(&world, "root", "GET", "subscriptions/s", Value::Null).await;
        assert_eq!(json_of(&seen)["streams"][0]["path"], "logs/secret");
        // One that was given a link beyond its configuration is no longer its creator's to see.
        let made =
            call(&world, "chat", "PUT", "subscriptions/c", pull("chat/**", "wake/chat")).await;
        assert_eq!(made.status, 201);
        let more = json!({"streams": ["logs/secret"]});
        let linked = call(&world, "root", "POST", "subscriptions/c/streams", more).await;
        assert_eq!(linked.status, 204);
        let seen = call(&world, "chat", "GET", "subscriptions/c", Value::Null).await;
        assert_eq!(seen.status, if hidden { 404 } else { 403 });
        let again =
            call(&world, "chat", "PUT", "subscriptions/c", pull("chat/**", "wake/chat")).await;
        assert_eq!(again.status, 403, "{again:?}");
    }
}

/// Claims until there is work.
async fn claim(world: &World, token: &str, id: &str) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let target = format!("subscriptions/{id}/claim");
        let claimed = call(world, token, "POST", &target, json!({"worker": "w"})).await;
        if claimed.status == 200 {
            return json_of(&claimed);
        }
        assert!(tokio::time::Instant::now() < deadline, "{claimed:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn tenants_share_no_subscription_and_no_stream(kind: Kind) {
    let world = world(kind, guard(true));
    let owners = ["root", "acme", "globex"];
    for token in owners {
        append(&world, token, "/before").await;
        let made = call(&world, token, "PUT", "subscriptions/s", pull("**", "wake/pool")).await;
        assert_eq!(made.status, 201, "an id of each owner's own: {made:?}");
        let linked: Vec<Value> = json_of(&made)["streams"].as_array().unwrap().clone();
        assert_eq!(linked.len(), 1, "{token}: {linked:?}");
        assert_eq!(linked[0]["path"], "before");
        let fields = format!("{}content-type: application/json\r\n", auth(token));
        assert_eq!(world.put("/wake/pool", &fields, "").await.status, 201);
    }
    for token in owners {
        append(&world, token, &format!("/of/{token}")).await;
        append(&world, token, "/same").await;
    }
    for token in owners {
        let claimed = claim(&world, token, "s").await;
        let text = claimed.to_string();
        let mut paths: Vec<&str> = Vec::new();
        let streams = claimed["streams"].as_array().unwrap();
        paths.extend(streams.iter().map(|stream| stream["path"].as_str().unwrap()));
        paths.sort_unstable();
        assert_eq!(paths, ["before", format!("of/{token}").as_str(), "same"], "{token}");
        assert!(!text.contains("__ds/t"), "stored paths stay inside: {text}");
        // A worker may claim before the wake is announced: a long-poll waits for it.
        let wake = "/wake/pool?offset=-1&live=long-poll";
        let wakes = soon(world.ask("GET", wake, &auth(token), b"")).await;
        assert_eq!(json_of(&wakes)[0]["subscription_id"], "s");
        assert!(!wakes.text().contains("__ds"), "{wakes:?}");
        let seen = call(&world, token, "GET", "subscriptions/s", Value::Null).await;
        assert_eq!(json_of(&seen)["streams_total"], 3, "{token}: {seen:?}");
        assert!(!seen.text().contains("__ds/t"), "{seen:?}");
    }
    // What one owner deletes, the others keep; what one does not have, it does not see.
    assert_eq!(call(&world, "acme", "DELETE", "subscriptions/s", Value::Null).await.status, 204);
    for (token, status) in [("root", 200), ("acme", 404), ("globex", 200)] {
        let seen = call(&world, token, "GET", "subscriptions/s", Value::Null).await;
        assert_eq!(seen.status, status, "{token}");
    }
    let made = call(&world, "acme", "PUT", "subscriptions/acme", pull("x/**", "w")).await;
    assert_eq!(made.status, 201);
    for (token, id) in [
        ("globex", "acme"),
        ("root", "acme"),
        ("root", "acme%7Eacme"),
        ("root", "acme%2Facme"),
        ("root", "acme%20of%20tenant%20acme"),
        ("acme.narrow", "acme"),
    ] {
        let target = format!("subscriptions/{id}");
        let seen = call(&world, token, "GET", &target, Value::Null).await;
        assert_eq!(seen.status, 404, "{token} {id}");
    }
}

async fn a_wake_token_opens_its_own_subscription_only(kind: Kind) {
    let world = world(kind, guard(true));
    let mut claims = Vec::new();
    for token in ["root", "acme", "globex"] {
        let made = call(&world, token, "PUT", "subscriptions/s", pull("work/*", "w")).await;
        assert_eq!(made.status, 201);
        let fields = format!("{}content-type: application/json\r\n", auth(token));
        world.put("/w", &fields, "").await;
        append(&world, token, "/work/a").await;
        claims.push(claim(&world, token, "s").await);
    }
    let body = |claimed: &Value| {
        let offset = &claimed["streams"][0]["tail_offset"];
        json!({"wake_id": claimed["wake_id"], "generation": claimed["generation"], "done": true,
            "acks": [{"stream": "work/a", "offset": offset}]})
    };
    // No principal, however mighty, stands for the token; nor does a token of another subscription.
    for token in ["", "root", "acme", "nobody"] {
        for (action, id) in [
            ("ack", "s"),
            ("release", "s"),
            ("callback", "s"),
            ("ack", "none"),
            ("release", "none"),
        ] {
            let target = format!("subscriptions/{id}/{action}");
            let refused = call(&world, token, "POST", &target, body(&claims[0])).await;
            assert_eq!(
                (refused.status, json_of(&refused)["error"]["code"].as_str().unwrap()),
                (401, "TOKEN_INVALID"),
                "{token} {target}"
            );
        }
    }
    for (from, of) in [(0, 1), (1, 2), (2, 0)] {
        let token = claims[from]["token"].as_str().unwrap();
        let refused = call(&world, token, "POST", "subscriptions/s/ack", body(&claims[of])).await;
        assert_eq!(refused.status, 409, "a token leads to its own wake: {refused:?}");
    }
    for claimed in &claims {
        let token = claimed["token"].as_str().unwrap();
        let done = call(&world, token, "POST", "subscriptions/s/ack", body(claimed)).await;
        assert_eq!(done.status, 200, "{done:?}");
        // Nor does it open anything else.
        let read = world.ask("GET", "/work/a", &auth(token), b"").await;
        assert_eq!(read.status, 401, "{read:?}");
        let seen = call(&world, token, "GET", "subscriptions/s", Value::Null).await;
        assert_eq!(seen.status, 401, "{seen:?}");
    }
}

/// Takes one HTTP request, answers 202, and returns its body.
async fn receive(listener: &tokio::net::TcpListener) -> Value {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let n = socket.read(&mut part).await.unwrap();
        bytes.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            socket.write_all(answer).await.unwrap();
            return body;
        }
        assert_ne!(n, 0, "{text}");
    }
}

async fn a_webhook_names_streams_as_its_tenant_does(kind: Kind) {
    let world = world(kind, guard(true));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let hook = json!({"type": "webhook", "pattern": "jobs/**", "webhook": {"url": url}});
    let made = call(&world, "acme", "PUT", "subscriptions/hook", hook).await;
    assert_eq!(made.status, 201, "{made:?}");
    // Another tenant's stream of the same name wakes nobody.
    append(&world, "globex", "/jobs/other").await;
    append(&world, "acme", "/jobs/a").await;
    let wake = soon(receive(&listener)).await;
    assert_eq!(wake["subscription_id"], "hook");
    let streams = wake["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 1, "{wake}");
    assert_eq!(streams[0]["path"], "jobs/a");
    assert!(!wake.to_string().contains("__ds/t"), "{wake}");
    let base = format!("https://streams.example{ROUTE}/__ds/subscriptions/hook/callback");
    assert_eq!(wake["callback_url"], json!(base));
    let token = wake["callback_token"].as_str().unwrap();
    let body = json!({"wake_id": wake["wake_id"], "generation": wake["generation"], "done": true,
        "acks": [{"stream": "jobs/a", "offset": streams[0]["tail_offset"]}]});
    let done = call(&world, token, "POST", "subscriptions/hook/callback", body).await;
    assert_eq!((done.status, json_of(&done)), (200, json!({"ok": true, "next_wake": false})));
    let seen = call(&world, "acme", "GET", "subscriptions/hook", Value::Null).await;
    assert_eq!(json_of(&seen)["streams"][0]["acked_offset"], streams[0]["tail_offset"]);
}

async fn a_provider_without_grants_decides_about_streams_by_name(kind: Kind) {
    let closures = AccessClosures::new(
        "closures",
        |head, _| matches!(bearer(head), Ok(Some("writer"))),
        |head, path| bearer(head).is_ok_and(|token| token.is_some()) && path.first_segment() == "a",
    );
    let guard = AccessGuard::new(Arc::new(closures), GuardOptions::default());
    let world = world(kind, guard);
    for (token, body, status) in [
        ("writer", json!({"type": "pull-wake", "streams": ["a/x"], "wake_stream": "w"}), 201),
        ("writer", json!({"type": "pull-wake", "streams": ["b/x"], "wake_stream": "w"}), 401),
        ("other", json!({"type": "pull-wake", "streams": ["a/x"], "wake_stream": "w"}), 401),
        // What a closure would say about every stream cannot be proved.
        ("writer", pull("a/**", "w"), 403),
    ] {
        let made = call(&world, token, "PUT", "subscriptions/s", body.clone()).await;
        assert_eq!(made.status, status, "{token} {body}: {made:?}");
    }
}
