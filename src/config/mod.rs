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

use std::net::{IpAddr, SocketAddr};

use self::keys::root::loopback;
use self::keys::tracing::CAN_TRACE;
use self::reader::error::ConfigProblems;
use self::reader::node::{ConfigNode, NodeValue};
use self::reader::setting::{ScalarSetting, Setting};
use self::reader::{load, yaml};
use crate::edge::AllowedHosts;

pub use self::changes::ConfigChange;
pub use self::keys::access_words::{KeysUrl, OperationWord, PatternText, TemplateText, operations};
pub use self::keys::auth::{
    AccessCacheConfig, AlgorithmName, AuditConfig, AuthConfig, ClaimPointer, CookieName,
    GrantConfig, IssuerConfig, IssuerName, ScopeConfig,
};
pub use self::keys::browser::{BrowserConfig, SecurityPolicy};
pub use self::keys::client_certificates::CertificateConfig;
pub use self::keys::cors::CorsConfig;
pub use self::keys::forward_auth::{ForwardAuthConfig, UpstreamAuthConfig};
pub use self::keys::lifecycle::LifecycleConfig;
pub use self::keys::limits::LimitsConfig;
pub use self::keys::listen::{
    AcmeChallenge, AcmeConfig, AcmeDirectory, AcmeExternalAccount, CertificatePair,
    ClientCertificate, DEFAULT_PORT, ListenerConfig, ListenerGroup, ListenerTls, TlsFiles,
};
pub use self::keys::log::{LogConfig, LogFormat, LogLevel};
pub use self::keys::quotas::{
    PathQuotaConfig, PathRateConfig, PrefixText, QuotasConfig, RateConfig, RatesConfig,
    ReaderQuotaConfig, StoredQuotaConfig, TenantQuotaConfig, TenantText,
};
pub use self::keys::retention::{GlobText, RetentionConfig};
pub use self::keys::root::Config;
pub use self::keys::storage::{DurabilityConfig, SegmentsConfig, StorageConfig};
pub use self::keys::subscriptions::SubscriptionsConfig;
pub use self::keys::telemetry::{ADMIN_PORT, AdminConfig, TelemetryConfig, UsageConfig};
pub use self::keys::tier::{TierConfig, TierEndpoint};
pub use self::keys::tracing::{TraceEndpoint, TraceHeader, TraceRatio, TracingConfig};
pub use self::keys::upstream::{
    BalanceConfig, HealthCheckConfig, HostHeaderConfig, UpstreamConfig, UpstreamTlsConfig,
};
pub use self::net::{CorsOrigin, HostPattern, PublicUrl, ServerUrl};
pub use self::path::{CheckPath, PathPrefix, StreamRoute};
pub use self::reader::error::ConfigError;
pub use self::reader::load::{ConfigFlag, ConfigSources, ENVIRONMENT_PREFIX};
pub use self::units::{ByteSize, HumanDuration};

impl Config {
    /// What `dev` runs with: the defaults, in memory, on `port` of both loopback addresses or of
    /// `host`, with the admin listener beside it. Port 0 lets the system choose. Requests may name the
    /// hosts of this machine, `host` and those in `allowed`; `None` for all.
    pub fn dev(host: Option<IpAddr>, port: u16, allowed: Option<Vec<HostPattern>>) -> Self {
        let listen = match host {
            Some(ip) => vec![SocketAddr::new(ip, port).into()],
            None => loopback(port),
        };
        let mut admin = AdminConfig { page: true, ..AdminConfig::default() };
        if port == 0 || port == ADMIN_PORT {
            admin.listen.set_port(0);
        }
        let allowed_hosts = allowed.map(|mut allowed| {
            allowed.extend(host.filter(|ip| !ip.is_unspecified()).map(HostPattern::from));
            allowed
        });
        Self { listen, admin: Some(admin), allowed_hosts, ..Self::default() }
    }

    /// The hosts that requests may name; `None` for all.
    pub(crate) fn allowed_hosts(&self) -> Option<AllowedHosts> {
        let hosts = self.allowed_hosts.as_ref()?;
        Some(AllowedHosts::new(hosts.iter().map(|host| host.as_str().to_owned())))
    }

    /// Reads file, environment and flags, in rising precedence, and validates the result.
    ///
    /// # Errors
    /// Every problem of all three sources, each with file and line, variable or flag. A file that
    /// cannot be read, or is not YAML, is the only problem then.
    pub fn load(sources: &ConfigSources) -> Result<Self, ConfigError> {
        load::load(sources, CAN_TRACE)
    }

    /// Judges a configuration that was put together by code.
    ///
    /// # Errors
    /// Every bound that is exceeded and every pair of values that contradict each other.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let nothing_written = ConfigNode::default();
        let mut problems = ConfigProblems::about(&nothing_written, Vec::new());
        rules::check_all(self, CAN_TRACE, &mut problems);
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
}

/// Reads a host or `*.` and a domain as the configuration does, for the command line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_host(text: &str) -> Result<HostPattern, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    <HostPattern as reader::setting::ScalarSetting>::parse(bare)
        .map_err(|why| format!("{}; {}", why.rule, why.fix))
}

/// Reads a duration as the configuration does, for the command line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_duration(text: &str) -> Result<HumanDuration, String> {
    HumanDuration::parse(text).map_err(|why| format!("{}; {}", why.rule, why.fix))
}

#[cfg(test)]
mod secret_tests;
#[cfg(test)]
mod tests;
