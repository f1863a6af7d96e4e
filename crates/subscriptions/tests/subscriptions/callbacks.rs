//! Where workers call back: the operator's address, never one that a client sent.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{
    receiver::Receiver,
    rig::{BASE, Rig, code, options, send, until},
};
use durable_streams_subscriptions::SubscriptionOptions;

const EVIL: &str = "http://evil.example/v1/stream";

fn webhook(url: &str) -> Value {
    json!({"type": "webhook", "pattern": "events/*", "webhook": {"url": url}})
}

async fn put_through(rig: &Rig, base: &str, body: &Value) -> (u16, Value) {
    let body = Bytes::from(body.to_string());
    let path = "subscriptions/s";
    let (status, _, body) =
        send(&rig.subs, base, &Method::PUT, path, &HeaderMap::new(), body).await;
    (status.as_u16(), serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn the_host_of_a_client_reaches_no_worker() {
    let rig = Rig::new(options()).await;
    let receiver = Receiver::start(Receiver::done()).await;
    let (status, body) = put_through(&rig, EVIL, &webhook(&receiver.url())).await;
    assert_eq!(status, 201);
    assert!(!body.to_string().contains("evil"), "{body}");
    rig.append("events/a", "1").await;
    let callback = receiver.nth(0).await.body["callback_url"].clone();
    assert_eq!(callback, format!("{BASE}/__ds/subscriptions/s/callback"));
    let log = rig.log("s").await;
    assert!(!log.contains("evil") && !log.contains("server.example"), "nothing is kept: {log}");
}

#[tokio::test]
async fn webhooks_need_an_address_of_the_operator() {
    let mut rig = Rig::frozen(options()).await;
    let receiver = Receiver::start(Receiver::done()).await;
    assert_eq!(put_through(&rig, BASE, &webhook(&receiver.url())).await.0, 201);
    rig.restart_with(SubscriptionOptions { public_url: None, ..options() }).await;
    // It stays, is confirmed, and waits for the operator; each reader's own address is in its own response.
    let (status, body) = put_through(&rig, EVIL, &webhook(&receiver.url())).await;
    assert_eq!(status, 200);
    assert_eq!(body["webhook"]["signing"]["jwks_url"], format!("{EVIL}/__ds/jwks.json"));
    let own = rig.get("s").await["webhook"]["signing"]["jwks_url"].clone();
    assert_eq!(own, format!("{BASE}/__ds/jwks.json"));
    rig.append("events/a", "1").await;
    until("the failure", || async { (rig.get("s").await["status"] == "failed").then_some(()) })
        .await;
    assert_eq!(receiver.count(), 0);
    rig.call(Method::DELETE, "subscriptions/s", None, Value::Null).await;
    let (status, body) = put_through(&rig, EVIL, &webhook(&receiver.url())).await;
    assert_eq!((status, code(&body)), (501, "WEBHOOKS_NOT_CONFIGURED"));
    let pull = json!({"type": "pull-wake", "pattern": "events/*", "wake_stream": "w"});
    assert_eq!(put_through(&rig, EVIL, &pull).await.0, 201, "pull-wake needs none");
}

#[tokio::test]
async fn an_address_that_an_earlier_version_kept_is_ignored() {
    let mut rig = Rig::new(options()).await;
    let receiver = Receiver::start(Receiver::done()).await;
    let created = json!({"event": "created", "at": 1, "id": "s", "base_url": EVIL, "config": {
        "delivery": {"type": "webhook", "url": receiver.url()}, "pattern": "events/*",
        "streams": [], "lease_ttl_ms": 30_000, "description": null}});
    let log = format!("{created}\n{}\n", json!({"event": "ready"}));
    let path = "__ds/subscriptions/s/0000000000000000";
    rig.create_as(path, "application/octet-stream", &log).await;
    rig.restart().await;
    assert_eq!(rig.subs.len(), 1);
    let view = rig.get("s").await;
    assert_eq!(view["webhook"]["signing"]["jwks_url"], format!("{BASE}/__ds/jwks.json"));
    rig.append("events/a", "1").await;
    let callback = receiver.nth(0).await.body["callback_url"].clone();
    assert_eq!(callback, format!("{BASE}/__ds/subscriptions/s/callback"));
}
