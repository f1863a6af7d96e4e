//! The accept loop: sockets in, connections for Pingora's HTTP proxy out.
//!
//! A Pingora service of our own, because a connection over the limit is to be answered and not
//! queued, and because a stop has to know when the last connection is gone: each holds a permit.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use pingora::apps::{HttpServerOptions, ServerApp};
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

use super::http2::h2_options;
use super::listen::{BoundListeners, BoundSocket, ListenerProtocol};
use super::shutdown::{Stop, WorkTracker};
use crate::edge::connection::{ClientConnection, ConnectionStream};
use crate::edge::problem::EdgeProblem;
use crate::edge::{Edge, HttpLimits, http1};
use crate::tls::{
    FirstByte, HandshakeFailure, MAX_HANDSHAKES, TlsListener, TlsService, proxy_header,
};
use durable_streams_pingora::transport::{ClientGauge, ClientPermit, Stopping};

/// After an `accept` that failed for want of file descriptors or memory.
const BREATHER: Duration = Duration::from_millis(100);

/// Refusals being written at once; beyond it a connection is just closed.
const MAX_REFUSALS: usize = 64;

/// How often a connection looks whether its client has a handshake less in progress.
const HANDSHAKE_RETRY: Duration = Duration::from_millis(100);

/// The code of refused connections.
const TOO_MANY_CONNECTIONS: &str = "too-many-connections";

/// The service that accepts.
pub(super) struct HttpAcceptor {
    proxy: Arc<HttpProxy<Edge>>,
    listeners: Vec<BoundSocket>,
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
    /// Open connections, and handshakes in progress, by client.
    clients: ClientGauge,
    client_handshakes: ClientGauge,
    /// All connections at once.
    max_connections: usize,
    refusals: Arc<Semaphore>,
    protocol: ListenerProtocol,
    tls: Option<Arc<TlsService>>,
    stop: ShutdownWatch,
}

impl HttpAcceptor {
    pub(super) fn new(
        conf: &Arc<ServerConf>,
        edge: Edge,
        limits: &HttpLimits,
        bound: BoundListeners,
        tls: Option<Arc<TlsService>>,
        stop: &Stop,
    ) -> Self {
        let shared = Arc::new(edge.clone());
        let mut proxy = http_proxy(conf, edge);
        let mut server_options = HttpServerOptions::default();
        server_options.h2c = true;
        server_options.h2_idle_timeout = Some(limits.keepalive_timeout);
        proxy.server_options = Some(server_options);
        proxy.h2_options = Some(h2_options(limits));
        let proxy = Arc::new(proxy);
        let listener = HttpListener {
            proxy: proxy.clone(),
            open: stop.connections(limits.max_connections),
            clients: ClientGauge::default(),
            client_handshakes: ClientGauge::default(),
            max_connections: limits.max_connections,
            edge: shared,
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            protocol: ListenerProtocol::default(),
            tls,
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

#[async_trait]
impl Service for HttpAcceptor {
    async fn start_service(
        &mut self,
        #[cfg(unix)] _fds: Option<ListenFds>,
        _: ShutdownWatch,
        _: usize,
    ) {
        let mut loops = JoinSet::new();
        for BoundSocket { socket, protocol } in self.listeners.drain(..) {
            match TcpListener::from_std(socket) {
                Ok(listener) => {
                    let http = HttpListener { protocol, ..self.listener.clone() };
                    loops.spawn(accept(listener, Arc::new(http)));
                }
                Err(error) => tracing::error!(%error, "a listening socket is unusable"),
            }
        }
        self.stopping.begun().await;
        // The loops end with the same watch; the sockets close, so that clients are refused
        // instead of waiting in a queue that is no longer served.
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

async fn accept(listener: TcpListener, http: Arc<HttpListener>) {
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
    fn admit(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let Some(permit) = self.open.try_enter() else {
            return self.refuse(socket, || {
                let detail = "the server has as many connections as it may have; try again shortly";
                EdgeProblem::new(StatusCode::SERVICE_UNAVAILABLE, TOO_MANY_CONNECTIONS, detail)
            });
        };
        let limits = self.edge.limits();
        let Ok(place) = self.client_place(peer.ip(), &limits) else {
            return self.refuse(socket, too_many_of_client);
        };
        if !self.protocol.is_cleartext() {
            let http = self.clone();
            tokio::spawn(async move { http.begin(socket, peer, permit, place).await });
            return;
        }
        let io = transport(socket, peer);
        let connection = ClientConnection::new(io, &limits, self.stop.clone(), permit);
        let connection = Box::new(connection.of_client(place));
        let (edge, proxy, stop) = (self.edge.clone(), self.proxy.clone(), self.stop.clone());
        tokio::spawn(async move { serve(&edge, &proxy, connection, stop).await });
    }
}

impl HttpListener {
    /// A place among the connections of a client; `Ok(None)` where the address is none.
    ///
    /// # Errors
    /// It has as many as it may have.
    fn client_place(&self, ip: IpAddr, limits: &HttpLimits) -> Result<Option<ClientPermit>, ()> {
        let Some(client) = self.edge.client(ip) else { return Ok(None) };
        let limit = limits.client_share.of(self.max_connections);
        self.clients.take(client, 1, limit).map(Some).ok_or(())
    }

    /// Answers a connection that is not let in. Where many are being answered already, it is just closed.
    fn refuse(&self, socket: TcpStream, problem: impl FnOnce() -> EdgeProblem) {
        self.edge.metrics().connection_refused();
        if let Ok(refusal) = self.refusals.clone().try_acquire_owned() {
            let problem = problem().retry_after(1);
            tokio::spawn(async move {
                last_words(socket, &problem).await;
                drop(refusal);
            });
        }
    }

    /// The life of a connection that begins with a PROXY header, a handshake, or both.
    async fn begin(
        self: Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        place: Option<ClientPermit>,
    ) {
        let mut stopping = Stopping::from(self.stop.clone());
        // Boxed: needed once, and larger than what follows.
        let begun = tokio::select! {
            begun = Box::pin(self.begun(socket, peer, place)) => begun,
            () = stopping.begun() => return,
        };
        let Some((io, place)) = begun else { return };
        let connection = ClientConnection::new(io, &self.edge.limits(), self.stop.clone(), permit);
        let connection = Box::new(connection.of_client(place));
        serve(&self.edge, &self.proxy, connection, self.stop.clone()).await;
    }

    async fn begun(
        &self,
        mut socket: TcpStream,
        peer: SocketAddr,
        mut place: Option<ClientPermit>,
    ) -> Option<(ConnectionStream, Option<ClientPermit>)> {
        let limits = self.edge.limits();
        let mut client = peer;
        if self.protocol.proxy_header {
            if !self.edge.trusts(peer.ip()) {
                tracing::debug!(%peer, "not in trusted_proxies, which alone may send a PROXY header");
                return None;
            }
            let header = proxy_header::read(&mut socket);
            match tokio::time::timeout(limits.header_timeout, header).await {
                Ok(Ok(named)) => client = named.unwrap_or(peer),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "a connection without a PROXY header");
                    return None;
                }
                Err(_) => return None,
            }
            match self.client_place(client.ip(), &limits) {
                Ok(named) => place = named,
                Err(()) => {
                    self.refuse(socket, too_many_of_client);
                    return None;
                }
            }
        }
        let (Some(tls), Some(listener)) = (&self.tls, &self.protocol.tls) else {
            return Some((transport(socket, client).into(), place));
        };
        let first = tokio::time::timeout(limits.header_timeout, FirstByte::of(&socket)).await;
        let failure = match first {
            Err(_) => HandshakeFailure::Timeout,
            Ok(Err(_)) => HandshakeFailure::Closed,
            Ok(Ok(FirstByte::Tls)) => {
                match self.handshake(tls, listener, socket, client, &limits).await {
                    Ok(stream) => {
                        tls.note_handshake(Ok(()), client.ip());
                        return Some((stream.into(), place));
                    }
                    Err(failure) => failure,
                }
            }
            Ok(Ok(FirstByte::Http)) => {
                refuse_cleartext(socket).await;
                HandshakeFailure::NotTls
            }
            Ok(Ok(FirstByte::Other)) => HandshakeFailure::NotTls,
        };
        tls.note_handshake(Err(failure), client.ip());
        None
    }
}

impl HttpListener {
    /// Completes a handshake, once fewer of the same client are in progress than one client may have.
    async fn handshake(
        &self,
        tls: &TlsService,
        listener: &TlsListener,
        socket: TcpStream,
        client: SocketAddr,
        limits: &HttpLimits,
    ) -> Result<TlsStream<L4Stream>, HandshakeFailure> {
        let limit = limits.client_share.of(MAX_HANDSHAKES);
        let place = async {
            let known = self.edge.client(client.ip())?;
            loop {
                if let Some(place) = self.client_handshakes.take(known, 1, limit) {
                    return Some(place);
                }
                tokio::time::sleep(HANDSHAKE_RETRY).await;
            }
        };
        let place = tokio::time::timeout(limits.header_timeout, place).await;
        let _place = place.map_err(|_| HandshakeFailure::Timeout)?;
        tls.handshakes().complete(listener, transport(socket, client)).await
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
    if connection.agreed_on_http2() {
        proxy.process_new(connection, &stop).await;
        return;
    }
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

/// The refusal of one more connection of a client.
fn too_many_of_client() -> EdgeProblem {
    let detail = "this address has as many connections as one client may have; close some of them";
    EdgeProblem::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_CONNECTIONS, detail)
}

/// Tells a client that it speaks HTTP where TLS is expected.
async fn refuse_cleartext(socket: TcpStream) {
    let detail = "this port speaks HTTPS; write https:// in front of the address";
    let problem = EdgeProblem::new(StatusCode::BAD_REQUEST, "https-required", detail);
    last_words(socket, &problem).await;
}

/// Writes a problem and leaves the client a moment to read it.
async fn last_words(mut socket: TcpStream, problem: &EdgeProblem) {
    let text = problem.http1_text();
    let _ = tokio::time::timeout(Duration::from_millis(500), async {
        socket.write_all(&text).await?;
        socket.shutdown().await?;
        let mut sink = [0; 1024];
        while socket.read(&mut sink).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}
