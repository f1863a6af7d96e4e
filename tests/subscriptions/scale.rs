//! Many streams under one pattern, many subscriptions, and appends that concern nobody.

use std::{collections::HashMap, time::Instant};

use durable_streams_protocol::StreamPath;
use serde_json::{Value, json};

use super::{
    receiver::Receiver,
    rig::{Rig, options, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_over_very_many_streams() {
    many_streams(10_000).await;
}

/// Run with `cargo test --release --test subscriptions -- --ignored --nocapture hundred`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a measurement"]
async fn a_hundred_thousand_streams() {
    many_streams(100_000).await;
}

/// Half of the streams get an append after the subscription, and as many are new.
async fn many_streams(count: usize) {
    let rig = Rig::new(options()).await;
    for n in 0..count {
        rig.append(&format!("many/{n}"), "1").await;
    }
    let receiver = Receiver::start(Receiver::done()).await;
    let body = json!({"type": "webhook", "pattern": "many/*", "webhook": {"url": receiver.url()}});
    let start = Instant::now();
    assert_eq!(rig.put("s", body).await.0, 201);
    println!("{count} streams linked in {:?}", start.elapsed());
    let start = Instant::now();
    for n in count / 2..count + count / 2 {
        rig.append(&format!("many/{n}"), "2").await;
    }
    println!("{count} appends in {:?}", start.elapsed());
    let path = |n: usize| StreamPath::new(&format!("many/{n}")).unwrap();
    let mut tails = HashMap::new();
    for n in 0..count + count / 2 {
        let view = rig.engine.head(&path(n)).await.unwrap();
        tails.insert(path(n).to_string(), view.tail.offset.to_string());
    }
    until("all acks", || async {
        let body = rig.get("s").await;
        let links = body["streams"].as_array().unwrap();
        let acked = |link: &Value| {
            tails[link["path"].as_str().unwrap()] == link["acked_offset"].as_str().unwrap()
        };
        (links.len() == tails.len() && links.iter().all(acked)).then_some(())
    })
    .await;
    println!("all acked after {:?} and {} wakes", start.elapsed(), receiver.count());
    let wake = receiver.nth(0).await;
    assert!(wake.body["streams"].as_array().unwrap().len() <= 1_000, "a wake stays small");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_subscriptions_each_get_their_own() {
    let rig = Rig::new(options()).await;
    let receiver = Receiver::start(Receiver::done()).await;
    for n in 0..1_000 {
        let body = json!({"type": "webhook", "pattern": format!("team{n}/**"),
            "webhook": {"url": receiver.url()}});
        assert_eq!(rig.put(&format!("s{n}"), body).await.0, 201);
    }
    for n in 0..1_000 {
        rig.append(&format!("team{n}/a/b"), "1").await;
    }
    receiver.nth(999).await;
    until("all acks", || async { (receiver.count() >= 1_000).then_some(()) }).await;
    assert_eq!(receiver.count(), 1_000, "one wake for each");
}

/// Run with `cargo test --release --test subscriptions -- --ignored --nocapture cost`.
#[tokio::test]
#[ignore = "prints a measurement"]
async fn the_cost_of_the_hook() {
    for subscriptions in [0, 1_000] {
        let rig = Rig::new(options()).await;
        for n in 0..subscriptions {
            let body =
                json!({"type": "pull-wake", "pattern": format!("team{n}/**"), "wake_stream": "w"});
            rig.put(&format!("s{n}"), body).await;
        }
        rig.append("nobody/cares", "1").await;
        let path = StreamPath::new("nobody/cares").unwrap();
        let view = rig.engine.head(&path).await.unwrap();
        let observer = rig.subs.observer();
        let rounds = 1_000_000;
        let start = Instant::now();
        for _ in 0..rounds {
            observer.on_durable(&path, Some(&view.core), view.tail);
        }
        println!("{subscriptions} subscriptions: {:?} per append", start.elapsed() / rounds);
    }
}
