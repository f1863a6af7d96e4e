//! The admin listener as a service: it answers until the process ends, a stop included, so that `/readyz`
//! can say that one is under way. No stop waits for its connections.
//!
//! Invariant: a health check gets in. Clients that connect and stay silent can take neither all connections
//! (the newest one displaces the oldest) nor, with those of the streams, the last descriptor (a few are in
//! reserve).

use std::collections::VecDeque;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;

#[cfg(unix)]
use pingora::server::ListenFds;
use pingora::server::ShutdownWatch;
use pingora::services::Service;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::accept::transport;
use super::descriptors::DescriptorReserve;
use super::listen::BoundListeners;
use crate::admin::AdminEndpoints;
use crate::edge::HttpLimits;
use crate::edge::connection::ClientConnection;
use crate::edge::http1::head;

/// Connections at once over one address.
const MAX_CONNECTIONS: usize = 128;

/// From the accept to the end of the request's head, whose response has a bound of its own. A health check sends its head at
/// once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct AdminService {
    admin: Arc<AdminEndpoints>,
    listeners: Vec<StdListener>,
}

impl AdminService {
    pub(super) fn new(admin: AdminEndpoints, bound: BoundListeners) -> Self {
        AdminService {
            admin: Arc::new(admin),
            listeners: bound.listeners.into_iter().map(|one| one.socket).collect(),
        }
    }
}

#[async_trait]
impl Service for AdminService {
    async fn start_service(
        &mut self,
        #[cfg(unix)] _fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        _: usize,
    ) {
        let limits = HttpLimits { header_timeout: HEADER_TIMEOUT, ..HttpLimits::default() };
        let mut loops = JoinSet::new();
        for listener in self.listeners.drain(..) {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let acceptor = AdminAcceptor {
                        admin: self.admin.clone(),
                        limits: limits.clone(),
                        shutdown: shutdown.clone(),
                        reserve: DescriptorReserve::new(),
                        open: VecDeque::new(),
                    };
                    loops.spawn(acceptor.run(listener));
                }
                Err(error) => tracing::error!(%error, "the admin socket is unusable"),
            }
        }
        let mut shutdown = shutdown;
        let _ = shutdown.wait_for(|ended| *ended).await;
    }

    fn name(&self) -> &'static str {
        "admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

struct AdminAcceptor {
    admin: Arc<AdminEndpoints>,
    limits: HttpLimits,
    shutdown: ShutdownWatch,
    reserve: DescriptorReserve,
    /// Open connections, oldest first.
    open: VecDeque<AbortHandle>,
}

impl AdminAcceptor {
    async fn run(mut self, listener: TcpListener) {
        // A connection's permit is what `Connection` needs; `open` is what bounds them.
        let permits = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        while let Ok(permit) = permits.clone().acquire_owned().await {
            self.reserve.refill();
            match listener.accept().await {
                Ok((socket, peer)) => {
                    let (admin, shutdown) = (self.admin.clone(), self.shutdown.clone());
                    let io = transport(socket, peer);
                    let connection =
                        ClientConnection::new(io, &self.limits, shutdown.clone(), permit);
                    let served = serve(admin, connection, shutdown);
                    self.admit(tokio::spawn(served).abort_handle());
                }
                Err(error) if self.reserve.make_room(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accept failed on the admin listener");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Counts a new connection, and drops the oldest where there are too many.
    fn admit(&mut self, connection: AbortHandle) {
        if self.open.len() >= MAX_CONNECTIONS {
            self.open.retain(|one| !one.is_finished());
        }
        if self.open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = self.open.pop_front()
        {
            oldest.abort();
        }
        self.open.push_back(connection);
    }
}

async fn serve(
    admin: Arc<AdminEndpoints>,
    mut connection: ClientConnection,
    shutdown: ShutdownWatch,
) {
    if head::arrives(&mut connection).await {
        let session = ServerSession::new_http1(Box::new(connection));
        admin.process_new_http(session, &shutdown).await;
    }
}
