//! The requests of one HTTP/1.1 connection, one after the other.
//!
//! A request for a stream goes nowhere else, so Pingora's session parses it and its proxy never sees it: the state for
//! an upstream, a cache and filters that the proxy sets up for each request is most of the work that a small append or
//! read costs. Measured: 55,400 -> 33,400 user instructions per append (docs/benchmarks.md). The reply is then written
//! without the session, see [`wire`].
//!
//! The first request for anything else moves the connection over to the proxy, for good: what a client sends ahead can
//! then be in Pingora's hands. Streams on such a connection are served through `ProxyHttp::request_filter`, by the same
//! functions.

use std::sync::Arc;

use bytes::BytesMut;
use pingora::ErrorType;
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

mod wire;

use super::connection::ClientConnection;
use super::context::RequestContext;
use super::record::RequestRecord;
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

/// Serves a connection to its end; `head` is what came of its first request. Ends between requests once
/// `stop` turns `true`.
pub(crate) async fn serve(
    edge: &Edge,
    proxy: &Arc<HttpProxy<Edge>>,
    mut connection: Box<ClientConnection>,
    mut head: BytesMut,
    stop: &ShutdownWatch,
) {
    let mut stopping = Stopping::from(stop.clone());
    let stopped = stopping.begun();
    tokio::pin!(stopped);
    loop {
        if head.is_empty() {
            head = tokio::select! {
                // First, so that a request already here is still answered.
                biased;
                read = connection.next_head() => match read {
                    Ok(head) if !head.is_empty() => head,
                    _ => return,
                },
                _ = &mut stopped => return,
            };
        }
        let settings = edge.settings();
        let ours = route::begins_under(&head, &settings.options.streams.route);
        // Boxed, as it is large and handed on more than once.
        let mut session = Box::new(ServerSession::new_http1(connection));
        session.set_pipelining_enabled(true);
        session.set_pipelined_prefix(head);
        if !ours {
            drop(settings);
            return hand_over(proxy, *session, stop).await;
        }
        let read = tokio::select! {
            biased;
            read = session.read_request() => read,
            _ = &mut stopped => return,
        };
        match read {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return Box::pin(refuse(*session, &error)).await,
        }
        // Boxed: a connection that waits, and most do, keeps no room for it.
        let Some(exchange) = Box::pin(edge.exchange(session, settings)).await else { return };
        let Some(next) = exchange.finish(edge).await else { return };
        (connection, head) = next;
        if !head.is_empty() {
            connection.head_ahead(head.len());
        }
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
        let reply = match self.route(&mut session, &mut ctx).await {
            Some(reply) => reply,
            // `begins_under` read the route from the same bytes, so there is no such request.
            None => Edge::refusal(&route::ambiguous(), &session, &ctx),
        };
        let record = RequestRecord::of(&session, &mut ctx);
        let wire = Http1Wire::new(session, ctx.settings.options.limits.pace()).await?;
        Some(Box::new(Http1Exchange { wire, reply, record }))
    }
}

impl Http1Exchange {
    /// Delivers the reply. Returns the connection if there may be another request, with what has come of that.
    async fn finish(mut self: Box<Self>, edge: &Edge) -> Option<(Box<ClientConnection>, BytesMut)> {
        let Http1Exchange { wire, reply, record } = &mut *self;
        let result = edge.deliver(reply, wire, &mut record.span, &mut record.problem).await;
        let Http1Exchange { wire, record, .. } = *self;
        let error = result.as_ref().err().map(|error| &**error);
        record.end(edge.metrics(), &wire.written(), error);
        result.ok()?;
        wire.finish().await
    }
}

/// Answers what is not HTTP as Pingora's proxy does.
async fn refuse(mut session: ServerSession, error: &pingora::Error) {
    if matches!(error.etype(), ErrorType::InvalidHTTPHeader) {
        let _ = session.respond_error(400).await;
    }
    session.shutdown().await;
}

/// The rest of a connection, through the proxy.
async fn hand_over(proxy: &Arc<HttpProxy<Edge>>, session: ServerSession, stop: &ShutdownWatch) {
    let mut next = proxy.process_new_http(session, stop).await;
    while let Some((stream, settings)) = next.map(ReusedHttpStream::consume) {
        let mut session = ServerSession::new_http1(stream);
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        }
        next = proxy.process_new_http(session, stop).await;
    }
}
