//! The admin listener as a service: it answers until the process ends, a stop included, so that `/readyz`
//! can say that one is under way. Its connections are few, and no stop waits for them.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;

#[cfg(unix)]
use pingora::server::ListenFds;
use pingora::server::ShutdownWatch;
use pingora::services::Service;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::accept::transport;
use super::listen::Bound;
use crate::admin::Admin;
use crate::edge::HttpLimits;
use crate::edge::connection::ClientConnection;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;

/// A connection that is not done by then is dropped.
const PATIENCE: Duration = Duration::from_secs(30);

/// The service.
pub(super) struct AdminService {
    admin: Arc<Admin>,
    listeners: Vec<StdListener>,
}

impl AdminService {
    pub(super) fn new(admin: Admin, bound: Bound) -> Self {
        AdminService { admin: Arc::new(admin), listeners: bound.listeners }
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
        let limits = HttpLimits { header_timeout: Duration::from_secs(5), ..HttpLimits::default() };
        let open = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut loops = JoinSet::new();
        for listener in self.listeners.drain(..) {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let one = Accepting {
                        admin: self.admin.clone(),
                        limits: limits.clone(),
                        shutdown: shutdown.clone(),
                    };
                    loops.spawn(one.run(listener, open.clone()));
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

struct Accepting {
    admin: Arc<Admin>,
    limits: HttpLimits,
    shutdown: ShutdownWatch,
}

impl Accepting {
    async fn run(self, listener: TcpListener, open: Arc<Semaphore>) {
        while let Ok(permit) = open.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((socket, peer)) => {
                    let (admin, shutdown) = (self.admin.clone(), self.shutdown.clone());
                    let io = transport(socket, peer);
                    let connection =
                        ClientConnection::new(io, &self.limits, shutdown.clone(), permit);
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(PATIENCE, serve(admin, connection, shutdown))
                            .await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed on the admin listener");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve(admin: Arc<Admin>, mut connection: ClientConnection, shutdown: ShutdownWatch) {
    if let Ok(head) = connection.sniff().await {
        if let Some(head) = head {
            connection.unread(head);
        }
        admin.process_new(Box::new(connection), &shutdown).await;
    }
}
