//! Pull-wake (§7.2, §7.3): claims, leases on a clock moved by hand, the wake stream.

use http::Method;
use serde_json::{Value, json};

use super::rig::{Rig, code, options, until};

async fn subscribed() -> Rig {
    let rig = Rig::frozen(options()).await;
    rig.create("wake/pool").await;
    let body = json!({"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool",
        "lease_ttl_ms": 1000});
    assert_eq!(rig.put("s", body).await.0, 201);
    rig
}

async fn claim(rig: &Rig, worker: &str) -> (u16, Value) {
    let (status, body) = rig.post("s", "claim", None, json!({"worker": worker})).await;
    (status.as_u16(), body)
}

fn reply(claimed: &Value, offset: Option<&str>, done: bool) -> Value {
    let acks: Vec<Value> =
        offset.map(|offset| json!({"stream": "events/a", "offset": offset})).into_iter().collect();
    json!({"wake_id": claimed["wake_id"], "generation": claimed["generation"], "acks": acks,
        "done": done})
}

async fn ack(rig: &Rig, claimed: &Value, body: Value) -> (u16, Value) {
    let (status, body) = rig.post("s", "ack", claimed["token"].as_str(), body).await;
    (status.as_u16(), body)
}

/// Waits for the wake event of a generation.
async fn wake_event(rig: &Rig, generation: u64) -> Value {
    until("the wake event", || async {
        let events = rig.read("wake/pool").await;
        events.into_iter().find(|event| event["generation"] == generation)
    })
    .await
}

#[tokio::test]
async fn a_wake_is_claimed_once_acked_and_followed_by_the_next() {
    let rig = subscribed().await;
    let first = rig.append("events/a", "1").await;
    let event = wake_event(&rig, 1).await;
    assert_eq!(event["type"], "wake");
    assert_eq!(event["subscription_id"], "s");
    assert_eq!(event["stream"], "events/a");
    assert_eq!(event["ts"], 1_700_000_000_000_u64);

    let (status, claimed) = claim(&rig, "one").await;
    assert_eq!(
        (status, &claimed["generation"], &claimed["lease_ttl_ms"]),
        (200, &json!(1), &json!(1000))
    );
    let (status, busy) = claim(&rig, "two").await;
    assert_eq!((status, code(&busy)), (409, "ALREADY_CLAIMED"));
    assert_eq!(busy["error"]["current_holder"], "one");
    assert_eq!(busy["error"]["generation"], 1);

    let second = rig.append("events/a", "2").await;
    let (status, body) = ack(&rig, &claimed, reply(&claimed, Some(&first), true)).await;
    assert_eq!((status, body), (200, json!({"ok": true, "next_wake": true})));
    wake_event(&rig, 2).await;
    let (_, claimed) = claim(&rig, "two").await;
    assert_eq!(claimed["generation"], 2);
    assert_eq!(claimed["streams"][0]["acked_offset"], json!(first));
    let (status, body) = ack(&rig, &claimed, reply(&claimed, Some(&second), true)).await;
    assert_eq!((status, body), (200, json!({"ok": true, "next_wake": false})));
    let (status, body) = ack(&rig, &claimed, reply(&claimed, Some(&second), true)).await;
    assert_eq!((status, code(&body)), (409, "FENCED"));
    assert_eq!(code(&claim(&rig, "two").await.1), "NO_PENDING_WORK");
}

#[tokio::test]
async fn a_lease_is_extended_by_heartbeats_and_ends_on_time() {
    let rig = subscribed().await;
    rig.append("events/a", "1").await;
    let (_, claimed) = claim(&rig, "one").await;
    for _ in 0..5 {
        rig.pass(900);
        let (status, body) = ack(&rig, &claimed, reply(&claimed, None, false)).await;
        assert_eq!((status, body), (200, json!({"ok": true, "next_wake": false})));
    }
    rig.pass(999);
    assert_eq!(code(&claim(&rig, "two").await.1), "ALREADY_CLAIMED");
    rig.pass(1);
    // Nobody asked: the end of the lease alone writes the next wake.
    wake_event(&rig, 2).await;
    let (status, body) = ack(&rig, &claimed, reply(&claimed, None, false)).await;
    assert_eq!((status, code(&body)), (409, "FENCED"));
    let (status, taken) = claim(&rig, "two").await;
    assert_eq!((status, &taken["generation"]), (200, &json!(2)));
}

/// A lease goes by elapsed time.
#[tokio::test]
async fn a_lease_ends_on_time_though_the_clock_is_set() {
    for step in [-3_600_000, 3_600_000] {
        let rig = subscribed().await;
        rig.append("events/a", "1").await;
        let (_, claimed) = claim(&rig, "one").await;
        rig.clock.as_ref().unwrap().step_wall_millis(step);
        rig.pass(999);
        assert_eq!(code(&claim(&rig, "two").await.1), "ALREADY_CLAIMED", "set by {step}");
        rig.pass(1);
        wake_event(&rig, 2).await;
        if step < 0 {
            let (status, body) = ack(&rig, &claimed, reply(&claimed, None, false)).await;
            assert_eq!((status, code(&body)), (409, "FENCED"));
        }
        assert_eq!(claim(&rig, "two").await.0, 200, "set by {step}");
    }
}

#[tokio::test]
async fn an_offset_of_a_deleted_stream_acknowledges_nothing_of_the_next() {
    let rig = subscribed().await;
    let old = rig.append("events/a", "1").await;
    rig.delete("events/a").await;
    let new = rig.append("events/a", "2").await;
    let (status, claimed) = claim(&rig, "one").await;
    assert_eq!((status, &claimed["streams"][0]["tail_offset"]), (200, &json!(new)));
    // The same position, and a later one, as another stream had them.
    for offset in [&old, &new.replace(&new[..16], &old[..16])] {
        let (status, refused) = ack(&rig, &claimed, reply(&claimed, Some(offset), true)).await;
        assert_eq!((status, code(&refused)), (409, "INVALID_OFFSET"), "{offset}");
    }
    let zero = "0000000000000000_0000000000000000";
    assert_eq!(rig.get("s").await["streams"][0]["acked_offset"], zero, "nothing moved");
    assert_eq!(ack(&rig, &claimed, reply(&claimed, Some(&new), true)).await.0, 200);
    assert_eq!(rig.get("s").await["streams"][0]["acked_offset"], json!(new));
}

#[tokio::test]
async fn release_gives_the_wake_back() {
    let rig = subscribed().await;
    rig.append("events/a", "1").await;
    let (_, claimed) = claim(&rig, "one").await;
    let body = json!({"wake_id": claimed["wake_id"], "generation": claimed["generation"]});
    let token = claimed["token"].as_str();
    assert_eq!(rig.post("s", "release", token, body.clone()).await.0, 204);
    wake_event(&rig, 2).await;
    let (status, stale) = rig.post("s", "release", token, body).await;
    assert_eq!((status.as_u16(), code(&stale)), (409, "FENCED"));
}

#[tokio::test]
async fn acks_that_cannot_be_are_refused_whole() {
    let rig = subscribed().await;
    let first = rig.append("events/a", "1").await;
    let tail = rig.append("events/a", "2").await;
    let (_, claimed) = claim(&rig, "one").await;
    assert_eq!(ack(&rig, &claimed, reply(&claimed, Some(&first), false)).await.0, 200);
    let beyond = "0000000000000000_0000000000009999";
    let zero = "0000000000000000_0000000000000000";
    for bad in [beyond, zero, "-1", "now", "7", ""] {
        let mut body = reply(&claimed, Some(&tail), true);
        let more = json!({"stream": "events/a", "offset": bad});
        body["acks"].as_array_mut().unwrap().push(more);
        let (status, refused) = ack(&rig, &claimed, body).await;
        assert_eq!((status, code(&refused)), (409, "INVALID_OFFSET"), "{bad}");
    }
    let mut body = reply(&claimed, None, true);
    body["acks"] = json!([{"stream": "events/none", "offset": zero}]);
    assert_eq!(code(&ack(&rig, &claimed, body).await.1), "INVALID_OFFSET");
    assert_eq!(rig.get("s").await["streams"][0]["acked_offset"], json!(first), "as it was");
    for (field, value) in [("wake_id", json!("w_x")), ("generation", json!(9))] {
        let mut body = reply(&claimed, Some(&tail), true);
        body[field] = value;
        assert_eq!(code(&ack(&rig, &claimed, body).await.1), "FENCED");
    }
    assert_eq!(ack(&rig, &claimed, reply(&claimed, Some(&tail), true)).await.0, 200);
}

#[tokio::test]
async fn a_deleted_subscription_answers_nobody() {
    let rig = subscribed().await;
    rig.append("events/a", "1").await;
    let (_, claimed) = claim(&rig, "one").await;
    rig.call(Method::DELETE, "subscriptions/s", None, Value::Null).await;
    let (status, body) = ack(&rig, &claimed, reply(&claimed, None, true)).await;
    assert_eq!((status, code(&body)), (404, "SUBSCRIPTION_NOT_FOUND"));
    let body = json!({"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool"});
    rig.put("s", body).await;
    rig.append("events/a", "2").await;
    let (_, again) = claim(&rig, "two").await;
    assert_eq!(again["generation"], 1, "another subscription of the same name");
    let (status, body) = ack(&rig, &claimed, reply(&claimed, None, true)).await;
    assert_eq!((status, code(&body)), (409, "FENCED"), "the old token does not fit the new one");
}

#[tokio::test]
async fn a_stream_that_is_created_anew_is_read_from_its_start() {
    let rig = subscribed().await;
    rig.append("events/a", r#""a long first message""#).await;
    let (_, claimed) = claim(&rig, "one").await;
    let tail = claimed["streams"][0]["tail_offset"].as_str().unwrap().to_owned();
    ack(&rig, &claimed, reply(&claimed, Some(&tail), true)).await;
    rig.delete("events/a").await;
    assert_eq!(rig.get("s").await["streams"], json!([]));
    rig.append("events/a", "1").await;
    let (status, claimed) = claim(&rig, "one").await;
    assert_eq!(status, 200, "shorter than the cursor of the old one, and pending all the same");
    assert_eq!(claimed["streams"][0]["acked_offset"], "0000000000000000_0000000000000000");
}

#[tokio::test]
async fn a_wake_stream_may_come_late_and_go() {
    let rig = Rig::frozen(options()).await;
    let body = json!({"type": "pull-wake", "pattern": "**", "wake_stream": "wake/pool"});
    rig.put("s", body).await;
    rig.append("events/a", "1").await;
    until("the failure", || async { (rig.get("s").await["status"] == "failed").then_some(()) })
        .await;
    rig.create("wake/pool").await;
    wake_event(&rig, 1).await;
    until("recovery", || async { (rig.get("s").await["status"] == "active").then_some(()) }).await;
    rig.delete("wake/pool").await;
    until("noticing", || async { (rig.get("s").await["status"] == "failed").then_some(()) }).await;
    rig.create("wake/pool").await;
    wake_event(&rig, 1).await;
    let links = rig.get("s").await["streams"].clone();
    assert_eq!(links.as_array().unwrap().len(), 1, "its own wake stream is not linked: {links}");
}

#[tokio::test]
async fn work_that_vanishes_takes_its_wake_along() {
    let rig = subscribed().await;
    rig.append("events/a", "1").await;
    wake_event(&rig, 1).await;
    rig.delete("events/a").await;
    assert_eq!(code(&claim(&rig, "one").await.1), "NO_PENDING_WORK");
    rig.append("events/a", "1").await;
    wake_event(&rig, 2).await;
}

#[tokio::test]
async fn a_cursor_that_is_trimmed_away_stays_pending_until_the_worker_goes_on_behind_it() {
    let rig = subscribed().await;
    rig.append("events/a", "1").await;
    let last = rig.append("events/a", "2").await;
    let path = durable_streams_protocol::StreamPath::new("events/a").unwrap();
    let end = durable_streams_protocol::Offset::parse(&last).unwrap();
    assert_eq!(rig.engine.trim(&path, end).await.unwrap().to_string(), last);
    let (_, claimed) = claim(&rig, "one").await;
    let stream = &claimed["streams"][0];
    assert_eq!((&stream["has_pending"], &stream["tail_offset"]), (&json!(true), &json!(last)));
    assert_ne!(stream["acked_offset"], json!(last), "its cursor is where it was");
    // The read from there is 410 with the earliest offset, which is all there is to acknowledge.
    let (status, body) = ack(&rig, &claimed, reply(&claimed, Some(&last), true)).await;
    assert_eq!((status, body), (200, json!({"ok": true, "next_wake": false})));
    assert_eq!(code(&claim(&rig, "two").await.1), "NO_PENDING_WORK");
    rig.append("events/a", "3").await;
    assert_eq!(claim(&rig, "two").await.0, 200);
}
