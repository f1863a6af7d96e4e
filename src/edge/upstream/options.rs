//! Settings of an upstream, with their defaults, units and reasons.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, StatusCode};

pub use crate::edge::forward_auth::ForwardAuthOptions;

/// One upstream: a path prefix and the servers behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamOptions {
    /// For messages and logs.
    pub name: String,
    /// Requests at or below this path come here; the longest prefix wins. Default `/`.
    pub prefix: String,
    /// Take the prefix off before forwarding. Default no.
    pub strip_prefix: bool,
    /// At least one.
    pub servers: Vec<UpstreamServer>,
    /// How a server is chosen. Default round robin.
    pub balance: Balance,
    /// Active checks. Default none: every server counts as healthy.
    pub health: Option<HealthCheck>,
    /// Speak TLS to the servers. Default cleartext.
    pub tls: Option<UpstreamTls>,
    /// Speak HTTP/2: negotiated over TLS, presumed on cleartext. Default HTTP/1.1.
    pub http2: bool,
    /// Requests at once on one HTTP/2 connection. Default 100.
    pub h2_streams: usize,
    /// The `Host` the servers see. Default the client's.
    pub host: HostHeader,
    /// TCP and TLS together; then 504. Default 5 s.
    pub connect_timeout: Duration,
    /// The longest silence before and inside a response; 504 before it. Default 60 s.
    pub read_timeout: Duration,
    /// In place of `read_timeout` for upgraded connections and requests that accept
    /// `text/event-stream`. Default 1 h.
    pub live_timeout: Duration,
    /// The longest a write to the server may take. Default 60 s.
    pub write_timeout: Duration,
    /// How long an unused connection is kept for the next request. Default 60 s. A server that
    /// closes sooner is noticed, but a POST sent in that very moment is answered 502 and not sent
    /// again: keep this below the servers' own keep-alive time where they let you.
    pub idle_timeout: Duration,
    /// Further attempts after a failed one. Default 1.
    pub retries: usize,
    /// The service that decides about each request. Default none.
    pub forward_auth: Option<ForwardAuthOptions>,
}

impl Default for UpstreamOptions {
    fn default() -> Self {
        UpstreamOptions {
            name: "upstream".to_owned(),
            prefix: "/".to_owned(),
            strip_prefix: false,
            servers: Vec::new(),
            balance: Balance::RoundRobin,
            health: None,
            tls: None,
            http2: false,
            h2_streams: 100,
            host: HostHeader::Preserve,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            live_timeout: Duration::from_secs(3600),
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            retries: 1,
            forward_auth: None,
        }
    }
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamServer {
    /// `host:port`; a name with several addresses counts as several servers.
    pub address: String,
    /// Its share of the requests, relative to the others. At least 1.
    pub weight: usize,
}

impl UpstreamServer {
    /// A server of weight 1.
    pub fn new(address: impl Into<String>) -> Self {
        UpstreamServer { address: address.into(), weight: 1 }
    }
}

/// How a server is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// By the client's address: one client stays with one server (ketama).
    ClientAddress,
    /// By path: one path stays with one server (ketama).
    Path,
    /// By the value of a request header; requests without it by client address (ketama).
    Header(HeaderName),
}

impl Balance {
    pub(super) fn is_consistent(&self) -> bool {
        *self != Balance::RoundRobin
    }
}

/// The `Host` field of forwarded requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client sent.
    Preserve,
    /// The address of the server that was chosen.
    Server,
    /// Always this.
    Rewrite(String),
}

/// TLS to the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name to ask for and to verify. Default the host part of the server's address.
    pub server_name: Option<String>,
    /// Verify the certificate. Turning it off is for test machines. Default yes.
    pub verify: bool,
    /// PEM file of the authorities to trust, in place of the system's.
    pub ca: Option<PathBuf>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        UpstreamTls { server_name: None, verify: true, ca: None }
    }
}

/// Active health checks of every server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What a check sends.
    pub probe: HealthProbe,
    /// Time between two rounds. Default 5 s.
    pub interval: Duration,
    /// Longest wait for an answer. Default 1 s.
    pub timeout: Duration,
    /// Failures in a row that take a server out. Default 3.
    pub failures: usize,
    /// Successes in a row that bring it back. Default 1.
    pub successes: usize,
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            probe: HealthProbe::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            failures: 3,
            successes: 1,
        }
    }
}

/// What a health check sends, and what it expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthProbe {
    /// A connection is accepted (and TLS, where it is spoken, agreed on).
    Tcp,
    /// `GET` of `path` is answered with `status`.
    Http {
        /// The path, with a query if it needs one.
        path: String,
        /// The one good status.
        status: StatusCode,
    },
}
