//! `HEAD` (PROTOCOL §5.5): everything about a stream, and not a byte of it.

use crate::world::{Kind, ROUTE, World, offset, request};

for_each_kind![metadata_is_told, heads_never_have_a_body, a_head_does_not_disturb_readers];

async fn metadata_is_told(kind: Kind) {
    let world = World::new(kind);
    world.put("/a", "content-type: text/plain; x=y\r\nstream-ttl: 3600\r\n", "abc").await;
    let head = world.head("/a").await;
    assert_eq!(head.status, 200);
    for (name, value) in [
        ("content-type", Some("text/plain; x=y")),
        ("stream-next-offset", Some(offset(3).as_str())),
        ("stream-ttl", Some("3600")),
        ("stream-expires-at", None),
        ("stream-closed", None),
        ("stream-up-to-date", None),
        ("cache-control", Some("no-store")),
        ("x-content-type-options", Some("nosniff")),
        ("cross-origin-resource-policy", Some("cross-origin")),
    ] {
        assert_eq!(head.header(name), value, "{name}");
    }
    world.close("/a").await;
    assert_eq!(world.head("/a").await.header("stream-closed"), Some("true"));
}

async fn heads_never_have_a_body(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let mut client = world.server.connect().await;
    for (path, status) in [
        ("/a", 200),
        ("/none", 404),
        ("/a?offset=now", 200),
        ("", 400),
        ("/", 400),
        ("/%ff", 400),
        ("/../x", 400),
    ] {
        client.send(request("HEAD", path, "", b"")).await;
        assert_eq!(client.head().await.status, status, "{path}");
    }
    client.send(format!("HEAD /elsewhere{ROUTE} HTTP/1.1\r\nhost: t\r\n\r\n")).await;
    assert_eq!(client.head().await.status, 404);
    client.send(request("GET", "/a", "", b"")).await;
    let read = client.reply().await;
    assert_eq!(read.text(), "abc", "had any of them had a body, it would stand here: {read:?}");
}

async fn a_head_does_not_disturb_readers(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let mut poll = world.poll("/a?offset=now&live=long-poll").await;
    assert_eq!(world.head("/a").await.status, 200);
    world.append("/a", "text/plain", "x").await;
    assert_eq!(poll.reply().await.text(), "x");
}
