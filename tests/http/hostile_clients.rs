//! Clients that stall, vanish, lie about lengths or send the next request inside this one.

use tokio::io::AsyncWriteExt;

use crate::support::{PATIENCE, eventually};
use crate::world::{Kind, ROUTE, SHORT, World, request, soon};

for_each_kind![
    #[only(http1, proxied, http2; "a limit of the edge")]
    a_stalled_body_is_408_and_stores_nothing,
    a_trickled_body_is_408_and_stores_nothing,
    a_body_cut_short_stores_nothing,
    #[only(http1, proxied, embedded; "a matter of HTTP/1.1 framing")]
    broken_chunks_store_nothing,
    a_client_that_left_mid_body_frees_its_share,
    #[only(http1, proxied, http2; "a limit of the edge")]
    a_stalled_event_reader_is_dropped,
    #[only(http1, proxied, http2; "a limit of the edge")]
    a_stalled_catch_up_reader_is_dropped,
    #[only(http1, proxied, http2; "a limit of the edge")]
    a_slow_reader_gets_everything,
    #[only(http1, proxied; "over HTTP/2 the test's gateway takes megabytes before a reader stalls; tests/attacks has that")]
    readers_wait_for_room_and_get_it,
    #[only(http1; "it counts the bytes in its own socket")]
    a_stalled_reader_holds_little_of_the_kernels_memory,
    #[only(http1, proxied; "sends ahead and closes its half, which HTTP/2 has not")]
    half_closed_clients_get_their_answers,
    #[only(http1, proxied, embedded; "a matter of HTTP/1.1 framing")]
    a_get_with_a_body_smuggles_nothing,
    #[only(http1, proxied, embedded; "a matter of HTTP/1.1 framing")]
    ambiguous_framing_smuggles_nothing,
    #[only(http1, proxied; "the edge judges it, not the streams")]
    nonsense_is_answered_or_closed,
    #[only(http1, proxied; "the edge judges it, not the streams")]
    what_is_almost_http_is_refused_with_a_reason,
    #[only(http1, proxied, embedded; "a matter of HTTP/1.1 framing")]
    what_follows_a_broken_chunk_is_no_request,
    an_event_reader_that_talks_is_not_disturbed,
    #[only(embedded; "the server's own loop checks chunks before Pingora")]
    an_embedding_application_reads_chunks_as_pingora_does,
    #[only(http1; "it speaks HTTP/2 itself")]
    http2_by_prior_knowledge,
    #[only(http1; "it speaks HTTP/2 itself")]
    http2_readers_that_leave_free_their_places,
];

const TEXT: &str = "content-type: text/plain\r\n";

fn post(fields: &str) -> String {
    format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{TEXT}{fields}\r\n\r\n")
}

async fn text(kind: Kind) -> World {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    world
}

/// In somebody else's application nothing checks a request before Pingora parses it (docs/security.md). When a form of the
/// first list is refused, Pingora has become stricter: move it to the second.
async fn an_embedding_application_reads_chunks_as_pingora_does(kind: Kind) {
    for (body, stored) in [
        ("3\r\nfoo\r\n\r\n\r\n", Some("foo")),
        ("3\r\nfoo\r\n;x\r\n\r\n", Some("foo")),
        ("3\r\nfoo\r\n \r\n\r\n", Some("foo")),
        ("3;a\nb\r\nfoo\r\n0\r\n\r\n", Some("foo")),
        ("3;a\rb\r\nfoo\r\n0\r\n\r\n", None),
        ("3\nfoo\r\n0\r\n\r\n", None),
        (" 3\r\nfoo\r\n0\r\n\r\n", None),
        ("0x3\r\nfoo\r\n0\r\n\r\n", None),
        ("3\r\nfoo\r\n0\n\r\n", None),
        ("3\r\nfooXX0\r\n\r\n", None),
    ] {
        let world = text(kind).await;
        let mut client = world.server.connect().await;
        client.send(post("transfer-encoding: chunked") + body).await;
        let reply = soon(client.reply()).await;
        let expected = if stored.is_some() { 204 } else { 400 };
        assert_eq!(reply.status, expected, "{body:?}: {reply:?}");
        assert_eq!(world.get("/a").await.text(), stored.unwrap_or_default(), "{body:?}");
    }
}

async fn a_stalled_body_is_408_and_stores_nothing(kind: Kind) {
    let world = World::with(kind, |setup| {
        setup.edge.limits.body_timeout = SHORT;
        setup.edge.streams.body_timeout = SHORT;
    });
    world.stream("/a", "text/plain", "").await;
    for start in [
        format!("{}abc", post("content-length: 6")),
        format!("{}3\r\nabc\r\n", post("transfer-encoding: chunked")),
    ] {
        let mut client = world.server.connect().await;
        client.send(start).await;
        let reply = soon(client.reply()).await;
        assert_eq!((reply.status, reply.code().as_str()), (408, "body-timeout"));
        client.socket.shutdown().await.unwrap();
        assert!(client.is_closed().await, "what comes later is not taken for a request");
    }
    assert_eq!(world.get("/a").await.text(), "");
    world.at_rest().await;
}

/// Each byte comes well before the time for a pause is up.
async fn a_trickled_body_is_408_and_stores_nothing(kind: Kind) {
    let world = World::with(kind, |setup| {
        setup.edge.limits.body_timeout = 2 * SHORT;
        setup.edge.streams.body_timeout = 2 * SHORT;
    });
    world.stream("/a", "text/plain", "").await;
    for (framing, part) in
        [("content-length: 1000000", "x"), ("transfer-encoding: chunked", "1\r\nx\r\n")]
    {
        let mut client = world.server.connect().await;
        client.send(post(framing)).await;
        let began = tokio::time::Instant::now();
        loop {
            // The server may have ended the connection meanwhile.
            let _ = client.socket.write_all(part.as_bytes()).await;
            if client.has_answer_within(SHORT).await {
                break;
            }
            assert!(began.elapsed() < crate::support::PATIENCE, "{framing}: it goes on for ever");
        }
        while soon(client.more()).await {}
        let said = String::from_utf8_lossy(client.unread()).into_owned();
        // A part that is sent while the answer is on its way may cost the client that answer.
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{framing}: {said}");
    }
    assert_eq!(world.get("/a").await.text(), "");
    world.at_rest().await;
}

async fn a_body_cut_short_stores_nothing(kind: Kind) {
    let world = text(kind).await;
    for start in [
        format!("{}abc", post("content-length: 6")),
        format!("{}3\r\nabc\r\n", post("transfer-encoding: chunked")),
        format!("{}3\r\nabc\r\n0\r\n", post("transfer-encoding: chunked\r\nstream-closed: true")),
    ] {
        let mut client = world.server.connect().await;
        client.send(start).await;
        client.socket.shutdown().await.unwrap();
        while client.more().await {}
        drop(client);
        world.at_rest().await;
        let read = world.get("/a").await;
        assert_eq!((read.text().as_str(), read.header("stream-closed")), ("", None));
    }
}

async fn broken_chunks_store_nothing(kind: Kind) {
    let world = text(kind).await;
    for body in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "\r\n\r\n",
    ] {
        let mut client = world.server.connect().await;
        client.send(format!("{}{body}", post("transfer-encoding: chunked"))).await;
        client.socket.shutdown().await.unwrap();
        let reply = soon(client.reply()).await;
        assert_eq!(reply.status, 400, "{body:?}");
        assert_eq!(world.get("/a").await.text(), "", "{body:?}");
    }
    world.at_rest().await;
}

async fn a_client_that_left_mid_body_frees_its_share(kind: Kind) {
    let world = text(kind).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = world.server.connect().await;
        client.send(format!("{}abc", post("content-length: 1000"))).await;
        clients.push(client);
    }
    eventually("the bodies are under way", async || {
        world.engine.stats().inflight_append_bytes == 30
    })
    .await;
    for client in clients {
        client.socket.set_zero_linger().unwrap();
    }
    world.at_rest().await;
    assert_eq!(world.get("/a").await.text(), "");
}

/// A stalled reader holds one window of memory for as long as one write may take, no longer.
async fn a_stalled_event_reader_is_dropped(kind: Kind) {
    // The one that reads may have to wait for its turn on a busy machine.
    let world = World::with(kind, |setup| setup.edge.limits.write_timeout = 5 * SHORT);
    world.stream("/a", "text/plain", "").await;
    let stalled = world.sse("/a?offset=now&live=sse", "").await;
    let mut reading = world.sse("/a?offset=now&live=sse", "").await;
    reading.event().await;
    let part = "x".repeat(1 << 20);
    for _ in 0..16 {
        world.append("/a", "text/plain", &part).await;
        soon(reading.catch_up()).await;
    }
    eventually("the stalled one is dropped", async || world.engine.stats().live_readers == 1).await;
    world.append("/a", "text/plain", "the other goes on").await;
    assert_eq!(soon(reading.catch_up()).await.0, ["the other goes on"]);
    drop((stalled, reading));
    world.at_rest().await;
}

/// It held all the room there is for answers, so that the next one is answered only because it is gone.
async fn a_stalled_catch_up_reader_is_dropped(kind: Kind) {
    const LENGTH: usize = 16 << 20;
    let world = World::with(kind, |setup| {
        setup.edge.limits.write_timeout = SHORT;
        setup.edge.streams.max_inflight_read = 64 << 10;
        setup.limits.max_read = Some(LENGTH);
    });
    world.stream("/a", "text/plain", "y".repeat(LENGTH)).await;
    // A busy machine may have left the server no time to write, let alone to wait: the next reader stalls for longer.
    let mut stall = 4 * SHORT;
    loop {
        let mut client = world.server.connect().await;
        client.send(request("GET", "/a", "", b"")).await;
        assert_eq!(soon(client.head()).await.status, 200);
        tokio::time::sleep(stall).await;
        let mut received = 0;
        while received < LENGTH && soon(client.more()).await {
            received = client.unread().len();
        }
        if received < LENGTH {
            break;
        }
        assert!(stall < PATIENCE, "all of {received} bytes came after {stall:?}");
        stall *= 2;
    }
    assert_eq!(soon(world.get("/a")).await.body.len(), LENGTH);
}

/// `write_timeout` is for readers that take nothing.
async fn a_slow_reader_gets_everything(kind: Kind) {
    const LENGTH: usize = 16 << 20;
    let world = World::with(kind, |setup| {
        // The kernel wakes a writer when a third of its buffer of 4 MiB is free.
        setup.edge.limits.write_timeout = 5 * SHORT;
        setup.limits.max_read = Some(LENGTH);
    });
    // What is stored as JSON is answered as one value in memory, the rest in pieces.
    world.stream("/a", "text/plain", "y".repeat(LENGTH)).await;
    world.stream("/j", "application/json", format!("[\"{}\"]", "y".repeat(LENGTH - 100))).await;
    for path in ["/a", "/j"] {
        let mut client = world.server.connect().await;
        client.send(request("GET", path, "", b"")).await;
        assert_eq!(client.head().await.status, 200);
        let mut received = 0;
        let began = std::time::Instant::now();
        while received < LENGTH - 100 {
            assert!(soon(client.more()).await, "{path}: cut after {received} bytes");
            let arrived = client.take_unread();
            received += arrived;
            // 4 MB in a second, however much one read brings.
            let due = std::time::Duration::from_secs_f64(received as f64 / 4e6);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
}

/// Bytes that the kernel holds for the connections of the server on a port, as `/proc/net/tcp` has them.
#[cfg(target_os = "linux")]
fn unacknowledged(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queued = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next()?.rsplit(':').next()?;
        let queues = fields.nth(2)?.split(':').next()?;
        let ours = u16::from_str_radix(local, 16) == Ok(port);
        ours.then(|| usize::from_str_radix(queues, 16).unwrap())
    });
    queued.sum()
}

#[cfg(not(target_os = "linux"))]
async fn a_stalled_reader_holds_little_of_the_kernels_memory(_: Kind) {}

/// A reader whose own buffer is small, so that what it does not take stays with the server.
#[cfg(target_os = "linux")]
async fn a_stalled_reader_holds_little_of_the_kernels_memory(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "x".repeat(16 << 20)).await;
    for query in ["?offset=-1&live=sse", "?offset=-1"] {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(world.server.addr).await.unwrap();
        let path = format!("/a{query}");
        socket.write_all(&request("GET", &path, "", b"")).await.unwrap();
        let mut before = 0;
        loop {
            tokio::time::sleep(2 * SHORT).await;
            let queued = unacknowledged(world.server.addr.port());
            if queued > 0 && queued == before {
                break;
            }
            before = queued;
        }
        assert!(before <= 128 << 10, "{query}: {before} bytes");
        drop(socket);
        eventually("it is gone", async || unacknowledged(world.server.addr.port()) == 0).await;
    }
}

/// The budget has room for two pieces. Two readers that take nothing hold it until they leave; small reads need none of
/// it, and a large one waits and is answered whole.
async fn readers_wait_for_room_and_get_it(kind: Kind) {
    let world = World::with(kind, |setup| {
        // None of them is dropped for its slowness, however busy the machine is.
        setup.edge.limits.write_timeout = 30 * PATIENCE;
        setup.edge.streams.max_inflight_read = 128 << 10;
    });
    world.stream("/large", "text/plain", "y".repeat(16 << 20)).await;
    world.stream("/small", "text/plain", "z").await;
    let mut stalled = Vec::new();
    for query in ["?offset=-1&live=sse", "?offset=-1"] {
        let mut client = world.server.connect().await;
        client.send(request("GET", &format!("/large{query}"), "", b"")).await;
        assert_eq!(soon(client.head()).await.status, 200, "{query}");
        stalled.push(client);
    }
    // What lies between takes some of it before they stall.
    let mut waiting = loop {
        let mut client = world.server.connect().await;
        client.send(request("GET", "/large", "", b"")).await;
        if !client.has_answer_within(2 * SHORT).await {
            break client;
        }
        assert!(stalled.len() < 20, "there is always room");
        stalled.push(client);
    };
    assert_eq!(soon(world.get("/small")).await.text(), "z");
    drop(stalled);
    let reply = tokio::time::timeout(6 * PATIENCE, waiting.reply()).await;
    let reply = reply.expect("those that left have given their room back");
    assert_eq!((reply.status, reply.body.len()), (200, 16 << 20));
    world.at_rest().await;
}

async fn half_closed_clients_get_their_answers(kind: Kind) {
    let world = text(kind).await;
    let mut client = world.server.connect().await;
    client.send(request("POST", "/a", TEXT, b"abc")).await;
    client.send(request("GET", "/a", "", b"")).await;
    client.socket.shutdown().await.unwrap();
    assert_eq!(soon(client.reply()).await.status, 204);
    assert_eq!(soon(client.reply()).await.text(), "abc");
    assert!(client.is_closed().await);
    // Nobody can say whether a half-closed long-poll still listens; it must not hold its place for long.
    let mut client = world.poll("/a?offset=now&live=long-poll").await;
    client.socket.shutdown().await.unwrap();
    world.at_rest().await;
}

async fn a_get_with_a_body_smuggles_nothing(kind: Kind) {
    let world = text(kind).await;
    let inner = String::from_utf8(request("DELETE", "/a", "", b"")).unwrap();
    let chunk = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    for (method, status) in [("GET", 200), ("HEAD", 200), ("OPTIONS", 204)] {
        let head = format!("{method} {ROUTE}/a HTTP/1.1\r\nhost: t\r\n");
        for hidden in [
            format!("{head}content-length: {}\r\n\r\n{inner}", inner.len()),
            format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}"),
        ] {
            let mut client = world.server.connect().await;
            client.send(hidden).await;
            client.send(request("PUT", "/after", "", b"")).await;
            let first = if method == "HEAD" { client.head().await } else { client.reply().await };
            assert_eq!(first.status, status, "{method}");
            // The connection may go on or end; if it goes on, then with the request after the body.
            if !client.unread().is_empty() || soon(client.more()).await {
                assert!(matches!(client.reply().await.status, 200 | 201), "{method}");
            }
            assert_eq!(world.head("/a").await.status, 200, "{method}: the hidden DELETE was run");
        }
    }
}

async fn ambiguous_framing_smuggles_nothing(kind: Kind) {
    let world = text(kind).await;
    let inner = String::from_utf8(request("DELETE", "/a", "", b"")).unwrap();
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked".to_owned(),
        "content-length: 5\r\ncontent-length: 6".to_owned(),
        "content-length: +5".to_owned(),
        "content-length: 5, 6".to_owned(),
        "content-length: 0x5".to_owned(),
        "transfer-encoding: xchunked".to_owned(),
        "transfer-encoding: chunked, identity".to_owned(),
        "transfer-encoding : chunked".to_owned(),
        "transfer-encoding:\x0bchunked".to_owned(),
    ] {
        let mut client = world.server.connect().await;
        client.send(format!("{}0\r\n\r\n{inner}", post(&fields))).await;
        client.socket.shutdown().await.unwrap();
        while soon(client.more()).await {}
        let said = String::from_utf8_lossy(client.unread()).into_owned();
        assert_eq!(world.head("/a").await.status, 200, "{fields}: DELETE was run; {said}");
    }
    world.at_rest().await;
}

async fn what_is_almost_http_is_refused_with_a_reason(kind: Kind) {
    let world = text(kind).await;
    let put = |target: &str, fields: &str| {
        format!("PUT {target} HTTP/1.1\r\ncontent-type: text/plain\r\n{fields}\r\n")
    };
    let chunks = "2\r\nyy\r\n0\r\n\r\n";
    for (request, status, code) in [
        (put("/v1/stream/b", "host: a b/c\r\n"), 400, "host-invalid"),
        (post("transfer-encoding: gzip, chunked") + chunks, 501, "transfer-coding"),
        (
            post("transfer-encoding: chunked\r\ntransfer-encoding: chunked") + chunks,
            501,
            "transfer-coding",
        ),
    ] {
        let reply = world.server.ask(&request).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{request}");
    }
    assert_eq!(world.get("/a").await.text(), "", "nothing was stored");
    for host in ["t", "t:80", "[::1]:80", "xn--bcher-kva.example", ""] {
        let target = format!("/v1/stream/{}", host.len());
        let reply = world.server.ask(put(&target, &format!("host: {host}\r\n"))).await;
        assert_eq!(reply.status, 201, "{host:?}: {reply:?}");
    }
}

async fn what_follows_a_broken_chunk_is_no_request(kind: Kind) {
    let world = text(kind).await;
    let inner = String::from_utf8(request("DELETE", "/a", "", b"")).unwrap();
    for broken in ["2\r\nyyzz", "-2\r\n", "zz\r\n", "0x2\r\nyy\r\n", "ffffffffffffffffff\r\n"] {
        let mut client = world.server.connect().await;
        let head = post("transfer-encoding: chunked");
        client.send(format!("{head}{broken}\r\n0\r\n\r\n{inner}")).await;
        assert_eq!(soon(client.reply()).await.status, 400, "{broken:?}");
        assert!(soon(client.is_closed()).await, "{broken:?}: more was answered");
        assert_eq!(world.head("/a").await.status, 200, "{broken:?}: DELETE was run");
    }
}

async fn nonsense_is_answered_or_closed(kind: Kind) {
    let world = text(kind).await;
    for bytes in [
        &b"\r\n\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/stream/a HTTP/9.9\r\nhost: t\r\n\r\n",
        b"GET /v1/stream/a HTTP/1.1\r\n\r\n",
        b"GET /v1/stream/a HTTP/1.1\r\nhost: t\r\n bad: fold\r\n\r\n",
        b"GET /v1/stream/a\x00 HTTP/1.1\r\nhost: t\r\n\r\n",
        b"GET /v1/stream/a HTTP/1.1\r\nhost: t\r\nx: \x00\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot frames at all, but long enough",
    ] {
        let mut client = world.server.connect().await;
        client.send(bytes).await;
        client.socket.shutdown().await.unwrap();
        while soon(client.more()).await {}
        let said = String::from_utf8_lossy(client.unread()).into_owned();
        assert!(
            !said.starts_with("HTTP/1.1 2") && !said.starts_with("HTTP/1.1 5"),
            "{bytes:?}: {said}"
        );
    }
    assert_eq!(world.get("/a").await.status, 200);
}

async fn an_event_reader_that_talks_is_not_disturbed(kind: Kind) {
    let world = text(kind).await;
    let mut sse = world.sse("/a?offset=now&live=sse", "").await;
    sse.event().await;
    sse.client.send(request("DELETE", "/a", "", b"")).await;
    world.append("/a", "text/plain", "news").await;
    assert_eq!(soon(sse.event()).await.data, "news", "the next request waits for its turn");
    assert_eq!(world.head("/a").await.status, 200);
}

/// One HTTP/2 request on a connection of its own: status, fields, body.
async fn h2(
    world: &World,
    request: http::Request<()>,
    body: &'static str,
) -> (http::response::Parts, String) {
    let socket = tokio::net::TcpStream::connect(world.server.addr).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let (answer, mut stream) = client.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        stream.send_data(bytes::Bytes::from_static(body.as_bytes()), true).unwrap();
    }
    let (head, mut incoming) = soon(answer).await.unwrap().into_parts();
    let mut out = Vec::new();
    while let Some(data) = soon(incoming.data()).await {
        let data = data.unwrap();
        incoming.flow_control().release_capacity(data.len()).unwrap();
        out.extend_from_slice(&data);
    }
    connection.abort();
    (head, String::from_utf8(out).unwrap())
}

fn over_h2(method: &str, path: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(format!("http://t.example{ROUTE}{path}"))
}

async fn http2_by_prior_knowledge(kind: Kind) {
    let world = World::new(kind);
    let typed = |method| over_h2(method, "/a").header("content-type", "text/plain");
    let (put, _) = h2(&world, typed("PUT").body(()).unwrap(), "abc").await;
    assert_eq!(put.status, 201);
    assert_eq!(put.headers["location"], "http://t.example/v1/stream/a");
    assert!(!put.headers.contains_key("connection"));
    let (post, _) = h2(&world, typed("POST").body(()).unwrap(), "def").await;
    assert_eq!(post.status, 204);
    let (get, body) = h2(&world, over_h2("GET", "/a").body(()).unwrap(), "").await;
    assert_eq!((get.status.as_u16(), body.as_str()), (200, "abcdef"));
    let (head, body) = h2(&world, over_h2("HEAD", "/a").body(()).unwrap(), "").await;
    assert_eq!((head.status.as_u16(), body.as_str()), (200, ""));
    let (missing, body) = h2(&world, over_h2("GET", "/none").body(()).unwrap(), "").await;
    assert_eq!(missing.status, 404);
    assert!(body.contains("\"code\":\"not-found\""), "{body}");
    world.close("/a").await;
    let sse = over_h2("GET", "/a?offset=-1&live=sse").body(()).unwrap();
    let (sse, body) = h2(&world, sse, "").await;
    assert_eq!(sse.headers["content-type"], "text/event-stream");
    assert!(!sse.headers.contains_key("transfer-encoding"));
    assert!(body.starts_with("event: data\ndata:abcdef\n\nevent: control\n"), "{body}");
    world.at_rest().await;
}

async fn http2_readers_that_leave_free_their_places(kind: Kind) {
    let world = text(kind).await;
    let socket = tokio::net::TcpStream::connect(world.server.addr).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut answers = Vec::new();
    for live in ["long-poll", "sse", "long-poll", "sse"] {
        let request = over_h2("GET", &format!("/a?offset=now&live={live}")).body(()).unwrap();
        answers.push(client.send_request(request, true).unwrap());
    }
    let readers = async |count: usize| {
        eventually("readers come and go", async || world.engine.stats().live_readers == count)
            .await;
    };
    readers(4).await;
    // Two are reset one by one, the others go with their connection.
    answers.truncate(2);
    readers(2).await;
    connection.abort();
    drop((answers, client));
    readers(0).await;
}
