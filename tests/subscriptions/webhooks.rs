//! Webhooks (§7.1) against real receivers: signatures, callbacks, retries, bad habits, isolation. `client` has the SSRF guard.

use std::time::Duration;

use durable_streams_protocol::subscription::{JwkSet, verify_signature};
use durable_streams_subscriptions::{KeyFile, KeySource, SubscriptionOptions};
use http::Method;
use serde_json::{Value, json};

use super::{
    receiver::{Habit, Received, Receiver},
    rig::{BASE, Rig, code, options, send, until},
};

async fn subscribe(rig: &Rig, id: &str, pattern: &str, url: &str, lease: u64) {
    let body = json!({"type": "webhook", "pattern": pattern, "webhook": {"url": url},
        "lease_ttl_ms": lease});
    let (status, body) = rig.put(id, body).await;
    assert_eq!(status, 201, "{body}");
}

async fn callback(rig: &Rig, wake: &Received, acks: Value, done: bool) -> (u16, Value) {
    let url = wake.body["callback_url"].as_str().unwrap();
    let path = url.strip_prefix(&format!("{BASE}/__ds")).unwrap();
    let body = json!({"wake_id": wake.body["wake_id"], "generation": wake.body["generation"],
        "acks": acks, "done": done});
    let token = wake.body["callback_token"].as_str();
    let (status, body) = rig.call(Method::POST, path, token, body).await;
    (status.as_u16(), body)
}

async fn acked(rig: &Rig, id: &str, path: &str, offset: &str) {
    until("the ack", || async {
        let body = rig.get(id).await;
        let links = body["streams"].as_array().unwrap();
        links.iter().any(|l| l["path"] == path && l["acked_offset"] == offset).then_some(())
    })
    .await
}

async fn status(rig: &Rig, id: &str, expected: &str) {
    until(expected, || async { (rig.get(id).await["status"] == expected).then_some(()) }).await;
}

#[tokio::test]
async fn a_signed_wake_answered_done_acks_its_snapshot() {
    let rig = Rig::new(options()).await;
    let receiver = Receiver::start(Receiver::done()).await;
    subscribe(&rig, "s", "events/*", &receiver.url(), 5_000).await;
    let tail = rig.append("events/a", "1").await;
    let wake = receiver.nth(0).await;
    let keys = rig.call(Method::GET, "jwks.json", None, Value::Null).await.1;
    let keys: JwkSet = serde_json::from_value(keys).unwrap();
    let now = rig.engine.now().millis() / 1000;
    assert!(verify_signature(&wake.signature, &wake.raw, &keys, now, 300));
    assert_eq!(wake.body["subscription_id"], "s");
    assert_eq!(wake.body["generation"], 1);
    assert_eq!(wake.body["callback_url"], format!("{BASE}/__ds/subscriptions/s/callback"));
    assert_eq!(wake.body["streams"][0]["tail_offset"], json!(tail));
    acked(&rig, "s", "events/a", &tail).await;

    let tail = rig.append("events/b", "1").await;
    assert_eq!(receiver.nth(1).await.body["generation"], 2);
    acked(&rig, "s", "events/b", &tail).await;
    assert_eq!(receiver.connections(), 1, "connections are kept");
}

#[tokio::test]
async fn a_callback_extends_acks_ends_and_is_fenced_afterwards() {
    let rig = Rig::frozen(options()).await;
    let receiver = Receiver::start(Receiver::accept()).await;
    subscribe(&rig, "s", "events/*", &receiver.url(), 1_000).await;
    let first = rig.append("events/a", "1").await;
    let wake = receiver.nth(0).await;
    rig.pass(900);
    assert_eq!(callback(&rig, &wake, json!([]), false).await.0, 200);
    rig.pass(900);
    let second = rig.append("events/a", "2").await;
    let acks = json!([{"stream": "events/a", "offset": first}]);
    assert_eq!(
        callback(&rig, &wake, acks.clone(), true).await,
        (200, json!({"ok": true, "next_wake": true}))
    );
    let stale = callback(&rig, &wake, acks, true).await;
    assert_eq!((stale.0, code(&stale.1)), (409, "FENCED"));
    let wake = receiver.nth(1).await;
    assert_eq!(wake.body["generation"], 2);
    assert_eq!(wake.body["streams"][0]["acked_offset"], json!(first));
    let acks = json!([{"stream": "events/a", "offset": second}]);
    assert_eq!(
        callback(&rig, &wake, acks, true).await,
        (200, json!({"ok": true, "next_wake": false}))
    );
}

#[tokio::test]
async fn a_worker_that_falls_silent_is_replaced() {
    let rig = Rig::frozen(options()).await;
    let receiver = Receiver::start(Receiver::accept()).await;
    subscribe(&rig, "s", "events/*", &receiver.url(), 1_000).await;
    rig.append("events/a", "1").await;
    let silent = receiver.nth(0).await;
    until("acceptance", || async { (rig.subs.len() == 1).then_some(()) }).await;
    assert_eq!(callback(&rig, &silent, json!([]), false).await.0, 200);
    rig.pass(1_000);
    let next = receiver.nth(1).await;
    assert_eq!(next.body["generation"], 2);
    assert_ne!(next.body["wake_id"], silent.body["wake_id"]);
    assert_eq!(code(&callback(&rig, &silent, json!([]), true).await.1), "FENCED");
    assert_eq!(callback(&rig, &next, json!([]), false).await.0, 200);
}

#[tokio::test]
async fn failures_back_off_and_the_receiver_that_comes_back_gets_its_wake() {
    let rig = Rig::frozen(options()).await;
    let receiver = Receiver::start(Habit::Answer(500, String::new())).await;
    subscribe(&rig, "s", "events/*", &receiver.url(), 600_000).await;
    let tail = rig.append("events/a", "1").await;
    let mut least = 800;
    for attempt in 0..4 {
        let wake = receiver.nth(attempt).await;
        assert_eq!(wake.body["generation"], 1, "refused: nobody has it, so it is the same wake");
        status(&rig, "s", "failed").await;
        // Not before the shortest pause, and by the longest at the latest.
        rig.pass(least - 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(receiver.count(), attempt + 1, "too early");
        if attempt == 3 {
            receiver.set(Receiver::done());
        }
        rig.pass(least / 2 + 1);
        least *= 2;
    }
    acked(&rig, "s", "events/a", &tail).await;
    status(&rig, "s", "active").await;
}

#[tokio::test]
async fn bad_habits_do_no_harm() {
    let mut options = options();
    options.delivery_timeout = Duration::from_millis(150);
    let rig = Rig::frozen(options).await;
    let elsewhere = Receiver::start(Receiver::done()).await;
    for (id, habit, retried) in [
        ("hang", Habit::Hang, true),
        ("redirect", Habit::Redirect(elsewhere.url()), true),
        ("hangup", Habit::HangUp, true),
        ("garbage", Habit::Garbage, true),
        ("notjson", Habit::Answer(200, "<html>".into()), false),
        ("maybe", Habit::Answer(200, r#"{"done": "yes"}"#.into()), false),
        ("endless", Habit::Endless, false),
    ] {
        let receiver = Receiver::start(habit).await;
        let zero = "0000000000000000_0000000000000000";
        subscribe(&rig, id, &format!("{id}/*"), &receiver.url(), 1_000).await;
        let tail = rig.append(&format!("{id}/a"), "1").await;
        receiver.nth(0).await;
        if retried {
            status(&rig, id, "failed").await;
        }
        assert_eq!(rig.get(id).await["streams"][0]["acked_offset"], zero, "{id}: nothing is acked");
        receiver.set(Receiver::done());
        // By now a retry is due, or the lease of a worker that never called back is over.
        until(id, || async {
            rig.pass(500);
            (rig.get(id).await["streams"][0]["acked_offset"] == json!(tail)).then_some(())
        })
        .await;
    }
    assert_eq!(elsewhere.count(), 0, "redirects are not followed");
}

#[tokio::test]
async fn dead_receivers_delay_only_themselves() {
    let mut options = options();
    options.max_deliveries = 8;
    options.max_retries = 2;
    options.delivery_timeout = Duration::from_millis(300);
    let rig = Rig::new(options).await;
    let dead = Receiver::start(Habit::Hang).await;
    let alive = Receiver::start(Receiver::done()).await;
    for n in 0..8 {
        subscribe(&rig, &format!("dead{n}"), "events/*", &dead.url(), 600_000).await;
    }
    rig.append("events/x", "1").await;
    for n in 0..8 {
        status(&rig, &format!("dead{n}"), "failed").await;
    }
    subscribe(&rig, "alive", "fine/*", &alive.url(), 5_000).await;
    // The dead ones retry in their own lane now, again and again; each wake here must pass them by.
    for n in 0..20 {
        let path = format!("fine/{n}");
        let before = std::time::Instant::now();
        let tail = rig.append(&path, "1").await;
        acked(&rig, "alive", &path, &tail).await;
        assert!(before.elapsed() < Duration::from_millis(250), "took {:?}", before.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_dev_exception_reaches_localhost_by_name() {
    let rig = Rig::new(options()).await;
    let receiver = Receiver::start(Receiver::done()).await;
    let url = format!("http://localhost:{}/", receiver.address.port());
    subscribe(&rig, "s", "events/*", &url, 5_000).await;
    let tail = rig.append("events/a", "1").await;
    acked(&rig, "s", "events/a", &tail).await;
}

#[tokio::test]
async fn keys_survive_restarts_and_rotation_keeps_the_old_public_key() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let options = SubscriptionOptions { keys: KeySource::Directory(keys.clone()), ..options() };
    let mut rig = Rig::frozen(options.clone()).await;
    let published = |body: Value| -> Vec<String> {
        let keys: JwkSet = serde_json::from_value(body).unwrap();
        keys.keys.into_iter().map(|key| key.kid).collect()
    };
    let get = |rig: &Rig| {
        let subs = rig.subs.clone();
        async move {
            let headers = http::HeaderMap::new();
            let body = bytes::Bytes::new();
            let (_, _, body) = send(&subs, BASE, &Method::GET, "jwks.json", &headers, body).await;
            serde_json::from_slice::<Value>(&body).unwrap()
        }
    };
    let before = published(get(&rig).await);
    let file = keys.join("subscriptions.json");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&keys), mode(&file)), (0o700, 0o600));
    rig.restart().await;
    assert_eq!(published(get(&rig).await), before);

    let (old, new) = KeyFile::in_directory(&keys).rotate(rig.engine.now()).unwrap();
    assert_eq!((before, mode(&file)), (vec![old.clone()], 0o600));
    rig.pass(3_000);
    assert_eq!(published(get(&rig).await), [new.clone(), old], "noticed without a restart");
    rig.pass(60 * 60 * 1000);
    assert_eq!(published(get(&rig).await), [new], "outside the replay window");

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = KeyFile::in_directory(&keys).rotate(rig.engine.now()).unwrap_err();
    assert!(error.to_string().contains("chmod 0600"), "{error}");
}
