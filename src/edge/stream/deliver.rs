//! Delivery: waits for what a reply depends on, writes it, and counts the request, once for every transport.

use std::time::Duration;

use durable_streams_protocol::{Response, render_rejection};
use http::StatusCode;
use pingora::{Error, Result};

use super::{
    DurableStreams,
    chunk::Chunk,
    events::LiveRead,
    reply::{Pending, Reply},
    time,
};
use crate::telemetry::metrics::Traffic;

/// Writes one response to a client. Each transport has one implementation.
pub(in crate::edge) trait ReplyWriter: Send {
    /// Writes a whole response: its head, and its body unless the request was a `HEAD`.
    fn whole(&mut self, response: Response) -> impl Future<Output = Result<()>> + Send;

    /// Writes the head of a response whose body is events.
    fn head(&mut self, response: Response) -> impl Future<Output = Result<()>> + Send;

    /// Writes and flushes one event.
    fn event(&mut self, event: Chunk) -> impl Future<Output = Result<()>> + Send;

    /// Ends a body of events.
    fn end(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Returns when the client has left. Cancel safe.
    fn left(&mut self) -> impl Future<Output = Box<Error>> + Send;

    /// Lets the connection have no further request. Has no effect once the head is written.
    fn close_after(&mut self);

    /// What has been received and written so far.
    fn written(&self) -> Written;
}

/// What a transport received and wrote for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::edge) struct Written {
    /// The status of the response; `None` when no head was written.
    pub(in crate::edge) status: Option<StatusCode>,
    /// Bytes of the request's body.
    pub(in crate::edge) received: usize,
    /// Bytes of the response's body, without its framing.
    pub(in crate::edge) sent: usize,
}

/// How a request ended.
#[derive(Debug)]
pub(in crate::edge) struct Delivered {
    /// The code of the problem that the response reported, if it did.
    pub(in crate::edge) problem: Option<&'static str>,
    /// From the received body of a write to its durable commit.
    pub(in crate::edge) commit_wait: Option<Duration>,
    pub(in crate::edge) result: Result<()>,
}

impl DurableStreams {
    /// Delivers a reply.
    ///
    /// Invariant: the response to an append is written only after the append is durable. If this future is dropped
    /// before, the response is lost, and the client learns from a retry whether its append was committed.
    pub(in crate::edge) async fn deliver(
        &self,
        reply: Reply,
        out: &mut impl ReplyWriter,
    ) -> Delivered {
        let Reply { mut response, pending, mut problem, mut commit_wait, .. } = reply;
        let mut events = None;
        match pending {
            Pending::Nothing => {}
            Pending::Events(live) => events = Some(live),
            Pending::Durable(ticket) => {
                let received = ticket.received;
                if let Err(rejection) = ticket.durable(&self.metrics).await {
                    response = render_rejection(&rejection);
                    problem = Some(rejection.code());
                }
                commit_wait = Some(received.elapsed());
            }
        }
        response.headers.extend(reply.cors);
        if self.is_stopping() {
            out.close_after();
        }
        let result = match (events, reply.server_timing.zip(reply.operation)) {
            (Some(live), _) => self.follow(response, live, out).await,
            (None, timed) => {
                if let Some((began, operation)) = timed {
                    response.headers.push(time::server_timing(operation, began.elapsed()));
                }
                out.whole(response).await
            }
        };
        if let Some(operation) = reply.operation {
            let Written { status, received, sent } = out.written();
            self.metrics.request(operation, &reply.method, status);
            self.metrics.bytes(Traffic::Streams, received, sent);
        }
        Delivered { problem, commit_wait, result }
    }

    /// Writes the head of a live read and its events.
    async fn follow(
        &self,
        head: Response,
        mut live: Box<LiveRead>,
        out: &mut impl ReplyWriter,
    ) -> Result<()> {
        out.head(head).await?;
        self.drive(&mut live, out).await
    }
}
