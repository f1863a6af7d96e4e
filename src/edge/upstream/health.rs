//! Active health checks. A check names the server in the same way as a request does.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::lb::Backend;
use pingora::lb::health_check::{
    HealthCheck as Probe, HealthObserve, HttpHealthCheck, TcpHealthCheck,
};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::balancer::{ServerAuthority, split};
use super::options::{HealthCheck, HealthProbe, HostHeader, UpstreamOptions};

type Check = Box<dyn Probe + Send + Sync>;

/// The checks of every server of an upstream.
pub(super) fn check(health: &HealthCheck, options: &UpstreamOptions, template: &HttpPeer) -> Check {
    let probes = options.servers.iter().map(|server| {
        let authority: Arc<str> = server.address.as_str().into();
        let probe = probe(health, options, template, &authority);
        (authority, probe)
    });
    Box::new(PerServerCheck {
        probes: probes.collect(),
        observer: HealthAnnouncer(options.name.clone()),
        failures: health.failures,
        successes: health.successes,
    })
}

/// Pingora's checks know one name for all servers, hence one check for each.
struct PerServerCheck {
    probes: HashMap<Arc<str>, Check>,
    observer: HealthAnnouncer,
    failures: usize,
    successes: usize,
}

#[async_trait]
impl Probe for PerServerCheck {
    async fn check(&self, target: &Backend) -> Result<()> {
        let probe =
            target.ext.get::<ServerAuthority>().and_then(|server| self.probes.get(&server.0));
        match probe {
            Some(probe) => probe.check(target).await,
            None => Error::e_explain(ErrorType::InternalError, "a server that is not configured"),
        }
    }

    async fn health_status_change(&self, target: &Backend, healthy: bool) {
        self.observer.observe(target, healthy).await;
    }

    fn health_threshold(&self, success: bool) -> usize {
        if success { self.successes } else { self.failures }
    }
}

fn probe(
    health: &HealthCheck,
    options: &UpstreamOptions,
    template: &HttpPeer,
    authority: &str,
) -> Check {
    let own = split(authority).map_or("", |(host, _)| host);
    let sni = if template.sni.is_empty() { own } else { &template.sni };
    match &health.probe {
        HealthProbe::Tcp => {
            let mut check = if template.is_tls() {
                TcpHealthCheck::new_tls(sni)
            } else {
                TcpHealthCheck::new()
            };
            check.peer_template.options = template.options.clone();
            check.peer_template.options.connection_timeout = Some(health.timeout);
            check.peer_template.options.total_connection_timeout = Some(health.timeout);
            check
        }
        HealthProbe::Http { path, status } => {
            let host = match &options.host {
                HostHeader::Rewrite(host) => host.as_str(),
                HostHeader::Server => authority,
                HostHeader::Preserve => sni,
            };
            let mut check = HttpHealthCheck::new(host, template.is_tls());
            check.peer_template = template.clone();
            check.peer_template.sni = sni.to_owned();
            let peer = &mut check.peer_template.options;
            peer.connection_timeout = Some(health.timeout);
            peer.total_connection_timeout = Some(health.timeout);
            peer.read_timeout = Some(health.timeout);
            if check.req.set_raw_path(path.as_bytes()).is_err() {
                tracing::warn!(
                    upstream = options.name,
                    path,
                    "not a path, health checks ask for /"
                );
            }
            let expected = *status;
            check.validator = Some(Box::new(move |response| {
                if response.status == expected {
                    return Ok(());
                }
                Error::e_explain(
                    ErrorType::CustomCode("unhealthy", response.status.as_u16()),
                    format!("the health check was not answered {}", expected.as_u16()),
                )
            }));
            Box::new(check)
        }
    }
}

/// Tells the log when a server goes and comes back.
struct HealthAnnouncer(String);

#[async_trait]
impl HealthObserve for HealthAnnouncer {
    async fn observe(&self, server: &Backend, healthy: bool) {
        if healthy {
            tracing::info!(upstream = self.0, server = %server.addr, "server is healthy again");
        } else {
            tracing::warn!(upstream = self.0, server = %server.addr, "server is out of rotation");
        }
    }
}
