//! What happened to a request on its way to an upstream.

use std::net::SocketAddr;
use std::sync::Arc;

use durable_streams_pingora::transport::BodyPace;

use crate::edge::connection::HalfClose;
use crate::edge::problem::EdgeProblem;

/// What happened to a request on its way to an upstream.
#[derive(Debug, Default)]
pub(crate) struct UpstreamAttempts {
    /// Servers tried so far, in order.
    pub(super) tried: Vec<SocketAddr>,
    pub(super) count: usize,
    /// The configured address of the server tried last.
    pub(super) authority: Option<Arc<str>>,
    /// Of an upgrade: what the tunnel's sockets share.
    pub(super) half_close: Option<Arc<HalfClose>>,
    /// How slowly the rest of the body may arrive; from its first piece on.
    pub(super) pace: Option<BodyPace>,
    /// The problem of the last failed attempt. It is reported in place of "no server is left" when the only server
    /// failed.
    pub(super) failure: Option<EdgeProblem>,
}

impl UpstreamAttempts {
    /// The server tried last.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.tried.last().copied()
    }

    /// Attempts made so far.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Lets the server tried last be tried again.
    pub(super) fn forget_last(&mut self) {
        self.tried.pop();
    }
}
