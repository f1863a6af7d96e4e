//! The top level of the configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::auth::AuthConfig;
use super::browser::BrowserConfig;
use super::cors::CorsConfig;
use super::lifecycle::LifecycleConfig;
use super::limits::LimitsConfig;
use super::listen::{AcmeConfig, DEFAULT_PORT, ListenerConfig};
use super::log::LogConfig;
use super::retention::RetentionConfig;
use super::storage::{DurabilityConfig, StorageConfig};
use super::subscriptions::SubscriptionsConfig;
use super::telemetry::{AdminConfig, TelemetryConfig};
use super::tier::TierConfig;
use super::upstream::UpstreamConfig;
use crate::config::net::HostPattern;
use crate::config::path::StreamRoute;
use crate::config::reader::setting::settings;
use crate::config::units::HumanDuration;
use crate::edge::StreamOptions;

settings! {
    /// Everything that can be configured.
    pub struct Config {
        /// Addresses to accept connections on. Loopback by default: a server that is reachable
        /// from outside is a decision.
        listen: Vec<ListenerConfig> = loopback(DEFAULT_PORT);
        /// Addresses that send HTTP to HTTPS. By default port 80 beside every `tls: auto` on port 443.
        redirect_http: Option<Vec<SocketAddr>> = None;
        /// How long browsers are to use HTTPS only (`Strict-Transport-Security`, in responses over TLS);
        /// off by default.
        hsts: Option<HumanDuration> = None;
        /// Certificates that the server orders itself, for listeners with `tls: auto`.
        acme: AcmeConfig = AcmeConfig::default();
        /// The path under which streams live.
        route: StreamRoute = StreamRoute::default();
        /// Directory of the durable store. Without it streams live in memory.
        data_dir: Option<PathBuf> = None;
        /// When an append counts as safe. Needs `data_dir`.
        durability: DurabilityConfig = DurabilityConfig::Fsync;
        /// Sizes and intervals of the durable store. Needs `data_dir`.
        storage: StorageConfig = StorageConfig::default();
        /// An object store for segments; off by default. Needs `data_dir`.
        tier: Option<TierConfig> = None;
        /// How long a long-poll waits for data before it answers 204.
        long_poll_timeout: HumanDuration = StreamOptions::default().long_poll_timeout.into()
            => HumanDuration::millis(10), HumanDuration::secs(3600);
        /// How long an SSE connection lives before the client is made to reconnect, so that
        /// caches and load balancers can regroup readers. Jitter is applied on top.
        sse_reconnect_interval: HumanDuration
            = StreamOptions::default().sse_reconnect_interval.into()
            => HumanDuration::millis(100), HumanDuration::secs(86_400);
        /// How long an SSE connection may be idle before a comment is sent, so that nothing in
        /// between takes it for dead.
        sse_keep_alive: HumanDuration = StreamOptions::default().sse_keep_alive.into()
            => HumanDuration::millis(100), HumanDuration::secs(3600);
        /// How long a stopping server waits for requests in flight.
        shutdown_timeout: HumanDuration = HumanDuration::secs(10)
            => HumanDuration::millis(0), HumanDuration::secs(600);
        /// Worker threads of each service. The default is the number of cores.
        threads: usize = cores() => 1, 1024;
        /// What is logged, and how.
        log: LogConfig = LogConfig::default();
        /// Which browser pages may use the streams.
        cors: CorsConfig = CorsConfig::default();
        /// What browsers may do with a stream that they open as a page.
        browser: BrowserConfig = BrowserConfig::default();
        /// Hosts that the `Host` and the `Origin` of a request may name, besides those of this machine:
        /// against pages that attack a server on a developer's machine. Without it all hosts; `dev`
        /// has an empty list.
        allowed_hosts: Option<Vec<HostPattern>> = None;
        /// Proxies whose `X-Forwarded-*` headers are believed.
        trusted_proxies: Vec<IpNet> = Vec::new();
        /// Every bound on what a client may ask for.
        limits: LimitsConfig = LimitsConfig::default();
        /// What streams keep; the first rule whose pattern matches a stream counts. Without a rule a stream keeps all.
        retention: Vec<RetentionConfig> = Vec::new();
        /// The stream of lifecycle events; off by default.
        lifecycle: Option<LifecycleConfig> = None;
        /// Who may do what with streams. Without it every client may do everything.
        auth: Option<AuthConfig> = None;
        /// Servers that answer the routes that are not streams.
        upstreams: Vec<UpstreamConfig> = Vec::new();
        /// Health, readiness and metrics on an address of their own; off by default.
        admin: Option<AdminConfig> = None;
        /// Traces and timings, beside logs and metrics.
        telemetry: TelemetryConfig = TelemetryConfig::default();
        /// Webhooks and pull subscriptions.
        subscriptions: SubscriptionsConfig = SubscriptionsConfig::default();
    }
}

/// Both loopback addresses.
pub(in crate::config) fn loopback(port: u16) -> Vec<ListenerConfig> {
    let both = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    both.map(|ip| SocketAddr::new(ip, port).into()).to_vec()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(1024)
}
