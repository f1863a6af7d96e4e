//! A server on a free port, and a client that shows every byte.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use durable_streams_server::edge::EdgeOptions;
use durable_streams_server::edge::upstream::{UpstreamOptions, UpstreamServer};
use durable_streams_server::engine::{Clock, Engine, Limits};
use durable_streams_server::server::{ListenOptions, Server, ServerOptions, StopHandle, Stopped};
use durable_streams_server::store::{AnyStore, MemoryStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::upstreams::Upstream;

/// How long a stop may take that has nothing to wait for: half of it on an idle machine, the rest
/// for a busy one. A stop that waits for what it should not takes `shutdown_timeout`, 10 s.
pub const PROMPT: Duration = Duration::from_secs(2);

/// Nothing in these tests may take longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A server in this process. Stopped at once when dropped.
pub struct TestServer {
    pub addr: SocketAddr,
    /// The admin listener, when the options ask for one.
    #[allow(dead_code, reason = "for the tests of that listener")]
    pub admin: Option<SocketAddr>,
    handle: StopHandle,
    thread: Option<std::thread::JoinHandle<Stopped>>,
}

impl TestServer {
    /// With these options on a free port.
    pub fn start(edge: EdgeOptions) -> Self {
        Self::start_with(ServerOptions { edge, ..ServerOptions::default() })
    }

    /// The same with a say in everything but the address.
    pub fn start_with(options: ServerOptions) -> Self {
        let listen = ListenOptions { addresses: vec!["127.0.0.1:0".to_owned()] };
        let server =
            Server::bind(ServerOptions { listen, threads: 2, ..options }, engine()).unwrap();
        let (addr, handle) = (server.addresses()[0], server.stop_handle());
        let admin = server.admin_address();
        let thread = std::thread::spawn(move || server.run_without_signals());
        TestServer { addr, admin, handle, thread: Some(thread) }
    }

    /// In front of one upstream at `/`.
    pub fn before(upstream: &Upstream) -> Self {
        Self::start(edge(vec![to(&[upstream])]))
    }

    /// Begins a stop; a second call makes it immediate.
    pub fn stop(&self) {
        self.handle.stop();
    }

    /// Waits for the end, and says how it came and how long it took.
    pub async fn ended(mut self) -> (Stopped, Duration) {
        let thread = self.thread.take().unwrap();
        let started = Instant::now();
        let end = tokio::task::spawn_blocking(move || thread.join().unwrap());
        let stopped = tokio::time::timeout(PATIENCE, end).await.expect("the stop hangs").unwrap();
        (stopped, started.elapsed())
    }

    pub async fn connect(&self) -> Client {
        Client::connect(self.addr).await
    }

    /// One request on a connection of its own.
    pub async fn get(&self, path: &str) -> Reply {
        let mut client = self.connect().await;
        client.send(&format!("GET {path} HTTP/1.1\r\nhost: test.example\r\n\r\n")).await;
        client.reply().await
    }

    /// One raw request on a connection of its own.
    pub async fn ask(&self, request: &str) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.reply().await
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.handle.stop();
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Edge options with these upstreams.
pub fn edge(upstreams: Vec<UpstreamOptions>) -> EdgeOptions {
    EdgeOptions { upstreams, ..EdgeOptions::default() }
}

/// An upstream at `/` made of these servers.
pub fn to(servers: &[&Upstream]) -> UpstreamOptions {
    to_addrs(&servers.iter().map(|server| server.addr).collect::<Vec<_>>())
}

pub fn to_addrs(addrs: &[SocketAddr]) -> UpstreamOptions {
    let servers = addrs.iter().map(|addr| UpstreamServer::new(addr.to_string())).collect();
    UpstreamOptions { servers, ..UpstreamOptions::default() }
}

/// Runs `check` until it holds or patience ends.
pub async fn eventually<Fut: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> Fut) {
    let deadline = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An HTTP/1.1 answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// The body ended as its framing says it should.
    pub complete: bool,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// Every field of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).collect()
    }

    /// The `code` of a problem body; panics when it is none.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(value["status"], self.status, "{self:?}");
        value["code"].as_str().unwrap().to_owned()
    }
}

/// A connection.
pub struct Client {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Client { socket, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    /// One more read. `false` at the end of the connection, however it came.
    pub async fn more(&mut self) -> bool {
        let read = self.socket.read_buf(&mut self.buffer);
        let n = tokio::time::timeout(PATIENCE, read).await.expect("the server is silent");
        n.unwrap_or(0) > 0
    }

    /// Whether bytes are there, or come within `wait`.
    pub async fn has_answer_within(&mut self, wait: Duration) -> bool {
        !self.buffer.is_empty() || tokio::time::timeout(wait, self.more()).await.is_ok()
    }

    /// Everything up to and including `end`. Panics when the connection ends first.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, end) {
                let rest = self.buffer.split_off(at + end.len());
                return std::mem::replace(&mut self.buffer, rest);
            }
            let more = self.more().await;
            assert!(more, "ended at {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// The head of the next answer.
    pub async fn head(&mut self) -> Reply {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head, body: Vec::new(), complete: false }
    }

    /// The next answer to a request with a body.
    pub async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        let chunked = reply.header("transfer-encoding").is_some_and(|v| v == "chunked");
        if chunked {
            reply.complete = self.chunks(&mut reply.body).await;
        } else if let Some(length) = reply.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length && self.more().await {}
            let take = length.min(self.buffer.len());
            reply.body = self.buffer.drain(..take).collect();
            reply.complete = take == length;
        } else if !matches!(reply.status, 100..200 | 204 | 304) {
            while self.more().await {}
            reply.body = std::mem::take(&mut self.buffer);
            reply.complete = true;
        } else {
            reply.complete = true;
        }
        reply
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            while memchr::memmem::find(&self.buffer, b"\r\n").is_none() {
                if !self.more().await {
                    return false;
                }
            }
            let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            while self.buffer.len() < size + 2 {
                if !self.more().await {
                    return false;
                }
            }
            body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
            if size == 0 {
                return true;
            }
        }
    }

    /// Whether the server ends the connection, with nothing more to say.
    pub async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }
}

/// An engine in memory, for servers whose streams do not matter.
pub fn engine() -> std::sync::Arc<Engine> {
    let store = AnyStore::Memory(MemoryStore::default());
    std::sync::Arc::new(Engine::new(store, Clock::System, Limits::default()))
}
