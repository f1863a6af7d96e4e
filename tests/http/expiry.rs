//! Time-to-live and expiry (PROTOCOL §5.1, §4.2), on a clock that the test moves.

use crate::world::{Kind, World, offset};

for_each_kind![
    reads_and_writes_push_a_ttl_back,
    head_does_not,
    a_live_reader_keeps_a_stream,
    a_live_reader_does_not_keep_what_has_a_last_day,
    refused_requests_do_not_write,
    an_absolute_time_is_not_pushed_back,
    what_expired_is_gone_for_everyone,
    the_path_is_free_after_expiry,
    the_sweeper_frees_what_nobody_asks_for,
    a_time_in_the_past_is_over_at_once,
    forks_inherit_or_choose,
    an_expired_source_lives_on_for_its_forks,
    long_lives_and_the_end_of_time,
];

const TTL: &str = "content-type: text/plain\r\nstream-ttl: 10\r\n";
const TEXT: &str = "content-type: text/plain\r\n";

async fn reads_and_writes_push_a_ttl_back(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    let producer =
        |seq: u64| format!("producer-id: p\r\nproducer-epoch: 0\r\nproducer-seq: {seq}\r\n");
    world.put("/a", TTL, "abc").await;
    let appends = format!("{TEXT}{}", producer(0));
    let closes = format!("stream-closed: true\r\n{}", producer(1));
    let at_zero = format!("/a?offset={}&live=long-poll", offset(0));
    for (method, path, fields, body) in [
        ("GET", "/a", "", ""),
        ("GET", "/a?offset=now", "", ""),
        ("GET", at_zero.as_str(), "", ""),
        ("POST", "/a", TEXT, "x"),
        ("POST", "/a", appends.as_str(), "y"),
        ("POST", "/a", appends.as_str(), "y"), // A retry is a write that was accepted before.
        ("PUT", "/a", TTL, ""),
        ("POST", "/a", closes.as_str(), ""),
        ("POST", "/a", closes.as_str(), ""),
        ("POST", "/a", "stream-closed: true\r\n", ""),
        ("GET", "/a?offset=now&live=long-poll", "", ""),
        ("GET", "/a?offset=now&live=sse", "", ""),
    ] {
        clock.advance_millis(9_999);
        let reply = world.ask(method, path, fields, body.as_bytes()).await;
        assert!(reply.status < 300, "{method} {path} {fields}: {reply:?}");
    }
    // A live reader that is not quite gone would still keep the stream.
    world.at_rest().await;
    clock.advance_millis(9_999);
    assert_eq!(world.head("/a").await.status, 200);
    clock.advance_millis(1);
    assert_eq!(world.head("/a").await.status, 404);
}

/// As many times as it takes: the SSE connection outlives several TTLs without a byte of news.
async fn a_live_reader_keeps_a_stream(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    world.put("/a", TTL, "abc").await;
    world.put("/unread", TTL, "abc").await;
    let mut events = world.sse("/a?offset=now&live=sse", "").await;
    events.catch_up().await;
    for _ in 0..3 {
        clock.advance_millis(10_001);
        world.engine.sweep_due().await;
        assert_eq!(world.head("/a").await.status, 200, "a reader is there");
    }
    assert_eq!(world.head("/unread").await.status, 404);
    // Nobody has looked since the time was up: the reader has kept it all the same.
    clock.advance_millis(10_001);
    drop(events);
    world.at_rest().await;
    clock.advance_millis(9_999);
    assert_eq!(world.head("/a").await.status, 200, "the TTL began anew");
    clock.advance_millis(1);
    assert_eq!(world.head("/a").await.status, 404);
    world.engine.sweep_due().await;
    assert_eq!(world.stored().streams, 0);
}

async fn a_live_reader_does_not_keep_what_has_a_last_day(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    let at = "stream-expires-at: 2026-01-01T00:00:10Z\r\n";
    world.put("/a", &format!("{TEXT}{at}"), "abc").await;
    let mut events = world.sse("/a?offset=now&live=sse", "").await;
    events.catch_up().await;
    clock.advance_millis(10_001);
    assert_eq!(world.head("/a").await.status, 404);
}

async fn head_does_not(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    world.put("/a", TTL, "").await;
    for _ in 0..2 {
        clock.advance_millis(4_000);
        let head = world.head("/a").await;
        assert_eq!((head.status, head.header("stream-ttl")), (200, Some("10")));
    }
    clock.advance_millis(2_000);
    assert_eq!(world.head("/a").await.status, 404);
}

async fn refused_requests_do_not_write(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    world.put("/a", TTL, "").await;
    clock.advance_millis(9_000);
    assert_eq!(world.post("/a", "content-type: text/html\r\n", "x").await.status, 409);
    assert_eq!(world.put("/a", "", "").await.status, 409);
    clock.advance_millis(1_000);
    assert_eq!(world.head("/a").await.status, 404);
}

async fn an_absolute_time_is_not_pushed_back(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    let fields = format!("{TEXT}stream-expires-at: 2026-01-01T01:00:10+01:00\r\n");
    assert_eq!(world.put("/a", &fields, "").await.status, 201);
    let head = world.head("/a").await;
    assert_eq!(head.header("stream-expires-at"), Some("2026-01-01T00:00:10Z"));
    assert_eq!(head.header("stream-ttl"), None);
    clock.advance_millis(9_999);
    world.append("/a", "text/plain", "x").await;
    assert_eq!(world.get("/a").await.text(), "x");
    clock.advance_millis(1);
    assert_eq!(world.get("/a").await.status, 404);
}

async fn what_expired_is_gone_for_everyone(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    world.put("/a", TTL, "abc").await;
    clock.advance_millis(10_000);
    for (method, path) in [
        ("GET", "/a"),
        ("GET", "/a?offset=now"),
        ("GET", "/a?offset=-1&live=long-poll"),
        ("GET", "/a?offset=-1&live=sse"),
        ("HEAD", "/a"),
        ("POST", "/a"),
        ("DELETE", "/a"),
    ] {
        let body: &[u8] = if method == "POST" { b"x" } else { b"" };
        assert_eq!(world.ask(method, path, TEXT, body).await.status, 404, "{method} {path}");
    }
    let fork = "stream-forked-from: /v1/stream/a\r\n";
    assert_eq!(world.put("/f", fork, "").await.code(), "source-not-found");
}

async fn the_path_is_free_after_expiry(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    world.put("/a", TTL, "old").await;
    clock.advance_millis(10_000);
    let reply = world.put("/a", "content-type: application/json\r\n", "[1]").await;
    assert_eq!(reply.status, 201, "another stream with another configuration");
    assert_eq!(world.get("/a").await.text(), "[1]");
    clock.advance_millis(100_000);
    world.engine.sweep_due().await;
    assert_eq!(world.get("/a").await.text(), "[1]", "the old deadline does not touch the new one");
}

async fn the_sweeper_frees_what_nobody_asks_for(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    for n in 0..10 {
        world.put(&format!("/a{n}"), TTL, "abc").await;
    }
    world.stream("/keep", "text/plain", "abc").await;
    clock.advance_millis(9_000);
    assert_eq!(world.get("/a0").await.status, 200);
    clock.advance_millis(1_000);
    world.engine.sweep_due().await;
    let stats = world.stored();
    assert_eq!((stats.streams, stats.bytes), (2, 6), "the one that was read lives on");
    assert_eq!(world.head("/a0").await.status, 200);
    clock.advance_millis(9_000);
    world.engine.sweep_due().await;
    assert_eq!(world.stored().streams, 1);
}

async fn a_time_in_the_past_is_over_at_once(kind: Kind) {
    let (world, _clock) = World::with_clock(kind);
    for fields in ["stream-expires-at: 2001-01-01T00:00:00Z\r\n", "stream-ttl: 0\r\n"] {
        assert_eq!(world.put("/a", fields, "abc").await.status, 201, "{fields}");
        assert_eq!(world.head("/a").await.status, 404, "{fields}");
    }
}

/// The table of §4.2.
async fn forks_inherit_or_choose(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    let at = "stream-expires-at: 2026-01-01T00:00:30Z\r\n";
    let later = "stream-expires-at: 2026-01-01T00:09:00Z\r\n";
    world.put("/none", "", "").await;
    world.put("/ttl", "stream-ttl: 20\r\n", "").await;
    world.put("/at", at, "").await;
    for (n, (source, asked, ttl, expires)) in [
        ("none", "", None, None),
        ("none", "stream-ttl: 5\r\n", Some("5"), None),
        ("none", at, None, Some("2026-01-01T00:00:30Z")),
        ("ttl", "", Some("20"), None),
        ("ttl", "stream-ttl: 500\r\n", Some("500"), None),
        ("ttl", later, None, Some("2026-01-01T00:09:00Z")),
        ("at", "", None, Some("2026-01-01T00:00:30Z")),
        ("at", "stream-ttl: 500\r\n", Some("500"), None),
        ("at", later, None, Some("2026-01-01T00:09:00Z")),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/f{n}");
        let fields = format!("stream-forked-from: /v1/stream/{source}\r\n{asked}");
        assert_eq!(world.put(&path, &fields, "").await.status, 201, "{fields}");
        let head = world.head(&path).await;
        assert_eq!((head.header("stream-ttl"), head.header("stream-expires-at")), (ttl, expires));
        assert_eq!(world.put(&path, &fields, "").await.status, 200, "confirmed: {fields}");
    }
    clock.advance_millis(15_000);
    assert_eq!(world.get("/f3").await.status, 200);
    clock.advance_millis(10_000);
    assert_eq!(world.get("/f3").await.status, 200, "its own window, not the source's");
    assert_eq!(world.head("/ttl").await.status, 410, "the source's own window has passed");
}

async fn an_expired_source_lives_on_for_its_forks(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    world.put("/s", TTL, "abc").await;
    let fork = "stream-forked-from: /v1/stream/s\r\nstream-ttl: 100\r\n";
    assert_eq!(world.put("/f", fork, "").await.status, 201);
    clock.advance_millis(10_000);
    assert_eq!(world.get("/s").await.status, 410);
    assert_eq!(world.get("/f").await.text(), "abc");
    world.engine.sweep_due().await;
    assert_eq!(world.get("/s").await.status, 410);
    assert_eq!(world.put("/s", TEXT, "").await.code(), "path-blocked");
    assert_eq!(world.get("/f").await.text(), "abc", "the sweeper takes nothing that is read");
    clock.advance_millis(100_000);
    world.engine.sweep_due().await;
    world.engine.sweep_due().await;
    for path in ["/s", "/f"] {
        assert_eq!(world.head(path).await.status, 404, "{path}");
    }
    let stats = world.stored();
    assert_eq!((stats.streams, stats.bytes), (0, 0));
}

async fn long_lives_and_the_end_of_time(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    for (n, fields) in [
        "stream-ttl: 9007199254740991\r\n",
        "stream-ttl: 18446744073709551615\r\n",
        "stream-expires-at: 9999-12-30T00:00:00Z\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{n}");
        assert_eq!(world.put(&path, fields, "").await.status, 201, "{fields}");
        clock.advance_millis(1 << 40);
        let head = world.head(&path).await;
        assert_eq!(head.status, 200, "{fields}");
        let line = fields.trim().split_once(": ").unwrap();
        assert_eq!(head.header(line.0), Some(line.1));
    }
    assert_eq!(world.put("/x", "stream-ttl: 18446744073709551616\r\n", "").await.status, 400);
}
