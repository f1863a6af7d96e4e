//! The stream routes: one request in, one response out.
//!
//! One file because its parts are read together.
//!
//! [`DurableStreams`] is all that another Pingora application needs: ask [`matches`](DurableStreams::matches)
//! in `request_filter`, and let [`handle`](DurableStreams::handle) answer.
//!
//! | file | what it does |
//! |---|---|
//! | `mount` | the work beside the requests |
//! | `body` | receives a request body, bounded |
//! | `read` | catch-up and long-poll |
//! | `events` | SSE |
//! | `control` | subscriptions, under the reserved segment |
//! | `respond` | the one place that writes to a session |
//! | `compress` | content encoding of catch-up responses |
//! | `cors` | which browser pages may read the answers |

mod body;
mod compress;
mod control;
mod cors;
mod events;
mod mount;
mod read;
mod respond;

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use pingora::{protocols::http::ServerSession, server::ShutdownWatch};

pub use cors::Cors;
pub use mount::StreamsBackground;

use super::{admission::expects_continue, forwarded, problem::Problem};
use crate::{
    engine::Engine,
    protocol::{
        self, HeadMeta, LiveMode, MAX_PATH_BYTES, Outcome, PathError, Rejection, Request, Response,
        StreamPath, render, render_problem, render_rejection,
    },
    subscriptions::Subscriptions,
    telemetry::{
        metrics::{Metrics, Mode, Traffic},
        trace::Span,
    },
};

/// How long the body of a request that should have none may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest body that is read only to keep a connection, bytes.
const SKIPPED: usize = 64 << 10;

/// Of a span: from the received body to the durable answer, seconds.
const COMMIT_WAIT: &str = "durable_streams.commit_wait";

/// What the stream routes can be told.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The URL path under which streams live, without a slash at the end.
    pub route: String,
    /// The longest stream path, decoded bytes; at most [`MAX_PATH_BYTES`].
    pub max_path: usize,
    /// How long a long-poll waits for news.
    pub long_poll_timeout: Duration,
    /// How long an SSE connection lives; a tenth more or less at random, so that clients that came
    /// together do not come back together.
    pub sse_reconnect_interval: Duration,
    /// How long an SSE connection may be silent.
    pub sse_keep_alive: Duration,
    /// The longest pause inside a request body over HTTP/2. HTTP/1 has its session's read timeout.
    pub body_timeout: Duration,
    /// Which browser pages may read the answers.
    pub cors: Cors,
    /// Peers whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether answers say how long the server took (`Server-Timing`).
    pub server_timing: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            route: "/v1/stream".to_owned(),
            max_path: MAX_PATH_BYTES,
            long_poll_timeout: Duration::from_secs(30),
            sse_reconnect_interval: Duration::from_secs(60),
            sse_keep_alive: Duration::from_secs(15),
            body_timeout: Duration::from_secs(30),
            cors: Cors::default(),
            trusted_proxies: Vec::new(),
            server_timing: false,
        }
    }
}

/// Durable Streams on a Pingora session.
pub struct DurableStreams {
    engine: Arc<Engine>,
    pub(super) options: Arc<ArcSwap<StreamOptions>>,
    shutdown: ShutdownWatch,
    metrics: Arc<Metrics>,
    subscriptions: Option<Subscriptions>,
}

/// How a request ended, for whoever logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The code of the problem that was answered, if one was.
    pub problem: Option<&'static str>,
}

impl DurableStreams {
    /// Routes for the streams of `engine`. Live readers end when `shutdown` turns `true`.
    pub fn new(engine: Arc<Engine>, options: StreamOptions, shutdown: ShutdownWatch) -> Self {
        let options = Arc::new(ArcSwap::from_pointee(options));
        DurableStreams { engine, options, shutdown, metrics: Arc::default(), subscriptions: None }
    }

    /// The streams themselves.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether a URL path belongs to the streams.
    pub fn matches(&self, path: &str) -> bool {
        super::route::under(path, &self.options.load().route)
    }

    /// Answers a request whose path [`matches`](Self::matches). The response is written to its end.
    ///
    /// # Errors
    /// Only when the client can no longer be written to. What was appended stands all the same.
    pub async fn handle(&self, session: &mut ServerSession) -> pingora::Result<Answered> {
        self.handle_in(session, &mut Span::default()).await
    }

    /// The same, with what is known of the request added to its span.
    pub(super) async fn handle_in(
        &self,
        session: &mut ServerSession,
        span: &mut Span,
    ) -> pingora::Result<Answered> {
        let began = Instant::now();
        let options = self.options.load_full();
        let asked = match control::path(session, &options.route) {
            Some(path) => Asked::Control(path),
            None => Asked::Stream(parse(&options, session)),
        };
        let mode = asked.mode();
        span.text("durable_streams.mode", mode.name());
        let answered = self.answer_asked(session, &options, span, began, asked).await;
        let status = session.response_written().map(|response| response.status);
        self.metrics.request(mode, &session.req_header().method, status);
        let (received, sent) = (session.body_bytes_read(), session.body_bytes_sent());
        self.metrics.bytes(Traffic::Streams, received, sent);
        answered
    }

    async fn answer_asked(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        span: &mut Span,
        began: Instant,
        asked: Asked,
    ) -> pingora::Result<Answered> {
        let mode = asked.mode();
        let answer = match asked {
            Asked::Control(path) => match self.control(session, options, &path).await {
                Ok(response) => Answer::Response(response),
                Err(rejection) => Answer::Rejected(rejection),
            },
            Asked::Stream(Ok((path, request))) => {
                self.answer(session, options, span, &path, request).await
            }
            Asked::Stream(Err(rejection)) => {
                self.skip_small_body(session).await;
                Answer::Rejected(rejection)
            }
        };
        let (mut response, problem) = match answer {
            Answer::Done(result) => return result.map(|()| Answered { problem: None }),
            Answer::Response(response) => (response, None),
            Answer::Rejected(rejection) => (render_rejection(&rejection), Some(rejection.code())),
        };
        if mode == Mode::CatchUp && problem.is_none() {
            self.metrics.read(began.elapsed());
        }
        if options.server_timing {
            response.headers.push(server_timing(mode, began.elapsed()));
        }
        if self.stopping() {
            // The stop may have begun after this request did.
            session.set_keepalive(None);
        }
        respond::send(session, response, &options.cors).await?;
        Ok(Answered { problem })
    }

    /// Refuses a request for a bound of the server, in the shape that stream clients and pages can read.
    ///
    /// # Errors
    /// Only when the client can no longer be written to.
    pub(super) async fn refuse(
        &self,
        session: &mut ServerSession,
        problem: &Problem,
    ) -> pingora::Result<()> {
        let after = problem.retry_after.map(|seconds| Duration::from_secs(seconds.into()));
        let response = render_problem(problem.status, problem.code, problem.detail.clone(), after);
        respond::send(session, response, &self.options.load().cors).await
    }

    async fn answer(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        span: &mut Span,
        path: &StreamPath,
        request: Request,
    ) -> Answer {
        if !matches!(request, Request::Append(_) | Request::Create(_))
            && let Err(rejection) = self.discard_body(session).await
        {
            return Answer::Rejected(rejection);
        }
        let answered = match request {
            Request::Append(append) => {
                match body::receive(session, &self.engine, options.body_timeout).await {
                    Ok(body) => {
                        let received = Instant::now();
                        let appended = self.engine.append(path, &append, body.bytes).await;
                        span.seconds(COMMIT_WAIT, received.elapsed());
                        appended.map(|appended| {
                            self.metrics.appended(received.elapsed());
                            render(Outcome::Appended(&appended))
                        })
                    }
                    Err(rejection) => Err(rejection),
                }
            }
            Request::Create(create) => {
                match body::receive(session, &self.engine, options.body_timeout).await {
                    Ok(body) => {
                        let received = Instant::now();
                        let created = self.engine.create(path, &create, body.bytes).await;
                        span.seconds(COMMIT_WAIT, received.elapsed());
                        created.map(|created| {
                            let location = location(options, session, path);
                            render(Outcome::Created(&created, Cow::Owned(location)))
                        })
                    }
                    Err(rejection) => Err(rejection),
                }
            }
            Request::Read(read) if read.live == LiveMode::Sse => {
                return self.events(session, options, path, &read).await;
            }
            Request::Read(read) => self.read(session, options, path, &read).await,
            Request::Head => self.head(path).await,
            Request::Delete => self.engine.delete(path).await.map(|()| render(Outcome::Deleted)),
            Request::Preflight => Ok(render(Outcome::Preflight)),
        };
        match answered {
            Ok(response) => Answer::Response(response),
            Err(rejection) => Answer::Rejected(rejection),
        }
    }

    /// Receives and drops the body of a request that should have none: left unread, it would be taken for
    /// the client's next request.
    async fn discard_body(&self, session: &mut ServerSession) -> Result<(), Rejection> {
        if session.is_body_done() {
            return Ok(());
        }
        let drained = tokio::time::timeout(DISCARD_TIMEOUT, session.drain_request_body()).await;
        match drained {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Rejection::BodyIncomplete),
            Err(_) => {
                session.set_keepalive(None);
                Err(Rejection::BodyTimeout)
            }
        }
    }

    /// Reads past a body that is on its way anyway, so that the connection outlives a refusal.
    async fn skip_small_body(&self, session: &mut ServerSession) {
        let small = body::declared_length(session).is_some_and(|length| length <= SKIPPED);
        if small && !expects_continue(session.req_header()) {
            // If it does not come, the refusal ends the connection instead.
            let _ = self.discard_body(session).await;
        }
    }

    async fn head(&self, path: &StreamPath) -> Result<Response, Rejection> {
        let view = self.engine.head(path).await?;
        Ok(render(Outcome::Head(&HeadMeta {
            content_type: &view.core.content_type,
            tail: view.tail.offset,
            closed: view.tail.closed,
            expiry: view.core.expiry,
        })))
    }

    fn stopping(&self) -> bool {
        *self.shutdown.borrow()
    }
}

fn parse(
    options: &StreamOptions,
    session: &ServerSession,
) -> Result<(StreamPath, Request), Rejection> {
    let head = session.req_header();
    let query = head.uri.query();
    let request = Request::parse(&head.method, query, &head.headers, &options.route)?;
    let relative = head.uri.path().get(options.route.len() + 1..);
    let path = match relative {
        Some(relative) => StreamPath::from_url(relative)?,
        None => return Err(PathError::Empty.into()),
    };
    if path.as_str().len() > options.max_path {
        return Err(PathError::TooLong.into());
    }
    Ok((path, request))
}

/// The stream's absolute URL as the client knows it; just the path when no host is known.
fn location(options: &StreamOptions, session: &ServerSession, path: &StreamPath) -> String {
    let (scheme, host) = forwarded::external_url(session, &options.trusted_proxies);
    let path = format!("{}/{}", options.route, path.to_url());
    match host {
        Some(host) => format!("{scheme}://{host}{path}"),
        None => path,
    }
}

fn mode(request: &Request) -> Mode {
    match request {
        Request::Create(_) => Mode::Create,
        Request::Append(_) => Mode::Append,
        Request::Read(read) => match read.live {
            LiveMode::CatchUp => Mode::CatchUp,
            LiveMode::LongPoll => Mode::LongPoll,
            LiveMode::Sse => Mode::Sse,
        },
        Request::Head => Mode::Head,
        Request::Delete => Mode::Delete,
        Request::Preflight => Mode::Preflight,
    }
}

/// How long the server took until the answer was ready: for a write, until it was durable.
fn server_timing(mode: Mode, took: Duration) -> (HeaderName, HeaderValue) {
    static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
    let what = match mode {
        Mode::Create | Mode::Append | Mode::Delete => "durable",
        Mode::CatchUp | Mode::LongPoll | Mode::Sse | Mode::Head => "read",
        Mode::Preflight | Mode::Control | Mode::Invalid => "total",
    };
    let text = format!("{what};dur={:.3}", took.as_secs_f64() * 1000.0);
    let none = HeaderValue::from_static("");
    (SERVER_TIMING.clone(), HeaderValue::try_from(text).unwrap_or(none))
}

/// What a request asks for.
enum Asked {
    /// Something of the subscriptions; the path after the reserved segment.
    Control(String),
    /// Something of a stream.
    Stream(Result<(StreamPath, Request), Rejection>),
}

impl Asked {
    fn mode(&self) -> Mode {
        match self {
            Asked::Control(_) => Mode::Control,
            Asked::Stream(parsed) => {
                parsed.as_ref().map_or(Mode::Invalid, |(_, request)| mode(request))
            }
        }
    }
}

/// What is left to do for a request.
enum Answer {
    Response(Response),
    Rejected(Rejection),
    /// The response was written already.
    Done(pingora::Result<()>),
}

/// Milliseconds of a duration, for adding to a [`protocol::Timestamp`].
fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

fn later(now: protocol::Timestamp, duration: Duration) -> protocol::Timestamp {
    protocol::Timestamp::from_millis(now.millis().saturating_add(millis(duration)))
}

/// How long until a time; the real clock's measure, so only for the system clock.
fn until(now: protocol::Timestamp, then: protocol::Timestamp) -> Duration {
    Duration::from_millis(then.millis().saturating_sub(now.millis()))
}

fn is_head(session: &ServerSession) -> bool {
    session.req_header().method == Method::HEAD
}

fn header<'s>(session: &'s ServerSession, name: &http::HeaderName) -> Option<&'s HeaderValue> {
    session.req_header().headers.get(name)
}
