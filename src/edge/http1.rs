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
use pingora::protocols::http::{ReusableHttpStream, ServerSession};
use pingora::proxy::{HttpProxy, ProxyHttp};
use pingora::server::ShutdownWatch;

mod events;
pub(super) mod text;
mod withheld;

use super::connection::Connection;
use super::{Answer, Edge, route};
use events::Following;
use withheld::Withheld;

/// What follows a request.
enum Next {
    /// Perhaps another, of which this has come already.
    Request(Box<Connection>, BytesMut),
    /// Its events.
    Events(Box<Following>),
    /// Its answer, once that is true.
    Answer(Box<Withheld>),
    /// Nothing.
    End,
}

/// Serves a connection to its end; `head` is what came of its first request. Ends between requests once
/// `stop` turns `true`.
pub(crate) async fn serve(
    edge: &Edge,
    proxy: &Arc<HttpProxy<Edge>>,
    mut connection: Box<Connection>,
    mut head: BytesMut,
    stop: &ShutdownWatch,
) {
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
        connection.may_withhold = ours;
        // Boxed, as it is large and handed on more than once.
        let mut session = Box::new(ServerSession::new_http1(connection));
        session.set_pipelining_enabled(true);
        let begun = head.len();
        session.set_pipelined_prefix(head);
        if !ours {
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
        let next = match Box::pin(edge.exchange(session, begun)).await {
            Next::Request(same, ahead) => Some((same, ahead)),
            Next::Events(events) => events.finish(edge).await,
            Next::Answer(answer) => answer.finish(edge).await,
            Next::End => None,
        };
        let Some(next) = next else { return };
        (connection, head) = next;
        if !head.is_empty() {
            connection.head_ahead(head.len());
        }
    }
}

impl Edge {
    /// Answers one request whose head has been read, the first `begun` bytes before the session was made.
    async fn exchange(&self, mut session: Box<ServerSession>, begun: usize) -> Next {
        let mut ctx = self.new_ctx();
        self.begin(&mut session, &mut ctx);
        let answered = match self.answer(&mut session, &mut ctx).await {
            // The route was read from the same bytes, so there is no such request.
            Ok(Answer::Upstream) => {
                self.refuse(route::ambiguous(), &mut session, &mut ctx).await.map(|_| ())
            }
            Ok(Answer::Live(live)) if events::is_plain(&mut session, &ctx, begun) => {
                return Following::new(*session, &mut ctx, live)
                    .map_or(Next::End, |live| Next::Events(Box::new(live)));
            }
            Ok(Answer::Accepted(response, acceptance)) => {
                let withheld = Withheld::new(session, &mut ctx, &response, acceptance).await;
                return withheld.map_or(Next::End, |withheld| Next::Answer(Box::new(withheld)));
            }
            Ok(Answer::Live(live)) => self.streams.follow(&mut session, live).await.map(|_| ()),
            Ok(Answer::Given) => Ok(()),
            Err(error) => Err(error),
        };
        self.end(&session, answered.as_ref().err().map(|error| &**error), &mut ctx);
        if answered.is_err() {
            return Next::End;
        }
        let same = finish(session).await;
        same.map_or(Next::End, |(connection, ahead)| Next::Request(connection, ahead))
    }
}

/// Ends a session that has written its answer. Gives its connection if there may be another request, with what has
/// come of that.
async fn finish(mut session: Box<ServerSession>) -> Option<(Box<Connection>, BytesMut)> {
    session.finish_body().await.ok()?;
    reuse(session).await
}

/// A session's connection if there may be another request, with what has come of that.
///
/// With `finish` before it, what `ServerSession::finish` does without its three copies of the session.
async fn reuse(session: Box<ServerSession>) -> Option<(Box<Connection>, BytesMut)> {
    let ServerSession::H1(session) = *session else { return None };
    let reusable = session.reuse().await.ok().flatten().map(ReusableHttpStream::into_parts);
    let (stream, ahead) = reusable?;
    Some((stream.into_any().downcast().ok()?, ahead.unwrap_or_default()))
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
