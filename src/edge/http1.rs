//! The requests of one HTTP/1.1 connection, one after the other.
//!
//! The head of each is read whole and its request line judged (`head`) before Pingora's session parses it; of the
//! body, the session gets no byte too many (`framing`, `chunks`).
//!
//! A request for a stream goes nowhere else, so Pingora's proxy never sees it: the state for an upstream, a cache and
//! filters that the proxy sets up for each request is most of the work that a small append or read costs. Measured:
//! 55,400 -> 33,400 user instructions per append (docs/benchmarks.md). The reply is then written without the session,
//! see `wire`.
//!
//! Any other request is parsed once more by the proxy, which returns the connection afterwards.

use std::sync::Arc;

use bytes::BytesMut;
use http::{Method, StatusCode};
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::protocols::Shutdown;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

pub mod chunks;
pub(crate) mod framing;
pub(crate) mod head;
mod wire;

use super::connection::{self, ClientConnection};
use super::context::RequestContext;
use super::problem::EdgeProblem;
use super::record::RequestRecord;
use super::route::EdgeRoute;
use super::settings::EdgeSettings;
use super::{Edge, route};
use durable_streams_pingora::transport::{ReplyWriter, Stopping, StreamReply};
use wire::Http1Wire;

/// A request that was received, and what is left to do for it.
struct Http1Exchange {
    wire: Http1Wire,
    reply: StreamReply,
    record: RequestRecord,
}

/// Serves a connection to its end; `read` is what came of its first request. Ends between requests once
/// `stop` turns `true`.
pub(crate) async fn serve(
    edge: &Edge,
    proxy: &Arc<HttpProxy<Edge>>,
    mut connection: Box<ClientConnection>,
    mut read: BytesMut,
    stop: &ShutdownWatch,
) {
    let mut stopping = Stopping::from(stop.clone());
    let stopped = stopping.begun();
    tokio::pin!(stopped);
    loop {
        let head = async {
            if read.is_empty() {
                read = connection.next_head().await?;
            }
            head::complete(&mut connection, std::mem::take(&mut read)).await
        };
        let head = tokio::select! {
            // First, so that a request already here is still answered.
            biased;
            head = head => head,
            _ = &mut stopped => return,
        };
        let head = match head {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(error) => {
                return tracing::debug!(%error, "a connection ended before or inside a head");
            }
        };
        if !head::has_request_line(&head) {
            return Box::pin(refuse(edge, connection, &malformed())).await;
        }
        // Boxed, as it is large and handed on more than once.
        let mut session = Box::new(ServerSession::new_http1(connection));
        session.set_pipelining_enabled(true);
        session.set_pipelined_prefix(head);
        let parsed = session.read_request().await;
        if !matches!(parsed, Ok(true)) {
            tracing::debug!(error = ?parsed.err(), "a head that is not valid");
            let Some(connection) = taken_apart(*session) else { return };
            return Box::pin(refuse(edge, connection, &malformed())).await;
        }
        let settings = edge.settings();
        // Boxed: a connection that waits, and most do, keeps no room for it.
        let next = if is_proxied(&session, &settings) {
            drop(settings);
            Box::pin(proxied(proxy, *session, stop)).await
        } else {
            match Box::pin(edge.exchange(session, settings)).await {
                Some(exchange) => exchange.finish(edge).await,
                None => None,
            }
        };
        let Some(next) = next else { return };
        connection = next;
    }
}

impl Edge {
    /// Receives one request whose head has been read, and lets the routes decide its reply.
    async fn exchange(
        &self,
        mut session: Box<ServerSession>,
        settings: Arc<EdgeSettings>,
    ) -> Option<Box<Http1Exchange>> {
        let mut ctx = RequestContext::new(settings);
        self.begin(&mut session, &mut ctx);
        ctx.sends_files = connection::sends_files(&session);
        let reply = match self.route(&mut session, &mut ctx).await {
            Some(reply) => reply,
            // `is_proxied` has classified the same path, so there is no such request.
            None => Edge::refusal(&route::ambiguous(), &session, &ctx),
        };
        let record = RequestRecord::of(&session, &mut ctx);
        let wire = Http1Wire::new(session, ctx.settings.options.limits.pace()).await?;
        Some(Box::new(Http1Exchange { wire, reply, record }))
    }
}

impl Http1Exchange {
    /// Delivers the reply. Returns the connection if there may be another request.
    async fn finish(mut self: Box<Self>, edge: &Edge) -> Option<Box<ClientConnection>> {
        let Http1Exchange { wire, reply, record } = &mut *self;
        let result = edge.deliver(reply, wire, &mut record.span, &mut record.problem).await;
        let Http1Exchange { wire, record, .. } = *self;
        let error = result.as_ref().err().map(|error| &**error);
        record.end(edge.metrics(), &wire.written(), error);
        result.ok()?;
        wire.finish().await
    }
}

/// Whether a request is for an upstream.
fn is_proxied(session: &ServerSession, settings: &EdgeSettings) -> bool {
    let request = session.req_header();
    let route = route::classify(request.uri.path(), &settings.options);
    matches!(route, EdgeRoute::Upstream(_)) && request.method != Method::CONNECT
}

/// One request through the proxy. Returns the connection if there may be another one.
async fn proxied(
    proxy: &Arc<HttpProxy<Edge>>,
    session: ServerSession,
    stop: &ShutdownWatch,
) -> Option<Box<ClientConnection>> {
    let ServerSession::H1(parsed) = session else { return None };
    let head = BytesMut::from(&*parsed.get_headers_raw_bytes());
    let mut session = ServerSession::new_http1(parsed.into_inner());
    session.set_pipelined_prefix(head);
    let (stream, _) = proxy.process_new_http(session, stop).await.map(ReusedHttpStream::consume)?;
    stream.into_any().downcast().ok()
}

/// The connection of a session that is no longer needed.
fn taken_apart(session: ServerSession) -> Option<Box<ClientConnection>> {
    let ServerSession::H1(session) = session else { return None };
    session.into_inner().into_any().downcast().ok()
}

/// The answer to a head that cannot be parsed.
fn malformed() -> EdgeProblem {
    let detail = "the head of the request is not valid HTTP/1.1: its request line, the syntax of a field, \
                  or a Host, Content-Length or Transfer-Encoding that contradicts itself";
    EdgeProblem::new(StatusCode::BAD_REQUEST, "malformed-request", detail)
}

/// Answers a request that has no session, and ends its connection.
async fn refuse(edge: &Edge, mut connection: Box<ClientConnection>, problem: &EdgeProblem) {
    edge.metrics().unrouted(Some(problem.status));
    let pace = edge.limits().pace();
    if connection.send_in_time(&problem.http1_text(), &[], pace).await.is_ok() {
        connection.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// It is allocated and copied for each request. What is rare is boxed inside.
    #[test]
    fn the_future_of_an_exchange_is_small() {
        type Arguments = (&'static Edge, Box<ServerSession>, Arc<EdgeSettings>);
        let exchange = |(edge, session, settings): Arguments| edge.exchange(session, settings);
        let size = size_of_future(exchange);
        assert!(size <= 3 << 10, "{size} bytes");
    }
}
