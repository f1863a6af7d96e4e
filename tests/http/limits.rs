//! Every bound of the server: the status, a problem that says so, and nothing stored or lost by it.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::support::eventually;
use crate::world::{Kind, ROUTE, World, offset, request, soon};

for_each_kind![
    a_body_over_the_limit_is_413,
    a_chunked_body_over_the_limit_is_413,
    #[only(http1, proxied; "HTTP/2 resets the one stream")]
    an_early_answer_waits_for_a_client_that_is_still_sending,
    #[only(http1; "it takes a while, and a connection of the proxy closes in the same way")]
    a_client_that_never_stops_sending_is_cut_off,
    #[only(http1, proxied, http2; "a limit of the edge")]
    a_long_uri_is_414,
    a_long_path_is_414,
    #[only(http1, proxied, http2; "a limit of the edge")]
    too_many_or_too_large_headers_are_431,
    one_reader_too_many_is_429,
    too_many_bytes_in_flight_are_429,
    announced_bytes_take_nothing_from_others,
    one_client_has_a_part_of_the_readers,
    one_client_has_a_part_of_the_bytes_in_flight,
    a_chunked_body_holds_all_of_itself_in_flight,
    one_stream_too_many_is_507,
    one_byte_too_many_is_507,
    #[only(http1; "a limit of the edge on connections")]
    a_refusal_with_a_wait_says_how_long,
];

const TEXT: &str = "content-type: text/plain\r\n";

async fn a_body_over_the_limit_is_413(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_append = 10);
    world.stream("/a", "text/plain", "0123456789").await;
    for (method, path) in [("POST", "/a"), ("PUT", "/b")] {
        let reply = world.ask(method, path, TEXT, b"0123456789a").await;
        assert_eq!((reply.status, reply.code().as_str()), (413, "body-too-large"));
        assert!(reply.text().contains("10 bytes"), "{}", reply.text());
    }
    // Judged before it is sent: gigabytes are not waited for.
    let huge =
        format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}content-length: 99999999999\r\n\r\n");
    assert_eq!(world.server.ask(huge).await.status, 413);
    assert_eq!(world.get("/a").await.text(), "0123456789");
    assert_eq!(world.head("/b").await.status, 404);
    world.at_rest().await;
}

async fn a_chunked_body_over_the_limit_is_413(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_append = 10);
    world.stream("/a", "text/plain", "").await;
    let head =
        format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}transfer-encoding: chunked\r\n\r\n");
    let reply = world.server.ask(format!("{head}8\r\n01234567\r\n3\r\n890\r\n")).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "body-too-large"));
    assert_eq!(world.get("/a").await.text(), "");
    world.at_rest().await;
}

/// Many proxies read a response only once they have sent the whole request.
async fn an_early_answer_waits_for_a_client_that_is_still_sending(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_append = 10);
    world.stream("/a", "text/plain", "").await;
    let unknown = "producer-id: p\r\n";
    for (fields, length, status) in [(TEXT, 4_000_000, 413), (unknown, 400_000, 400)] {
        let mut client = world.server.connect().await;
        let head = format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{fields}");
        client.send(format!("{head}content-length: {length}\r\n\r\n")).await;
        // For longer than a connection waits that closes in silence.
        for _ in 0..10 {
            client.send(vec![b'x'; length / 10]).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.header("connection"), Some("close"));
    }
    world.at_rest().await;
}

async fn a_client_that_never_stops_sending_is_cut_off(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_append = 10);
    let mut client = world.server.connect().await;
    let head =
        format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}content-length: 99999999999\r\n\r\n");
    client.send(head).await;
    let piece = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while client.socket.write_all(&piece).await.is_ok() {
        sent += piece.len();
        assert!(sent < 300 << 20, "still open after {sent} bytes");
    }
    assert!(sent > 200 << 20, "closed after {sent} bytes");
}

async fn a_long_uri_is_414(kind: Kind) {
    let world = World::with(kind, |setup| setup.edge.limits.max_uri = 300);
    let reply = world.get(&format!("/a?x={}", "y".repeat(300))).await;
    assert_eq!((reply.status, reply.code().as_str()), (414, "uri-too-long"));
}

async fn a_long_path_is_414(kind: Kind) {
    let world = World::with(kind, |setup| setup.edge.streams.max_path = 100);
    let longest = format!("/{}", "x".repeat(100));
    assert_eq!(world.put(&longest, "", "").await.status, 201);
    let reply = world.put(&format!("{longest}x"), "", "").await;
    assert_eq!((reply.status, reply.code().as_str()), (414, "invalid-path"));
    let escaped = format!("/{}", "%C3%A9".repeat(50));
    assert_eq!(world.put(&escaped, "", "").await.status, 201, "decoded bytes count");
    let default = World::new(kind);
    assert_eq!(default.put(&format!("/{}", "x".repeat(1024)), "", "").await.status, 201);
    assert_eq!(default.put(&format!("/{}", "x".repeat(1025)), "", "").await.status, 414);
}

async fn too_many_or_too_large_headers_are_431(kind: Kind) {
    let world = World::with(kind, |setup| {
        setup.edge.limits.max_headers = 20;
        setup.edge.limits.max_header_bytes = 2_000;
    });
    let many: String = (0..21).map(|n| format!("x-{n}: y\r\n")).collect();
    let reply = world.ask("GET", "/a", &many, b"").await;
    assert_eq!((reply.status, reply.code().as_str()), (431, "too-many-headers"));
    let large = format!("x-large: {}\r\n", "y".repeat(2_000));
    let reply = world.ask("GET", "/a", &large, b"").await;
    assert_eq!((reply.status, reply.code().as_str()), (431, "headers-too-large"));
}

async fn one_reader_too_many_is_429(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_live_readers = 2);
    world.stream("/a", "text/plain", "abc").await;
    let poll = world.poll("/a?offset=now&live=long-poll").await;
    let sse = world.sse("/a?offset=now&live=sse", "").await;
    for live in ["long-poll", "sse"] {
        let reply = world.get(&format!("/a?offset=now&live={live}")).await;
        assert_eq!((reply.status, reply.code().as_str()), (429, "too-many-readers"), "{live}");
        assert!(reply.header("retry-after").is_some());
    }
    assert_eq!(world.get("/a").await.text(), "abc", "catch-up goes on");
    drop((poll, sse));
    world.at_rest().await;
    let mut again = world.poll("/a?offset=now&live=long-poll").await;
    world.append("/a", "text/plain", "def").await;
    assert_eq!(soon(again.reply()).await.text(), "def");
}

async fn too_many_bytes_in_flight_are_429(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_inflight_append = 1_000);
    world.stream("/a", "text/plain", "").await;
    let mut slow = world.server.connect().await;
    let head = format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}content-length: 950\r\n\r\n");
    slow.send(head + &"y".repeat(900)).await;
    eventually("the slow body is under way", async || {
        world.engine.stats().inflight_append_bytes == 900
    })
    .await;
    let reply = world.post("/a", TEXT, "x".repeat(101)).await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "too-many-appends"));
    assert!(reply.header("retry-after").is_some());
    world.append("/a", "text/plain", "fits").await;
    slow.send("y".repeat(50)).await;
    assert_eq!(slow.reply().await.status, 204);
    world.at_rest().await;
    assert_eq!(world.get("/a").await.body.len(), 954);
}

/// Clients that announce as much as all may have together, and send a byte of it.
async fn announced_bytes_take_nothing_from_others(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_inflight_append = 1_000);
    world.stream("/a", "text/plain", "").await;
    let mut silent = Vec::new();
    for framing in ["content-length: 900", "transfer-encoding: chunked"].repeat(8) {
        let mut client = world.server.connect().await;
        let head = format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}{framing}\r\n\r\n");
        let chunked = framing.starts_with("transfer");
        client.send(head + if chunked { "1\r\nx\r\n" } else { "x" }).await;
        silent.push(client);
    }
    eventually("every body has begun", async || world.engine.stats().inflight_append_bytes == 16)
        .await;
    for _ in 0..10 {
        world.append("/a", "text/plain", "y".repeat(900)).await;
    }
    drop(silent);
    world.at_rest().await;
    assert_eq!(world.get("/a").await.body.len(), 9_000);
}

fn from(client: &str) -> String {
    format!("x-forwarded-for: {client}\r\n")
}

async fn one_client_has_a_part_of_the_readers(kind: Kind) {
    let world = World::with(kind, |setup| {
        setup.limits.max_live_readers = 8;
        for trusted in [&mut setup.edge.trusted_proxies, &mut setup.edge.streams.trusted_proxies] {
            *trusted = vec!["127.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
        }
    });
    world.stream("/a", "text/plain", "abc").await;
    let one = from("2001:db8::1");
    let sse = world.sse("/a?offset=now&live=sse", &one).await;
    let same = from("2001:db8::ffff:2");
    let second = world.sse("/a?offset=now&live=sse", &same).await;
    for live in ["long-poll", "sse"] {
        let reply = world.ask("GET", &format!("/a?offset=now&live={live}"), &one, b"").await;
        assert_eq!((reply.status, reply.code().as_str()), (429, "too-many-readers"), "{live}");
        assert!(reply.text().contains("one client"), "{}", reply.text());
    }
    let other = world.sse("/a?offset=now&live=sse", &from("192.0.2.1")).await;
    let mut unnamed = Vec::new();
    for _ in 0..3 {
        unnamed.push(world.sse("/a?offset=now&live=sse", "").await);
    }
    drop((sse, second, other, unnamed));
    world.at_rest().await;
    drop(world.sse("/a?offset=now&live=sse", &one).await);
}

async fn one_client_has_a_part_of_the_bytes_in_flight(kind: Kind) {
    let world = World::with(kind, |setup| {
        setup.limits.max_append = 200;
        setup.limits.max_inflight_append = 1_000;
        for trusted in [&mut setup.edge.trusted_proxies, &mut setup.edge.streams.trusted_proxies] {
            *trusted = vec!["127.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
        }
    });
    world.stream("/a", "text/plain", "").await;
    let head = |client: &str| {
        let fields = format!("{TEXT}{}content-length: 200\r\n", from(client));
        format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{fields}\r\n")
    };
    let part = "x".repeat(150);
    let mut first = world.server.connect().await;
    first.send(head("192.0.2.1") + &part).await;
    eventually("the first is under way", async || {
        world.engine.stats().inflight_append_bytes == 150
    })
    .await;
    let mut second = world.server.connect().await;
    second.send(head("192.0.2.1") + &part).await;
    let reply = soon(second.reply()).await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "too-many-appends"));
    assert!(reply.text().contains("one client"), "{}", reply.text());
    let mut others = Vec::new();
    for client in ["192.0.2.2", "192.0.2.3"] {
        let mut other = world.server.connect().await;
        other.send(head(client) + &part).await;
        others.push(other);
    }
    for client in [&mut first].into_iter().chain(&mut others) {
        client.send("x".repeat(50)).await;
        assert_eq!(soon(client.reply()).await.status, 204);
    }
    world.at_rest().await;
    assert_eq!(world.get("/a").await.body.len(), 600);
}

/// Its length is not known before: what it holds must grow with what has come of it.
async fn a_chunked_body_holds_all_of_itself_in_flight(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_inflight_append = 180_000);
    world.stream("/a", "text/plain", "").await;
    let head =
        format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}transfer-encoding: chunked\r\n\r\n");
    let chunk = format!("{:x}\r\n{}\r\n", 100_000, "y".repeat(100_000));
    let mut first = world.server.connect().await;
    first.send(format!("{head}{chunk}")).await;
    eventually("the body holds what has come of it", async || {
        world.engine.stats().inflight_append_bytes >= 100_000
    })
    .await;
    let mut second = world.server.connect().await;
    second.send(format!("{head}{chunk}0\r\n\r\n")).await;
    let reply = soon(second.reply()).await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "too-many-appends"));
    first.send("0\r\n\r\n").await;
    assert_eq!(soon(first.reply()).await.status, 204);
    world.at_rest().await;
    assert_eq!(world.get("/a").await.body.len(), 100_000, "of one body");
}

async fn one_stream_too_many_is_507(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_streams = Some(2));
    for path in ["/a", "/b"] {
        world.stream(path, "text/plain", "").await;
    }
    let reply = world.put("/c", "", "").await;
    assert_eq!((reply.status, reply.code().as_str()), (507, "too-many-streams"));
    assert_eq!(world.put("/a", TEXT, "").await.status, 200, "confirming creates nothing");
    let fork = world.put("/c", "stream-forked-from: /v1/stream/a\r\n", "").await;
    assert_eq!(fork.code(), "too-many-streams");
    world.delete("/b").await;
    assert_eq!(world.put("/c", "", "").await.status, 201);
}

async fn one_byte_too_many_is_507(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_total = Some(10));
    world.stream("/a", "text/plain", "01234567").await;
    let reply = world.post("/a", TEXT, "890").await;
    assert_eq!((reply.status, reply.code().as_str()), (507, "storage-full"));
    assert_eq!(world.put("/b", TEXT, "890").await.code(), "storage-full");
    assert_eq!(world.head("/b").await.status, 404);
    world.append("/a", "text/plain", "89").await;
    world.close("/a").await;
    assert_eq!(world.get("/a").await.text(), "0123456789", "reads and closing go on");
    assert_eq!(world.get(&format!("/a?offset={}", offset(10))).await.status, 200);
}

async fn a_refusal_with_a_wait_says_how_long(kind: Kind) {
    let world = World::with(kind, |setup| {
        setup.edge.limits.max_connections = 1;
        setup.edge.limits.keepalive_timeout = Duration::from_secs(60);
    });
    let mut first = world.server.connect().await;
    first.send(request("GET", "/none", "", b"")).await;
    assert_eq!(first.reply().await.status, 404);
    let mut second = world.server.connect().await;
    second.send(request("GET", "/none", "", b"")).await;
    let reply = second.reply().await;
    assert_eq!(reply.status, 503);
    assert!(reply.header("retry-after").is_some());
    reply.code();
    drop(first);
    eventually("the place is free again", async || world.get("/none").await.status == 404).await;
}
