//! The reverse proxy: everything that is not a stream goes to an upstream.
//!
//! Built from Pingora's own parts: `pingora-load-balancing` picks a server and checks its health,
//! the proxy crate pools connections and moves bodies both ways as they arrive.
//!
//! Decisions
//! - Names are resolved in the background, every 30 s. A name that does not resolve at start is a
//!   warning: streams must not wait for the DNS of an upstream.
//! - A server its health checks call dead gets nothing. All dead: 502 at once.
//! - Connecting is tried again elsewhere for any request, since nothing was sent. After sending,
//!   only idempotent requests without a body are, and never after a timeout (`retry`).
//! - A response that breaks off breaks off for the client too; it never ends cleanly (`failure`).

pub(crate) mod attempts;
mod balancer;
pub(crate) mod body;
mod ca;
pub(crate) mod choose;
pub(crate) mod failure;
pub(crate) mod headers;
mod health;
pub(crate) mod http10;
pub(crate) mod options;
pub(crate) mod retry;
pub(crate) mod set;
mod upgrade;

pub use options::{
    Balance, ForwardAuthOptions, HealthCheck, HealthProbe, HostHeader, UpstreamOptions,
    UpstreamServer, UpstreamTls,
};
pub use set::UpstreamError;
