//! HTTP on Pingora: the stream routes, and a reverse proxy for everything else.
//!
//! This file is the table of contents: each [`ProxyHttp`] hook is one call into the file that
//! does the work. What a request is, [`route::classify`] decides once, in `request_filter`:
//! streams are answered there and never meet the hooks below it.
//!
//! | file | what it does |
//! |---|---|
//! | `connection` | one accepted connection: head timeout, size, HTTP/2 detection, lingering close |
//! | `http1` | the requests of one HTTP/1.1 connection; streams without Pingora's proxy around them |
//! | `admission` | limits on a request, timeouts of its session |
//! | `route` | stream, upstream or nowhere |
//! | `live` | the settings in force, changed while the server runs |
//! | `stream` | answers the stream routes |
//! | `upstream` | the reverse proxy: peer choice, headers, retries, errors |
//! | `forwarded` | `X-Forwarded-*`, in and out |
//! | `problem` | errors as problem+json |
//! | `access_log` | one event per request |
//! | `span` | one span per request, for tracing |

use std::sync::Arc;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::server::ShutdownWatch;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};

pub mod access_log;
pub(crate) mod admission;
pub mod connection;
pub mod context;
pub mod forwarded;
pub(crate) mod http1;
pub(crate) mod live;
pub mod options;
pub(crate) mod problem;
pub(crate) mod request_id;
pub mod route;
mod span;
pub mod stream;
pub mod upstream;

pub use context::RequestContext;
pub use live::EdgeControl;
pub use options::{EdgeOptions, HttpLimits};
pub use route::Route;
pub use stream::{Cors, DurableStreams, StreamOptions, StreamsBackground};

use live::Live;
use stream::{Acceptance, Events, Handled};

use crate::telemetry::metrics::{Metrics, Traffic};
use crate::telemetry::trace::Tracer;
use durable_streams_engine::Engine;
use durable_streams_protocol::Response;

/// The server's HTTP side, mounted in Pingora as a [`ProxyHttp`]. Clones are the same edge.
#[derive(Clone)]
pub struct Edge {
    live: Arc<Live>,
    pub(crate) streams: DurableStreams,
    /// Turns `true` when a stop begins: live readers say goodbye, connections close after their
    /// current response.
    pub(crate) shutdown: ShutdownWatch,
    pub(crate) tracer: Tracer,
}

/// How far a request was brought.
enum Answer {
    /// It is answered.
    Given,
    /// The head of a live read was sent; its events are still to be.
    Live(Events),
    /// The answer, not written, to be withheld until it is true.
    Accepted(Response, Acceptance),
    /// It is for an upstream.
    Upstream,
}

impl Edge {
    /// An edge that serves the streams of `engine` and watches `shutdown` for the start of a stop.
    ///
    /// # Errors
    /// An upstream that cannot be used: no servers, an unreadable CA file.
    pub fn new(
        options: EdgeOptions,
        engine: Arc<Engine>,
        shutdown: ShutdownWatch,
    ) -> Result<Self, upstream::UpstreamError> {
        let streams = DurableStreams::new(engine, options.streams.clone(), shutdown.clone());
        let live = Arc::new(Live::new(options)?);
        Ok(Edge { live, streams, shutdown, tracer: Tracer::default() })
    }

    /// Changes the edge and looks into it while it serves.
    pub fn control(&self) -> EdgeControl {
        EdgeControl::new(self.live.clone(), &self.streams)
    }

    /// A request's head has been read.
    fn begin(&self, session: &mut ServerSession, ctx: &mut RequestContext) {
        let timed = connection::head_done(session);
        let settings = ctx.settings.clone();
        admission::configure(session, &settings.options.limits, timed, *self.shutdown.borrow());
        forwarded::note_peer(session, &settings.options.trusted_proxies, ctx);
        span::begin(&self.tracer, session, ctx);
    }

    /// Answers what is not for an upstream, up to the events of a live read.
    async fn answer(
        &self,
        session: &mut ServerSession,
        ctx: &mut RequestContext,
    ) -> Result<Answer> {
        let request = session.req_header();
        let options = &ctx.settings.options;
        if let Err(problem) = admission::check(request, &options.limits) {
            return self.refuse(problem, session, ctx).await;
        }
        ctx.route = route::classify(request.uri.path(), options);
        match ctx.route {
            Route::Stream => Ok(match self.streams.handle_in(session, &mut ctx.span).await? {
                Handled::Live(events) => Answer::Live(events),
                Handled::Accepted(response, acceptance) => Answer::Accepted(response, acceptance),
                Handled::Answered(answered) => {
                    ctx.outcome.problem = answered.problem;
                    Answer::Given
                }
            }),
            Route::Upstream(_) => Ok(Answer::Upstream),
            Route::NotFound => {
                let nowhere = route::nowhere(options);
                self.refuse(nowhere, session, ctx).await
            }
            Route::Ambiguous => self.refuse(route::ambiguous(), session, ctx).await,
        }
    }

    /// A request is over; `error` is why it ended early.
    fn end(&self, session: &ServerSession, error: Option<&Error>, ctx: &mut RequestContext) {
        count(self.metrics(), session, ctx);
        access_log::emit(session, error, ctx);
        span::end(session, error, ctx);
    }

    /// Answers with a problem; on the stream route with the headers that its clients rely on.
    async fn refuse(
        &self,
        problem: problem::Problem,
        session: &mut ServerSession,
        ctx: &mut RequestContext,
    ) -> Result<Answer> {
        if !self.streams.matches(session.req_header().uri.path()) {
            problem.refuse(session, ctx).await?;
            return Ok(Answer::Given);
        }
        ctx.outcome.problem = Some(problem.code);
        self.streams.refuse(session, &problem).await?;
        Ok(Answer::Given)
    }

    /// The limits in force.
    pub(crate) fn limits(&self) -> HttpLimits {
        self.live.settings().options.limits.clone()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.streams.metrics()
    }
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::new(self.live.settings())
    }

    /// Pingora's default adds a compression module to every request; ours need none.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        self.begin(session, ctx);
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<bool> {
        match self.answer(session, ctx).await? {
            // Only a connection that `http1` serves withholds, and that does not come here.
            Answer::Given | Answer::Accepted(..) => Ok(true),
            Answer::Upstream => Ok(false),
            Answer::Live(events) => self.streams.follow(session, events).await.map(|_| true),
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<Box<HttpPeer>> {
        upstream::choose(session, ctx)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        upstream::headers::request(session, upstream_request, ctx)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        upstream::headers::response(session, upstream_response, ctx)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        ctx: &mut RequestContext,
        error: Box<Error>,
    ) -> Box<Error> {
        upstream::retry::after_connect(peer, ctx, error)
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        upstream::retry::after_send(peer, session, ctx, error, reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut RequestContext,
    ) -> FailToProxy {
        upstream::failure::answer(session, error, ctx).await
    }

    async fn logging(
        &self,
        session: &mut Session,
        error: Option<&Error>,
        ctx: &mut RequestContext,
    ) {
        self.end(session, error, ctx);
        connection::request_done(session);
    }

    /// `upstream::retry` and the access log say it, in the server's own words.
    fn suppress_error_log(&self, _: &Session, _: &RequestContext, _: &Error) -> bool {
        true
    }

    /// As above, for attempts that are made again.
    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &RequestContext,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// Counts a finished request. Stream requests were counted by [`DurableStreams`].
fn count(metrics: &Metrics, session: &ServerSession, ctx: &RequestContext) {
    let status = session.response_written().map(|response| response.status);
    match (ctx.route, upstream::of(ctx)) {
        (Route::Stream, _) => return,
        (Route::Upstream(_), Ok(upstream)) => upstream.answered(status),
        (Route::Upstream(_) | Route::NotFound | Route::Ambiguous, _) => metrics.unrouted(status),
    }
    metrics.bytes(Traffic::Proxy, session.body_bytes_read(), session.body_bytes_sent());
}
