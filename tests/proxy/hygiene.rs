//! Requests that are too large, too slow, ambiguous or ahead of themselves.

use std::time::Duration;

use durable_streams_server::edge::{EdgeOptions, HttpLimits};

use crate::support::upstreams::{Upstream, collect_body, echo_body, echo_head, ok};
use crate::support::{TestServer, edge, to};

fn limited(limits: HttpLimits) -> TestServer {
    TestServer::start(EdgeOptions { limits, ..EdgeOptions::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_uri_is_414() {
    let server = limited(HttpLimits { max_uri: 100, ..HttpLimits::default() });
    let path = format!("/{}", "x".repeat(99));
    assert_eq!(server.get(&path).await.code(), "no-upstream");
    let reply = server.get(&format!("{path}x")).await;
    assert_eq!((reply.status, reply.code().as_str()), (414, "uri-too-long"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_or_large_headers_are_431() {
    let limits = HttpLimits { max_headers: 20, max_header_bytes: 2000, ..HttpLimits::default() };
    let server = limited(limits);
    let ask = |fields: String| format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    let fields = |n: usize| (0..n).map(|i| format!("x-{i}: v\r\n")).collect::<String>();
    assert_eq!(server.ask(&ask(fields(19))).await.code(), "no-upstream");
    assert_eq!(server.ask(&ask(fields(20))).await.code(), "too-many-headers");
    let large = format!("x: {}\r\n", "y".repeat(2000));
    let reply = server.ask(&ask(large)).await;
    assert_eq!((reply.status, reply.code().as_str()), (431, "headers-too-large"));
    // Far too large: refused while it is still arriving.
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nx: ").await;
    let chunk = "y".repeat(16 * 1024);
    for _ in 0..16 {
        if tokio::io::AsyncWriteExt::write_all(&mut client.socket, chunk.as_bytes()).await.is_err()
        {
            break;
        }
    }
    assert_eq!(client.reply().await.code(), "headers-too-large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_is_408_however_steadily_it_drips() {
    let header_timeout = Duration::from_millis(400);
    let server = limited(HttpLimits { header_timeout, ..HttpLimits::default() });
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nx: ").await;
    // Drips until it is told to stop: a clock that starts anew with each byte would never end it.
    while !client.has_answer_within(Duration::from_millis(50)).await {
        client.send("y").await;
    }
    assert_eq!(client.reply().await.code(), "header-timeout");

    // Saying nothing at all ends the connection without a word.
    assert!(server.connect().await.is_closed().await);

    // The second head on a connection is timed as well, from its first byte.
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 404);
    tokio::time::sleep(Duration::from_millis(600)).await;
    client.send("GET / HTTP").await;
    assert_eq!(client.reply().await.code(), "header-timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_arriving_is_408() {
    let upstream = Upstream::http(collect_body).await;
    let limits = HttpLimits { body_timeout: Duration::from_millis(200), ..HttpLimits::default() };
    let server = TestServer::start(EdgeOptions { limits, ..edge(vec![to(&[&upstream])]) });
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhello").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.code().as_str()), (408, "body-timeout"));
}

/// Too late for a 408: the response is cut, so that nobody takes it for whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_arriving_cuts_a_response_that_has_begun() {
    let upstream = Upstream::http(echo_body).await;
    let limits = HttpLimits { body_timeout: Duration::from_millis(500), ..HttpLimits::default() };
    let server = TestServer::start(EdgeOptions { limits, ..edge(vec![to(&[&upstream])]) });
    let mut client = server.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.chunk().await.as_deref(), Some(&b"hello"[..]));
    assert_eq!(client.chunk().await, None, "not an end that looks whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed() {
    let limits = HttpLimits { keepalive_timeout: Duration::from_secs(1), ..HttpLimits::default() };
    let server = limited(limits);
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 404);
    assert!(client.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_503_and_there_is_room_again() {
    let server = limited(HttpLimits { max_connections: 2, ..HttpLimits::default() });
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 404);
        open.push(client);
    }
    let reply = server.connect().await.reply().await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "too-many-connections"));
    assert_eq!(reply.header("retry-after"), Some("1"));
    open.clear();
    crate::support::eventually("a permit comes back", || async {
        server.get("/").await.status == 404
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_smuggle_are_refused() {
    let upstream = Upstream::http(echo_head).await;
    let server = TestServer::before(&upstream);
    let refused = [
        (
            "two lengths",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        ),
        ("a list of lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 6\r\n\r\nhello!"),
        ("a signed length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello"),
        ("a length with text", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5x\r\n\r\nhello"),
        (
            "an unknown coding",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked not last",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked in 1.0",
            "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("a folded field", "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n"),
        ("a space before the colon", "GET / HTTP/1.1\r\nhost: a\r\ncontent-length : 0\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\nx: y\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        ("a bare CR", "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r2\r\n\r\n"),
        ("a NUL", "GET / HTTP/1.1\r\nhost: a\r\nx: 1\x002\r\n\r\n"),
    ];
    for (what, request) in refused {
        let reply = server.ask(request).await;
        assert_eq!(reply.status, 400, "{what}: {reply:?}");
    }
    assert_eq!(upstream.hits(), 0, "a refused request reached the upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn length_with_chunked_is_read_as_chunked_and_the_connection_ends() {
    let upstream = Upstream::http(echo_body).await;
    let server = TestServer::before(&upstream);
    let mut client = server.connect().await;
    let smuggled = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\
        transfer-encoding: chunked\r\n\r\n3\r\nfoo\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send(smuggled).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "foo"));
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(client.is_closed().await, "the rest was taken for a request");
    assert_eq!(upstream.hits(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_chunk_ends_the_exchange() {
    let upstream = Upstream::http(collect_body).await;
    let server = TestServer::before(&upstream);
    for body in ["zz\r\nfoo\r\n0\r\n\r\n", "3\r\nfooXX0\r\n\r\n", "-1\r\nfoo\r\n0\r\n\r\n"] {
        let mut client = server.connect().await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
        client.send(body).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 400, "{body:?}: {reply:?}");
        assert!(client.is_closed().await, "{body:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_is_refused() {
    let upstream = Upstream::http(|_| async { ok("x") }).await;
    let server = TestServer::before(&upstream);
    let reply = server.ask("CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\n\r\n").await;
    assert_eq!(reply.status, 405);
    assert_eq!(upstream.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::http(|request: http::Request<hyper::body::Incoming>| async move {
        let path = request.uri().path().to_owned();
        // The first takes longest, so that order is not luck.
        let wait = if path == "/0" { 200 } else { 0 };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        use http_body_util::BodyExt;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        ok(format!("{path}{}", String::from_utf8_lossy(&body)))
    })
    .await;
    let server = TestServer::before(&upstream);
    let mut client = server.connect().await;
    let mut all = String::new();
    for n in 0..8 {
        all.push_str(&match n % 4 {
            0 => format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n+1"),
            2 => format!("POST /{n} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n+2\r\n0\r\n\r\n"),
            _ => format!("GET /v1/stream/../{n} HTTP/1.1\r\nhost: a\r\n\r\n"),
        });
    }
    client.send(all).await;
    for n in 0..8 {
        let reply = client.reply().await;
        match n % 4 {
            0 => assert_eq!(reply.text(), format!("/{n}")),
            1 => assert_eq!(reply.text(), format!("/{n}+1")),
            2 => assert_eq!(reply.text(), format!("/{n}+2")),
            _ => assert_eq!(reply.code(), "ambiguous-path"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_split_anywhere_are_answered() {
    let upstream = Upstream::http(|request: http::Request<hyper::body::Incoming>| async move {
        ok(request.uri().path().to_owned())
    })
    .await;
    let server = TestServer::before(&upstream);
    let one = |n: usize| format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n");
    let both = one(1) + &one(2);
    for at in (1..both.len()).step_by(7) {
        let mut client = server.connect().await;
        client.send(&both[..at]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        client.send(&both[at..]).await;
        assert_eq!(client.reply().await.text(), "/1", "split at {at}");
        assert_eq!(client.reply().await.text(), "/2", "split at {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_line_feeds_are_read_as_line_ends_and_never_passed_on() {
    let upstream = Upstream::http(echo_head).await;
    let server = TestServer::before(&upstream);
    // A lone LF must not hide the second request from the proxy.
    let mut client = server.connect().await;
    client.send("GET /one HTTP/1.1\nhost: a\nx: 1\n\nGET /two HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let reply = client.reply().await;
    assert!(
        reply.text().starts_with("GET /one\n") && reply.text().contains("\nx: 1\n"),
        "{reply:?}"
    );
    assert!(client.reply().await.text().starts_with("GET /two\n"));
    assert_eq!(upstream.hits(), 2);
}
