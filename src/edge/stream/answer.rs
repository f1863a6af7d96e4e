//! One request of a stream, answered by the engine.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use durable_streams_protocol::{
    HeadMeta, LiveMode, Outcome, Rejection, Request, Response, StreamPath, render,
};
use pingora::protocols::http::ServerSession;

use super::{
    DurableStreams, StreamOptions,
    append::{Acceptance, COMMIT_WAIT},
    body,
    events::Events,
};
use crate::{
    edge::{admission::expects_continue, forwarded},
    telemetry::trace::Span,
};

/// How long the body of a request that should have none may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest body that is read only to keep a connection, bytes.
const SKIPPED: usize = 64 << 10;

/// What is left to do for a request.
pub(super) enum Answer {
    Response(Response),
    Rejected(Rejection),
    /// To be withheld until what was accepted is durable.
    Accepted(Response, Acceptance),
    /// The head of a live read was sent.
    Live(Events),
    /// The client left meanwhile.
    Gone(Box<pingora::Error>),
}

impl DurableStreams {
    pub(super) async fn answer(
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
                return self.append(session, options, path, &append, span).await;
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

    async fn head(&self, path: &StreamPath) -> Result<Response, Rejection> {
        let view = self.engine.head(path).await?;
        Ok(render(Outcome::Head(&HeadMeta {
            content_type: &view.core.content_type,
            tail: view.tail.offset,
            closed: view.tail.closed,
            expiry: view.core.expiry,
        })))
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
    pub(super) async fn skip_small_body(&self, session: &mut ServerSession) {
        let small = body::declared_length(session).is_some_and(|length| length <= SKIPPED);
        if small && !expects_continue(session.req_header()) {
            // If it does not come, the refusal ends the connection instead.
            let _ = self.discard_body(session).await;
        }
    }
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
