//! The stream routes: one request in, one response out.
//!
//! [`DurableStreams`] is all that another Pingora application needs: ask [`matches`](DurableStreams::matches)
//! in `request_filter`, and let [`handle`](DurableStreams::handle) answer.
//!
//! | file | what it does |
//! |---|---|
//! | `options` | what the routes can be told |
//! | `mount` | the work beside the requests |
//! | `request` | what a request asks for |
//! | `answer` | one request of a stream, answered by the engine |
//! | `append` | appends, and answers that wait to be true |
//! | `body` | receives a request body, bounded |
//! | `read` | catch-up and long-poll |
//! | `events` | SSE |
//! | `chunk` | an event, framed for HTTP/1.1 |
//! | `control` | subscriptions, under the reserved segment |
//! | `respond` | the one place that writes to a session |
//! | `compress` | content encoding of catch-up responses |
//! | `cors` | which browser pages may read the answers |
//! | `times` | durations on the engine's clock |

mod answer;
mod append;
mod body;
mod chunk;
mod compress;
mod control;
mod cors;
mod events;
mod mount;
mod options;
mod read;
mod request;
mod respond;
mod times;

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use http::{HeaderValue, Method};
use pingora::{protocols::http::ServerSession, server::ShutdownWatch};

pub use cors::Cors;
pub use mount::StreamsBackground;
pub use options::StreamOptions;

pub(in crate::edge) use append::Acceptance;
pub(in crate::edge) use chunk::{Chunk, LAST as LAST_CHUNK};
pub(in crate::edge) use events::{EventSink, Events};

use answer::Answer;
use request::Asked;

use super::problem::Problem;
use crate::{
    telemetry::metrics::{Metrics, Mode, Traffic},
    telemetry::trace::Span,
};
use durable_streams_engine::Engine;
use durable_streams_protocol::{Rejection, Response, render_rejection};
use durable_streams_subscriptions::Subscriptions;

/// Durable Streams on a Pingora session. Clones are the same.
#[derive(Clone)]
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

/// How far a request was brought.
pub(super) enum Handled {
    /// To its end.
    Answered(Answered),
    /// The head of a live read was sent; its events are still to be.
    Live(Events),
    /// The answer, not written, to be withheld until it is true.
    Accepted(Response, Acceptance),
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
        match self.handle_in(session, &mut Span::default()).await? {
            Handled::Live(events) => self.follow(session, events).await,
            Handled::Answered(answered) => Ok(answered),
            // Only a connection that `http1` serves withholds, and that does not come here.
            Handled::Accepted(..) => Ok(Answered { problem: None }),
        }
    }

    /// The same, with what is known of the request added to its span, and without the events of a live read.
    pub(super) async fn handle_in(
        &self,
        session: &mut ServerSession,
        span: &mut Span,
    ) -> pingora::Result<Handled> {
        let began = Instant::now();
        let options = self.options.load_full();
        let asked = match control::path(session, &options.route) {
            Some(path) => Asked::Control(path),
            None => Asked::Stream(request::parse(&options, session)),
        };
        let mode = asked.mode();
        if span.is_recorded() {
            span.text("durable_streams.mode", mode.name());
        }
        let handled = self.answer_asked(session, &options, span, began, asked).await;
        if !matches!(handled, Ok(Handled::Live(_) | Handled::Accepted(..))) {
            self.count(session, mode);
        }
        handled
    }

    /// Sends the events of a live read through the session that has its head.
    ///
    /// # Errors
    /// Only when the client can no longer be written to.
    pub(super) async fn follow(
        &self,
        session: &mut ServerSession,
        events: Events,
    ) -> pingora::Result<Answered> {
        let sent = self.drive(events, session).await;
        self.count(session, Mode::Sse);
        sent.map(|()| Answered { problem: None })
    }

    fn count(&self, session: &ServerSession, mode: Mode) {
        let status = session.response_written().map(|response| response.status);
        self.metrics.request(mode, &session.req_header().method, status);
        let (received, sent) = (session.body_bytes_read(), session.body_bytes_sent());
        self.metrics.bytes(Traffic::Streams, received, sent);
    }

    async fn answer_asked(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        span: &mut Span,
        began: Instant,
        asked: Asked,
    ) -> pingora::Result<Handled> {
        let mode = asked.mode();
        let answer = match asked {
            // Boxed: rare, and larger than everything else a connection's future has to have room for.
            Asked::Control(path) => match Box::pin(self.control(session, options, &path)).await {
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
            Answer::Live(events) => return Ok(Handled::Live(events)),
            Answer::Gone(gone) => return Err(gone),
            Answer::Accepted(response, acceptance) => {
                return Ok(Handled::Accepted(response, acceptance));
            }
            Answer::Response(response) => (response, None),
            Answer::Rejected(rejection) => (render_rejection(&rejection), Some(rejection.code())),
        };
        if mode == Mode::CatchUp && problem.is_none() {
            self.metrics.read(began.elapsed());
        }
        if options.server_timing {
            response.headers.push(times::server_timing(mode, began.elapsed()));
        }
        let broken = [Rejection::BodyIncomplete.code(), Rejection::BodyTimeout.code()];
        if problem.is_some_and(|code| broken.contains(&code)) {
            // Where the body ends is not known, so nothing after it can be a request.
            session.set_keepalive(None);
        }
        if self.stopping() {
            // The stop may have begun after this request did.
            session.set_keepalive(None);
        }
        respond::send(session, response, &options.cors).await?;
        Ok(Handled::Answered(Answered { problem }))
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
        respond::send(session, problem.response(), &self.options.load().cors).await
    }

    fn stopping(&self) -> bool {
        *self.shutdown.borrow()
    }
}

fn is_head(session: &ServerSession) -> bool {
    session.req_header().method == Method::HEAD
}

fn header<'s>(session: &'s ServerSession, name: &http::HeaderName) -> Option<&'s HeaderValue> {
    session.req_header().headers.get(name)
}
