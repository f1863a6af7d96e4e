//! The rest of a connection's present answer, when that is decided but not true yet: see
//! [`stream::append`](crate::edge::stream).
//!
//! Invariant: the answer leaves only after what it tells is durable. Whoever drops this before drops the answer
//! with it, and the client learns by a retry what became of its append.

use bytes::BytesMut;
use durable_streams_protocol::{Response, render_rejection};
use http::{Method, StatusCode};
use pingora::protocols::http::ServerSession;

use super::{reuse, text};
use crate::edge::Edge;
use crate::edge::access_log::Entry;
use crate::edge::connection::{Connection, Pace};
use crate::edge::context::RequestContext;
use crate::edge::stream::Acceptance;
use crate::telemetry::metrics::{Mode, Traffic};

/// What becomes of the connection afterwards.
const KEPT: &str = "keep-alive";

/// See the module.
pub(super) struct Withheld {
    acceptance: Acceptance,
    connection: Box<Connection>,
    /// What has come of the next request.
    ahead: BytesMut,
    answer: Vec<u8>,
    status: StatusCode,
    /// Bytes of the answer's body.
    sent: usize,
    /// Bytes of the request's body.
    received: usize,
    pace: Pace,
    /// For the access log, if there is one.
    entry: Option<Entry>,
}

impl Withheld {
    /// Takes a session apart that has received its whole request.
    pub(super) async fn new(
        session: Box<ServerSession>,
        ctx: &mut RequestContext,
        response: &Response,
        acceptance: Acceptance,
    ) -> Option<Self> {
        let entry = Entry::of(&session, ctx);
        let received = session.body_bytes_read();
        let (connection, ahead) = reuse(session).await?;
        let (answer, sent) = text::whole(response, KEPT);
        let pace = ctx.settings.options.limits.pace();
        let status = response.status;
        Some(Withheld {
            acceptance,
            connection,
            ahead,
            answer,
            status,
            sent,
            received,
            pace,
            entry,
        })
    }

    /// Sends the answer once it is true, or why it never will be. Gives the connection back, with what has come of
    /// the next request.
    pub(super) async fn finish(
        self: Box<Self>,
        edge: &Edge,
    ) -> Option<(Box<Connection>, BytesMut)> {
        let Withheld { acceptance, mut connection, ahead, received, pace, entry, .. } = *self;
        let metrics = edge.metrics();
        let (mut answer, mut sent) = (self.answer, self.sent);
        let (mut status, mut problem) = (self.status, None);
        if let Err(rejection) = acceptance.settled(metrics).await {
            let refusal = render_rejection(&rejection);
            (answer, sent) = text::whole(&refusal, KEPT);
            (status, problem) = (refusal.status, Some(rejection.code()));
        }
        let result = connection.send_in_time(&answer, pace).await;
        metrics.request(Mode::Append, &Method::POST, Some(status));
        metrics.bytes(Traffic::Streams, received, sent);
        if let Some(entry) = entry {
            let error = result.as_ref().err().map(|error| &**error);
            entry.answered(status, problem).emit(received, sent, error);
        }
        result.ok()?;
        Some((connection, ahead))
    }
}
