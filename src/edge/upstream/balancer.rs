//! The servers of one upstream: their addresses, their health, and the choice among them.

use std::collections::{BTreeSet, HashMap};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::Extensions;
use pingora::lb::discovery::ServiceDiscovery;
use pingora::lb::selection::{BackendIter, BackendSelection, Consistent, RoundRobin};
use pingora::lb::{Backend, Backends, LoadBalancer};
use pingora::services::background::BackgroundService;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::health;
use super::options::{UpstreamOptions, UpstreamServer};

/// How often names are resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// Ketama looks at this many points of the ring before it gives up; far more than there are
/// servers to skip.
const MAX_LOOKS: usize = 256;

/// A chosen server.
pub(super) struct ChosenServer {
    pub(super) addr: SocketAddr,
    /// Its configured address, `host:port`.
    pub(super) authority: Arc<str>,
}

impl ChosenServer {
    /// The host part of its configured address.
    pub(super) fn host(&self) -> &str {
        split(&self.authority).map_or("", |(host, _)| host)
    }
}

/// The load balancer of one upstream.
pub(super) enum ServerPool {
    InTurn(Arc<LoadBalancer<RoundRobin>>),
    ByKey(Arc<LoadBalancer<Consistent>>),
}

/// A server's address as configured, kept with its backend for SNI and `Host`.
#[derive(Clone)]
pub(super) struct ServerAuthority(pub(super) Arc<str>);

impl ServerPool {
    /// # Errors
    /// No servers, or an address that is not `host:port`.
    pub(super) fn build(options: &UpstreamOptions, template: &HttpPeer) -> Result<Self, String> {
        if options.servers.is_empty() {
            return Err("`servers` is empty; name at least one as host:port".to_owned());
        }
        for server in &options.servers {
            split(&server.address)?;
        }
        Ok(if options.balance.is_consistent() {
            ServerPool::ByKey(Arc::new(balancer(options, template)))
        } else {
            ServerPool::InTurn(Arc::new(balancer(options, template)))
        })
    }

    /// A healthy server that is not among `tried`.
    pub(super) fn pick(&self, key: &[u8], tried: &[SocketAddr]) -> Option<ChosenServer> {
        let accept = |backend: &Backend, healthy: bool| {
            healthy && !backend.addr.as_inet().is_some_and(|addr| tried.contains(addr))
        };
        let backend = match self {
            ServerPool::InTurn(balancer) => balancer.select_with(key, MAX_LOOKS, accept),
            ServerPool::ByKey(balancer) => balancer.select_with(key, MAX_LOOKS, accept),
        }?;
        let authority = backend.ext.get::<ServerAuthority>()?.0.clone();
        Some(ChosenServer { addr: *backend.addr.as_inet()?, authority })
    }

    /// Every server that is known, and whether it gets requests.
    pub(super) fn servers(&self) -> Vec<(SocketAddr, bool)> {
        let backends = match self {
            ServerPool::InTurn(balancer) => balancer.backends(),
            ServerPool::ByKey(balancer) => balancer.backends(),
        };
        let known = backends.get_backend();
        let server = |backend: &Backend| Some((*backend.addr.as_inet()?, backends.ready(backend)));
        known.iter().filter_map(server).collect()
    }

    pub(super) fn background(&self) -> Arc<dyn BackgroundService + Send + Sync> {
        match self {
            ServerPool::InTurn(balancer) => balancer.clone(),
            ServerPool::ByKey(balancer) => balancer.clone(),
        }
    }
}

fn balancer<S>(options: &UpstreamOptions, template: &HttpPeer) -> LoadBalancer<S>
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let (upstream, servers) = (options.name.clone(), options.servers.clone());
    let names = DnsDiscovery { upstream, servers, started: AtomicBool::new(false) };
    let fixed = options.servers.iter().all(|s| s.address.parse::<SocketAddr>().is_ok());
    let mut backends = Backends::new(Box::new(names));
    if let Some(health) = &options.health {
        backends.set_health_check(health::check(health, options, template));
    }
    let mut balancer = LoadBalancer::from_backends(backends);
    balancer.update_frequency = (!fixed).then_some(RESOLVE_EVERY);
    balancer.health_check_frequency = options.health.as_ref().map(|health| health.interval);
    balancer.parallel_health_check = true;
    if let Some(Err(error)) = futures_now(balancer.update()) {
        tracing::warn!(upstream = options.name, %error, "no server yet, trying again");
    }
    balancer
}

/// Polls a future that is known not to wait: the first round of `DnsDiscovery`.
fn futures_now<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// Discovery by the system's resolver. The first look-up blocks, because nothing runs yet and the
/// servers should be known before the first request; later ones do not.
struct DnsDiscovery {
    upstream: String,
    servers: Vec<UpstreamServer>,
    started: AtomicBool,
}

impl DnsDiscovery {
    async fn resolve(&self, address: &str, first: bool) -> std::io::Result<Vec<SocketAddr>> {
        if let Ok(address) = address.parse() {
            return Ok(vec![address]);
        }
        if first {
            return address.to_socket_addrs().map(Iterator::collect);
        }
        tokio::net::lookup_host(address).await.map(Iterator::collect)
    }
}

#[async_trait]
impl ServiceDiscovery for DnsDiscovery {
    async fn discover(&self) -> Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let first = !self.started.swap(true, Ordering::Relaxed);
        let mut found = BTreeSet::new();
        for server in &self.servers {
            let authority: Arc<str> = server.address.as_str().into();
            match self.resolve(&server.address, first).await {
                Ok(addrs) => found.extend(addrs.into_iter().map(|addr| {
                    let mut ext = Extensions::new();
                    ext.insert(ServerAuthority(authority.clone()));
                    Backend { addr: addr.into(), weight: server.weight.max(1), ext }
                })),
                Err(error) => {
                    tracing::warn!(upstream = self.upstream, server = server.address, %error, "cannot resolve");
                }
            }
        }
        if found.is_empty() {
            // Keep what was known rather than forget it for a DNS hiccup.
            return Error::e_explain(ErrorType::InternalError, "no server address resolves");
        }
        Ok((found, HashMap::new()))
    }
}

/// Splits `host:port`; the host comes back without the brackets of an IPv6 address.
pub(super) fn split(address: &str) -> Result<(&str, u16), String> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parts {
        Some((host, port)) if !host.is_empty() => {
            Ok((host.trim_start_matches('[').trim_end_matches(']'), port))
        }
        _ => Err(format!("server {address:?} is not host:port, for example \"127.0.0.1:8080\"")),
    }
}
