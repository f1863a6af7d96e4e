//! From options to a running server, and back to a stopped one.
//!
//! Sockets are bound here, before anything else starts: a port in use is an error with the
//! address in it, the address that port 0 was given can be read. Pingora's [`Server`] then runs
//! the threads and services; its own listeners, which retry a bind for half a minute and then
//! panic, are not used.
//!
//! # Stopping
//!
//! | signal | effect |
//! |---|---|
//! | `SIGTERM`, `SIGINT` | stop: no new connections, current requests finish, live readers get their last event at once, idle connections, proxied tunnels and proxied event streams close; done when the last connection is gone, at most `shutdown_timeout` later |
//! | a second one of them | stop now, dropping what is open |
//! | `SIGQUIT` | as `SIGTERM`. Pingora's zero-downtime upgrade is not offered: two processes would serve two different sets of streams (in memory) or fight over one data directory |
//! | `SIGHUP` | with a terminal on standard input, as `SIGTERM`: the terminal went away. Otherwise the configuration is read again, see [`Server::on_reload`] |
//!
//! Windows has Ctrl-C only, which is as `SIGINT`.
//!
//! [`Server`]: pingora::server::Server

mod accept;
mod access;
mod admin;
#[cfg(unix)]
pub mod backup_socket;
#[cfg(not(unix))]
#[path = "backup_socket/elsewhere.rs"]
pub mod backup_socket;
mod compose;
mod descriptors;
mod forward_auth;
mod http2;
mod listen;
mod quotas;
mod redirect;
mod reload;
mod services;
mod shutdown;
pub mod tier;
pub mod tls;
mod upstreams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use pingora::services::background::BackgroundService;

pub use self::tier::tier_options;
use crate::admin::{AdminAccess, AdminEndpoints, ServerControl};
use crate::edge::upstream::UpstreamError;
use crate::edge::{AccessCaching, AuditLevel, Edge, EdgeControl, EdgeOptions, HttpLimits};
use crate::telemetry::trace::Tracer;
use crate::tier::Tier;
use crate::tls::{TlsError, TlsService};
use accept::HttpAcceptor;
pub use access::AccessSetupError;
use admin::AdminService;
pub use compose::{Mode, run, store_options};
use durable_streams_auth::AccessGuard;
use durable_streams_engine::Engine;
use durable_streams_engine::store::StoreError;
use durable_streams_subscriptions::Subscriptions;
use listen::BoundListeners;
pub use listen::{ListenAddress, ListenOptions, ListenerProtocol};
use redirect::{HttpsRedirect, RedirectService};
use shutdown::{ReloadHook, Stop};
pub use shutdown::{StopHandle, Stopped};

/// Everything the server needs to know at start.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen.
    pub listen: ListenOptions,
    /// Worker threads. Default one per core.
    pub threads: usize,
    /// How long a stop waits for open connections. Default 10 s.
    pub shutdown_timeout: Duration,
    /// Unused upstream connections kept over all upstreams. Default 128.
    pub upstream_pool: usize,
    /// Where the admin listener is. Default nowhere.
    pub admin: Option<AdminOptions>,
    /// The HTTP side.
    pub edge: EdgeOptions,
    /// TLS of the listeners that have it.
    pub tls: Option<Arc<TlsService>>,
    /// Listeners that send HTTP to HTTPS.
    pub redirects: Vec<RedirectOptions>,
}

/// A listener that sends HTTP to HTTPS.
#[derive(Debug, Clone)]
pub struct RedirectOptions {
    /// Its address.
    pub address: SocketAddr,
    /// The port of HTTPS.
    pub https_port: u16,
    /// Whether the server starts when the address cannot be had, with a warning.
    pub optional: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            listen: ListenOptions::default(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            shutdown_timeout: Duration::from_secs(10),
            upstream_pool: 128,
            admin: None,
            edge: EdgeOptions::default(),
            tls: None,
            redirects: Vec::new(),
        }
    }
}

/// Where the admin listener is.
#[derive(Debug, Clone)]
pub struct AdminOptions {
    /// Its address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether the server starts when the address cannot be had, with a warning.
    pub optional: bool,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// As configured.
        address: String,
        /// In words, with a way out where there is one.
        reason: String,
    },
    /// The store cannot be opened.
    #[error("cannot open the store: {0}")]
    Store(#[from] StoreError),
    /// The object store cannot be used.
    #[error(transparent)]
    Tier(#[from] crate::tier::TierError),
    /// A thread or runtime that the server needs cannot be started.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    /// An upstream cannot be used as configured.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Subscriptions cannot start.
    #[error("cannot start subscriptions: {0}")]
    Subscriptions(#[from] durable_streams_subscriptions::OpenError),
    /// The webhook client cannot be set up.
    #[error("cannot start subscriptions: {0}")]
    Webhooks(#[from] crate::webhooks::WebhookSetupError),
    /// Access control cannot be set up.
    #[error(transparent)]
    Access(#[from] access::AccessSetupError),
    /// What quotas bound cannot be counted.
    #[error("cannot count the streams that auth.quotas bounds: {0}")]
    Quotas(durable_streams_protocol::Rejection),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] TlsError),
    /// Traces cannot be exported.
    #[error(transparent)]
    Trace(#[from] crate::telemetry::trace::TraceError),
    /// The process's signals cannot be handled.
    #[error("cannot handle signals: {0}")]
    Signals(std::io::Error),
}

/// A server whose sockets are bound: clients can connect, and are answered once it runs.
pub struct Server {
    bound: BoundListeners,
    edge: Edge,
    admin: Option<(AdminEndpoints, BoundListeners)>,
    redirects: Vec<(HttpsRedirect, BoundListeners)>,
    stop: Stop,
    reload: Option<ReloadHook>,
    background: Vec<Arc<dyn BackgroundService + Send + Sync>>,
    options: ServerOptions,
}

impl Server {
    /// Binds the sockets and prepares everything else.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn bind(options: ServerOptions, engine: Arc<Engine>) -> Result<Self, ServerError> {
        let bound = listen::bind(&options.listen, options.edge.limits.send_buffer)?;
        let stop = Stop::new();
        let edge = Edge::new(options.edge.clone(), engine.clone(), stop.watch())?;
        let tls = options.tls.clone();
        let admin = bind_admin(options.admin.as_ref())?.map(|bound| {
            let (control, streams) = (edge.control(), edge.streams.clone());
            let admin = AdminEndpoints::new(engine, control, tls.clone(), streams, stop.watch());
            (admin, bound)
        });
        let redirects = bind_redirects(&options)?;
        let mut background = vec![edge.control().background()];
        background.extend(tls.map(|tls| tls as _));
        Ok(Server { bound, edge, admin, redirects, stop, reload: None, background, options })
    }

    /// Serves subscriptions too; their driver is background work of its own.
    pub fn serve_subscriptions(&mut self, subscriptions: Subscriptions) {
        if let Some((admin, _)) = &mut self.admin {
            admin.serve_subscriptions(subscriptions.clone());
        }
        self.edge.streams.serve_subscriptions(subscriptions);
    }

    /// Shows the object store on the admin listener.
    pub fn show_tier(&mut self, tier: Tier) {
        if let Some((admin, _)) = &mut self.admin {
            admin.show_tier(tier);
        }
    }

    /// Lets a guard decide about every request under the stream route.
    pub fn protect(&mut self, guard: AccessGuard, audit: AuditLevel) {
        self.edge.streams.protect(guard, audit);
    }

    /// Says what caches may do with the responses of protected streams.
    pub fn cache_protected(&mut self, caching: AccessCaching) {
        self.edge.streams.cache_protected(caching);
    }

    /// Says who may use the administration API of the admin listener; without this nobody may.
    pub fn administer(&mut self, access: AdminAccess) {
        if let Some((admin, _)) = &mut self.admin {
            admin.administer(access);
            self.background.push(admin.background());
        }
    }

    /// Serves the page of the admin listener.
    pub fn serve_page(&mut self) {
        if let Some((admin, _)) = &mut self.admin {
            admin.serve_page();
        }
    }

    /// Lets the administration API show and change the configuration.
    pub fn control_by(&mut self, control: Arc<dyn ServerControl>) {
        if let Some((admin, _)) = &mut self.admin {
            admin.control_by(control);
        }
    }

    /// Makes a span of each request.
    pub fn trace_with(&mut self, tracer: Tracer) {
        self.edge.tracer = tracer;
    }

    /// The addresses listened on, with the ports the system chose for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.bound.addresses
    }

    /// The address of the admin listener, when there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|(_, bound)| bound.addresses.first().copied())
    }

    /// TLS of the listeners that have it.
    pub fn tls(&self) -> Option<Arc<TlsService>> {
        self.options.tls.clone()
    }

    /// Changes the HTTP side and looks into it while it serves.
    pub fn edge(&self) -> EdgeControl {
        self.edge.control()
    }

    /// What `SIGHUP` does where no terminal can go away. It may block.
    pub fn on_reload(&mut self, reload: impl Fn() + Send + Sync + 'static) {
        self.reload = Some(Arc::new(reload));
    }

    /// Stops this server from elsewhere.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.handle()
    }

    /// Turns `true` when a stop begins.
    pub fn shutdown(&self) -> ShutdownWatch {
        self.stop.watch()
    }

    /// Adds work that runs beside the requests. It gets a watch that turns when a stop begins, and is waited for
    /// like a connection.
    pub fn add_background(&mut self, service: Arc<dyn BackgroundService + Send + Sync>) {
        self.background.push(service);
    }

    /// Calls `on_listening` with the addresses and serves until a signal of the process or a
    /// [`StopHandle`] stops it. Blocks.
    ///
    /// # Errors
    /// The process's signals cannot be handled.
    pub fn run(self, on_listening: impl FnOnce(&[SocketAddr])) -> Result<Stopped, ServerError> {
        shutdown::on_signals(self.stop.handle(), self.reload.clone())
            .map_err(ServerError::Signals)?;
        on_listening(self.addresses());
        Ok(self.run_without_signals())
    }

    /// Serves until stopped by a [`StopHandle`]; leaves the process's signals alone. Blocks.
    pub fn run_without_signals(self) -> Stopped {
        let conf = Arc::new(self.conf());
        let mut server = pingora::server::Server::new_with_opt_and_conf(None, self.conf());
        let limits = &self.options.edge.limits;
        let tls = self.options.tls.clone();
        let acceptor = HttpAcceptor::new(&conf, self.edge, limits, self.bound, tls, &self.stop);
        server.add_service(acceptor);
        for (redirect, bound) in self.redirects {
            server.add_service(RedirectService::new(redirect, bound, limits.clone()));
        }
        if let Some((admin, bound)) = self.admin {
            server.add_service(AdminService::new(admin, bound));
        }
        if !self.background.is_empty() {
            server.add_service(services::BackgroundWork::new(self.background, &self.stop));
        }
        let (watch, result) = self.stop.into_watch(self.options.shutdown_timeout);
        shutdown::run_until(server, watch);
        result.get()
    }

    fn conf(&self) -> ServerConf {
        ServerConf {
            threads: self.options.threads.max(1),
            upstream_keepalive_pool_size: self.options.upstream_pool,
            // `UpstreamOptions::retries` decides; this is the fuse behind it.
            max_retries: 16,
            // Draining is ours, see `shutdown`; when Pingora hears of a stop it is over.
            grace_period_seconds: Some(shutdown::GRACE_SECONDS),
            graceful_shutdown_timeout_seconds: Some(0),
            ..ServerConf::default()
        }
    }
}

fn bind_redirects(
    options: &ServerOptions,
) -> Result<Vec<(HttpsRedirect, BoundListeners)>, ServerError> {
    let challenges = options.tls.as_ref().and_then(|tls| tls.http_challenges());
    let mut redirects = Vec::new();
    for one in &options.redirects {
        let listen = ListenOptions { addresses: vec![one.address.to_string().into()] };
        match listen::bind(&listen, options.edge.limits.send_buffer) {
            Ok(bound) => {
                redirects.push((HttpsRedirect::new(challenges.clone(), one.https_port), bound));
            }
            Err(error) if one.optional => {
                tracing::warn!("no redirect from HTTP, and no http-01: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(redirects)
}

fn bind_admin(options: Option<&AdminOptions>) -> Result<Option<BoundListeners>, ServerError> {
    let Some(options) = options else { return Ok(None) };
    let listen = ListenOptions { addresses: vec![options.address.to_string().into()] };
    match listen::bind(&listen, HttpLimits::DEFAULT.send_buffer) {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if options.optional => {
            tracing::warn!("no admin listener: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
