//! Responses that a client, or a status, does not allow to be passed on as they are.

use super::h2;
use super::recorder::Recorder;
use crate::support::upstreams::{Upstream, echo_body, full};
use crate::support::{TestServer, edge, to};

const HINTS_THEN_CHUNKS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
    HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

/// Everything that the server sends.
async fn all(server: &TestServer, request: &str) -> String {
    let mut client = server.connect().await;
    client.send(request).await;
    while client.more().await {}
    String::from_utf8(client.unread().to_vec()).unwrap()
}

/// RFC 9112 §6.1, RFC 9110 §15.2: neither chunks nor 1xx.
#[tokio::test(flavor = "multi_thread")]
async fn an_http10_client_gets_a_body_that_the_connection_ends() {
    let until_close = "HTTP/1.1 200 OK\r\n\r\nhello";
    for answer in [HINTS_THEN_CHUNKS, until_close] {
        let recorder = Recorder::saying(answer).await;
        let server = TestServer::before(&recorder.upstream);
        for connection in ["close", "keep-alive"] {
            let request = format!("GET / HTTP/1.0\r\nhost: t\r\nconnection: {connection}\r\n\r\n");
            let text = all(&server, &request).await;
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, "hello", "{head}");
            let head = head.to_lowercase();
            assert!(!head.contains("transfer-encoding"), "{head}");
            assert!(!head.contains("connection: keep-alive"), "{head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http10_client_reads_an_http2_upstream_without_chunks() {
    let upstream = Upstream::h2c(echo_body).await;
    let mut options = to(&[&upstream]);
    options.http2 = true;
    let server = TestServer::start(edge(vec![options]));
    let request = "POST / HTTP/1.0\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello";
    let text = all(&server, request).await;
    assert!(text.ends_with("\r\n\r\nhello"), "{text}");
    assert!(!text.to_lowercase().contains("transfer-encoding"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http10_client_may_keep_a_connection_where_lengths_are_known() {
    let upstream = Upstream::http(|_| async { http::Response::new(full("hello")) }).await;
    let server = TestServer::before(&upstream);
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nhost: t\r\nconnection: keep-alive\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_reach_those_who_know_them() {
    let recorder = Recorder::saying(HINTS_THEN_CHUNKS).await;
    let server = TestServer::before(&recorder.upstream);
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(client.head().await.status, 103);
    assert_eq!(client.reply().await.text(), "hello");
}

/// RFC 9110 §8.6, RFC 9112 §6.1.
#[tokio::test(flavor = "multi_thread")]
async fn a_204_announces_no_body() {
    for framing in ["content-length: 5", "content-length: 0", "transfer-encoding: chunked"] {
        let answer: &'static str =
            format!("HTTP/1.1 204 No Content\r\n{framing}\r\nx-other: kept\r\n\r\n").leak();
        let recorder = Recorder::saying(answer).await;
        let server = TestServer::before(&recorder.upstream);
        let mut client = server.connect().await;
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
            let reply = client.reply().await;
            assert_eq!((reply.status, reply.header("x-other")), (204, Some("kept")), "{framing}");
            assert_eq!(reply.header("content-length"), None, "{framing}");
            assert_eq!(reply.header("transfer-encoding"), None, "{framing}");
        }
        let sender = h2::connect(&server).await;
        let (status, body) = h2::ask(&sender, h2::get("/"), b"").await.unwrap();
        assert_eq!((status, body.len()), (204, 0), "{framing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_101_that_was_not_asked_for_is_502() {
    let recorder = Recorder::saying(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhi",
    )
    .await;
    let server = TestServer::before(&recorder.upstream);
    for fields in ["", "upgrade: h2c\r\nconnection: upgrade\r\n"] {
        let request = format!("GET / HTTP/1.1\r\nhost: t\r\n{fields}\r\n");
        let reply = server.ask(&request).await;
        assert_eq!((reply.status, &*reply.code()), (502, "upstream-failed"), "{fields}");
    }
    let reply = server.ask("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(reply.status, 502);
    let sender = h2::connect(&server).await;
    assert_eq!(h2::ask(&sender, h2::get("/"), b"").await.unwrap().0, 502);
}
