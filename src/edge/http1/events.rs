//! The rest of a connection's present answer, when that is a live read.
//!
//! Once the head is out, all that is left is to write events and to notice that the client leaves. That needs
//! no session, with its copies of both heads and its part of the connection's future: live readers are many,
//! and wait most of the time. Only what the end of the request is told about is kept.

use std::future::poll_fn;

use bytes::BytesMut;
use http::{Method, StatusCode, Version};
use pingora::protocols::Shutdown;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType, Result};

use crate::edge::Edge;
use crate::edge::access_log::Entry;
use crate::edge::connection::{Connection, Pace};
use crate::edge::context::RequestContext;
use crate::edge::stream::{Chunk, EventSink, Events, LAST_CHUNK};
use crate::telemetry::metrics::{Mode, Traffic};

/// A live read whose head was written, without its session.
pub(super) struct Following {
    events: Events,
    body: Chunked,
    /// The connection may have another request after this one.
    keep: bool,
    /// For the access log, if there is one.
    entry: Option<Entry>,
}

/// A chunked body on a bare connection.
struct Chunked {
    connection: Box<Connection>,
    pace: Pace,
    /// Bytes of events.
    sent: usize,
    /// What the client has sent of its next request.
    ahead: BytesMut,
}

/// Whether the session has nothing to it that its connection does not have: no other framing, no body, no span,
/// and nothing of the next request. `head`: how many bytes were read before the session was made.
pub(super) fn is_plain(session: &mut ServerSession, ctx: &RequestContext, head: usize) -> bool {
    !ctx.span.is_recorded()
        && session.req_header().version == Version::HTTP_11
        && session.is_body_empty()
        && session.as_http1().is_some_and(|http1| http1.get_headers_raw_bytes().len() == head)
}

impl Following {
    /// Takes a plain session apart.
    pub(super) fn new(
        session: ServerSession,
        ctx: &mut RequestContext,
        events: Events,
    ) -> Option<Self> {
        let entry = Entry::of(&session, ctx);
        let ServerSession::H1(session) = session else { return None };
        let keep = session.will_keepalive();
        let connection = session.into_inner().into_any().downcast().ok()?;
        let pace = ctx.settings.options.limits.pace();
        let body = Chunked { connection, pace, sent: 0, ahead: BytesMut::new() };
        Some(Following { events, body, keep, entry })
    }

    /// Sends events until the live read ends. Gives the connection back if there may be another request, with
    /// what came of it already.
    pub(super) async fn finish(
        self: Box<Self>,
        edge: &Edge,
    ) -> Option<(Box<Connection>, BytesMut)> {
        let Following { events, mut body, keep, entry } = *self;
        let result = edge.streams.drive(events, &mut body).await;
        let metrics = edge.metrics();
        metrics.request(Mode::Sse, &Method::GET, Some(StatusCode::OK));
        metrics.bytes(Traffic::Streams, 0, body.sent);
        if let Some(entry) = entry {
            entry.emit(0, body.sent, result.as_ref().err().map(|error| &**error));
        }
        result.ok()?;
        if !keep {
            body.connection.shutdown().await;
            return None;
        }
        Some((body.connection, body.ahead))
    }
}

impl EventSink for Chunked {
    async fn send(&mut self, event: Chunk) -> Result<()> {
        self.connection.send_in_time(event.bytes(), self.pace).await?;
        self.sent += event.len();
        Ok(())
    }

    async fn left(&mut self) -> Box<Error> {
        let Chunked { connection, ahead, .. } = self;
        let why = poll_fn(|cx| connection.poll_left(cx, ahead)).await;
        Error::because(ErrorType::ConnectionClosed, "while events were sent", why)
    }

    async fn end(&mut self) -> Result<()> {
        self.connection.send_in_time(LAST_CHUNK, self.pace).await
    }
}
