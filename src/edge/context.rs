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
    /// Decided once, in `request_filter`.
    pub(crate) route: Route,
    pub(crate) timing: Timing,
    pub(crate) request_id: RequestId,
    /// Reverse proxy only: where the request went and what was tried.
    pub(crate) attempt: Attempt,
    pub(crate) outcome: Outcome,
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

/// How the request ended, for the access log.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The code of the problem that was answered, if one was.
    pub(crate) problem: Option<&'static str>,
    /// The address the client's connection comes from.
    pub(crate) client: Option<SocketAddr>,
}

impl RequestContext {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        RequestContext {
            settings,
            route: Route::NotFound,
            timing: Timing { started: Instant::now() },
            request_id: RequestId::default(),
            attempt: Attempt::default(),
            outcome: Outcome::default(),
            span: Span::default(),
        }
    }
}
