//! `POST` (PROTOCOL §5.2): bytes in order, whole or not at all; `Stream-Seq`.

use crate::world::{Kind, ROUTE, World, offset, position, request};

for_each_kind![
    bytes_come_back_in_order,
    the_type_must_match_but_not_its_parameters,
    an_empty_append_is_refused,
    a_type_is_required_with_a_body,
    there_must_be_a_stream,
    stream_seq_must_increase_byte_by_byte,
    stream_seq_is_not_moved_by_what_fails,
    chunked_bodies_are_appended,
    #[only(http1, proxied, embedded; "HTTP/2 has no use for it")]
    a_body_waits_for_100_continue,
    #[only(http1, proxied, embedded; "HTTP/2 has no use for it")]
    expected_bodies_that_are_not_wanted_are_not_asked_for,
    #[only(http1, proxied, embedded; "HTTP/2 has no use for it")]
    the_body_of_a_closing_retry_is_asked_for,
    #[only(http1, proxied, http2; "Pingora drops a request sent ahead unless the host lets it in")]
    requests_on_one_connection_are_answered_in_order,
    concurrent_appends_all_arrive_once,
    every_byte_value_survives,
];

const TEXT: &str = "content-type: text/plain\r\n";

async fn bytes_come_back_in_order(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let mut tail = 0;
    for part in ["one ", "two ", "three"] {
        let reply = world.append("/a", "text/plain", part).await;
        tail += part.len() as u64;
        assert_eq!(reply.header("stream-next-offset"), Some(offset(tail).as_str()));
        assert_eq!((reply.header("stream-closed"), reply.body.len()), (None, 0));
    }
    assert_eq!(world.get("/a").await.text(), "one two three");
}

async fn the_type_must_match_but_not_its_parameters(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain; charset=utf-8", "").await;
    for same in ["text/plain", "TEXT/PLAIN", "text/plain;charset=latin1", "text/plain ; x=\"y\""] {
        let fields = format!("content-type: {same}\r\n");
        assert_eq!(world.post("/a", &fields, "x").await.status, 204, "{same}");
    }
    let reply = world.post("/a", "content-type: text/html\r\n", "x").await;
    assert_eq!((reply.status, reply.code().as_str()), (409, "content-type-mismatch"));
    assert!(reply.text().contains("text/plain"), "says what it should be: {}", reply.text());
    let reply = world.post("/a", "content-type: nonsense\r\n", "x").await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-content-type"));
    assert_eq!(world.get("/a").await.text(), "xxxx");
}

async fn an_empty_append_is_refused(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let chunked = format!(
        "POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}transfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    let bare = format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}\r\n");
    let no_close = request("POST", "/a", "stream-closed: yes\r\n", b"");
    for asked in [request("POST", "/a", TEXT, b""), chunked.into(), bare.into(), no_close] {
        let reply = world.server.ask(&asked).await;
        let asked = String::from_utf8(asked).unwrap();
        assert_eq!((reply.status, reply.code().as_str()), (400, "empty-append"), "{asked}");
    }
}

async fn a_type_is_required_with_a_body(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    for fields in ["", "content-type:\r\n"] {
        let reply = world.post("/a", fields, "x").await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "missing-content-type"));
    }
}

async fn there_must_be_a_stream(kind: Kind) {
    let world = World::new(kind);
    let reply = world.post("/a", TEXT, "x").await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "not-found"));
    assert_eq!(world.engine.stats().cells, 0, "asking leaves nothing behind");
}

async fn stream_seq_must_increase_byte_by_byte(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    for (seq, status) in [
        ("10", 204),
        ("10", 409),
        ("09", 409),
        ("2", 204), // "2" sorts after "10".
        ("100", 409),
        ("2a", 204),
        ("2A", 409),
    ] {
        let reply = world.post("/a", &format!("{TEXT}stream-seq: {seq}\r\n"), "x").await;
        assert_eq!(reply.status, status, "{seq}: {reply:?}");
        if status == 409 {
            assert_eq!(reply.code(), "sequence-regression");
            assert!(reply.text().contains("sequence conflict"), "{reply:?}");
            let tail = world.head("/a").await;
            assert_eq!(reply.header("stream-next-offset"), tail.header("stream-next-offset"));
            assert!(tail.header("stream-next-offset").is_some());
        }
    }
    assert_eq!(world.append("/a", "text/plain", "x").await.status, 204, "it is optional");
    for bad in ["stream-seq:\r\n".to_owned(), format!("stream-seq: {}\r\n", "9".repeat(257))] {
        let reply = world.post("/a", &format!("{TEXT}{bad}"), "x").await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-header"));
    }
    assert_eq!(world.get("/a").await.text(), "xxxx");
}

async fn stream_seq_is_not_moved_by_what_fails(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "application/json", "").await;
    let json = "content-type: application/json\r\n";
    let bad = world.post("/a", &format!("{json}stream-seq: 5\r\n"), "{").await;
    assert_eq!(bad.status, 400);
    let good = world.post("/a", &format!("{json}stream-seq: 5\r\n"), "{}").await;
    assert_eq!(good.status, 204, "{good:?}");
}

async fn chunked_bodies_are_appended(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let mut client = world.server.connect().await;
    let head =
        format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}transfer-encoding: chunked\r\n");
    client.send(format!("{head}\r\n")).await;
    for part in ["5\r\nhel", "lo\r\n", "1\r\n \r", "\n5\r\nworld\r\n0\r\n", "\r\n"] {
        client.send(part).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.reply().await.status, 204);
    assert_eq!(world.get("/a").await.text(), "hello world");
    client.send(request("POST", "/a", TEXT, b"!")).await;
    assert_eq!(client.reply().await.status, 204, "the connection goes on");
    assert_eq!(world.get("/a").await.text(), "hello world!");
}

async fn a_body_waits_for_100_continue(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let mut client = world.server.connect().await;
    let head = format!(
        "POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}expect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    );
    client.send(&head).await;
    assert_eq!(client.reply().await.status, 100);
    client.send("hello").await;
    assert_eq!(client.reply().await.status, 204);
    client.send(request("GET", "/a", "", b"")).await;
    assert_eq!(client.reply().await.text(), "hello");
}

async fn expected_bodies_that_are_not_wanted_are_not_asked_for(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_append = 10);
    world.stream("/a", "text/plain", "").await;
    let mut client = world.server.connect().await;
    let expect = "expect: 100-continue\r\ncontent-length: 11\r\n";
    client.send(format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}{expect}\r\n")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "body-too-large"));
    world.stream("/closed", "text/plain", "").await;
    world.close("/closed").await;
    let json = "content-type: application/json\r\n";
    let expect = "expect: 100-continue\r\ncontent-length: 5\r\n";
    for (path, fields, status, code) in [
        ("/none", TEXT, 404, "not-found"),
        ("/closed", TEXT, 409, "stream-closed"),
        ("/a", json, 409, "content-type-mismatch"),
        ("/a", "", 400, "missing-content-type"),
    ] {
        let mut client = world.server.connect().await;
        let head = format!("POST {ROUTE}{path} HTTP/1.1\r\nhost: t\r\n{fields}{expect}\r\n");
        client.send(head).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path} {fields}");
    }
}

/// The retry of what closed a stream is no conflict, so its body is asked for.
async fn the_body_of_a_closing_retry_is_asked_for(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let producer = "producer-id: p\r\nproducer-epoch: 0\r\nproducer-seq: 0\r\n";
    let fields = format!("{TEXT}{producer}stream-closed: true\r\n");
    assert_eq!(world.post("/a", &fields, "hello").await.status, 200);
    let mut client = world.server.connect().await;
    let expect = "expect: 100-continue\r\ncontent-length: 5\r\n";
    client.send(format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{fields}{expect}\r\n")).await;
    assert_eq!(client.reply().await.status, 100);
    client.send("hello").await;
    assert_eq!(client.reply().await.status, 204);
}

async fn requests_on_one_connection_are_answered_in_order(kind: Kind) {
    let world = World::new(kind);
    let mut client = world.server.connect().await;
    let requests = [
        request("PUT", "/a", TEXT, b"1"),
        request("POST", "/a", TEXT, b"2"),
        request("HEAD", "/a", "", b""),
        request("POST", "/none", TEXT, b"3"),
        request("POST", "/a", TEXT, b"4"),
        request("GET", "/a?offset=now", "", b""),
        request("GET", "/a", "", b""),
        request("DELETE", "/a", "", b""),
        request("GET", "/a", "", b""),
    ];
    client.send(requests.concat()).await;
    for status in [201, 204] {
        assert_eq!(client.reply().await.status, status);
    }
    assert_eq!(client.head().await.status, 200);
    for status in [404, 204, 200] {
        assert_eq!(client.reply().await.status, status);
    }
    let read = client.reply().await;
    assert_eq!((read.status, read.text().as_str()), (200, "124"));
    assert_eq!(client.reply().await.status, 204);
    assert_eq!(client.reply().await.status, 404);
    assert!(client.unread().is_empty());
}

async fn concurrent_appends_all_arrive_once(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "application/json", "").await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let door = world.server.door();
        writers.spawn(async move {
            let mut client = door.connect().await;
            for turn in 0..25 {
                let body = format!("[{writer},{turn}]");
                let body = format!("[{body}]");
                let fields = "content-type: application/json\r\n";
                client.send(request("POST", "/a", fields, body.as_bytes())).await;
                assert_eq!(client.reply().await.status, 204);
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let read: Vec<(u32, u32)> = serde_json::from_slice(&world.get("/a").await.body).unwrap();
    for writer in 0..8 {
        let turns: Vec<u32> = read.iter().filter(|(w, _)| *w == writer).map(|(_, t)| *t).collect();
        assert_eq!(turns, (0..25).collect::<Vec<_>>(), "writer {writer}");
    }
    assert_eq!(read.len(), 200);
    world.at_rest().await;
}

async fn every_byte_value_survives(kind: Kind) {
    let world = World::new(kind);
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    world.stream("/a", "application/octet-stream", "").await;
    let reply = world.append("/a", "application/octet-stream", &bytes).await;
    assert_eq!(position(&reply), 70_000);
    assert_eq!(world.get("/a").await.body, bytes);
}
