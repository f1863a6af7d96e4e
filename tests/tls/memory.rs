//! Memory of an idle live reader over TLS, on HTTP/1.1 and HTTP/2. `make live-memory` counts more of them in a release
//! build; docs/benchmarks.md has its figures.

use std::{fs, net::SocketAddr};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::Authority;
use crate::process::{PATIENCE, Server};
use crate::secure::{cleartext, connect, connector, head};

/// Readers before the count begins: they have what the first ones need, such as arenas and threads.
const FIRST: usize = 50;
/// Streams of one HTTP/2 connection; the server allows 256.
const ON_ONE_CONNECTION: usize = 250;

/// Readers that are counted.
fn readers() -> usize {
    let set = std::env::var("LIVE_READERS").ok();
    set.map_or(250, |number| number.parse().expect("a number"))
}

/// Resident memory without pages of files, bytes.
fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What keeps a reader's connection open.
type Held = Box<dyn std::any::Any>;

/// An SSE reader that has heard that it is up to date.
async fn read_to_tail(mut socket: impl AsyncReadExt + AsyncWriteExt + Unpin + 'static) -> Held {
    let ask = head("GET", "x?offset=-1&live=sse", "");
    socket.write_all(ask.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("upToDate") {
        let read = tokio::time::timeout(PATIENCE, socket.read_buf(&mut seen)).await;
        assert!(read.expect("an event").unwrap() > 0, "the reader was dropped");
    }
    Box::new(socket)
}

/// As many SSE readers on one HTTP/2 connection.
async fn read_over_http2(
    socket: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    count: usize,
) -> Held {
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut bodies = Vec::new();
    for _ in 0..count {
        let target = "https://a.test/v1/stream/x?offset=-1&live=sse";
        let ask = http::Request::get(target).body(()).unwrap();
        client = client.ready().await.unwrap();
        let (response, _) = client.send_request(ask, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("upToDate") {
            let piece: Bytes =
                tokio::time::timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            seen.extend_from_slice(&piece);
        }
        bodies.push(body);
    }
    Box::new((client, bodies))
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Cleartext,
    Http1,
    Http2,
}

/// Memory that one more reader takes, bytes.
async fn each(way: Way) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "a.test");
    let at = directory.path().display();
    let server = Server::run(
        directory.path(),
        &format!(
            "listen:\n  - 127.0.0.1:0\n  - address: 127.0.0.1:0\n    tls:\n      certificates: \
             [{{certificate: {at}/cert.pem, key: {at}/key.pem}}]\nsse_keep_alive: 10m\n\
             sse_reconnect_interval: 10m\n"
        ),
    )
    .await;
    let [plain, secure]: [SocketAddr; 2] = server.addresses().try_into().unwrap();
    let put = head("PUT", "x", "Content-Type: text/plain\r\nContent-Length: 0\r\n");
    assert!(cleartext(plain, put.as_bytes()).await.starts_with("HTTP/1.1 201"));
    let http1 = connector(&authority.pem, None, &["http/1.1"]);
    let http2 = connector(&authority.pem, None, &["h2"]);
    let mut held: Vec<Held> = Vec::new();
    let mut before = 0;
    for counted in [FIRST, readers()] {
        before = resident(&server);
        let mut left = counted;
        while left > 0 {
            let many = if matches!(way, Way::Http2) { left.min(ON_ONE_CONNECTION) } else { 1 };
            held.push(match way {
                Way::Cleartext => {
                    read_to_tail(tokio::net::TcpStream::connect(plain).await.unwrap()).await
                }
                Way::Http1 => {
                    read_to_tail(connect(&http1, secure, "a.test", b"").await.unwrap()).await
                }
                Way::Http2 => {
                    let socket = connect(&http2, secure, "a.test", b"").await.unwrap();
                    read_over_http2(socket, many).await
                }
            });
            left -= many;
        }
    }
    let grown = resident(&server).saturating_sub(before);
    drop(held);
    grown / readers() as u64
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn an_idle_live_reader_has_its_memory_over_every_transport() {
    for (way, bound) in [(Way::Cleartext, 8 << 10), (Way::Http1, 24 << 10), (Way::Http2, 32 << 10)]
    {
        let each = each(way).await;
        println!(
            "{way:?}: {:.1} KiB for each of {} idle SSE readers",
            each as f64 / 1024.0,
            readers()
        );
        assert!(each <= bound, "{way:?}: {each} bytes for a reader");
    }
}
