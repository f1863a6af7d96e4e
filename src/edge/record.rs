//! The accounting of a request: counters, the access log, the span. Once for each request, at its end.

use std::sync::Arc;

use pingora::Error;
use pingora::protocols::http::ServerSession;

use super::access_log::AccessEntry;
use super::context::RequestContext;
use super::stream::Written;
use super::upstream::{self, Upstream};
use super::{Route, span};
use crate::telemetry::metrics::{Metrics, Traffic};
use crate::telemetry::trace::Span;

/// What is known of a request when its session is no longer needed.
pub(super) struct RequestRecord {
    pub(super) span: Span,
    /// The code of the problem that the response reports, if it does.
    pub(super) problem: Option<&'static str>,
    /// `None` when there is no access log.
    entry: Option<AccessEntry>,
    counted: Counted,
}

/// Whose counters a request adds to.
enum Counted {
    /// Those of the stream routes, which count by themselves.
    Streams,
    Upstream(Arc<Upstream>),
    Unrouted,
}

impl RequestRecord {
    pub(super) fn of(session: &ServerSession, ctx: &mut RequestContext) -> Self {
        let counted = match (ctx.route, upstream::of(ctx)) {
            (Route::Stream, _) => Counted::Streams,
            (Route::Upstream(_), Ok(upstream)) => Counted::Upstream(upstream),
            (Route::Upstream(_) | Route::NotFound | Route::Ambiguous, _) => Counted::Unrouted,
        };
        span::describe(session, ctx);
        RequestRecord {
            span: std::mem::take(&mut ctx.span),
            problem: ctx.problem,
            entry: AccessEntry::of(session, ctx),
            counted,
        }
    }

    /// Counts and logs the request. `error`: why it ended early, if it did.
    pub(super) fn end(self, metrics: &Metrics, written: &Written, error: Option<&Error>) {
        match &self.counted {
            Counted::Streams => {}
            Counted::Upstream(upstream) => upstream.answered(written.status),
            Counted::Unrouted => metrics.unrouted(written.status),
        }
        if !matches!(self.counted, Counted::Streams) {
            metrics.bytes(Traffic::Proxy, written.received, written.sent);
        }
        if let Some(entry) = self.entry {
            entry.emit(written, self.problem, error);
        }
        span::end(self.span, written, self.problem, error);
    }
}
