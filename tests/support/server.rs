//! A server in this process, on a free port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use durable_streams_engine::Engine;
use durable_streams_server::server::{ListenOptions, Server, ServerOptions, StopHandle, Stopped};

use super::client::{Client, PATIENCE, Reply};

/// A server in this process. Stopped at once when dropped.
pub struct TestServer {
    pub addr: SocketAddr,
    /// The admin listener, when the options ask for one.
    pub admin: Option<SocketAddr>,
    handle: StopHandle,
    thread: Option<std::thread::JoinHandle<Stopped>>,
}

impl TestServer {
    /// Serves `engine` on a free port; the address in `options` does not count.
    pub fn serve(options: ServerOptions, engine: Arc<Engine>) -> Self {
        let listen = ListenOptions { addresses: vec!["127.0.0.1:0".to_owned()] };
        let server = Server::bind(ServerOptions { listen, threads: 2, ..options }, engine).unwrap();
        let (addr, handle) = (server.addresses()[0], server.stop_handle());
        let admin = server.admin_address();
        let thread = std::thread::spawn(move || server.run_without_signals());
        TestServer { addr, admin, handle, thread: Some(thread) }
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
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: test.example\r\n\r\n")).await
    }

    /// One raw request on a connection of its own.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
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
