//! Refusals: which comes first (PROTOCOL §5.2), and what each says (RFC 9457).

use crate::world::{Kind, ROUTE, World, offset, request};

for_each_kind![
    precedence_on_append,
    every_refusal_is_a_problem,
    unknown_methods,
    repeated_and_unreadable_headers_are_refused_not_ignored,
    unknown_headers_do_not_matter,
    a_refusal_leaves_the_connection_usable,
];

/// Each step adds one more reason to refuse; the first in the order of §5.2 must answer.
async fn precedence_on_append(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "application/json", "[1]").await;
    let writer = |epoch: u64, seq: u64| {
        format!("producer-id: p\r\nproducer-epoch: {epoch}\r\nproducer-seq: {seq}\r\n")
    };
    let json = "content-type: application/json\r\n";
    let first = format!("{json}{}stream-seq: 5\r\n", writer(1, 0));
    assert_eq!(world.post("/a", &first, "2").await.status, 200);
    let other = "content-type: text/plain\r\n";
    for (fields, body, code) in [
        (format!("{json}stream-seq: 5\r\n"), "3", "sequence-regression"),
        (format!("{json}stream-seq: 5\r\n"), "{", "invalid-json"),
        (format!("{json}stream-seq: 5\r\n{}", writer(1, 5)), "{", "sequence-gap"),
        (format!("{json}stream-seq: 5\r\n{}", writer(0, 5)), "{", "stale-epoch"),
        (format!("{other}stream-seq: 5\r\n{}", writer(0, 5)), "{", "content-type-mismatch"),
    ] {
        assert_eq!(world.post("/a", &fields, body).await.code(), code, "{fields}");
    }
    world.close("/a").await;
    let all = format!("{other}stream-seq: 5\r\n{}", writer(0, 5));
    let reply = world.post("/a", &all, "{").await;
    assert_eq!(
        (reply.code().as_str(), reply.header("stream-closed")),
        ("stream-closed", Some("true"))
    );
    assert_eq!(world.post("/a", &all, "").await.code(), "empty-append");
    let malformed = format!("{other}stream-seq: 5\r\nproducer-id: p\r\n");
    assert_eq!(world.post("/a", &malformed, "{").await.code(), "partial-producer");
    assert_eq!(world.get("/a").await.text(), "[1,2]");
}

async fn every_refusal_is_a_problem(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    for (method, path, fields, body, status) in [
        ("GET", "/none", "", "", 404),
        ("GET", "/a?live=x", "", "", 400),
        ("GET", "", "", "", 400),
        ("GET", "/", "", "", 400),
        ("GET", "/__ds/x", "", "", 400),
        ("POST", "/a", "", "x", 400),
        ("PUT", "/a", "stream-ttl: x\r\n", "", 400),
        ("PUT", "/a", "", "", 409),
        ("DELETE", "/none", "", "", 404),
        ("PATCH", "/a", "", "", 400),
        ("PROPFIND", "/a", "", "", 405),
    ] {
        let reply = world.ask(method, path, fields, body.as_bytes()).await;
        assert_eq!(reply.status, status, "{method} {path}");
        let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let code = reply.code();
        assert_eq!(problem["type"], format!("urn:durable-streams:problem:{code}"));
        assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
        for member in ["title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| text.len() > 2), "{problem}");
        }
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{method} {path}");
    }
}

async fn unknown_methods(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    for method in ["TRACE", "PROPFIND", "get"] {
        let reply = world.ask(method, "/a", "", b"").await;
        assert_eq!((reply.status, reply.code().as_str()), (405, "method-not-allowed"), "{method}");
        assert_eq!(reply.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
}

/// Two intermediaries that each pick another of two values would disagree about what was written.
async fn repeated_and_unreadable_headers_are_refused_not_ignored(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let whole = "content-type: text/plain\r\nstream-seq: 1\r\nproducer-id: p\r\n\
                 producer-epoch: 0\r\nproducer-seq: 0\r\n";
    for line in whole.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        for twice in [value, "0"] {
            let fields = format!("{whole}{name}: {twice}\r\n");
            let reply = world.post("/a", &fields, "x").await;
            assert_eq!(reply.status, 400, "{name} twice: {reply:?}");
        }
        let fields = whole.replace(line, &format!("{name}: {value}\u{e9}"));
        assert_eq!(world.post("/a", &fields, "x").await.status, 400, "{name} is not ASCII");
    }
    assert_eq!(world.get("/a").await.text(), "", "nothing was stored");
    assert_eq!(world.post("/a", whole, "x").await.status, 200);
}

async fn unknown_headers_do_not_matter(kind: Kind) {
    let world = World::new(kind);
    let fields =
        "stream-unknown: 1\r\nx-binary: \u{e9}\u{ff}\r\nx-binary: again\r\nrange: bytes=0-1\r\n";
    assert_eq!(
        world.put("/a", &format!("content-type: text/plain\r\n{fields}"), "abc").await.status,
        201
    );
    let reply = world.ask("GET", "/a", fields, b"").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "abc"));
}

async fn a_refusal_leaves_the_connection_usable(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let mut client = world.server.connect().await;
    for (asked, status) in [
        (request("POST", "/none", "content-type: text/plain\r\n", b"some body"), 404),
        (request("POST", "/a", "producer-id: p\r\n", b"some body"), 400),
        (request("PUT", "/a", "stream-ttl: x\r\n", b"some body"), 400),
        (request("PROPFIND", "/a", "content-length: 9\r\n", b""), 405),
    ] {
        let body: &[u8] = if status == 405 { b"some body" } else { b"" };
        client.send([asked, body.to_vec()].concat()).await;
        assert_eq!(client.reply().await.status, status);
    }
    let read = format!("GET {ROUTE}/a?offset={} HTTP/1.1\r\nhost: t\r\n\r\n", offset(1));
    client.send(world.aim(read.into_bytes()).await).await;
    assert_eq!(client.reply().await.text(), "bc");
}
