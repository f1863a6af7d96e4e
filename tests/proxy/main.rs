//! The reverse proxy and the server around it, over real sockets against real upstreams.

#![expect(unreachable_pub, reason = "a test binary exports nothing")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper fails its test")]

mod access_log;
mod balancing;
mod bodies;
mod chunks;
mod forward_auth;
mod forwarding;
mod h2;
mod h2_timeouts;
mod http10;
mod hygiene;
mod recorder;
mod routes;
mod signals;
mod stop;
#[path = "../support/mod.rs"]
mod support;
mod targets;
mod tls;
mod uploads;
mod websocket;
