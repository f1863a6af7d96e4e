//! Names to addresses for webhooks, with every address judged before anything connects to it.
//!
//! The client connects to exactly the addresses that [`GuardedResolver`] gives it, so a name that resolves to one
//! place when it is judged and to another when it is connected to (DNS rebinding) gains nothing.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc};

use durable_streams_protocol::subscription::is_public;
use reqwest::dns::{Addrs, Name, Resolving};

/// Addresses, or why there are none.
pub type ResolvedAddresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Names to addresses.
pub trait HostResolver: Send + Sync {
    /// The addresses of a host; their ports are not used.
    fn resolve(&self, host: &str) -> ResolvedAddresses;
}

/// What the system says.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl HostResolver for SystemResolver {
    fn resolve(&self, host: &str) -> ResolvedAddresses {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), 0)).await?.collect()) })
    }
}

/// Lets through what its kind of target may connect to.
pub(super) struct GuardedResolver {
    pub(super) inner: Arc<dyn HostResolver>,
    /// Loopback addresses only, instead of public ones only.
    pub(super) local: bool,
}

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolved, local) = (self.inner.resolve(name.as_str()), self.local);
        Box::pin(async move {
            let all = resolved.await?;
            let allowed = |address: &SocketAddr| {
                let ip = address.ip();
                if local { ip.is_loopback() } else { is_public(ip) }
            };
            let addresses: Vec<SocketAddr> = all.iter().copied().filter(allowed).collect();
            if addresses.is_empty() {
                let why = "the name has no address that webhooks may connect to";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
