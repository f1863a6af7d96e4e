//! Resolves host names for webhooks, and judges every address before the client connects to it.
//!
//! The client connects to exactly the addresses that [`GuardedResolver`] returns. So a name that resolves to
//! another address when it is resolved again (DNS rebinding) gains nothing.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc};

use durable_streams_protocol::subscription::is_public;
use reqwest::dns::{Addrs, Name, Resolving};

/// The addresses of a host, or why there are none.
pub type ResolvedAddresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Resolves host names.
pub trait HostResolver: Send + Sync {
    /// The addresses of a host; their ports are not used.
    fn resolve(&self, host: &str) -> ResolvedAddresses;
}

/// Resolves as the operating system does.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl HostResolver for SystemResolver {
    fn resolve(&self, host: &str) -> ResolvedAddresses {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), 0)).await?.collect()) })
    }
}

/// Returns only addresses that its kind of target may connect to.
pub(super) struct GuardedResolver {
    pub(super) inner: Arc<dyn HostResolver>,
    /// Whether it allows loopback addresses only, instead of public ones only.
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

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use reqwest::dns::Resolve;

    use super::*;

    /// Returns each list once, in order.
    struct Sequence(Mutex<Vec<&'static [&'static str]>>);

    impl HostResolver for Sequence {
        fn resolve(&self, _host: &str) -> ResolvedAddresses {
            let addresses = self.0.lock().remove(0);
            let addresses = addresses.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0));
            let addresses = addresses.collect();
            Box::pin(async move { Ok(addresses) })
        }
    }

    /// What the guard returns, one answer after the other; empty when it refuses.
    async fn guarded(local: bool, answers: &[&'static [&'static str]]) -> Vec<Vec<String>> {
        let guard =
            GuardedResolver { inner: Arc::new(Sequence(Mutex::new(answers.to_vec()))), local };
        let mut allowed = Vec::new();
        for _ in answers {
            let resolved = guard.resolve("worker.example".parse().unwrap()).await;
            let addresses =
                resolved.map(|all| all.map(|address| address.ip().to_string()).collect());
            allowed.push(addresses.unwrap_or_default());
        }
        allowed
    }

    #[tokio::test]
    async fn every_address_of_every_answer_is_judged() {
        let answers: &[&[&str]] = &[
            &["8.8.8.8"],
            // Rebinding: the same name turns inward, whole or in part.
            &["127.0.0.1"],
            &["10.0.0.1", "8.8.8.8", "::1", "2606:4700::1111", "169.254.169.254"],
            &[],
        ];
        let allowed = guarded(false, answers).await;
        assert_eq!(allowed, [vec!["8.8.8.8"], vec![], vec!["8.8.8.8", "2606:4700::1111"], vec![]]);
        let allowed = guarded(true, &[&["127.0.0.1"], &["8.8.8.8"], &["8.8.8.8", "::1"]]).await;
        assert_eq!(allowed, [vec!["127.0.0.1"], vec![], vec!["::1"]]);
    }
}
