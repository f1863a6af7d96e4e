//! Restarts at every point between an append and its ack: nothing is lost, nothing goes back.

use bytes::Bytes;
use durable_streams_protocol::StreamPath;
use serde_json::{Value, json};

use super::{
    receiver::{Habit, Receiver},
    rig::{BASE, Rig, code, options, send, until},
};

async fn hook(rig: &Rig, url: &str, lease: u64) {
    let body = json!({"type": "webhook", "pattern": "events/*", "webhook": {"url": url},
        "lease_ttl_ms": lease});
    assert_eq!(rig.put("s", body).await.0, 201);
}

async fn acked(rig: &Rig, tail: &str) {
    until("the ack", || async {
        (rig.get("s").await["streams"][0]["acked_offset"] == json!(tail)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_append_that_nobody_saw_wakes_after_the_restart() {
    let mut rig = Rig::frozen(options()).await;
    let receiver = Receiver::start(Receiver::done()).await;
    rig.append("events/old", "1").await;
    hook(&rig, &receiver.url(), 1_000).await;
    rig.crash();
    rig.append("events/old", "2").await;
    let tail = rig.append("events/new", "1").await;
    rig.restart().await;
    let wake = receiver.nth(0).await;
    let streams = wake.body["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 2);
    assert!(streams.iter().all(|stream| stream["has_pending"] == true), "{streams:?}");
    acked(&rig, &tail).await;
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn a_wake_under_way_is_made_anew_and_the_old_one_fenced() {
    let mut rig = Rig::frozen(options()).await;
    let receiver = Receiver::start(Habit::Hang).await;
    hook(&rig, &receiver.url(), 600_000).await;
    let tail = rig.append("events/a", "1").await;
    let old = receiver.nth(0).await;
    receiver.set(Receiver::done());
    rig.restart().await;
    let new = receiver.nth(1).await;
    assert_eq!(new.body["generation"], 2);
    acked(&rig, &tail).await;
    let token = old.body["callback_token"].as_str();
    let body = json!({"wake_id": old.body["wake_id"], "generation": 1, "done": true});
    // Keys in memory end with the process; with a key file the token is good and the wake is stale.
    let (status, body) = rig.post("s", "callback", token, body).await;
    assert_eq!((status.as_u16(), code(&body)), (401, "TOKEN_INVALID"));
}

#[tokio::test]
async fn a_worker_at_work_keeps_its_lease_over_a_restart_and_loses_it_on_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options();
    options.keys =
        durable_streams_subscriptions::KeySource::Directory(directory.path().join("keys"));
    let mut rig = Rig::frozen(options).await;
    let receiver = Receiver::start(Receiver::accept()).await;
    hook(&rig, &receiver.url(), 10_000).await;
    rig.append("events/a", "1").await;
    let wake = receiver.nth(0).await;
    let body = json!({"wake_id": wake.body["wake_id"], "generation": 1});
    let token = wake.body["callback_token"].as_str();
    assert_eq!(rig.post("s", "callback", token, body.clone()).await.0, 200);
    rig.restart().await;
    rig.pass(9_999);
    assert_eq!(rig.post("s", "callback", token, body.clone()).await.0, 200);
    rig.pass(5_000);
    rig.restart().await;
    assert_eq!(receiver.count(), 1, "nobody else was woken meanwhile");
    rig.pass(5_000);
    assert_eq!(receiver.nth(1).await.body["generation"], 2);
    let (status, stale) = rig.post("s", "callback", token, body).await;
    assert_eq!((status.as_u16(), code(&stale)), (409, "FENCED"));
}

#[tokio::test]
async fn the_retry_schedule_survives() {
    let mut rig = Rig::frozen(options()).await;
    let receiver = Receiver::start(Habit::Answer(503, String::new())).await;
    hook(&rig, &receiver.url(), 600_000).await;
    rig.append("events/a", "1").await;
    receiver.nth(0).await;
    until("failure", || async { (rig.get("s").await["status"] == "failed").then_some(()) }).await;
    rig.restart().await;
    assert_eq!(rig.get("s").await["status"], "failed");
    rig.pass(799);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(receiver.count(), 1, "the pause is not over");
    rig.pass(401);
    receiver.nth(1).await;
}

#[tokio::test]
async fn claims_cursors_and_explicit_links_survive() {
    let mut rig = Rig::frozen(options()).await;
    rig.create("wake").await;
    let body = json!({"type": "pull-wake", "streams": ["a", "b"], "wake_stream": "wake",
        "lease_ttl_ms": 10_000});
    rig.put("s", body.clone()).await;
    let tail = rig.append("a", "1").await;
    rig.append("b", "1").await;
    rig.post("s", "streams", None, json!({"streams": ["c"]})).await;
    let (_, claimed) = rig.post("s", "claim", None, json!({"worker": "one"})).await;
    let ack = json!({"wake_id": claimed["wake_id"], "generation": 1,
        "acks": [{"stream": "a", "offset": tail}]});
    assert_eq!(rig.post("s", "ack", claimed["token"].as_str(), ack).await.0, 200);
    let before = rig.get("s").await;
    rig.restart().await;
    assert_eq!(rig.get("s").await, before);
    assert_eq!(rig.put("s", body).await.0, 200, "re-confirmed after the restart");
    let (_, busy) = rig.post("s", "claim", None, json!({"worker": "two"})).await;
    assert_eq!(busy["error"]["current_holder"], "one");
    rig.pass(10_000);
    let (_, next) = rig.post("s", "claim", None, json!({"worker": "two"})).await;
    assert_eq!(next["generation"], 2);
    assert_eq!(next["streams"][0]["path"], "b");
}

#[tokio::test]
async fn a_stream_that_was_replaced_during_the_outage_starts_over() {
    let mut rig = Rig::frozen(options()).await;
    rig.append("a", "1").await;
    let body = json!({"type": "pull-wake", "streams": ["a"], "wake_stream": "wake"});
    rig.put("s", body).await;
    rig.crash();
    rig.delete("a").await;
    rig.append("a", "1").await;
    rig.restart().await;
    let (status, claimed) = rig.post("s", "claim", None, json!({"worker": "w"})).await;
    assert_eq!(status, 200, "as long as the old one, and another: {claimed}");
}

#[tokio::test]
async fn logs_are_rewritten_and_read_back() {
    let mut rig = Rig::frozen(options()).await;
    rig.create("wake").await;
    rig.put("s", json!({"type": "pull-wake", "pattern": "e/*", "wake_stream": "wake"})).await;
    let mut generation = 0;
    for n in 0..300 {
        let tail = rig.append("e/a", "1").await;
        let (_, claimed) = rig.post("s", "claim", None, json!({"worker": "w"})).await;
        generation = claimed["generation"].as_u64().unwrap();
        let ack = json!({"wake_id": claimed["wake_id"], "generation": generation, "done": true,
            "acks": [{"stream": "e/a", "offset": tail}]});
        let (status, body) = rig.post("s", "ack", claimed["token"].as_str(), ack).await;
        assert_eq!(status, 200, "{n}: {body}");
    }
    let stored = rig.engine.stats().store;
    assert!(stored.bytes < 400_000, "the log is bounded: {stored:?}");
    let before = rig.get("s").await;
    rig.restart().await;
    assert_eq!(rig.get("s").await, before);
    rig.append("e/a", "1").await;
    let (_, claimed) = rig.post("s", "claim", None, json!({"worker": "w"})).await;
    assert_eq!(claimed["generation"], generation + 1);
    assert_eq!(claimed["error"], Value::Null);
}

#[tokio::test]
async fn deleted_subscriptions_stay_deleted() {
    let mut rig = Rig::frozen(options()).await;
    rig.put("s", json!({"type": "pull-wake", "pattern": "e/*", "wake_stream": "w"})).await;
    rig.call(http::Method::DELETE, "subscriptions/s", None, Value::Null).await;
    rig.restart().await;
    assert!(rig.subs.is_empty());
    assert_eq!(rig.engine.stats().store.streams, 0, "nothing is left of it");
}

/// A crash during a rewrite leaves both logs. The older one must not be what a later start finds.
#[tokio::test]
async fn a_log_that_was_replaced_does_not_come_back() {
    let mut rig = Rig::frozen(options()).await;
    let body = json!({"type": "pull-wake", "pattern": "e/*", "wake_stream": "w"});
    rig.put("s", body.clone()).await;
    let log = rig.log("s").await;
    let name = |number: u64| format!("__ds/subscriptions/s/{number:016}");
    rig.crash();
    rig.create_as(&name(1), "application/octet-stream", &log).await;
    // A rewrite that was cut off.
    let (incomplete, _) = log.split_once('\n').unwrap();
    rig.create_as(&name(2), "application/octet-stream", &format!("{incomplete}\n")).await;
    rig.restart().await;
    assert_eq!(rig.subs.len(), 1);
    assert_eq!(rig.engine.stats().store.streams, 1, "the newest complete log alone is kept");
    assert_eq!(rig.put("s", body).await.0, 200);
    rig.call(http::Method::DELETE, "subscriptions/s", None, Value::Null).await;
    rig.restart().await;
    assert!(rig.subs.is_empty());
    assert_eq!(rig.engine.stats().store.streams, 0);
}

#[tokio::test]
async fn a_wake_whose_stream_went_during_the_outage_is_announced_in_the_next() {
    let mut rig = Rig::frozen(options()).await;
    rig.create("w").await;
    rig.put("s", json!({"type": "pull-wake", "pattern": "e/*", "wake_stream": "w"})).await;
    rig.append("e/a", "1").await;
    until("the wake", || async { (rig.read("w").await.len() == 1).then_some(()) }).await;
    for away in [false, true] {
        rig.crash();
        if away {
            rig.delete("w").await;
        }
        rig.restart().await;
        let status = if away { "failed" } else { "active" };
        assert_eq!(rig.get("s").await["status"], status, "a retry is scheduled: {away}");
    }
    rig.create("w").await;
    until("the same wake", || async { (rig.read("w").await.len() == 1).then_some(()) }).await;
    assert_eq!(rig.read("w").await[0]["generation"], 1);
}

#[tokio::test]
async fn while_its_log_cannot_be_written_a_subscription_refuses_and_then_goes_on() {
    let rig = Rig::frozen(options()).await;
    rig.create("w").await;
    rig.put("s", json!({"type": "pull-wake", "pattern": "e/*", "wake_stream": "w"})).await;
    let tail = rig.append("e/a", "1").await;
    let (_, claimed) = rig.post("s", "claim", None, json!({"worker": "w"})).await;
    let ack = json!({"wake_id": claimed["wake_id"], "generation": 1,
        "acks": [{"stream": "e/a", "offset": tail}]});
    let log = rig.log("s").await;
    let path = format!("__ds/subscriptions/s/{:016}", 0);
    rig.engine.delete(&StreamPath::system(&path).unwrap()).await.unwrap();
    for _ in 0..2 {
        let (status, body) = rig.post("s", "ack", claimed["token"].as_str(), ack.clone()).await;
        assert_eq!((status.as_u16(), code(&body)), (503, "UNAVAILABLE"));
    }
    let headers = http::HeaderMap::new();
    let (status, headers, _) =
        send(&rig.subs, BASE, &http::Method::GET, "subscriptions/s", &headers, Bytes::new()).await;
    assert_eq!((status.as_u16(), &headers["retry-after"]), (503, &"1".parse().unwrap()));
    rig.create_as(&path, "application/octet-stream", &log).await;
    let before = rig.get("s").await;
    assert_ne!(before["streams"][0]["acked_offset"], tail, "no cursor moved");
    assert_eq!(rig.post("s", "ack", claimed["token"].as_str(), ack).await.0, 200);
    assert_eq!(rig.get("s").await["streams"][0]["acked_offset"], tail);
}

#[tokio::test]
async fn a_wake_that_cannot_be_stored_is_tried_again_a_second_later() {
    let rig = Rig::frozen(options()).await;
    let receiver = Receiver::start(Receiver::done()).await;
    hook(&rig, &receiver.url(), 1_000).await;
    let log = rig.log("s").await;
    let path = format!("__ds/subscriptions/s/{:016}", 0);
    rig.engine.delete(&StreamPath::system(&path).unwrap()).await.unwrap();
    let tail = rig.append("events/a", "1").await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    rig.create_as(&path, "application/octet-stream", &log).await;
    rig.pass(999);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(receiver.count(), 0, "no wake leaves before it is stored");
    rig.pass(1);
    receiver.nth(0).await;
    acked(&rig, &tail).await;
}
