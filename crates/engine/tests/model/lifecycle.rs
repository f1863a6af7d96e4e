//! Lifecycle events on both stores: what they say, their order, their bound, and what turning them on and off does.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use durable_streams_engine::{Engine, EngineLimits};
use durable_streams_protocol::{
    Append, ContentType, Create, Expiry, Fork, LIFECYCLE_PATH, MESSAGE_END, ReadFrom, Rejection,
    StreamPath,
};
use serde_json::Value;

use crate::stores::{StoreKind, engine};

fn path(text: &str) -> StreamPath {
    StreamPath::system(text).unwrap()
}

fn log() -> StreamPath {
    path(LIFECYCLE_PATH)
}

async fn on(kind: StoreKind, keep: u64) -> (Arc<Engine>, impl Sized) {
    let (engine, clock, directory) = engine(kind, 1 << 20);
    turn(&engine, Some(keep)).await;
    (engine, (clock, directory))
}

async fn turn(engine: &Engine, lifecycle: Option<u64>) {
    engine.set_limits(EngineLimits { lifecycle, ..EngineLimits::default() });
    engine.keep_lifecycle().await;
}

fn closing() -> Append {
    Append { close: true, ..Append::default() }
}

/// The messages that are there; waits until as many as `seq` were written.
async fn messages(engine: &Engine, seq: u64) -> Vec<Value> {
    let (_, mut watch) = engine.open_live(&log()).await.unwrap();
    loop {
        let view = engine.head(&log()).await.unwrap();
        let (from, tail) = (view.tail.earliest, view.tail.offset);
        let slice = engine.read(&view.core, from, tail, 1 << 30).await.unwrap();
        let bytes = slice.chunks.concat();
        let parts = bytes.split(|byte| *byte == MESSAGE_END).filter(|part| !part.is_empty());
        let all: Vec<Value> = parts.map(|part| serde_json::from_slice(part).unwrap()).collect();
        let last = all.last().and_then(|message| message["seq"].as_u64()).unwrap_or_default();
        if last >= seq {
            return all;
        }
        let patience = std::time::Duration::from_secs(20);
        tokio::time::timeout(patience, watch.changed()).await.expect("the events come");
    }
}

fn brief(messages: &[Value]) -> Vec<String> {
    let one = |message: &Value| {
        let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}{}", text("event"), text("tenant"), text("path"))
    };
    messages.iter().map(one).collect()
}

#[tokio::test]
async fn each_stream_is_created_and_ends_once() {
    for kind in StoreKind::ALL {
        let (engine, keep) = on(*kind, 1 << 16).await;
        let plain = Create::default();
        for name in ["a", "__ds/t/acme/a", "__ds/subscriptions/x/0"] {
            engine.create(&path(name), &plain, Bytes::new()).await.unwrap();
            engine.create(&path(name), &plain, Bytes::new()).await.unwrap();
        }
        engine.append(&path("a"), &closing(), Bytes::new()).await.unwrap();
        engine.append(&path("a"), &closing(), Bytes::new()).await.unwrap();
        let source = Some(Fork { source: path("a"), offset: None, sub_offset: 0 });
        let fork = Create { fork: source, ..Create::default() };
        engine.create(&path("f"), &fork, Bytes::new()).await.unwrap();
        engine.delete(&path("a")).await.unwrap();
        assert_eq!(engine.delete(&path("a")).await, Err(Rejection::Gone));
        // The last fork takes its source with it, which was deleted before.
        engine.delete(&path("f")).await.unwrap();
        assert_eq!(engine.delete(&path("f")).await, Err(Rejection::NotFound));
        engine.create(&path("a"), &plain, Bytes::new()).await.unwrap();
        let all = messages(&engine, 7).await;
        assert_eq!(
            brief(&all),
            [
                "created a",
                "created acmea",
                "closed a",
                "created f",
                "deleted a",
                "deleted f",
                "created a"
            ],
            "{kind:?}"
        );
        let numbers: Vec<_> = all.iter().map(|message| message["seq"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(all[3]["fork"]["path"], "a");
        assert_eq!(all[4]["soft_deleted"], true);
        assert_ne!(all[0]["incarnation"], all[6]["incarnation"]);
        drop(keep);
    }
}

#[tokio::test]
async fn what_expires_and_what_is_trimmed_is_told() {
    for kind in StoreKind::ALL {
        let (engine, clock, _keep) = engine(*kind, 1 << 20);
        turn(&engine, Some(1 << 16)).await;
        let short = Create { expiry: Expiry::Ttl(5), ..Create::default() };
        for name in ["swept", "replaced", "kept"] {
            engine.create(&path(name), &short, Bytes::from_static(b"ab")).await.unwrap();
        }
        let tail = engine.head(&path("kept")).await.unwrap().tail.offset;
        for _ in 0..2 {
            engine.trim(&path("kept"), tail).await.unwrap();
        }
        engine.change_expiry(&path("kept"), Expiry::Never).await.unwrap();
        clock.advance_millis(6_000);
        engine.create(&path("replaced"), &short, Bytes::new()).await.unwrap();
        engine.sweep_due().await;
        let all = messages(&engine, 7).await;
        assert_eq!(
            brief(&all)[3..],
            ["trimmed kept", "expired replaced", "created replaced", "expired swept"],
            "{kind:?}"
        );
        assert_eq!(all[0]["ttl"], 5);
        assert_eq!(all[3]["earliest"], tail.to_string());
        assert_eq!(all[3]["offset"], tail.to_string());
    }
}

#[tokio::test]
async fn it_keeps_its_newest_bytes_and_no_more_than_twice_as_many() {
    const KEEP: u64 = 64 << 10;
    for kind in StoreKind::ALL {
        let (engine, keep) = on(*kind, KEEP).await;
        let mut most = 0;
        for round in 0..600_u64 {
            let name = path(&format!("{round}/{}", "x".repeat(200)));
            engine.create(&name, &Create::default(), Bytes::new()).await.unwrap();
            engine.delete(&name).await.unwrap();
            let tail = engine.head(&log()).await.unwrap().tail;
            let kept = tail.offset.position() - tail.earliest.position();
            most = most.max(kept);
            assert!(kept >= KEEP || tail.earliest.position() == 0, "{kept} in round {round}");
        }
        assert!((KEEP..=2 * KEEP + 1_000).contains(&most), "{most} on {kind:?}");
        let all = messages(&engine, 1_200).await;
        let first = all[0]["seq"].as_u64().unwrap();
        assert!(first > 1, "the first ones are gone");
        let numbers = all.iter().map(|message| message["seq"].as_u64().unwrap());
        assert!(numbers.eq(first..=1_200), "and no other");
        let (view, start) =
            (engine.head(&log()).await.unwrap(), durable_streams_protocol::Offset::ZERO);
        let refused = view.start(ReadFrom::At(start));
        assert!(matches!(refused, Err(Rejection::OffsetTrimmed { .. })), "{refused:?}");
        let (streams, bytes) = (engine.stats().store.streams, engine.stats().store.bytes);
        assert_eq!(streams, 1, "{bytes}");
        drop(keep);
    }
}

#[tokio::test]
async fn off_it_does_not_exist_and_on_again_it_is_another_one() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 1 << 20);
        engine.keep_lifecycle().await;
        engine.create(&path("before"), &Create::default(), Bytes::new()).await.unwrap();
        assert_eq!(engine.head(&log()).await.err(), Some(Rejection::NotFound));
        turn(&engine, Some(1 << 16)).await;
        assert_eq!(messages(&engine, 0).await.len(), 0, "it begins when it is turned on");
        engine.delete(&path("before")).await.unwrap();
        assert_eq!(brief(&messages(&engine, 1).await), ["deleted before"]);
        let old = engine.head(&log()).await.unwrap().tail.offset;
        turn(&engine, None).await;
        assert_eq!(engine.head(&log()).await.err(), Some(Rejection::NotFound));
        engine.create(&path("missed"), &Create::default(), Bytes::new()).await.unwrap();
        turn(&engine, Some(1 << 16)).await;
        let view = engine.head(&log()).await.unwrap();
        let refused = view.core.resolve(old, view.tail.offset).err();
        assert_eq!(refused, Some(Rejection::OffsetOfDeletedStream), "a reader learns of the gap");
        engine.delete(&path("missed")).await.unwrap();
        assert_eq!(brief(&messages(&engine, 1).await), ["deleted missed"]);
    }
}

#[tokio::test]
async fn limits_and_forks_do_not_reach_it() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 1 << 20);
        let limits = |max_streams, max_total| EngineLimits {
            lifecycle: Some(1 << 16),
            max_streams: Some(max_streams),
            max_total: Some(max_total),
            ..EngineLimits::default()
        };
        engine.set_limits(limits(2, 1_000));
        engine.keep_lifecycle().await;
        engine.create(&path("a"), &Create::default(), Bytes::new()).await.unwrap();
        engine.set_limits(limits(0, 0));
        let text = ContentType::default();
        let append = Append { content_type: Some(Ok(text)), ..Append::default() };
        let refused = engine.append(&path("a"), &append, Bytes::from_static(b"x")).await;
        assert_eq!(refused.err(), Some(Rejection::StorageFull));
        engine.append(&path("a"), &closing(), Bytes::new()).await.unwrap();
        engine.delete(&path("a")).await.unwrap();
        assert_eq!(brief(&messages(&engine, 3).await), ["created a", "closed a", "deleted a"]);
        engine.set_limits(limits(9, 9_000));
        let fork = Create {
            fork: Some(Fork { source: log(), offset: None, sub_offset: 0 }),
            ..Create::default()
        };
        let refused = engine.create(&path("f"), &fork, Bytes::new()).await;
        assert_eq!(refused.err(), Some(Rejection::SourceNotFound));
    }
}

/// Clients of many streams at once: the order of a stream's events is theirs, and no number is missing or there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_of_many_clients_are_all_there_in_order() {
    const CLIENTS: u64 = 8;
    const ROUNDS: u64 = 40;
    for kind in StoreKind::ALL {
        let (engine, keep) = on(*kind, 1 << 24).await;
        let client = |number: u64| {
            let engine = engine.clone();
            async move {
                let (own, shared) = (path(&format!("own/{number}")), path("shared"));
                for _ in 0..ROUNDS {
                    engine.create(&own, &Create::default(), Bytes::new()).await.unwrap();
                    engine.append(&own, &closing(), Bytes::new()).await.unwrap();
                    engine.delete(&own).await.unwrap();
                    let _ = engine.create(&shared, &Create::default(), Bytes::new()).await;
                    let _ = engine.append(&shared, &closing(), Bytes::new()).await;
                    let _ = engine.delete(&shared).await;
                }
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(client(number))).collect();
        for client in clients {
            client.await.unwrap();
        }
        let all = messages(&engine, 3 * CLIENTS * ROUNDS).await;
        let mut last = HashMap::new();
        for (at, message) in all.iter().enumerate() {
            assert_eq!(message["seq"], at as u64 + 1);
            let event = message["event"].as_str().unwrap();
            let before = last.insert(message["path"].to_string(), event.to_owned());
            match (before.as_deref().unwrap_or("deleted"), event) {
                ("deleted", "created")
                | ("created", "closed")
                | ("created" | "closed", "deleted") => {}
                (before, event) => panic!("{before}, then {event}: {message}"),
            }
        }
        let own = all.iter().filter(|one| one["path"].as_str().unwrap().starts_with("own"));
        assert_eq!(own.count() as u64, 3 * CLIENTS * ROUNDS);
        drop(keep);
    }
}
