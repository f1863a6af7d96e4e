//! What operators can see: the admin listener, traces, and timings in responses.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::tracing::TracingConfig;
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
    }
}
