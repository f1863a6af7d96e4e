//! A server in this process, on a free port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use durable_streams_engine::Engine;
use durable_streams_pingora::StreamCounters;
use durable_streams_server::server::{ListenOptions, Server, ServerOptions, StopHandle, Stopped};
use tokio::sync::watch;

use super::client::{Client, PATIENCE, Reply};
use super::transports::{FIRST, Transport};

/// A server in this process. Stopped at once when dropped.
pub struct TestServer {
    /// Where clients connect: over HTTP/2 to a gateway.
    pub addr: SocketAddr,
    /// The admin listener, when the options ask for one.
    pub admin: Option<SocketAddr>,
    /// What connections are made to use.
    pub transport: Transport,
    /// Of the stream routes.
    pub counters: Arc<StreamCounters>,
    running: Running,
}

enum Running {
    Server(StopHandle, Option<std::thread::JoinHandle<Stopped>>),
    /// Another application's, in the test's runtime.
    Embedded(watch::Sender<bool>),
}

impl TestServer {
    /// Serves `engine` on a free port; the address in `options` does not count.
    pub fn serve(options: ServerOptions, engine: Arc<Engine>) -> Self {
        Self::serve_with(options, engine, |_| {})
    }

    /// The same, with changes to the server before it runs.
    pub fn serve_with(
        options: ServerOptions,
        engine: Arc<Engine>,
        change: impl FnOnce(&mut Server),
    ) -> Self {
        let listen = ListenOptions { addresses: vec!["127.0.0.1:0".into()] };
        let mut server =
            Server::bind(ServerOptions { listen, threads: 2, ..options }, engine).unwrap();
        change(&mut server);
        let (addr, handle) = (server.addresses()[0], server.stop_handle());
        let admin = server.admin_address();
        let counters = server.edge().streams().clone();
        let thread = std::thread::spawn(move || server.run_without_signals());
        let running = Running::Server(handle, Some(thread));
        TestServer { addr, admin, transport: Transport::Http1, counters, running }
    }

    /// A server that another application runs at `addr`, until `stop` says `true`.
    pub fn embedded(
        addr: SocketAddr,
        counters: Arc<StreamCounters>,
        stop: watch::Sender<bool>,
    ) -> Self {
        let running = Running::Embedded(stop);
        TestServer { addr, admin: None, transport: Transport::Embedded, counters, running }
    }

    /// Begins a stop; a second call makes it immediate.
    pub fn stop(&self) {
        match &self.running {
            Running::Server(handle, _) => handle.stop(),
            Running::Embedded(stop) => drop(stop.send_replace(true)),
        }
    }

    /// Waits for the end, and says how it came and how long it took. Panics for an embedded server.
    pub async fn ended(mut self) -> (Stopped, Duration) {
        let Running::Server(_, thread) = &mut self.running else { panic!("it ends with its host") };
        let thread = thread.take().unwrap();
        let started = Instant::now();
        let end = tokio::task::spawn_blocking(move || thread.join().unwrap());
        let stopped = tokio::time::timeout(PATIENCE, end).await.expect("the stop hangs").unwrap();
        (stopped, started.elapsed())
    }

    pub async fn connect(&self) -> Client {
        self.door().connect().await
    }

    /// What tasks of a test connect with.
    pub fn door(&self) -> Door {
        Door { addr: self.addr, transport: self.transport }
    }

    /// One request on a connection of its own.
    pub async fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: test.example\r\n\r\n")).await
    }

    /// One raw request on a connection of its own.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.reply().await
    }
}

/// Where a server is, and how connections to it begin.
#[derive(Clone, Copy)]
pub struct Door {
    addr: SocketAddr,
    transport: Transport,
}

impl Door {
    pub async fn connect(self) -> Client {
        let mut client = Client::connect(self.addr).await;
        if self.transport == Transport::Proxied {
            client.send(format!("GET {FIRST} HTTP/1.1\r\nhost: test.example\r\n\r\n")).await;
            assert_eq!(client.reply().await.text(), "ok", "the upstream answers");
        }
        client
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop();
        self.stop();
        if let Running::Server(_, thread) = &mut self.running
            && let Some(thread) = thread.take()
        {
            let _ = thread.join();
        }
    }
}
