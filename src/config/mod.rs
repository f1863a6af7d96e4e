//! The configuration: typed, closed, complete. One YAML file, the environment and the flags.
//!
//! Precedence: flags, then environment, then file, then the defaults that the types declare.
//! [`Config::load`] reads all of them and reports every problem at once; [`Config::validate`]
//! judges a configuration that code has put together.
//!
//! Invariants
//! - A key exists in exactly one place, its `settings!` declaration, with type, default and bounds.
//!   `docs/configuration.md` and `config/streams.yaml` are tested against those declarations.
//! - A default that a part of the server also needs on its own (for embedders, for the admin listener)
//!   is declared by that part's options; the declaration here refers to it.
//! - Nothing below `server` sees these types; it maps them to the small options of each part.

mod changes;
mod keys;
mod net;
mod path;
mod reader;
mod rules;
mod units;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use self::reader::error::ConfigProblems;
use self::reader::node::{ConfigNode, NodeValue};
use self::reader::setting::{Setting, settings};
use self::reader::{load, yaml};
use crate::edge::StreamOptions;

pub use self::changes::ConfigChange;
pub use self::keys::auth::{
    AlgorithmName, AuditConfig, AuthConfig, ClaimPointer, CookieName, GrantConfig, IssuerConfig,
    IssuerName, KeysUrl, OperationWord, PatternText, RateConfig, RatesConfig, ScopeConfig,
    TemplateText, operations,
};
pub use self::keys::limits::LimitsConfig;
pub use self::keys::listen::{
    AcmeChallenge, AcmeConfig, AcmeDirectory, AcmeExternalAccount, CertificatePair,
    ClientCertificate, ListenerConfig, ListenerGroup, ListenerTls, TlsFiles,
};
pub use self::keys::log::{LogConfig, LogFormat, LogLevel};
pub use self::keys::storage::{DurabilityConfig, StorageConfig};
pub use self::keys::subscriptions::SubscriptionsConfig;
pub use self::keys::telemetry::{AdminConfig, TelemetryConfig};
pub use self::keys::tracing::{TraceEndpoint, TraceHeader, TraceRatio, TracingConfig};
pub use self::keys::upstream::{
    BalanceConfig, HealthCheckConfig, HostHeaderConfig, UpstreamConfig, UpstreamTlsConfig,
};
pub use self::net::{CorsOrigin, HostPattern, PublicUrl, ServerUrl};
pub use self::path::{CheckPath, PathPrefix, StreamRoute};
pub use self::reader::error::ConfigError;
pub use self::reader::load::{ConfigFlag, ConfigSources, ENVIRONMENT_PREFIX};
pub use self::units::{ByteSize, HumanDuration};

/// Port of the stream listener when none is named.
pub const DEFAULT_PORT: u16 = 4437;

/// Port of the admin listener when it is on and none is named.
pub const ADMIN_PORT: u16 = 4438;

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
        /// Proxies whose `X-Forwarded-*` headers are believed.
        trusted_proxies: Vec<IpNet> = Vec::new();
        /// Every bound on what a client may ask for.
        limits: LimitsConfig = LimitsConfig::default();
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

settings! {
    /// Cross-origin access.
    pub struct CorsConfig {
        /// Origins whose pages may use the streams. `*` stands for all.
        origins: Vec<CorsOrigin> = vec![CorsOrigin::Any];
    }
}

impl Config {
    /// What `dev` runs with: the defaults, in memory, on `port` of both loopback addresses or of
    /// `host`, with the admin listener beside it. Port 0 lets the system choose.
    pub fn dev(host: Option<IpAddr>, port: u16) -> Self {
        let listen = match host {
            Some(ip) => vec![SocketAddr::new(ip, port).into()],
            None => loopback(port),
        };
        let mut admin = AdminConfig::default();
        if port == 0 || port == ADMIN_PORT {
            admin.listen.set_port(0);
        }
        Self { listen, admin: Some(admin), ..Self::default() }
    }

    /// Reads file, environment and flags, in rising precedence, and validates the result.
    ///
    /// # Errors
    /// Every problem of all three sources, each with file and line, variable or flag. A file that
    /// cannot be read, or is not YAML, is the only problem then.
    pub fn load(sources: &ConfigSources) -> Result<Self, ConfigError> {
        load::load(sources)
    }

    /// Judges a configuration that was put together by code.
    ///
    /// # Errors
    /// Every bound that is exceeded and every pair of values that contradict each other.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let nothing_written = ConfigNode::default();
        let mut problems = ConfigProblems::about(&nothing_written);
        self.check_all(&mut problems);
        problems.into_result((), None)
    }

    /// The effective configuration as YAML that [`Config::load`] reads back as the same value.
    pub fn to_yaml(&self) -> String {
        let mut tree = self.write();
        let orders = self.listen.iter().any(|one| one.tls() == Some(&ListenerTls::Auto));
        if let NodeValue::Group(entries) = &mut tree.value {
            // What says nothing about this server is refused, too.
            entries.retain(|entry| match entry.key.as_str() {
                "durability" | "storage" => self.data_dir.is_some(),
                "acme" => orders,
                _ => true,
            });
        }
        yaml::write(&tree).unwrap_or_else(|error| format!("# cannot be written: {error}\n"))
    }

    /// What an operator should hear at start although nothing is wrong: no persistence.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        if self.data_dir.is_none() {
            let text =
                "streams are kept in memory: nothing survives a restart; set data_dir to keep them";
            notices.push(text.to_owned());
        }
        let mut addresses = self.listen.iter().map(ListenerConfig::address);
        let open = addresses.find(|address| !address.ip().to_canonical().is_loopback());
        if let (Some(address), None) = (open, &self.auth) {
            notices.push(format!(
                "everybody who reaches {address} can read, write and delete every stream: there is no \
                 auth section; see docs/access.md"
            ));
        }
        notices
    }

    fn check_all(&self, problems: &mut ConfigProblems<'_>) {
        self.check("", problems);
        rules::check(self, problems);
    }
}

/// Both loopback addresses.
fn loopback(port: u16) -> Vec<ListenerConfig> {
    let both = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    both.map(|ip| SocketAddr::new(ip, port).into()).to_vec()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(1024)
}

/// Reads a duration as the configuration does, for the command line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_duration(text: &str) -> Result<HumanDuration, String> {
    <HumanDuration as reader::setting::ScalarSetting>::parse(text)
        .map_err(|why| format!("{}; {}", why.rule, why.fix))
}

/// The full path of the first key that has this last part: `limits.max_append` for `max_append`.
fn path_of_key(name: &str) -> Option<String> {
    let name = name.rsplit('.').next()?;
    let mut keys = Vec::new();
    Config::keys("", &mut keys);
    keys.into_iter().find(|key| key.rsplit(['.', ']']).next() == Some(name))
}

#[cfg(test)]
mod tests;
