//! WebSocket upgrades pass through and become a tunnel.

use std::time::Duration;

use durable_streams_server::edge::{EdgeOptions, HttpLimits};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::support::upstreams::{Upstream, ok};
use crate::support::{TestServer, edge, to};

async fn echo() -> Upstream {
    Upstream::raw(|socket| async move {
        let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_back_also_after_a_silence() {
    let upstream = echo().await;
    // A tunnel may be silent for longer than a body may.
    let limits = HttpLimits { body_timeout: Duration::from_millis(200), ..HttpLimits::default() };
    let server = TestServer::start(EdgeOptions { limits, ..edge(vec![to(&[&upstream])]) });
    let url = format!("ws://{}/chat", server.addr);
    let (mut socket, response) = tokio_tungstenite::connect_async(url).await.unwrap();
    assert_eq!(response.status(), 101);
    for (text, pause) in [("one", 0), ("two", 500), ("three", 0)] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    let large = Message::binary(vec![7u8; 1_000_000]);
    socket.send(large.clone()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), large);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_survives_an_upstream_that_is_quick() {
    let upstream = echo().await;
    let server = TestServer::before(&upstream);
    let url = format!("ws://{}/chat", server.addr);
    for n in 0..200 {
        let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        let answer = socket.next().await.unwrap();
        assert!(answer.is_ok_and(|m| m == Message::text("hello")), "tunnel {n} broke");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_refused_is_an_ordinary_answer() {
    let upstream = Upstream::http(|_| async { ok("no") }).await;
    let server = TestServer::before(&upstream);
    let mut client = server.connect().await;
    for _ in 0..3 {
        client
            .send(
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            )
            .await;
        assert_eq!(client.reply().await.text(), "no");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_to_a_dead_upstream_is_502() {
    let (_refuses, dead) = crate::support::upstreams::refusing_port();
    let server = TestServer::start(edge(vec![crate::support::to_addrs(&[dead])]));
    let url = format!("ws://{}/chat", server.addr);
    let error = tokio_tungstenite::connect_async(url).await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = error else {
        panic!("{error:?}");
    };
    assert_eq!(response.status(), 502);
}

/// Tells how much came before the client's end.
async fn counting() -> Upstream {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    Upstream::raw(|mut socket| async move {
        let mut bytes = Vec::new();
        while memchr::memmem::find(&bytes, b"\r\n\r\n").is_none() {
            if !socket.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
                return;
            }
        }
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
        if socket.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        let mut all = Vec::new();
        if socket.read_to_end(&mut all).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _ = socket.write_all(format!("{} bytes", all.len()).as_bytes()).await;
    })
    .await
}

/// A client that finishes sending still gets what the upstream sends afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_outlives_the_client_s_half() {
    use tokio::io::AsyncWriteExt;
    let upstream = counting().await;
    let server = TestServer::before(&upstream);
    for (size, at_once) in [(2, false), (2, true), (0, false), (3_000_000, false)] {
        let mut client = server.connect().await;
        let head = "GET / HTTP/1.1\r\nhost: t\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
        let message = vec![b'x'; size];
        if at_once {
            client.send([head.as_bytes(), &message].concat()).await;
        } else {
            client.send(head).await;
        }
        assert_eq!(client.head().await.status, 101);
        if !at_once {
            client.send(&message).await;
        }
        client.socket.shutdown().await.unwrap();
        while client.more().await {}
        let rest = String::from_utf8_lossy(client.unread()).into_owned();
        assert_eq!(rest, format!("{size} bytes"), "at once: {at_once}");
    }
}
