//! Settings of the stream routes.

use std::time::Duration;

use durable_streams_protocol::MAX_PATH_BYTES;
use ipnet::IpNet;

use crate::{browser::BrowserRules, clients::ClientShare, cors::CorsPolicy, path::is_under};

/// Settings of the stream routes.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The URL path under which streams live, without a slash at the end.
    pub route: String,
    /// The longest stream path, decoded bytes; at most [`MAX_PATH_BYTES`].
    pub max_path: usize,
    /// How long a long-poll waits for news.
    pub long_poll_timeout: Duration,
    /// How long an SSE connection lives; a tenth more or less at random, so that clients that came
    /// together do not come back together.
    pub sse_reconnect_interval: Duration,
    /// How long an SSE connection may be silent.
    pub sse_keep_alive: Duration,
    /// The longest pause inside a request body. HTTP/1 has its session's read timeout, too.
    pub body_timeout: Duration,
    /// The slowest that a request body may arrive, bytes in a second; 0 is as slow as `body_timeout` lets it. What
    /// arrives faster makes up for pauses, for `body_timeout` at most.
    pub min_body_rate: usize,
    /// Bytes of response bodies in memory that clients have not taken yet, over all of them; more wait. Read once, by
    /// [`DurableStreams::new`](crate::DurableStreams::new).
    pub max_inflight_read: usize,
    /// The part of `max_inflight_read`, and of the engine's limits on live readers and on bytes of appends, that one
    /// client address may hold.
    pub client_share: ClientShare,
    /// Which browser pages may read the answers.
    pub cors: CorsPolicy,
    /// What browsers may do with a stream that they open as a page.
    pub browser: BrowserRules,
    /// Peers whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether answers say how long the server took (`Server-Timing`).
    pub server_timing: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            route: "/v1/stream".to_owned(),
            max_path: MAX_PATH_BYTES,
            long_poll_timeout: Duration::from_secs(30),
            sse_reconnect_interval: Duration::from_secs(60),
            sse_keep_alive: Duration::from_secs(15),
            body_timeout: Duration::from_secs(30),
            min_body_rate: 1024,
            max_inflight_read: 256 << 20,
            client_share: ClientShare::default(),
            cors: CorsPolicy::default(),
            browser: BrowserRules::default(),
            trusted_proxies: Vec::new(),
            server_timing: false,
        }
    }
}

impl StreamOptions {
    /// Whether a URL path is the route or lies below it.
    pub fn matches(&self, path: &str) -> bool {
        is_under(path, &self.route)
    }
}
