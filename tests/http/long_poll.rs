//! Long-poll (PROTOCOL §5.7, §10.1): answers with news, a timeout or the end, and loses nothing.

use crate::support::eventually;
use crate::world::{Kind, SHORT, World, offset, request, soon};

for_each_kind![
    data_that_is_there_comes_at_once,
    new_data_ends_the_wait,
    a_timeout_is_204_with_where_to_go_on,
    closing_ends_the_wait,
    deleting_ends_the_wait,
    now_waits_for_what_comes,
    cursors_move_forward_only,
    no_append_slips_between_check_and_wait,
    a_client_that_leaves_frees_its_place,
    a_client_that_leaves_is_counted_as_gone,
    a_connection_goes_on_after_a_long_poll,
    a_pipelined_request_waits_its_turn,
    inherited_data_comes_at_once_and_the_source_wakes_nobody,
];

fn short(kind: Kind) -> World {
    World::with(kind, |setup| setup.edge.streams.long_poll_timeout = SHORT)
}

fn cursor(reply: &crate::support::Reply) -> u64 {
    reply.header("stream-cursor").expect("a cursor").parse().unwrap()
}

async fn data_that_is_there_comes_at_once(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let reply = world.get("/a?offset=-1&live=long-poll").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "abc"));
    assert_eq!(reply.header("stream-next-offset"), Some(offset(3).as_str()));
    assert_eq!(reply.header("stream-up-to-date"), Some("true"));
    assert!(reply.header("etag").is_some() && cursor(&reply) > 0);
}

async fn new_data_ends_the_wait(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    world.stream("/j", "application/json", "[1]").await;
    let tail = world.head("/j").await.header("stream-next-offset").unwrap().to_owned();
    let mut text = world.poll(&format!("/a?offset={}&live=long-poll", offset(3))).await;
    let mut json = world.poll(&format!("/j?offset={tail}&live=long-poll")).await;
    world.append("/a", "text/plain", "def").await;
    world.append("/j", "application/json", "[2,3]").await;
    assert_eq!(soon(text.reply()).await.text(), "def");
    assert_eq!(soon(json.reply()).await.text(), "[2,3]");
    world.at_rest().await;
}

async fn a_timeout_is_204_with_where_to_go_on(kind: Kind) {
    let world = short(kind);
    world.stream("/a", "text/plain", "abc").await;
    let reply = world.get(&format!("/a?offset={}&live=long-poll", offset(3))).await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(reply.header("stream-next-offset"), Some(offset(3).as_str()));
    assert_eq!(reply.header("stream-up-to-date"), Some("true"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("stream-closed"), None);
    assert!(cursor(&reply) > 0);
    for absent in ["content-length", "transfer-encoding", "etag"] {
        assert_eq!(reply.header(absent), None, "{absent}");
    }
}

async fn closing_ends_the_wait(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let mut only = world.poll("/a?offset=now&live=long-poll").await;
    world.close("/a").await;
    let reply = soon(only.reply()).await;
    assert_eq!((reply.status, reply.header("stream-closed")), (204, Some("true")));
    assert_eq!(reply.header("stream-up-to-date"), Some("true"));

    world.stream("/b", "text/plain", "").await;
    let mut with_data = world.poll("/b?offset=now&live=long-poll").await;
    world.post("/b", "content-type: text/plain\r\nstream-closed: true\r\n", "end").await;
    let reply = soon(with_data.reply()).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "end"));
    assert_eq!(reply.header("stream-closed"), Some("true"));
}

async fn deleting_ends_the_wait(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let mut client = world.poll("/a?offset=now&live=long-poll").await;
    assert_eq!(world.delete("/a").await.status, 204);
    assert_eq!(soon(client.reply()).await.status, 404);
    // Another stream at the same path is not the one that was read.
    world.stream("/a", "text/plain", "abcdef").await;
    let mut client = world.poll("/a?offset=now&live=long-poll").await;
    world.delete("/a").await;
    world.stream("/a", "text/plain", "something else entirely").await;
    assert_eq!(soon(client.reply()).await.status, 404);
}

async fn now_waits_for_what_comes(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "history").await;
    let mut client = world.poll("/a?offset=now&live=long-poll").await;
    world.append("/a", "text/plain", "news").await;
    let reply = soon(client.reply()).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "news"));
    assert_eq!(reply.header("cache-control"), Some("no-store"), "now is another place each time");
}

async fn cursors_move_forward_only(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    world.stream("/a", "text/plain", "abc").await;
    let ask = |echo: String| {
        let path = format!("/a?offset=-1&live=long-poll{echo}");
        let world = &world;
        async move { cursor(&world.get(&path).await) }
    };
    let current = ask(String::new()).await;
    // Intervals of 20 s since 2024-10-09T00:00:00Z; the clock shows 2026-01-01.
    assert_eq!(current, (1_767_225_600 - 1_728_432_000) / 20);
    for behind in ["&cursor=0", "&cursor=12", "&cursor=nonsense", "&cursor=", "&cursor=-5"] {
        assert_eq!(ask(behind.to_owned()).await, current, "{behind}");
    }
    assert_eq!(ask(format!("&cursor={}", current - 1)).await, current);
    let mut last = current;
    for _ in 0..5 {
        let next = ask(format!("&cursor={last}")).await;
        assert!(next > last && next <= last + 180, "{next} after {last}");
        last = next;
    }
    let most = (1u64 << 53) - 1 - 3600;
    for far in [most, last + 1_000_000] {
        assert!(ask(format!("&cursor={far}")).await > far);
    }
    // No cursor of ours, and none that a script could count on from.
    assert_eq!(ask(format!("&cursor={}", most + 1)).await, current);
    clock.advance_millis(20_000);
    assert_eq!(ask(String::new()).await, current + 1);
}

/// Readers that go round while a writer writes see every byte once.
async fn no_append_slips_between_check_and_wait(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let door = world.server.door();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        readers.spawn(async move {
            let mut client = door.connect().await;
            let (mut read, mut from) = (String::new(), "-1".to_owned());
            loop {
                let path = format!("/a?offset={from}&live=long-poll");
                client.send(request("GET", &path, "", b"")).await;
                let reply = client.reply().await;
                read.push_str(&reply.text());
                from = reply.offset.clone().unwrap();
                if reply.header("stream-closed").is_some() {
                    return read;
                }
            }
        });
    }
    let mut expected = String::new();
    for turn in 0..150 {
        let part = format!("{turn},");
        world.append("/a", "text/plain", &part).await;
        expected.push_str(&part);
    }
    world.close("/a").await;
    while let Some(read) = soon(readers.join_next()).await {
        assert_eq!(read.unwrap(), expected);
    }
    world.at_rest().await;
}

async fn a_client_that_leaves_frees_its_place(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let clients = [
        world.poll("/a?offset=now&live=long-poll").await,
        world.poll("/a?offset=now&live=long-poll").await,
    ];
    assert_eq!(world.engine.stats().live_readers, 2);
    drop(clients);
    world.at_rest().await;
}

/// It has no body that could be incomplete.
async fn a_client_that_leaves_is_counted_as_gone(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    drop(world.poll("/a?offset=now&live=long-poll").await);
    let counted = || {
        let counts = world.server.counters.requests().into_iter();
        let polls = counts.filter(|one| one.mode == "long_poll" && one.count > 0);
        polls.map(|one| (one.status, one.count)).collect::<Vec<_>>()
    };
    eventually("it is counted", async || !counted().is_empty()).await;
    assert_eq!(counted(), [("0".to_owned(), 1)], "without a response");
}

async fn a_connection_goes_on_after_a_long_poll(kind: Kind) {
    let world = short(kind);
    world.stream("/a", "text/plain", "abc").await;
    let mut client = world.server.connect().await;
    for _ in 0..2 {
        client.send(request("GET", "/a?offset=now&live=long-poll", "", b"")).await;
        assert_eq!(client.reply().await.status, 204);
    }
    client.send(request("GET", "/a", "", b"")).await;
    assert_eq!(client.reply().await.text(), "abc");
}

/// Bytes that come while a long-poll waits are the next request, neither lost nor taken for a departure.
async fn a_pipelined_request_waits_its_turn(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let mut client = world.poll("/a?offset=now&live=long-poll").await;
    client.send(request("GET", "/a", "", b"")).await;
    world.append("/a", "text/plain", "def").await;
    assert_eq!(soon(client.reply()).await.text(), "def");
    assert_eq!(soon(client.reply()).await.text(), "abcdef");
}

async fn inherited_data_comes_at_once_and_the_source_wakes_nobody(kind: Kind) {
    let world = short(kind);
    world.stream("/source", "text/plain", "inherited").await;
    let fork = "stream-forked-from: /v1/stream/source\r\n";
    assert_eq!(world.put("/fork", fork, "").await.status, 201);
    let reply = world.get("/fork?offset=-1&live=long-poll").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "inherited"));
    let mut client = world.poll("/fork?offset=now&live=long-poll").await;
    world.append("/source", "text/plain", "not for the fork").await;
    assert_eq!(soon(client.reply()).await.status, 204);
}
