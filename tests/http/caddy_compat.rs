//! What users of upstream's Caddy plugin rely on, side by side: statuses, header names, offset text, cursor
//! rules, TTL grammar, defaults. Rows whose two sides differ are the deliberate differences, and each names
//! the heading of `docs/migrating-from-caddy.md` that gives the reason.

use std::time::Duration;

use durable_streams_server::edge::StreamOptions;

use crate::world::{Kind, World, offset};

for_each_kind![
    requests_get_the_statuses_that_clients_know,
    answers_carry_the_headers_that_clients_read,
    deliberate_differences_are_written_down,
    ttl_grammar,
    cursors,
    defaults,
];

/// Same answer on both sides.
const SAME: &str = "";

/// One request on a fresh set of streams, and what each server answers.
struct Row {
    method: &'static str,
    path: &'static str,
    fields: &'static str,
    body: &'static str,
    caddy: u16,
    ours: u16,
    /// Heading of the migration guide, for rows that differ.
    why: &'static str,
}

const fn row(
    method: &'static str,
    path: &'static str,
    fields: &'static str,
    body: &'static str,
    status: u16,
) -> Row {
    Row { method, path, fields, body, caddy: status, ours: status, why: SAME }
}

const fn differs(row: Row, ours: u16, why: &'static str) -> Row {
    Row { ours, why, ..row }
}

const TEXT: &str = "content-type: text/plain\r\n";
const FIRST: &str =
    "content-type: text/plain\r\nproducer-id: p\r\nproducer-epoch: 1\r\nproducer-seq: 0\r\n";
const TAIL: &str = "0000000000000000_0000000000000003";

/// `/t` is text "abc", `/j` JSON `[1]`, `/c` text "abc" closed, `/f` a fork of `/s`, which was deleted.
const ROWS: &[Row] = &[
    row("PUT", "/new", "", "", 201),
    row("PUT", "/new", TEXT, "abc", 201),
    row("PUT", "/new", "content-type: application/json\r\n", "[]", 201),
    row("PUT", "/t", TEXT, "", 200),
    row("PUT", "/t", "content-type: text/html\r\n", "", 409),
    row("PUT", "/c", TEXT, "", 409),
    row("PUT", "/s", TEXT, "", 409),
    row("PUT", "/new", "stream-ttl: 1\r\nstream-expires-at: 2099-01-01T00:00:00Z\r\n", "", 400),
    row("PUT", "/new", "stream-forked-from: /v1/stream/t\r\n", "", 201),
    row("PUT", "/new", "stream-forked-from: /v1/stream/none\r\n", "", 404),
    row("PUT", "/new", "stream-forked-from: /v1/stream/s\r\n", "", 409),
    row("PUT", "/new", "stream-fork-sub-offset: 1\r\n", "", 400),
    row("POST", "/t", TEXT, "x", 204),
    row("POST", "/t", FIRST, "x", 200),
    row("POST", "/t", "content-type: text/html\r\n", "x", 409),
    row("POST", "/t", "", "x", 400),
    row("POST", "/t", TEXT, "", 400),
    row("POST", "/t", "stream-closed: true\r\n", "", 204),
    row("POST", "/c", "stream-closed: true\r\n", "", 204),
    row("POST", "/c", TEXT, "x", 409),
    row("POST", "/s", TEXT, "x", 410),
    row("POST", "/none", TEXT, "x", 404),
    row("POST", "/t", "content-type: text/plain\r\nproducer-id: p\r\n", "x", 400),
    row("POST", "/j", "content-type: application/json\r\n", "[]", 400),
    row("POST", "/j", "content-type: application/json\r\n", "{", 400),
    row("GET", "/t", "", "", 200),
    row("GET", "/t?offset=-1", "", "", 200),
    row("GET", "/t?offset=now", "", "", 200),
    row("GET", "/t?offset=", "", "", 400),
    row("GET", "/t?offset=abc", "", "", 400),
    row("GET", "/t?offset=-1&offset=-1", "", "", 400),
    row("GET", "/t?live=sse", "", "", 400),
    row("GET", "/t?live=long-poll", "", "", 400),
    row("GET", "/c?offset=now&live=long-poll", "", "", 204),
    row("GET", "/f", "", "", 200),
    row("GET", "/s", "", "", 410),
    row("GET", "/none", "", "", 404),
    row("HEAD", "/t", "", "", 200),
    row("HEAD", "/none", "", "", 404),
    row("DELETE", "/t", "", "", 204),
    row("DELETE", "/s", "", "", 410),
    row("DELETE", "/none", "", "", 404),
    row("OPTIONS", "/t", "", "", 204),
    row("PROPFIND", "/t", "", "", 405),
    differs(row("GET", "/t?offset=0_0", "", "", 200), 400, "Offsets are checked"),
    differs(
        row("GET", "/t?offset=0000000000000000_0000000000000099", "", "", 200),
        400,
        "Offsets are checked",
    ),
    differs(row("GET", "/t?live=yes", "", "", 200), 400, "Unknown live modes are refused"),
    differs(
        row("POST", "/c", "content-type: text/html\r\nstream-closed: TRUE\r\n", "", 400),
        204,
        "Stream-Closed in any case",
    ),
    differs(
        row("PUT", "/new", "stream-ttl: 5\r\nstream-ttl: 6\r\n", "", 201),
        400,
        "Repeated and unreadable headers are refused",
    ),
    differs(
        row("PUT", "/new", "content-type: text\r\n", "", 201),
        400,
        "Content types are checked",
    ),
    differs(
        row("PUT", "/new", "content-encoding: gzip\r\n", "x", 201),
        415,
        "Encoded bodies are refused",
    ),
    differs(row("PUT", "/a/../new", "", "", 201), 400, "Paths"),
    differs(
        row("PUT", "/new", "stream-fork-offset: 0000000000000000_0000000000000000\r\n", "", 201),
        400,
        "Fork headers need a source",
    ),
    differs(
        row(
            "POST",
            "/t",
            "content-type: text/plain\r\nproducer-id: p\r\nproducer-epoch: 00\r\nproducer-seq: 0\r\n",
            "x",
            200,
        ),
        400,
        "Numbers are canonical",
    ),
];

async fn requests_get_the_statuses_that_clients_know(kind: Kind) {
    for row in ROWS {
        let world = World::new(kind);
        world.stream("/t", "text/plain", "abc").await;
        world.stream("/j", "application/json", "[1]").await;
        world.stream("/c", "text/plain", "abc").await;
        world.close("/c").await;
        world.stream("/s", "text/plain", "abc").await;
        assert_eq!(world.put("/f", "stream-forked-from: /v1/stream/s\r\n", "").await.status, 201);
        assert_eq!(world.delete("/s").await.status, 204);
        let reply = world.ask(row.method, row.path, row.fields, row.body.as_bytes()).await;
        assert_eq!(reply.status, row.ours, "{} {} {:?}", row.method, row.path, row.fields);
        assert_eq!(row.caddy == row.ours, row.why == SAME, "{} {}", row.method, row.path);
    }
}

async fn answers_carry_the_headers_that_clients_read(kind: Kind) {
    let world = World::new(kind);
    let put = world.put("/t", TEXT, "abc").await;
    for (name, value) in [
        ("location", "http://test.example/v1/stream/t"),
        ("content-type", "text/plain"),
        ("stream-next-offset", TAIL),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "cross-origin"),
    ] {
        assert_eq!(put.header(name), Some(value), "PUT {name}");
    }
    let get = world.get("/t").await;
    assert_eq!(get.header("stream-next-offset"), Some(TAIL));
    assert_eq!(get.header("stream-up-to-date"), Some("true"));
    assert!(get.header("etag").is_some());
    assert_eq!(get.header("access-control-allow-origin"), Some("*"));
    let now = world.get("/t?offset=now").await;
    assert_eq!((now.header("cache-control"), now.header("etag")), (Some("no-store"), None));
    assert_eq!(world.head("/t").await.header("cache-control"), Some("no-store"));

    assert_eq!(world.post("/t", FIRST, "x").await.header("producer-seq"), Some("0"));
    let stale = FIRST.replace("epoch: 1", "epoch: 0");
    let reply = world.post("/t", &stale, "x").await;
    assert_eq!((reply.status, reply.header("producer-epoch")), (403, Some("1")));
    let gap = FIRST.replace("seq: 0", "seq: 7");
    let reply = world.post("/t", &gap, "x").await;
    assert_eq!(reply.header("producer-expected-seq"), Some("1"));
    assert_eq!(reply.header("producer-received-seq"), Some("7"));

    world.close("/t").await;
    let reply = world.post("/t", TEXT, "x").await;
    assert_eq!(reply.header("stream-closed"), Some("true"));
    assert_eq!(reply.header("stream-next-offset"), Some(offset(4).as_str()));

    world.stream("/b", "image/png", "x").await;
    let sse = world.sse("/b?offset=-1&live=sse", "").await;
    assert_eq!(sse.head.header("stream-sse-data-encoding"), Some("base64"));
    assert_eq!(sse.head.header("cache-control"), Some("no-cache"));
    assert_eq!(sse.head.header("x-accel-buffering"), Some("no"));
}

/// Not only statuses: each of these is shown here and explained in the guide.
async fn deliberate_differences_are_written_down(kind: Kind) {
    let guide = include_str!("../../docs/migrating-from-caddy.md");
    let named = ROWS.iter().map(|row| row.why).filter(|why| *why != SAME);
    for heading in named.chain([
        "JSON offsets",
        "Entity tags",
        "Errors are problem+json",
        "Caching at the tail",
        "Complete reads",
        "Sliding TTL",
        "X-Forwarded-Proto",
        "Chunked PUT bodies are kept",
    ]) {
        assert!(guide.contains(&format!("\n### {heading}\n")), "the guide lacks {heading:?}");
    }
    let world = World::new(kind);
    // The plugin counts a JSON message's bytes; here each message has one byte more.
    let json = world.stream("/j", "application/json", "[10,20]").await;
    assert_eq!(json.header("stream-next-offset"), Some(offset(2 * (2 + 1)).as_str()));
    // The plugin's tag is the next offset alone.
    world.stream("/t", "text/plain", "abc").await;
    let read = world.get("/t").await;
    assert_ne!(read.header("etag"), Some(format!("\"{TAIL}\"").as_str()));
    assert_eq!(read.header("cache-control"), Some("no-cache"));
    assert_eq!(world.get("/none").await.header("content-type"), Some("application/problem+json"));
    let forwarded = world.put("/new", "x-forwarded-proto: https\r\n", "").await;
    assert_eq!(forwarded.header("location"), Some("http://test.example/v1/stream/new"));
}

async fn ttl_grammar(kind: Kind) {
    let world = World::new(kind);
    for (ttl, status) in [
        ("0", 201),
        ("1", 201),
        ("3600", 201),
        ("9223372036854775807", 201),
        ("01", 400),
        ("00", 400),
        ("+1", 400),
        ("-1", 400),
        ("1.0", 400),
        ("1e3", 400),
        ("1s", 400),
        ("0x10", 400),
        ("99999999999999999999", 400),
    ] {
        let reply = world.put(&format!("/{ttl}"), &format!("stream-ttl: {ttl}\r\n"), "").await;
        assert_eq!(reply.status, status, "{ttl}");
    }
}

async fn cursors(kind: Kind) {
    let (world, _clock) = World::with_clock(kind);
    world.stream("/t", "text/plain", "abc").await;
    let ask = async |echo: &str| -> u64 {
        let reply = world.get(&format!("/t?offset=-1&live=long-poll{echo}")).await;
        reply.header("stream-cursor").unwrap().parse().unwrap()
    };
    // Twenty-second intervals since 9 October 2024.
    let now = ask("").await;
    assert_eq!(now, (1_767_225_600 - 1_728_432_000) / 20);
    assert_eq!(ask(&format!("&cursor={}", now - 1)).await, now, "behind: the current interval");
    assert_eq!(ask("&cursor=abc").await, now, "not a cursor: the current interval");
    let next = ask(&format!("&cursor={now}")).await;
    assert!(next > now && next <= now + 180, "ahead by up to an hour");
    assert_eq!(world.get("/t").await.header("stream-cursor"), None, "not on catch-up reads");
}

async fn defaults(kind: Kind) {
    let options = StreamOptions::default();
    assert_eq!(options.long_poll_timeout, Duration::from_secs(30));
    assert_eq!(options.sse_reconnect_interval, Duration::from_secs(60));
    assert_eq!(options.route, "/v1/stream");
    let world = World::new(kind);
    let reply = world.put("/new", "", "").await;
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    assert_eq!(reply.header("stream-next-offset"), Some("0000000000000000_0000000000000000"));
}
