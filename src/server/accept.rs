//! The accept loop: sockets in, connections for Pingora's HTTP proxy out.
//!
//! A Pingora service of our own, because a connection over the limit is to be answered and not
//! queued, and because a stop has to know when the last connection is gone: each holds a permit.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::protocols::http::v2::server::H2Options;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{GetSocketDigest, SocketDigest};
use pingora::proxy::{HttpProxy, http_proxy};

#[cfg(unix)]
use pingora::server::ListenFds;
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use pingora::services::Service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::listen::BoundListeners;
use super::shutdown::{Stop, WorkTracker};
use crate::edge::connection::ClientConnection;
use crate::edge::problem::EdgeProblem;
use crate::edge::{Edge, HttpLimits, http1};
use durable_streams_pingora::transport::Stopping;

/// After an `accept` that failed for want of file descriptors or memory.
const BREATHER: Duration = Duration::from_millis(100);

/// Refusals being written at once; beyond it a connection is just closed.
const MAX_REFUSALS: usize = 64;

/// The service that accepts.
pub(super) struct HttpAcceptor {
    proxy: Arc<HttpProxy<Edge>>,
    listeners: Vec<StdListener>,
    listener: HttpListener,
    stopping: Stopping,
    threads: usize,
}

/// What a listener needs to let a connection in.
#[derive(Clone)]
struct HttpListener {
    proxy: Arc<HttpProxy<Edge>>,
    edge: Arc<Edge>,
    open: WorkTracker,
    refusals: Arc<Semaphore>,
    stop: ShutdownWatch,
}

impl HttpAcceptor {
    pub(super) fn new(
        conf: &Arc<ServerConf>,
        edge: Edge,
        limits: &HttpLimits,
        bound: BoundListeners,
        stop: &Stop,
    ) -> Self {
        let shared = Arc::new(edge.clone());
        let mut proxy = http_proxy(conf, edge);
        let mut server_options = HttpServerOptions::default();
        server_options.h2c = true;
        server_options.h2_idle_timeout = Some(limits.h2_idle_timeout);
        proxy.server_options = Some(server_options);
        proxy.h2_options = Some(h2_options(limits));
        let proxy = Arc::new(proxy);
        let listener = HttpListener {
            proxy: proxy.clone(),
            open: stop.connections(limits.max_connections),
            edge: shared,
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            stop: stop.watch(),
        };
        let threads = conf.threads;
        HttpAcceptor {
            proxy,
            listeners: bound.listeners,
            listener,
            stopping: stop.watch().into(),
            threads,
        }
    }
}

fn h2_options(limits: &HttpLimits) -> H2Options {
    let mut options = H2Options::new();
    options.max_concurrent_streams(limits.h2_max_streams);
    // HPACK counts 32 bytes per field on top of its text (RFC 9113 §6.5.2).
    let list = limits.max_header_bytes + limits.max_uri + 32 * limits.max_headers;
    options.max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX));
    options.max_pending_accept_reset_streams(limits.h2_max_pending_resets);
    options.max_concurrent_reset_streams(limits.h2_max_pending_resets);
    options
}

#[async_trait]
impl Service for HttpAcceptor {
    async fn start_service(
        &mut self,
        #[cfg(unix)] _fds: Option<ListenFds>,
        _: ShutdownWatch,
        _: usize,
    ) {
        let mut loops = JoinSet::new();
        for listener in self.listeners.drain(..) {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    loops.spawn(accept(listener, self.listener.clone()));
                }
                Err(error) => tracing::error!(%error, "a listening socket is unusable"),
            }
        }
        self.stopping.begun().await;
        // The loops end with the same watch; the sockets close, so that clients are refused
        // instead of waiting in a queue nobody serves.
        while loops.join_next().await.is_some() {}
        // Wakes idle connections, which then close.
        self.proxy.cleanup().await;
    }

    fn name(&self) -> &'static str {
        "http"
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}

async fn accept(listener: TcpListener, http: HttpListener) {
    let mut stopping = Stopping::from(http.stop.clone());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.begun() => return,
        };
        match accepted {
            Ok((socket, peer)) => http.admit(socket, peer),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

impl HttpListener {
    fn admit(&self, socket: TcpStream, peer: std::net::SocketAddr) {
        let metrics = self.edge.metrics();
        let Some(permit) = self.open.try_enter() else {
            metrics.connection_refused();
            if let Ok(refusal) = self.refusals.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    refuse(socket).await;
                    drop(refusal);
                });
            }
            return;
        };
        let io = transport(socket, peer);
        let connection =
            Box::new(ClientConnection::new(io, &self.edge.limits(), self.stop.clone(), permit));
        let (edge, proxy, stop) = (self.edge.clone(), self.proxy.clone(), self.stop.clone());
        tokio::spawn(async move { serve(&edge, &proxy, connection, stop).await });
    }
}

/// The life of one connection.
async fn serve(
    edge: &Edge,
    proxy: &Arc<HttpProxy<Edge>>,
    mut connection: Box<ClientConnection>,
    stop: ShutdownWatch,
) {
    let mut stopping = Stopping::from(stop.clone());
    let _counted = edge.metrics().connection();
    let sniffed = tokio::select! {
        // First, so that a request already here is still answered.
        biased;
        sniffed = connection.sniff() => sniffed,
        () = stopping.begun() => return,
    };
    match sniffed {
        Ok(Some(head)) => http1::serve(edge, proxy, connection, head, &stop).await,
        // HTTP/2.
        Ok(None) => {
            proxy.process_new(connection, &stop).await;
        }
        Err(_) => {}
    }
}

pub(super) fn transport(socket: TcpStream, peer: std::net::SocketAddr) -> L4Stream {
    // Small live events must not wait for the acknowledgement of earlier ones.
    let _ = socket.set_nodelay(true);
    #[cfg(unix)]
    let digest = SocketDigest::from_raw_fd(std::os::fd::AsRawFd::as_raw_fd(&socket));
    #[cfg(windows)]
    let digest = {
        let socket = std::os::windows::io::AsRawSocket::as_raw_socket(&socket);
        SocketDigest::from_raw_socket(socket)
    };
    let _ = digest.peer_addr.set(Some(peer.into()));
    let mut stream = L4Stream::from(socket);
    stream.set_socket_digest(digest);
    stream
}

/// Tells a client that the server is full, and gives it a moment to read that.
async fn refuse(mut socket: TcpStream) {
    let detail = "the server has as many connections as it may have; try again shortly";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let text = EdgeProblem::new(status, "too-many-connections", detail).retry_after(1).http1_text();
    let _ = tokio::time::timeout(Duration::from_millis(500), async {
        socket.write_all(&text).await?;
        socket.shutdown().await?;
        let mut sink = [0; 1024];
        while socket.read(&mut sink).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}
