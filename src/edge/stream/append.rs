//! Appends: the body is received, the engine decides, and the answer waits until what it tells is durable.
//!
//! Where who asks can wait without the session, the answer is handed back as soon as it is decided: what waits for
//! the disk is then some hundred bytes instead of a session, and hundreds that wait together do not push one another
//! out of the processor's caches.

use std::time::Instant;

use durable_streams_engine::{Judged, Permit, Ticket};
use durable_streams_protocol::{Append, Outcome, Rejection, StreamPath, render};
use http::header;
use pingora::protocols::http::ServerSession;

use super::{DurableStreams, StreamOptions, answer::Answer, body, header as header_of};
use crate::{edge::connection, telemetry::metrics::Metrics, telemetry::trace::Span};

/// Of a span: from the received body to the durable answer, seconds.
pub(super) const COMMIT_WAIT: &str = "durable_streams.commit_wait";

/// An accepted append that may not be durable yet: its answer must not go out before [`settled`](Self::settled).
pub(in crate::edge) struct Acceptance {
    ticket: Option<Ticket>,
    /// The body's share of what may be under way.
    _room: Option<Permit>,
    received: Instant,
}

impl Acceptance {
    /// Waits until the append is durable.
    ///
    /// # Errors
    /// It will never be: nothing was appended.
    pub(in crate::edge) async fn settled(self, metrics: &Metrics) -> Result<(), Rejection> {
        if let Some(ticket) = self.ticket {
            ticket.wait().await?;
        }
        metrics.appended(self.received.elapsed());
        Ok(())
    }
}

impl DurableStreams {
    pub(super) async fn append(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        path: &StreamPath,
        append: &Append,
        span: &mut Span,
    ) -> Answer {
        let body = match body::receive(session, &self.engine, options.body_timeout).await {
            Ok(body) => body,
            Err(rejection) => return Answer::Rejected(rejection),
        };
        let received = Instant::now();
        let Judged { verdict, ticket } = self.engine.judge_append(path, append, body.bytes).await;
        let settled = match verdict {
            Err(rejection) => Judged { verdict: Err(rejection), ticket }.when_durable().await,
            Ok(appended) => {
                let response = render(Outcome::Appended(&appended));
                let acceptance = Acceptance { ticket, _room: body.room, received };
                let plain = !span.is_recorded() && self.is_plain(session, options);
                if plain && connection::may_withhold(session) {
                    return Answer::Accepted(response, acceptance);
                }
                acceptance.settled(&self.metrics).await.map(|()| response)
            }
        };
        span.seconds(COMMIT_WAIT, received.elapsed());
        match settled {
            Ok(response) => Answer::Response(response),
            Err(rejection) => Answer::Rejected(rejection),
        }
    }

    /// Whether a refusal that takes the place of the answer needs nothing of the request, and the connection
    /// goes on after either.
    fn is_plain(&self, session: &ServerSession, options: &StreamOptions) -> bool {
        let keeps = session.as_http1().is_some_and(|http1| http1.will_keepalive());
        keeps
            && !self.stopping()
            && !options.server_timing
            && header_of(session, &header::ORIGIN).is_none()
    }
}
