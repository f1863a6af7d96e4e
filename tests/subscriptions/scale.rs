//! Many streams under one pattern, many subscriptions, and appends that concern nobody.

use std::{collections::HashMap, time::Instant};

use durable_streams_protocol::StreamPath;
use serde_json::{Value, json};

use super::{
    receiver::Receiver,
    rig::{Rig, code, options, until},
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
        let links = all_links(&rig).await;
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

/// The links of subscription `s`, page by page.
async fn all_links(rig: &Rig) -> Vec<Value> {
    let mut links: Vec<Value> = Vec::new();
    let mut page = rig.get("s").await;
    loop {
        links.extend(page["streams"].as_array().unwrap().iter().cloned());
        let Some(after) = page["streams_next"].as_str() else { break };
        page = rig.get(&format!("s?streams_after={}", after.replace('/', "%2F"))).await;
    }
    assert_eq!(page["streams_total"], links.len());
    links
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
    let mut tails = Vec::new();
    for n in 0..1_000 {
        tails.push(rig.append(&format!("team{n}/a/b"), "1").await);
    }
    for (n, tail) in tails.iter().enumerate() {
        until("the ack", || async {
            (rig.get(&format!("s{n}")).await["streams"][0]["acked_offset"] == *tail).then_some(())
        })
        .await;
    }
    assert_eq!(receiver.count(), 1_000, "one wake for each");
}

/// The commit path does not match patterns, so the worst set of patterns and the deepest path cost it little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_patterns_do_not_hold_up_appends() {
    let rig = Rig::new(options()).await;
    let refused = hostile_patterns(&rig).await;
    assert_eq!(refused, "LIMIT_REACHED", "what patterns may hold together is bounded");
    let path = ["a"; 100].join("/");
    rig.append(&path, "1").await;
    let path = StreamPath::new(&path).unwrap();
    let view = rig.engine.head(&path).await.unwrap();
    let observer = rig.subs.observer();
    let start = Instant::now();
    for _ in 0..1_000 {
        observer.on_durable(&path, Some(&view.core), view.tail);
    }
    assert!(start.elapsed().as_millis() < 500, "1,000 calls took {:?}", start.elapsed());
    // Another client's subscription is served meanwhile.
    let body = json!({"type": "pull-wake", "streams": ["mine"], "wake_stream": "w"});
    assert_eq!(rig.put("mine", body).await.0, 201);
    rig.append("mine", "1").await;
    let start = Instant::now();
    let (status, _) = rig.post("mine", "claim", None, json!({"worker": "w"})).await;
    assert_eq!(status, 200);
    assert!(start.elapsed().as_secs() < 5, "the claim took {:?}", start.elapsed());
}

/// Subscribes with different patterns of mixed wildcards until one is refused; returns its code.
async fn hostile_patterns(rig: &Rig) -> String {
    let mut state = 1_u64;
    for n in 0..2_000 {
        let mut globstars = 0;
        let segments = (0..24).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let kind = ["*", "**", "a"][(state >> 33) as usize % 3];
            globstars += usize::from(kind == "**");
            if kind == "**" && globstars > 4 { "a" } else { kind }
        });
        let pattern = segments.collect::<Vec<_>>().join("/");
        let body = json!({"type": "pull-wake", "pattern": pattern, "wake_stream": "w"});
        let (status, body) = rig.put(&format!("hostile{n}"), body).await;
        if status != 201 {
            return code(&body).to_owned();
        }
    }
    "none".into()
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
