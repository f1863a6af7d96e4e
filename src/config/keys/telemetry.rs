//! What operators can see: the admin listener, traces, and timings in responses.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use durable_streams_pingora::{MAX_PREFIXES, MAX_TENANTS};

use super::quotas::PrefixText;
use super::tracing::TracingConfig;
use crate::config::reader::error::ConfigProblems;
use crate::config::reader::setting::settings;

/// Port of the admin listener when it is on and none is named.
pub const ADMIN_PORT: u16 = 4438;

settings! {
    /// The admin listener: health, readiness, metrics, the administration API and its page.
    pub struct AdminConfig {
        /// Its own address, so that it can stay private.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT));
        /// Whether it has the administration API. Without the key: where there is an `auth` section, or on loopback.
        api: Option<bool> = None;
        /// Whether browsers get a page at `/`. It works through the administration API. `dev` has it on.
        page: bool = false;
        /// An existing directory in which the administration API makes backups; without it, it makes none.
        backups: Option<PathBuf> = None;
    }
}

settings! {
    /// Traces and timings, beside logs and metrics.
    pub struct TelemetryConfig {
        /// Whether responses of streams carry `Server-Timing`.
        server_timing: bool = false;
        /// Traces for OpenTelemetry; off by default.
        tracing: Option<TracingConfig> = None;
        /// Requests by prefix and tenant, in the administration API; off by default.
        usage: Option<UsageConfig> = None;
    }
}

settings! {
    /// Which requests are counted by themselves.
    pub struct UsageConfig {
        /// Prefixes of paths, of streams without a tenant; at most 64.
        prefixes: Vec<PrefixText> = Vec::new();
        /// How many tenants, the first that come.
        tenants: usize = 0 => 0, MAX_TENANTS;
    }
}

/// Reports more prefixes than are counted.
pub(in crate::config) fn check_usage(usage: &UsageConfig, problems: &mut ConfigProblems<'_>) {
    if usage.prefixes.len() > MAX_PREFIXES {
        let rule =
            format!("names {} prefixes, and {MAX_PREFIXES} can be counted", usage.prefixes.len());
        problems.broken(&[("telemetry.usage.prefixes", "")], rule, "remove some");
    }
}
