//! HTTP on Pingora: the stream routes of `durable-streams-pingora`, and a reverse proxy for everything else.
//!
//! Requests for streams on HTTP/1.1 meet no hook: `http1` serves them on the bare connection. HTTP/2, and requests for
//! an upstream, go through Pingora's proxy and the [`ProxyHttp`] hooks below. Both ways lead through `Edge::route` to one
//! reply, and through `Edge::deliver` to its one writer.
//!
//! This file is the table of contents: each hook is one call into the file that does the work.
//!
//! | file | what it does |
//! |---|---|
//! | `connection` | one accepted connection: head timeout, size, HTTP/2 detection, lingering close |
//! | `http1` | the requests of one HTTP/1.1 connection; streams without Pingora's proxy around them |
//! | `text` | the head of a response as HTTP/1.1 text |
//! | `admission` | limits on a request, timeouts of its session |
//! | `target` | the target and the host of a request, in one form |
//! | `allowed_hosts` | which hosts and origins a request may name, where that is restricted |
//! | `route` | stream, upstream or nowhere |
//! | `settings`, `control` | the settings of this moment, and their change while the server runs |
//! | `upstream` | the reverse proxy: peer choice, headers, retries, errors |
//! | `forwarded` | `X-Forwarded-*`, in and out |
//! | `forward_auth` | asks a service whether an upstream may get a request |
//! | `problem` | errors as problem+json |
//! | `record` | counts and logs a request when it ends |
//! | `access_log` | one event per request |
//! | `span` | one span per request, for tracing |

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::server::ShutdownWatch;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};

pub mod access_log;
pub(crate) mod admission;
mod allowed_hosts;
pub mod connection;
pub mod context;
mod control;
mod forward_auth;
pub mod forwarded;
pub mod http1;
pub mod options;
pub(crate) mod problem;
mod record;
pub(crate) mod request_id;
pub mod route;
pub(crate) mod settings;
mod span;
pub mod target;
mod text;
pub mod upstream;

pub use allowed_hosts::AllowedHosts;
pub use context::RequestContext;
pub use control::EdgeControl;
pub use durable_streams_pingora::{
    AccessCaching, AllowedOrigins, AuditLevel, BrowserRules, ClientShare, CorsPolicy,
    DurableStreams, StreamOptions, StreamsBackground,
};
pub(crate) use forward_auth::SubrequestClient;
pub use options::{EdgeOptions, HttpLimits};
pub use route::EdgeRoute;

use problem::EdgeProblem;
use record::RequestRecord;
use settings::{CurrentSettings, EdgeSettings};

use durable_streams_pingora::transport::{
    ClientAddress, ReplyWriter, Stopping, StreamReply, StreamRequest,
};

use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{Span, Tracer};
use durable_streams_engine::Engine;

/// Of a span: from the received body of a write to its durable commit, seconds.
const COMMIT_WAIT: &str = "durable_streams.commit_wait";

/// The server's HTTP side, mounted in Pingora as a [`ProxyHttp`]. Clones are the same edge.
#[derive(Clone)]
pub struct Edge {
    settings: Arc<CurrentSettings>,
    pub(crate) streams: DurableStreams,
    metrics: Arc<Metrics>,
    /// When it has begun, live readers end, and connections close after their current response.
    pub(crate) stopping: Stopping,
    pub(crate) tracer: Tracer,
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
        let settings = Arc::new(CurrentSettings::new(options)?);
        let metrics = Arc::default();
        Ok(Edge {
            settings,
            streams,
            metrics,
            stopping: shutdown.into(),
            tracer: Tracer::default(),
        })
    }

    /// Changes the edge and looks into it while it serves.
    pub fn control(&self) -> EdgeControl {
        EdgeControl::new(self.settings.clone(), self.metrics.clone(), &self.streams)
    }

    /// A request's head has been read.
    fn begin(&self, session: &mut ServerSession, ctx: &mut RequestContext) {
        let timed = connection::head_done(session);
        let settings = ctx.settings.clone();
        admission::configure(session, &settings.options.limits, timed, self.stopping.has_begun());
        ctx.client = forwarded::peer_addr(session);
        if forwarded::is_trusted(ctx.client, &settings.options.trusted_proxies)
            && let Some(id) = session.req_header().headers.get(&request_id::X_REQUEST_ID)
        {
            ctx.request_id.adopt(id);
        }
        span::begin(&self.tracer, session, ctx);
    }

    /// Decides the route of a request, and the reply to it. `None`: it is for an upstream.
    async fn route(
        &self,
        session: &mut ServerSession,
        ctx: &mut RequestContext,
    ) -> Option<StreamReply> {
        let reply = self.decide(session, ctx).await?;
        if !session.is_body_done() {
            // An early answer. What is left of the body would be taken for the next request; the connection closes
            // with lingering instead.
            session.set_keepalive(None);
        }
        Some(match ctx.hsts(session) {
            Some(hsts) => reply.with_field(header::STRICT_TRANSPORT_SECURITY, hsts),
            None => reply,
        })
    }

    async fn decide(
        &self,
        session: &mut ServerSession,
        ctx: &mut RequestContext,
    ) -> Option<StreamReply> {
        let options = &ctx.settings.options;
        // As they were sent, before the target takes the place of the host.
        if let Some(hosts) = options.allowed_hosts.as_ref()
            && let Some(problem) = hosts.refuse(session.req_header())
        {
            // Without the fields for browsers: a page that is not allowed learns nothing.
            return Some(StreamReply::refusal(problem.response(), problem.code));
        }
        let request = session.req_header_mut();
        let admitted = admission::check(request, &options.limits);
        let refused = match admitted.and_then(|()| target::normalize(request)) {
            Err(problem) => problem,
            Ok(()) => {
                let request = session.req_header();
                ctx.route = route::classify(request.uri.path(), options);
                match ctx.route {
                    EdgeRoute::Upstream(_) => {
                        let upstream = upstream::choose::upstream_of(ctx).ok()?;
                        let gate = upstream.gate()?;
                        // Boxed: other requests' futures keep no room for it.
                        return Box::pin(forward_auth::admit(gate, session, ctx)).await;
                    }
                    EdgeRoute::NotFound => route::nowhere(options),
                    EdgeRoute::Ambiguous => route::ambiguous(),
                    EdgeRoute::Stream => {
                        let request = StreamRequest::parse(&options.streams, request)
                            .sending_files(ctx.sends_files);
                        // Here the mode and the path are known, and the engine has not been called: the
                        // place to decide whether the client may do this.
                        ctx.span.text("durable_streams.mode", request.mode().name());
                        let reply = self.streams.reply(session, &options.streams, request);
                        return Some(reply.await);
                    }
                }
            }
        };
        Some(Edge::refusal(&refused, session, ctx))
    }

    /// The reply that reports a problem; on the stream route with the fields that browsers rely on.
    fn refusal(
        problem: &EdgeProblem,
        session: &ServerSession,
        ctx: &RequestContext,
    ) -> StreamReply {
        let reply = StreamReply::refusal(problem.response(), problem.code);
        let (request, streams) = (session.req_header(), &ctx.settings.options.streams);
        if !streams.matches(request.uri.path()) {
            return reply;
        }
        reply.with_cors(&streams.cors, request)
    }

    /// Writes a reply when what it waits for is done. Notes in `span` and `problem` what became of it.
    async fn deliver(
        &self,
        reply: &mut StreamReply,
        out: &mut impl ReplyWriter,
        span: &mut Span,
        problem: &mut Option<&'static str>,
    ) -> Result<()> {
        let expected = reply.problem();
        let next = reply.next_offset().filter(|_| span.is_recorded()).map(str::to_owned);
        let delivered = self.streams.deliver(reply, out).await;
        *problem = delivered.problem;
        if let Some(next) = next.filter(|_| delivered.problem == expected) {
            span.text("durable_streams.next_offset", &next);
        }
        if let Some(wait) = delivered.commit_wait {
            span.seconds(COMMIT_WAIT, wait);
        }
        delivered.result
    }

    /// Whether an address belongs to a proxy that is believed.
    pub(crate) fn trusts(&self, ip: std::net::IpAddr) -> bool {
        let settings = self.settings();
        forwarded::is_trusted(Some((ip, 0).into()), &settings.options.trusted_proxies)
    }

    /// The client that an address stands for, if it is one.
    pub(crate) fn client(&self, ip: std::net::IpAddr) -> Option<ClientAddress> {
        ClientAddress::new(ip, &self.settings().options.trusted_proxies)
    }

    /// The settings as they are now.
    fn settings(&self) -> Arc<EdgeSettings> {
        self.settings.load()
    }

    /// The limits of this moment.
    pub(crate) fn limits(&self) -> HttpLimits {
        self.settings.load().options.limits.clone()
    }

    /// The counters of the server around the stream routes.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::new(self.settings())
    }

    /// Pingora's default adds a compression module to every request; this server compresses by itself.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        self.begin(session, ctx);
        upstream::http10::prepare(session);
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<bool> {
        match self.route(session, ctx).await {
            None => Ok(false),
            Some(mut reply) => {
                let out = session.as_downstream_mut();
                self.deliver(&mut reply, out, &mut ctx.span, &mut ctx.problem).await.map(|()| true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<Box<HttpPeer>> {
        upstream::choose::choose(session, ctx)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        upstream::headers::request(session, upstream_request, ctx)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        upstream::body::arrived(session, body, end_of_stream, ctx)
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
        let written = session.as_downstream().written();
        RequestRecord::of(session, ctx).end(self.metrics(), &written, error);
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
