//! The ways by which a request reaches the streams, with a server for each.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};

use durable_streams_engine::Engine;
use durable_streams_server::edge::{AuditLevel, EdgeOptions};
use durable_streams_server::server::ServerOptions;

use super::proxy::to_addrs;
use super::served::{ServedFeatures, open_subscriptions};
use super::server::TestServer;

/// How requests reach the streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1, on connections that ask for streams only: the server's own loop.
    #[default]
    Http1,
    /// HTTP/1.1, on connections that first asked an upstream: Pingora's proxy has had them before.
    Proxied,
    /// HTTP/2 by prior knowledge. The test's HTTP/1.1 text is carried over it by a gateway.
    Http2,
    /// HTTP/1.1, to another application's `ProxyHttp` that mounts the streams.
    Embedded,
}

/// Variants under the names of the test modules that [`for_each_kind`] makes.
#[expect(non_upper_case_globals, reason = "they are the names of modules")]
pub mod over {
    use super::Transport;

    pub const http1: Transport = Transport::Http1;
    pub const proxied: Transport = Transport::Proxied;
    pub const http2: Transport = Transport::Http2;
    pub const embedded: Transport = Transport::Embedded;
}

impl TestServer {
    /// Serves `engine` so that connections to the server use `transport`. An embedded server knows of `edge` only how
    /// streams are served.
    pub fn over(
        transport: Transport,
        mut edge: EdgeOptions,
        features: ServedFeatures,
        engine: Engine,
    ) -> (Self, Arc<Engine>) {
        if transport == Transport::Embedded {
            return super::embedded::serve(edge.streams, features, engine);
        }
        if transport == Transport::Proxied {
            edge.upstreams = vec![to_addrs(&[upstream()])];
        }
        let engine = Arc::new(engine);
        let options = ServerOptions { edge, ..ServerOptions::default() };
        let mut server = TestServer::serve_with(options, engine.clone(), |server| {
            if let Some((guard, caching)) = features.access {
                server.protect(guard, AuditLevel::All);
                server.cache_protected(caching);
            }
            if let Some(options) = features.subscriptions {
                server.serve_subscriptions(open_subscriptions(&engine, options));
            }
        });
        server.transport = transport;
        if transport == Transport::Http2 {
            server.addr = super::http2::gateway(server.addr);
        }
        (server, engine)
    }
}

/// The path that [`upstream`] answers.
pub const FIRST: &str = "/first";

/// An upstream that every test of this process shares: 200 at [`FIRST`], 404 elsewhere.
pub fn upstream() -> SocketAddr {
    static ADDR: OnceLock<SocketAddr> = OnceLock::new();
    *ADDR.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                std::thread::spawn(move || answer_all(socket));
            }
        });
        addr
    })
}

/// Answers requests without a body until the connection ends.
fn answer_all(mut socket: std::net::TcpStream) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        while let Some(end) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            let found = head.starts_with(format!("GET {FIRST} ").as_bytes());
            let status = if found { "200 OK" } else { "404 Not Found" };
            // In one write: behind the first of several, the kernel holds the rest back for 40 ms.
            let response = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
            socket.write_all(response.as_bytes())?;
        }
        let mut part = [0; 4096];
        match socket.read(&mut part)? {
            0 => return Ok(()),
            n => buffer.extend_from_slice(&part[..n]),
        }
    }
}
