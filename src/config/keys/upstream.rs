//! Upstreams: the servers that answer the routes that are not streams.

use std::path::PathBuf;

use http::HeaderName;

use super::forward_auth::UpstreamAuthConfig;
use crate::config::net::ServerUrl;
use crate::config::path::{CheckPath, PathPrefix};
use crate::config::reader::setting::{choice, settings};
use crate::config::units::HumanDuration;
use crate::edge::upstream::{HealthCheck as CheckOptions, UpstreamOptions};

choice! {
    /// How the server for a request is chosen.
    pub enum BalanceConfig: "a way to balance" {
        /// Each in turn.
        RoundRobin = "round_robin",
        /// By consistent hash of the client's address, or of the header `hash_header`.
        Hash = "hash",
    }
}

choice! {
    /// The `Host` that the upstream sees.
    pub enum HostHeaderConfig: "a choice of host" {
        /// The one that the client sent.
        Preserve = "preserve",
        /// The one of the upstream server.
        Upstream = "upstream",
    }
}

settings! {
    /// A group of equal servers behind one path prefix. The longest matching prefix wins.
    pub struct UpstreamConfig {
        /// Paths that go here, by whole segments.
        path: PathPrefix = PathPrefix::default();
        /// The servers; at least one.
        servers: Vec<ServerUrl> = Vec::new();
        /// How one of them is chosen.
        balance: BalanceConfig = BalanceConfig::RoundRobin;
        /// Header to hash instead of the client's address. Needs `balance: hash`.
        hash_header: Option<HeaderName> = None;
        /// Active health checks; off by default.
        health_check: Option<HealthCheckConfig> = None;
        /// Longest time to connect, TLS included.
        connect_timeout: HumanDuration = UpstreamOptions::default().connect_timeout.into()
            => HumanDuration::millis(10), HumanDuration::secs(600);
        /// Longest pause between two parts of a response.
        read_timeout: HumanDuration = UpstreamOptions::default().read_timeout.into()
            => HumanDuration::millis(10), HumanDuration::secs(86_400);
        /// In place of `read_timeout` for WebSockets, other upgraded connections and requests
        /// that accept `text/event-stream`.
        live_timeout: HumanDuration = UpstreamOptions::default().live_timeout.into()
            => HumanDuration::millis(10), HumanDuration::secs(30 * 86_400);
        /// Longest pause while a request is sent.
        write_timeout: HumanDuration = UpstreamOptions::default().write_timeout.into()
            => HumanDuration::millis(10), HumanDuration::secs(86_400);
        /// How long an unused connection is kept for the next request.
        idle_timeout: HumanDuration = UpstreamOptions::default().idle_timeout.into()
            => HumanDuration::millis(0), HumanDuration::secs(86_400);
        /// How often a safe request is tried again on another server.
        retries: u32 = UpstreamOptions::default().retries as u32 => 0, 10;
        /// TLS to `https` servers.
        tls: UpstreamTlsConfig = UpstreamTlsConfig::default();
        /// Whether to speak HTTP/2: by ALPN with `https`, by prior knowledge with `http`.
        http2: bool = false;
        /// The `Host` that the servers see.
        host: HostHeaderConfig = HostHeaderConfig::Preserve;
        /// Whether `path` is removed from the request's path.
        strip_prefix: bool = false;
        /// A service that is asked about each request before a server gets it; off by default.
        forward_auth: Option<UpstreamAuthConfig> = None;
    }
}

settings! {
    /// Active health checks of each server of an upstream.
    pub struct HealthCheckConfig {
        /// The path that a check requests, with GET.
        path: CheckPath = CheckPath::default();
        /// Time between two checks.
        interval: HumanDuration = CheckOptions::default().interval.into()
            => HumanDuration::millis(100), HumanDuration::secs(3600);
        /// Longest time for an answer.
        timeout: HumanDuration = CheckOptions::default().timeout.into()
            => HumanDuration::millis(10), HumanDuration::secs(600);
        /// Good answers in a row that bring a server back.
        healthy: u32 = CheckOptions::default().successes as u32 => 1, 100;
        /// Bad answers in a row that take a server out.
        unhealthy: u32 = CheckOptions::default().failures as u32 => 1, 100;
        /// The status of a good answer.
        expect_status: u16 = 200 => 100, 599;
    }
}

settings! {
    /// TLS to the servers of an upstream.
    pub struct UpstreamTlsConfig {
        /// Name to ask for and to verify; the server's host by default.
        sni: Option<String> = None;
        /// Whether the certificate is verified. Turn it off in development only.
        verify: bool = true;
        /// File of PEM certificates to trust instead of the system's.
        ca: Option<PathBuf> = None;
    }
}
