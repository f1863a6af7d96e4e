//! What a client may do decides what it gets, and a refused request changes nothing.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use durable_streams_protocol::{
    StreamPath, TenantId,
    subscription::{Glob, Refusal},
};
use durable_streams_subscriptions::{ControlAccess, ControlAuthority, ControlRequest};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::rig::{BASE, Rig, code, options};

/// A client of no tenant that may follow what its words name, and announce in `w`.
#[derive(Clone)]
struct Client {
    patterns: &'static [&'static str],
    streams: &'static [&'static str],
    conceals: bool,
}

fn allow(names: &[&str], name: &str) -> Result<(), Refusal> {
    if names.contains(&name) { Ok(()) } else { Err(Refusal::Forbidden) }
}

#[async_trait]
impl ControlAccess for Client {
    fn tenant(&self) -> Option<&TenantId> {
        None
    }

    async fn follow_pattern(&self, pattern: &Glob) -> Result<(), Refusal> {
        allow(self.patterns, pattern.as_str())
    }

    async fn follow_stream(&self, path: &StreamPath) -> Result<(), Refusal> {
        allow(self.streams, path.as_str())
    }

    async fn announce_in(&self, wake_stream: &StreamPath) -> Result<(), Refusal> {
        allow(&["w"], wake_stream.as_str())
    }

    fn conceals(&self) -> bool {
        self.conceals
    }
}

const FULL: Client = Client { patterns: &["a/*"], streams: &["b", "c"], conceals: false };

async fn ask(
    rig: &Rig,
    authority: ControlAuthority,
    (method, target): (&str, &str),
    body: Value,
) -> (u16, String) {
    let (method, headers): (Method, _) = (method.parse().unwrap(), HeaderMap::new());
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let target = &format!("subscriptions/{target}");
    let request = ControlRequest {
        method: &method,
        target,
        headers: &headers,
        body,
        base_url: BASE,
        authority,
    };
    let (status, _, body) = rig.subs.handle(request).await;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    (status.as_u16(), code(&body).to_owned())
}

fn client(client: &Client) -> ControlAuthority {
    ControlAuthority::Client(Arc::new(client.clone()))
}

fn forbidden() -> (u16, String) {
    (403, "FORBIDDEN".into())
}

#[tokio::test]
async fn a_subscription_needs_leave_for_all_that_it_names() {
    let rig = Rig::new(options()).await;
    let pull = |pattern: &str, streams: &[&str], wake_stream: &str| {
        json!({"type": "pull-wake", "pattern": pattern, "streams": streams,
            "wake_stream": wake_stream})
    };
    for (body, allowed) in [
        (pull("x/*", &["b"], "w"), false),
        (pull("a/*", &["x"], "w"), false),
        (pull("a/*", &["b"], "x"), false),
        (pull("a/*", &["b"], "w"), true),
    ] {
        let put = ask(&rig, client(&FULL), ("PUT", "s"), body.clone()).await;
        let expected = if allowed { (201, "none".into()) } else { forbidden() };
        assert_eq!(put, expected, "{body}");
        assert_eq!(rig.subs.len(), usize::from(allowed), "{body}");
    }
}

#[tokio::test]
async fn who_may_not_follow_all_of_it_neither_sees_nor_changes_it() {
    let rig = Rig::new(options()).await;
    let body = json!({"type": "pull-wake", "pattern": "a/*", "streams": ["b"], "wake_stream": "w"});
    assert_eq!(ask(&rig, client(&FULL), ("PUT", "s"), body.clone()).await.0, 201);
    rig.append("a/1", "1").await;
    let other_pattern = Client { patterns: &["x/*"], ..FULL };
    let other_streams = Client { streams: &["c"], ..FULL };
    let link = json!({"streams": ["c"]});
    let claim = json!({"worker": "w"});
    for who in [&other_pattern, &other_streams] {
        for (method, target, body) in [
            ("PUT", "s", &body),
            ("GET", "s", &Value::Null),
            ("HEAD", "s", &Value::Null),
            ("DELETE", "s", &Value::Null),
            ("POST", "s/streams", &link),
            ("DELETE", "s/streams/b", &Value::Null),
            ("POST", "s/claim", &claim),
        ] {
            let asked = ask(&rig, client(who), (method, target), body.clone()).await;
            assert_eq!(asked, forbidden(), "{method} {target}");
        }
        let hidden = client(&Client { conceals: true, ..who.clone() });
        let asked = ask(&rig, hidden, ("GET", "s"), Value::Null).await;
        assert_eq!(asked, (404, "SUBSCRIPTION_NOT_FOUND".into()));
    }
    let alien = json!({"streams": ["x"]});
    assert_eq!(ask(&rig, client(&FULL), ("POST", "s/streams"), alien).await, forbidden());
    let seen = rig.get("s").await;
    assert_eq!(
        (&seen["streams_total"], &seen["streams"][1]["link_type"]),
        (&json!(2), &json!("explicit"))
    );
    // A client with every right does all of it, with or without concealment.
    let full = || client(&Client { conceals: true, ..FULL });
    for (method, target, body, status) in [
        ("PUT", "s", body, 200),
        ("GET", "s", Value::Null, 200),
        ("POST", "s/streams", link, 204),
        ("POST", "s/claim", claim, 200),
        ("DELETE", "s/streams/b", Value::Null, 204),
        ("DELETE", "s", Value::Null, 204),
    ] {
        assert_eq!(ask(&rig, full(), (method, target), body).await.0, status, "{method} {target}");
    }
}

/// A worker has its token and nothing else.
#[tokio::test]
async fn a_wake_token_opens_no_request_of_a_client() {
    let rig = Rig::new(options()).await;
    let body = json!({"type": "pull-wake", "pattern": "a/*", "wake_stream": "w"});
    assert_eq!(rig.put("s", body.clone()).await.0, 201);
    for (method, target, body) in [
        ("PUT", "s", body),
        ("GET", "s", Value::Null),
        ("DELETE", "s", Value::Null),
        ("POST", "s/streams", json!({"streams": ["c"]})),
        ("DELETE", "s/streams/b", Value::Null),
        ("POST", "s/claim", json!({"worker": "w"})),
    ] {
        let asked = ask(&rig, ControlAuthority::WakeToken, (method, target), body).await;
        assert_eq!(asked, (401, "UNAUTHORIZED".into()), "{method} {target}");
    }
    assert_eq!(rig.subs.len(), 1);
}
