//! Settings of the edge, with their defaults, units and reasons.

use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;

use super::allowed_hosts::AllowedHosts;
use super::upstream::options::UpstreamOptions;
use durable_streams_pingora::{ClientShare, StreamOptions};

/// Everything [`Edge`](super::Edge) needs to know at start.
#[derive(Debug, Clone)]
pub struct EdgeOptions {
    /// How streams are served.
    pub streams: StreamOptions,
    /// Where everything else goes. Empty: 404 that says so.
    pub upstreams: Vec<UpstreamOptions>,
    /// Peers whose `X-Forwarded-*` and `X-Request-Id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Hosts that a request's `Host` and `Origin` may name. Default `None`, all.
    pub allowed_hosts: Option<AllowedHosts>,
    /// Bounds on what a client may send, and how slowly.
    pub limits: HttpLimits,
    /// Emit one `access` event per request. Default yes.
    pub access_log: bool,
    /// `Strict-Transport-Security` of every response over TLS (RFC 6797).
    pub hsts: Option<HeaderValue>,
}

impl Default for EdgeOptions {
    fn default() -> Self {
        EdgeOptions {
            streams: StreamOptions::default(),
            upstreams: Vec::new(),
            trusted_proxies: Vec::new(),
            allowed_hosts: None,
            limits: HttpLimits::DEFAULT,
            access_log: true,
            hsts: None,
        }
    }
}

/// Bounds per connection and per request.
///
/// Pingora's own ceilings stay in force above these: 1 MiB and 256 fields for an HTTP/1 request
/// head (400), 8 KiB more or less for a URI that `http` refuses to parse.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// Connections open at once over all listeners; one more is answered 503. Default 65,536.
    pub max_connections: usize,
    /// The part of `max_connections` that one client address may have. Default a quarter.
    pub client_share: ClientShare,
    /// The most that the kernel keeps of what is sent on a connection and not acknowledged yet, bytes; read when the
    /// server binds. Default `None`: the system goes up to 4 MiB as the client acknowledges more in a round trip. What waits
    /// unsent is bounded anyway, on Linux.
    pub send_buffer: Option<usize>,
    /// Bytes of path and query; more is 414. Default 8 KiB.
    pub max_uri: usize,
    /// Header fields in one request; more is 431. Default 100.
    pub max_headers: usize,
    /// Bytes of all field names and values in one request; more is 431. Default 16 KiB.
    pub max_header_bytes: usize,
    /// From the first byte of a request (or the accept) to the end of its head; then 408. Over HTTP/2 for the rest of
    /// a frame or header block; then the connection ends. Default 10 s.
    pub header_timeout: Duration,
    /// How long a connection may stay silent between requests. Default 75 s, longer than the usual 60 s of load balancers in front.
    pub keepalive_timeout: Duration,
    /// The longest silence inside a request body. Default 30 s.
    pub body_timeout: Duration,
    /// The longest a single write to the client may take. Default 30 s.
    pub write_timeout: Duration,
    /// Slowest acceptable reader in bytes per second (a whole write is judged, at least one
    /// second). Takes the place of `write_timeout` when set. Default off.
    pub min_send_rate: Option<usize>,
    /// HTTP/2 streams a client may have open on one connection. Default 256: a browser has one for all tabs of an origin.
    pub h2_max_streams: u32,
    /// HTTP/2 streams a client may open and reset before the server has dealt with them
    /// ("rapid reset", CVE-2023-44487); one more ends the connection. Default 64.
    pub h2_max_pending_resets: usize,
}

impl HttpLimits {
    /// The defaults. The server's configuration takes its own from here.
    pub const DEFAULT: Self = HttpLimits {
        max_connections: 65_536,
        client_share: ClientShare::DEFAULT,
        send_buffer: None,
        max_uri: 8 * 1024,
        max_headers: 100,
        max_header_bytes: 16 * 1024,
        header_timeout: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(75),
        body_timeout: Duration::from_secs(30),
        write_timeout: Duration::from_secs(30),
        min_send_rate: None,
        h2_max_streams: 256,
        h2_max_pending_resets: 64,
    };
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
