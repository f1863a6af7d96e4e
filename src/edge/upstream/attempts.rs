//! What happened to a request on its way to an upstream.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::edge::problem::EdgeProblem;

/// What happened to a request on its way to an upstream.
#[derive(Debug, Default)]
pub(crate) struct UpstreamAttempts {
    /// Servers asked so far, in order.
    pub(super) tried: Vec<SocketAddr>,
    pub(super) count: usize,
    /// The configured address of the server asked last.
    pub(super) authority: Option<Arc<str>>,
    /// What the last failed attempt would be answered with: nobody is told that no server is
    /// left, when the reason is that the only one failed.
    pub(super) failure: Option<EdgeProblem>,
}

impl UpstreamAttempts {
    /// The server asked last.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.tried.last().copied()
    }

    /// Attempts made so far.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Lets the server asked last be asked again.
    pub(super) fn forget_last(&mut self) {
        self.tried.pop();
    }
}
