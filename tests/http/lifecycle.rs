//! The lifecycle stream: read like any other one, written by no client, and by whom it may be read.

use durable_streams_auth::{AccessGuard, GuardOptions};
use serde_json::Value;

use crate::access::{Access, auth, create};
use crate::support::eventually;
use crate::world::{Kind, World, soon};

const LOG: &str = "/__ds/lifecycle";

for_each_kind![
    events_are_read_like_those_of_any_stream,
    off_there_is_no_such_stream,
    clients_write_nothing_there,
    operators_and_explicit_grants_read_it,
    tenants_do_not_see_each_other_there,
];

async fn world(kind: Kind, guard: Option<AccessGuard>) -> World {
    let world = World::with(kind, |setup| {
        setup.limits.lifecycle = Some(1 << 16);
        setup.access = guard;
    });
    world.engine.keep_lifecycle().await;
    world
}

/// The event and the path of each message in a body.
fn brief(body: &str) -> Vec<String> {
    let messages: Vec<Value> = serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}"));
    let one = |message: &Value| {
        format!("{} {}", message["event"].as_str().unwrap(), message["path"].as_str().unwrap())
    };
    messages.iter().map(one).collect()
}

/// Waits until event `seq` is there: a client may have its answer a moment earlier.
async fn told(world: &World, seq: u64) {
    let last = format!("\"seq\":{seq},");
    eventually("the event is there", async || {
        world.ask("GET", LOG, &auth("operator"), b"").await.text().contains(&last)
    })
    .await;
}

async fn events_are_read_like_those_of_any_stream(kind: Kind) {
    let world = world(kind, None).await;
    let head = world.head(LOG).await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("application/json")));
    let begin = head.offset.clone().unwrap();
    let mut events = world.sse(&format!("{LOG}?offset={begin}&live=sse"), "").await;
    let mut poll = world.poll(&format!("{LOG}?offset={begin}&live=long-poll")).await;
    world.stream("/a", "text/plain", "one").await;
    let polled = soon(poll.reply()).await;
    assert_eq!((polled.status, brief(&polled.text())), (200, vec!["created a".to_owned()]));
    world.close("/a").await;
    assert_eq!(world.delete("/a").await.status, 204);
    let mut told = Vec::new();
    while told.len() < 3 {
        let event = soon(events.event()).await;
        if event.name == "data" {
            told.extend(brief(&event.data));
        }
    }
    assert_eq!(told, ["created a", "closed a", "deleted a"]);
    let next = polled.offset.as_ref().unwrap();
    let rest = world.get(&format!("{LOG}?offset={next}")).await;
    assert_eq!(brief(&rest.text()), ["closed a", "deleted a"]);
    assert_eq!(rest.header("stream-up-to-date"), Some("true"));
    let all = world.get(LOG).await;
    let messages: Vec<Value> = serde_json::from_str(&all.text()).unwrap();
    assert_eq!(messages.iter().map(|one| one["seq"].as_u64().unwrap()).max(), Some(3));
    assert_eq!(messages[0]["content_type"], "text/plain");
    // A page is cached as pages of other streams are.
    let tag = all.header("etag").unwrap();
    let again = world.ask("GET", LOG, &format!("if-none-match: {tag}\r\n"), b"").await;
    assert_eq!(again.status, 304);
}

async fn off_there_is_no_such_stream(kind: Kind) {
    let world = World::new(kind);
    world.engine.keep_lifecycle().await;
    world.stream("/a", "text/plain", "one").await;
    world.close("/a").await;
    for query in ["", "?offset=-1", "?offset=-1&live=long-poll", "?offset=-1&live=sse"] {
        let reply = world.get(&format!("{LOG}{query}")).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "not-found"), "{query}");
    }
}

async fn clients_write_nothing_there(kind: Kind) {
    let world = world(kind, None).await;
    let json = "content-type: application/json\r\n";
    for (method, fields, body) in [
        ("PUT", json, ""),
        ("POST", json, "{}"),
        ("POST", "stream-closed: true\r\n", ""),
        ("DELETE", "", ""),
        ("PATCH", "stream-ttl: 1\r\n", ""),
    ] {
        let refused = world.ask(method, LOG, fields, body.as_bytes()).await;
        assert_eq!((refused.status, refused.code().as_str()), (405, "read-only"), "{method}");
        assert_eq!(refused.header("allow"), Some("GET, HEAD, OPTIONS"), "{method}");
    }
    for other in ["/__ds/lifecycle/", "/%5F_ds/lifecycle", "/__ds/lifecycle/x", "/__ds%2Flifecycle"]
    {
        let refused = world.put(other, json, "").await;
        assert!((400..500).contains(&refused.status), "{other}: {refused:?}");
    }
    let source = "stream-forked-from: /v1/stream/__ds/lifecycle\r\n";
    let refused = world.put("/fork", &format!("{json}{source}"), "").await;
    assert!((400..500).contains(&refused.status), "{refused:?}");
    assert_eq!(world.get(LOG).await.text(), "[]", "and nothing became of it");
}

async fn operators_and_explicit_grants_read_it(kind: Kind) {
    for (hide, hidden) in [(true, 404), (false, 403)] {
        let options = GuardOptions { hide_unreadable: hide, ..GuardOptions::default() };
        let access = Access::with(options);
        let world = world(kind, Some(access.guard.clone())).await;
        create(&world, "root", "/pub/a").await;
        told(&world, 1).await;
        for (token, status) in [
            ("operator", 200),
            ("auditor", 200),
            ("", 401),
            ("nobody", 401),
            ("reader", hidden),
            // Patterns with wildcards are meant for streams of clients.
            ("root", hidden),
            ("acme", hidden),
        ] {
            for query in ["", "?offset=-1&live=long-poll"] {
                let reply = world.ask("GET", &format!("{LOG}{query}"), &auth(token), b"").await;
                assert_eq!(reply.status, status, "{token:?} {query} {hide}");
                if status == 200 {
                    assert_eq!(brief(&reply.text()), ["created pub/a"]);
                }
            }
            let head = world.ask("HEAD", LOG, &auth(token), b"").await;
            assert_eq!(head.status, status, "{token:?}");
            let written = world.ask("DELETE", LOG, &auth(token), b"").await;
            assert_eq!(written.status, 405, "{token:?}");
        }
        // What names the one stream is for no other.
        let other = world.ask("GET", "/pub/a", &auth("auditor"), b"").await;
        assert_eq!(other.status, hidden);
    }
}

async fn tenants_do_not_see_each_other_there(kind: Kind) {
    let access = Access::new();
    let world = world(kind, Some(access.guard.clone())).await;
    create(&world, "acme", "/room").await;
    create(&world, "globex", "/room").await;
    told(&world, 2).await;
    for token in ["acme", "globex"] {
        assert_eq!(world.ask("GET", LOG, &auth(token), b"").await.status, 404, "{token}");
    }
    let all = world.ask("GET", LOG, &auth("operator"), b"").await;
    let messages: Vec<Value> = serde_json::from_str(&all.text()).unwrap();
    let told: Vec<_> = messages.iter().map(|one| (&one["tenant"], &one["path"])).collect();
    assert_eq!(told, [(&"acme".into(), &"room".into()), (&"globex".into(), &"room".into())]);
}
