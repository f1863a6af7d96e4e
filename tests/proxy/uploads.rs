//! Request bodies over HTTP/2 on their way to HTTP/1.1 upstreams.

use std::time::Duration;

use bytes::Bytes;

use super::h2::{Sender, connect, get};
use super::recorder::Recorder;
use crate::support::upstreams::{Upstream, collect_body, echo_body};
use crate::support::{TestServer, edge, to};

/// Sends `parts`, each in a frame of its own, and what is left to say of the end in the last frame or in one of its own.
async fn upload(sender: &Sender, parts: &[&'static str], empty_end: bool) -> u16 {
    let mut request = get("/x");
    *request.method_mut() = http::Method::POST;
    let mut ready = sender.clone().ready().await.unwrap();
    let (response, mut body) = ready.send_request(request, false).unwrap();
    for (n, part) in parts.iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let last = n + 1 == parts.len() && !empty_end;
        body.send_data(Bytes::from_static(part.as_bytes()), last).unwrap();
    }
    if empty_end {
        tokio::time::sleep(Duration::from_millis(20)).await;
        body.send_data(Bytes::new(), true).unwrap();
    }
    response.await.unwrap().status().as_u16()
}

/// cloudflare/pingora issue 935.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_unknown_length_ends_once() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    let has_end = |bytes: &[u8]| bytes.ends_with(b"0\r\n\r\n");
    let recorder = Recorder::answering(answer, has_end, Duration::from_millis(200)).await;
    let server = TestServer::before(&recorder.upstream);
    let sender = connect(&server).await;
    for (parts, empty_end) in [
        (&["hel", "lo"][..], true),
        (&["hel", "lo"], false),
        (&["hello"], true),
        (&[], true),
        (&["hel", "", "lo"], true),
    ] {
        let status = upload(&sender, parts, empty_end).await;
        let seen = recorder.take().concat();
        let (_, body) = seen.split_once("\r\n\r\n").unwrap();
        let body: String = body.split("\r\n").collect::<Vec<_>>().join(" ");
        assert_eq!((status, body.matches('0').count()), (200, 1), "{parts:?} {empty_end}: {body}");
        assert!(body.ends_with("0  "), "{parts:?} {empty_end}: {body}");
    }
}

/// The connection to the upstream serves the next client as well.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_unknown_length_share_a_connection() {
    let upstream = Upstream::http(collect_body).await;
    let server = TestServer::before(&upstream);
    let sender = connect(&server).await;
    for n in 0..50 {
        assert_eq!(upload(&sender, &["hello"], true).await, 200, "upload {n}");
    }
}

/// A server whose clients must send 1,000 bytes in a second, but for half a second.
fn impatient(upstream: &Upstream) -> TestServer {
    let mut options = edge(vec![to(&[upstream])]);
    options.streams.body_timeout = Duration::from_millis(500);
    options.streams.min_body_rate = 1000;
    options.limits.body_timeout = Duration::from_millis(500);
    TestServer::start(options)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_trickles_is_408() {
    let upstream = Upstream::http(collect_body).await;
    let server = impatient(&upstream);
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n").await;
    while !client.has_answer_within(Duration::from_millis(100)).await {
        client.send("y").await;
    }
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.code().as_str()), (408, "body-timeout"));

    let mut request = get("/x");
    *request.method_mut() = http::Method::POST;
    let mut ready = connect(&server).await.ready().await.unwrap();
    let (response, mut body) = ready.send_request(request, false).unwrap();
    let trickle = async {
        while body.send_data(Bytes::from_static(b"y"), false).is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = trickle => {}
        response = response => assert_eq!(response.unwrap().status(), 408),
    }
}

/// What the upstream answers before the end is a conversation.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_answered_may_trickle() {
    let upstream = Upstream::http(echo_body).await;
    let server = impatient(&upstream);
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for n in 0..20 {
        client.send("1\r\ny\r\n").await;
        if n == 0 {
            assert_eq!(client.head().await.status, 200);
        }
        assert_eq!(client.chunk().await.as_deref(), Some(&b"y"[..]), "piece {n}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
