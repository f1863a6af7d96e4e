//! From the configuration of upstreams to the options of the reverse proxy.

use http::StatusCode;

use crate::config;
use crate::edge::upstream::{self, UpstreamOptions};

pub(super) fn upstream_options(configured: &config::UpstreamConfig) -> UpstreamOptions {
    let authority = |server: &config::ServerUrl| match server.host.contains(':') {
        true => format!("[{}]:{}", server.host, server.port),
        false => format!("{}:{}", server.host, server.port),
    };
    let tls = configured.servers.iter().any(|server| server.tls);
    UpstreamOptions {
        name: configured.path.as_str().to_owned(),
        prefix: configured.path.as_str().to_owned(),
        strip_prefix: configured.strip_prefix,
        servers: configured
            .servers
            .iter()
            .map(|server| upstream::UpstreamServer::new(authority(server)))
            .collect(),
        balance: match (configured.balance, &configured.hash_header) {
            (config::BalanceConfig::RoundRobin, _) => upstream::Balance::RoundRobin,
            (config::BalanceConfig::Hash, None) => upstream::Balance::ClientAddress,
            (config::BalanceConfig::Hash, Some(name)) => upstream::Balance::Header(name.clone()),
        },
        health: configured.health_check.as_ref().map(health_check),
        tls: tls.then(|| upstream::UpstreamTls {
            server_name: configured.tls.sni.clone(),
            verify: configured.tls.verify,
            ca: configured.tls.ca.clone(),
        }),
        http2: configured.http2,
        host: match configured.host {
            config::HostHeaderConfig::Upstream => upstream::HostHeader::Server,
            config::HostHeaderConfig::Preserve => upstream::HostHeader::Preserve,
        },
        connect_timeout: configured.connect_timeout.get(),
        read_timeout: configured.read_timeout.get(),
        live_timeout: configured.live_timeout.get(),
        write_timeout: configured.write_timeout.get(),
        idle_timeout: configured.idle_timeout.get(),
        retries: configured.retries as usize,
        forward_auth: configured.forward_auth.as_ref().and_then(forward_auth),
        ..UpstreamOptions::default()
    }
}

/// `None` without a URL, which the configuration's own rules refuse.
fn forward_auth(configured: &config::UpstreamAuthConfig) -> Option<upstream::ForwardAuthOptions> {
    Some(upstream::ForwardAuthOptions {
        url: configured.url.clone()?.0,
        request_headers: configured.request_headers.clone(),
        copy_headers: configured.copy_headers.clone(),
        timeout: configured.timeout.get(),
        cache: configured.cache.get(),
        max_concurrent: usize::try_from(configured.max_concurrent).unwrap_or(usize::MAX),
    })
}

pub(super) fn health_check(configured: &config::HealthCheckConfig) -> upstream::HealthCheck {
    upstream::HealthCheck {
        probe: upstream::HealthProbe::Http {
            path: configured.path.as_str().to_owned(),
            status: StatusCode::from_u16(configured.expect_status).unwrap_or(StatusCode::OK),
        },
        interval: configured.interval.get(),
        timeout: configured.timeout.get(),
        failures: configured.unhealthy as usize,
        successes: configured.healthy as usize,
    }
}
