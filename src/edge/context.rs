//! What one request carries through the hooks.
//!
//! Built for every request, streams included, so it allocates nothing until somebody asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::live::Settings;
use super::request_id::RequestId;
use super::route::Route;
use super::upstream::Attempt;
use crate::telemetry::trace::Span;

/// The `CTX` of [`Edge`](super::Edge).
#[derive(Debug)]
pub struct RequestContext {
    /// In force when the request began; kept to its end, whatever is changed meanwhile.
    pub(crate) settings: Arc<Settings>,
    /// Decided once, in `Edge::route`.
    pub(crate) route: Route,
    pub(crate) timing: Timing,
    pub(crate) request_id: RequestId,
    /// Reverse proxy only: where the request went and what was tried.
    pub(crate) attempt: Attempt,
    /// The address the client's connection comes from.
    pub(crate) client: Option<SocketAddr>,
    /// The code of the problem that the response reports, if it does.
    pub(crate) problem: Option<&'static str>,
    pub(crate) span: Span,
}

/// When things happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    started: Instant,
}

impl Timing {
    /// Time since the request head was read.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl RequestContext {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        RequestContext {
            settings,
            route: Route::NotFound,
            timing: Timing { started: Instant::now() },
            request_id: RequestId::default(),
            attempt: Attempt::default(),
            client: None,
            problem: None,
            span: Span::default(),
        }
    }
}
