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
