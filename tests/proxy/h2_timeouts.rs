//! The time that an HTTP/2 client has for what it has begun, and between requests.

use std::time::{Duration, Instant};

use durable_streams_server::edge::{EdgeOptions, HttpLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{PATIENCE, TestServer};

const HEADER: Duration = Duration::from_millis(300);
const IDLE: Duration = Duration::from_millis(1500);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `GET http /x`, authority `t`.
const BLOCK: &[u8] = b"\x82\x86\x04\x02/x\x41\x01t";

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
}

fn server() -> TestServer {
    let limits =
        HttpLimits { header_timeout: HEADER, keepalive_timeout: IDLE, ..HttpLimits::default() };
    TestServer::start(EdgeOptions { limits, ..EdgeOptions::default() })
}

/// How long the server keeps a connection on which this was sent.
async fn kept(server: &TestServer, bytes: &[u8]) -> Duration {
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let begun = Instant::now();
    socket.write_all(bytes).await.unwrap();
    let mut sink = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut sink)).await;
    assert!(closed.is_ok(), "still open");
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_begun_has_header_timeout() {
    let server = server();
    for (what, begun) in [
        ("half a preface", PREFACE[..10].to_vec()),
        ("half a frame", [PREFACE, &frame(1, 4, BLOCK)[..12]].concat()),
        ("half a frame's head", [PREFACE, &frame(1, 4, BLOCK)[..5]].concat()),
        ("half a SETTINGS frame", PREFACE[..PREFACE.len() - 3].to_vec()),
        ("a block without an end", [PREFACE, &frame(1, 0, BLOCK)].concat()),
        (
            "a block with a frame more",
            [PREFACE, &frame(1, 0, BLOCK), &frame(9, 0, b"\x40\x01a\x01b")].concat(),
        ),
    ] {
        let kept = kept(&server, &begun).await;
        assert!(kept >= HEADER && kept < IDLE, "{what}: {kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_drips_is_ended_however_steadily() {
    let server = server();
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let begun = Instant::now();
    socket.write_all(&[PREFACE, &frame(1, 0, BLOCK)].concat()).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let mut sink = Vec::new();
    let drip = async {
        while write.write_all(&frame(9, 0, b"\x40\x01a\x01b")).await.is_ok() {
            tokio::time::sleep(HEADER / 6).await;
        }
    };
    tokio::select! {
        () = drip => {}
        _ = read.read_to_end(&mut sink) => {}
    }
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_has_idle_timeout() {
    let server = server();
    for (what, sent) in
        [("the preface", PREFACE.to_vec()), ("a request", [PREFACE, &frame(1, 5, BLOCK)].concat())]
    {
        let kept = kept(&server, &sent).await;
        assert!(kept >= IDLE && kept < 2 * IDLE, "{what}: {kept:?}");
    }
}
