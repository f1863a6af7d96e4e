//! The requests of one HTTP/1.1 connection, one after the other.
//!
//! A request for a stream goes nowhere else, so it is answered on Pingora's session alone: without the
//! state for an upstream, a cache and filters that its proxy sets up for each request, most of the work
//! that a small append or read costs. The first request for anything else moves the connection over to the
//! proxy, for good: what a client sends ahead can then be in Pingora's hands, and the same functions answer
//! its streams there.

use std::sync::Arc;

use bytes::BytesMut;
use pingora::ErrorType;
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{HttpProxy, ProxyHttp};
use pingora::server::ShutdownWatch;

use super::connection::Connection;
use super::{Edge, route};

/// Serves a connection to its end; `head` is what came of its first request. Ends between requests once
/// `stop` turns `true`.
pub(crate) async fn serve(
    edge: &Edge,
    proxy: &Arc<HttpProxy<Edge>>,
    connection: Connection,
    mut head: BytesMut,
    stop: &ShutdownWatch,
) {
    let mut connection = Box::new(connection);
    let mut watch = stop.clone();
    let stopped = watch.wait_for(|stopping| *stopping);
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
        let ours = route::begins_under(&head, &edge.streams.options.load().route);
        let mut session = ServerSession::new_http1(connection);
        session.set_pipelining_enabled(true);
        session.set_pipelined_prefix(head);
        if !ours {
            return hand_over(proxy, session, stop).await;
        }
        let read = tokio::select! {
            biased;
            read = session.read_request() => read,
            _ = &mut stopped => return,
        };
        match read {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return refuse(session, &error).await,
        }
        let Some((stream, ahead)) = edge.exchange(session).await else { return };
        let Ok(same) = stream.into_any().downcast::<Connection>() else { return };
        connection = same;
        head = ahead.unwrap_or_default();
        if !head.is_empty() {
            connection.head_ahead(head.len());
        }
    }
}

impl Edge {
    /// Answers one request whose head has been read. Gives the connection back if there may be another, with
    /// what came of it already.
    async fn exchange(&self, mut session: ServerSession) -> Option<(Stream, Option<BytesMut>)> {
        let mut ctx = self.new_ctx();
        self.begin(&mut session, &mut ctx);
        let answered = match self.answer(&mut session, &mut ctx).await {
            // The route was read from the same bytes, so there is no such request.
            Ok(false) => self.refuse(route::ambiguous(), &mut session, &mut ctx).await,
            answered => answered,
        };
        self.end(&session, answered.as_ref().err().map(|error| &**error), &mut ctx);
        answered.ok()?;
        let reusable = session.finish().await.ok().flatten()?;
        Some(reusable.into_parts())
    }
}

/// What is not HTTP gets the answer that Pingora's proxy gives.
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
