//! Bodies: streamed both ways as they come, and never passed off as whole when they are not.

use std::time::Duration;

use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::support::TestServer;
use crate::support::upstreams::{Body, Upstream, echo_body, full, ok};

/// A body fed from a channel.
fn fed(receiver: mpsc::UnboundedReceiver<&'static str>) -> Body {
    let frames = stream::unfold(receiver, |mut receiver| async {
        let text = receiver.recv().await?;
        Some((Ok(Frame::data(text.into())), receiver))
    });
    StreamBody::new(frames).boxed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_either_framing_arrives_byte_for_byte() {
    let upstream = Upstream::http(echo_body).await;
    let server = TestServer::before(&upstream);
    let body: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();

    let mut client = server.connect().await;
    client
        .send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len()))
        .await;
    client.send(&body).await;
    let reply = client.reply().await;
    assert!(reply.complete && reply.body == body);

    // The answer began before the request was complete, so its connection is not used again.
    let mut client = server.connect().await;
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for chunk in body.chunks(70_001) {
        client.send(format!("{:x}\r\n", chunk.len())).await;
        client.send(chunk).await;
        client.send("\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    let reply = client.reply().await;
    assert!(reply.complete && reply.body == body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_is_passed_on_before_it_is_complete() {
    let upstream = Upstream::http(echo_body).await;
    let server = TestServer::before(&upstream);
    let mut client = server.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .await;
    assert_eq!(client.head().await.status, 200);
    client.until(b"first").await;
    client.send("6\r\nsecond\r\n0\r\n\r\n").await;
    client.until(b"second").await;
    client.until(b"0\r\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_arrive_one_by_one() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)));
    let upstream = Upstream::http(move |_| {
        let body = fed(receiver.lock().unwrap().take().unwrap());
        async {
            http::Response::builder()
                .header("content-type", "text/event-stream")
                .body(body)
                .unwrap()
        }
    })
    .await;
    let server = TestServer::before(&upstream);
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        // The next is sent only when this one has been read.
        sender.send(event).unwrap();
        client.until(event.as_bytes()).await;
    }
    drop(sender);
    client.until(b"0\r\n\r\n").await;
}

/// Sends `head` and a part of a body, then closes.
async fn dying(head: &'static str) -> Upstream {
    Upstream::raw(move |mut socket| async move {
        let mut request = [0; 1024];
        let _ = socket.read(&mut request).await;
        let _ = socket.write_all(head.as_bytes()).await;
        let _ = socket.write_all(b"5\r\nhello\r\n").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_dies_in_the_middle_is_seen_to_die() {
    for head in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
    ] {
        let upstream = dying(head).await;
        let reply = TestServer::before(&upstream).get("/").await;
        assert_eq!(reply.status, 200);
        assert!(reply.text().contains("hello"), "{head}");
        assert!(!reply.complete, "a part passed for the whole: {head}");
        assert_eq!(upstream.hits(), 1, "a response that has begun must not be asked for again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_100_continue_is_answered_by_the_upstream() {
    let upstream = Upstream::http(|request| async {
        // Reading the body is what makes hyper say "continue".
        ok(request.into_body().collect().await.unwrap().to_bytes())
    })
    .await;
    let server = TestServer::before(&upstream);
    let mut client = server.connect().await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.head().await.status, 100);
    client.send("hello").await;
    assert_eq!(client.reply().await.text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_204_and_304_have_no_body_and_keep_the_connection() {
    let upstream = Upstream::http(|request| async move {
        let status = request.uri().path().trim_start_matches('/').parse().unwrap_or(200);
        let body = if status == 200 { full("text") } else { full("") };
        http::Response::builder().status(status).body(body).unwrap()
    })
    .await;
    let server = TestServer::before(&upstream);
    let mut client = server.connect().await;
    for (method, path, status) in
        [("HEAD", "/200", 200), ("GET", "/204", 204), ("GET", "/304", 304)]
    {
        client.send(format!("{method} {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!(client.head().await.status, status);
    }
    client.send("GET /200 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "text");
}
