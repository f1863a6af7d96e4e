//! Servers that are a proxy before all, with streams in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use durable_streams_engine::Engine;
use durable_streams_server::edge::EdgeOptions;
use durable_streams_server::edge::upstream::{UpstreamOptions, UpstreamServer};
use durable_streams_server::server::ServerOptions;

use super::server::TestServer;
use super::upstreams::Upstream;

/// How long a stop may take that has nothing to wait for: half of it on an idle machine, the rest
/// for a busy one. A stop that waits for what it should not takes `shutdown_timeout`, 10 s.
pub const PROMPT: Duration = Duration::from_secs(2);

impl TestServer {
    /// With these options on a free port.
    pub fn start(edge: EdgeOptions) -> Self {
        Self::start_with(ServerOptions { edge, ..ServerOptions::default() })
    }

    /// The same with a say in everything but the address.
    pub fn start_with(options: ServerOptions) -> Self {
        Self::serve(options, engine())
    }

    /// In front of one upstream at `/`.
    pub fn before(upstream: &Upstream) -> Self {
        Self::start(edge(vec![to(&[upstream])]))
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

/// An engine in memory, for servers whose streams do not matter.
pub fn engine() -> Arc<Engine> {
    Arc::new(Engine::in_memory())
}
