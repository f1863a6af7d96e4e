//! `PUT` (PROTOCOL §5.1): created, confirmed or refused.

use crate::support::Reply;
use crate::world::{Kind, ROUTE, World, offset};

for_each_kind![
    a_new_stream_is_described,
    the_same_configuration_is_confirmed,
    another_configuration_is_a_conflict_that_names_the_field,
    a_body_is_the_first_content,
    a_chunked_body_is_kept,
    created_closed_is_complete_at_once,
    malformed_headers_are_refused,
    the_default_type_is_binary,
    confirming_does_not_append,
    a_refused_create_leaves_nothing,
    location_is_the_url_the_client_used,
    location_believes_trusted_proxies_only,
    a_stream_deleted_and_created_anew_has_other_entity_tags,
];

async fn a_new_stream_is_described(kind: Kind) {
    let world = World::new(kind);
    let reply = world.put("/a", "content-type: text/plain; charset=utf-8\r\n", "").await;
    assert_eq!(reply.status, 201);
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.header("stream-next-offset"), Some(offset(0).as_str()));
    assert_eq!(reply.header("stream-closed"), None);
    assert!(reply.body.is_empty());
}

async fn the_same_configuration_is_confirmed(kind: Kind) {
    let world = World::new(kind);
    for (path, first, again) in [
        ("/type", "content-type: text/plain\r\n", "content-type: TEXT/Plain; charset=x\r\n"),
        ("/none", "", "content-type: application/octet-stream\r\n"),
        ("/ttl", "stream-ttl: 60\r\n", "stream-ttl: 60\r\n"),
        (
            "/at",
            "stream-expires-at: 2099-01-01T00:00:00Z\r\n",
            "stream-expires-at: 2099-01-01T01:00:00+01:00\r\n",
        ),
        ("/closed", "stream-closed: true\r\n", "stream-closed: TRUE\r\n"),
        ("/open", "stream-closed: false\r\n", ""),
    ] {
        assert_eq!(world.put(path, first, "").await.status, 201, "{path}");
        let reply = world.put(path, again, "").await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert_eq!(reply.header("location"), None, "{path}");
        assert!(reply.header("content-type").is_some() && reply.body.is_empty(), "{path}");
    }
}

async fn another_configuration_is_a_conflict_that_names_the_field(kind: Kind) {
    let world = World::new(kind);
    let first = "content-type: text/plain\r\nstream-ttl: 60\r\n";
    assert_eq!(world.put("/a", first, "").await.status, 201);
    for (again, field) in [
        ("content-type: text/html\r\nstream-ttl: 60\r\n", "Content-Type"),
        ("stream-ttl: 60\r\n", "Content-Type"),
        ("content-type: text/plain\r\n", "Stream-TTL"),
        ("content-type: text/plain\r\nstream-ttl: 61\r\n", "Stream-TTL"),
        ("content-type: text/plain\r\nstream-ttl: 60\r\nstream-closed: true\r\n", "Stream-Closed"),
    ] {
        let reply = world.put("/a", again, "").await;
        assert_eq!((reply.status, reply.code().as_str()), (409, "config-mismatch"), "{again}");
        assert!(reply.text().contains(field), "{again}: {}", reply.text());
    }
    world.close("/a").await;
    let reply = world.put("/a", first, "").await;
    assert_eq!(reply.status, 409, "an open stream is asked for, the stream is closed");
    assert_eq!(reply.header("stream-closed"), Some("true"));
    assert_eq!(world.put("/a", &format!("{first}stream-closed: true\r\n"), "").await.status, 200);
}

async fn a_body_is_the_first_content(kind: Kind) {
    let world = World::new(kind);
    let reply = world.stream("/a", "text/plain", "hello").await;
    assert_eq!(reply.header("stream-next-offset"), Some(offset(5).as_str()));
    assert_eq!(world.get("/a").await.text(), "hello");
}

/// A body without a length is a body.
async fn a_chunked_body_is_kept(kind: Kind) {
    let world = World::new(kind);
    let head = format!(
        "PUT {ROUTE}/a HTTP/1.1\r\nhost: t\r\ncontent-type: text/plain\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let reply = world.server.ask(format!("{head}3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n")).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(reply.header("stream-next-offset"), Some(offset(7).as_str()));
    assert_eq!(world.get("/a").await.text(), "abcdefg");
}

async fn created_closed_is_complete_at_once(kind: Kind) {
    let world = World::new(kind);
    let closed = "content-type: text/plain\r\nstream-closed: True\r\n";
    for (path, body) in [("/empty", ""), ("/full", "all of it")] {
        let reply = world.put(path, closed, body).await;
        assert_eq!((reply.status, reply.header("stream-closed")), (201, Some("true")), "{path}");
        let read = world.get(path).await;
        assert_eq!((read.text().as_str(), read.header("stream-closed")), (body, Some("true")));
        let append = world.post(path, "content-type: text/plain\r\n", "more").await;
        assert_eq!((append.status, append.code().as_str()), (409, "stream-closed"));
        assert_eq!(append.header("stream-next-offset"), reply.header("stream-next-offset"));
    }
}

async fn malformed_headers_are_refused(kind: Kind) {
    let world = World::new(kind);
    for (fields, code) in [
        ("stream-ttl: -1\r\n", "invalid-header"),
        ("stream-ttl: +1\r\n", "invalid-header"),
        ("stream-ttl: 01\r\n", "invalid-header"),
        ("stream-ttl: 1.5\r\n", "invalid-header"),
        ("stream-ttl: 3.6e3\r\n", "invalid-header"),
        ("stream-ttl: 1h\r\n", "invalid-header"),
        ("stream-ttl:\r\n", "invalid-header"),
        ("stream-ttl: 1\r\nstream-ttl: 1\r\n", "invalid-header"),
        ("stream-ttl: \u{661}\r\n", "invalid-header"),
        ("stream-expires-at: tomorrow\r\n", "invalid-header"),
        ("stream-expires-at: 2030-01-31\r\n", "invalid-header"),
        ("stream-expires-at: 2030-13-31T00:00:00Z\r\n", "invalid-header"),
        ("stream-ttl: 1\r\nstream-expires-at: 2030-01-31T00:00:00Z\r\n", "two-expiries"),
        ("content-type: text\r\n", "invalid-content-type"),
        ("content-type: text/plain, text/html\r\n", "invalid-content-type"),
        ("content-type: text/\u{e9}\r\n", "invalid-header"),
        ("content-encoding: gzip\r\n", "encoded-body"),
    ] {
        let reply = world.put("/a", fields, "").await;
        let status = if code == "encoded-body" { 415 } else { 400 };
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{fields:?}");
        assert_eq!(world.head("/a").await.status, 404, "{fields:?} created the stream");
    }
    assert_eq!(world.put("/a", "stream-ttl: 18446744073709551615\r\n", "").await.status, 201);
    assert_eq!(world.head("/a").await.status, 200);
}

async fn the_default_type_is_binary(kind: Kind) {
    let world = World::new(kind);
    let reply = world.put("/a", "", "\u{0}").await;
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    assert_eq!(world.get("/a").await.header("content-type"), Some("application/octet-stream"));
}

async fn confirming_does_not_append(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "once").await;
    let again = world.put("/a", "content-type: text/plain\r\n", "once").await;
    assert_eq!((again.status, again.header("stream-next-offset")), (200, Some(&*offset(4))));
    assert_eq!(world.get("/a").await.text(), "once");
}

async fn a_refused_create_leaves_nothing(kind: Kind) {
    let world = World::new(kind);
    let reply = world.put("/a", "content-type: application/json\r\n", "[1,").await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-json"));
    assert_eq!(world.head("/a").await.status, 404);
    assert_eq!(world.put("/a", "content-type: text/plain\r\n", "").await.status, 201);
}

fn location(reply: &Reply) -> &str {
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.header("location").unwrap()
}

async fn location_is_the_url_the_client_used(kind: Kind) {
    let world = World::new(kind);
    let reply = world.put("/a%20b/%C3%A9%2Fc", "", "").await;
    assert_eq!(location(&reply), "http://test.example/v1/stream/a%20b/%C3%A9/c");
    let reply = world.put("/plain", "", "").await;
    assert_eq!(location(&reply), "http://test.example/v1/stream/plain");
}

async fn location_believes_trusted_proxies_only(kind: Kind) {
    let fields = "x-forwarded-proto: https\r\nx-forwarded-host: public.example\r\n";
    let world = World::new(kind);
    let reply = world.put("/a", fields, "").await;
    assert_eq!(location(&reply), "http://test.example/v1/stream/a", "nobody is trusted");

    let behind = World::with(kind, |setup| {
        let loopback: ipnet::IpNet = "127.0.0.0/8".parse().unwrap();
        setup.edge.trusted_proxies = vec![loopback];
        setup.edge.streams.trusted_proxies = vec![loopback];
    });
    let reply = behind.put("/a", fields, "").await;
    assert_eq!(location(&reply), "https://public.example/v1/stream/a");
    let reply = behind.put("/b", "x-forwarded-proto: javascript\r\n", "").await;
    assert_eq!(location(&reply), "http://test.example/v1/stream/b", "not a scheme of the web");
}

/// A cache that remembers the stream before must not be told that nothing changed.
async fn a_stream_deleted_and_created_anew_has_other_entity_tags(kind: Kind) {
    let mut seen = Vec::new();
    for _ in 0..2 {
        // Two servers as well: a restart without storage begins anew at the same URLs.
        let world = World::new(kind);
        for body in ["abc", "xyz"] {
            world.stream("/a", "text/plain", body).await;
            seen.push(world.get("/a").await.header("etag").unwrap().to_owned());
            assert_eq!(world.delete("/a").await.status, 204);
        }
    }
    let total = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), total, "{seen:?}");
}
