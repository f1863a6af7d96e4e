//! The accounting of a request: counters, the access log, the span. Once for each request, at its end.

use std::sync::Arc;

use pingora::Error;
use pingora::protocols::http::ServerSession;

use super::access_log::AccessEntry;
use super::context::RequestContext;
use super::upstream::choose::upstream_of;
use super::upstream::set::Upstream;
use super::{route::EdgeRoute, span};
use crate::telemetry::Metrics;
use crate::telemetry::trace::Span;
use durable_streams_pingora::transport::WrittenReply;

/// What is known of a request when its session is no longer needed.
pub(super) struct RequestRecord {
    pub(super) span: Span,
    /// The code of the problem that the response reports, if it does.
    pub(super) problem: Option<&'static str>,
    /// `None` when there is no access log.
    entry: Option<AccessEntry>,
    counted: CountedBy,
}

/// Whose counters a request adds to.
enum CountedBy {
    /// Those of the stream routes, which count by themselves.
    Streams,
    Upstream(Arc<Upstream>),
    Unrouted,
}

impl RequestRecord {
    pub(super) fn of(session: &ServerSession, ctx: &mut RequestContext) -> Self {
        let counted = match ctx.route {
            EdgeRoute::Stream => CountedBy::Streams,
            EdgeRoute::Upstream(_) => {
                upstream_of(ctx).map_or(CountedBy::Unrouted, CountedBy::Upstream)
            }
            EdgeRoute::NotFound | EdgeRoute::Ambiguous => CountedBy::Unrouted,
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
    pub(super) fn end(self, metrics: &Metrics, written: &WrittenReply, error: Option<&Error>) {
        match &self.counted {
            CountedBy::Streams => {}
            CountedBy::Upstream(upstream) => upstream.answered(written.status),
            CountedBy::Unrouted => metrics.unrouted(written.status),
        }
        if !matches!(self.counted, CountedBy::Streams) {
            metrics.proxied_bytes(written);
        }
        if let Some(entry) = self.entry {
            entry.emit(written, self.problem, error);
        }
        span::end(self.span, written, self.problem, error);
    }
}
