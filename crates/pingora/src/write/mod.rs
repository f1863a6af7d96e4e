//! Delivery: waits for what a reply depends on, writes it, and counts the request, once for every transport.

use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::store::FilePart;
use durable_streams_protocol::{Rejection, Response, render_rejection};
use http::StatusCode;
use pingora_core::{Error, ErrorType, Result};

mod chunk;
mod session;

pub use chunk::{EventChunk, LAST as LAST_CHUNK};

/// How long a reader may take for what was read for it beyond what a stalled one may hold. A part that it has not taken by
/// then is dropped from memory.
pub const PATIENCE: Duration = Duration::from_millis(10);

use crate::{
    DurableStreams,
    reply::{LiveRead, PendingReply, StreamReply, StreamedBody, time},
};

/// Writes one response to a client. Each transport has one implementation.
pub trait ReplyWriter: Send {
    /// Writes a whole response: its head, and its body unless the request was a `HEAD`.
    fn whole(&mut self, response: Response) -> impl Future<Output = Result<()>> + Send;

    /// Writes the head of a response whose body follows in pieces or events. The body has a known length if it is
    /// [`Body::Streamed`](durable_streams_protocol::Body::Streamed) with one.
    fn head(&mut self, response: Response) -> impl Future<Output = Result<()>> + Send;

    /// The same where the first piece of the body follows without a wait: the head may go out with it.
    fn head_of_piece(&mut self, response: Response) -> impl Future<Output = Result<()>> + Send {
        self.head(response)
    }

    /// Writes as much of a piece of the body as the client takes within [`PATIENCE`], and returns how many bytes that
    /// is. The caller drops the chunks then: a stalled client must not keep them in memory.
    ///
    /// A transport that cannot take a part of a piece takes nothing.
    fn part(&mut self, chunks: &[Bytes]) -> impl Future<Output = Result<usize>> + Send {
        let _ = chunks;
        async { Ok(0) }
    }

    /// Whether [`file`](Self::file) works. Asked once the head is written.
    fn sends_files(&self) -> bool {
        false
    }

    /// Writes a piece of the body that lies in a file, without a copy of it in memory.
    fn file(&mut self, part: FilePart) -> impl Future<Output = Result<()>> + Send {
        drop(part);
        async { Err(Error::explain(ErrorType::InternalError, "this transport sends no files")) }
    }

    /// Writes a piece of the body, which is not empty.
    fn piece(&mut self, piece: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Writes and flushes one event.
    fn event(&mut self, event: EventChunk) -> impl Future<Output = Result<()>> + Send;

    /// Ends a body of pieces or events.
    fn end(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Returns when the client has left. Cancel safe.
    fn left(&mut self) -> impl Future<Output = Box<Error>> + Send;

    /// Lets the connection have no further request. Has no effect once the head is written.
    fn close_after(&mut self);

    /// What has been received and written so far.
    fn written(&self) -> WrittenReply;
}

/// What a transport received and wrote for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrittenReply {
    /// The status of the response; `None` when no head was written.
    pub status: Option<StatusCode>,
    /// Bytes of the request's body.
    pub received: usize,
    /// Bytes of the response's body, without its framing.
    pub sent: usize,
}

/// How a request ended.
#[derive(Debug)]
pub struct DeliveredReply {
    /// The code of the problem that the response reported, if it did.
    pub problem: Option<&'static str>,
    /// From the received body of a write to its durable commit.
    pub commit_wait: Option<Duration>,
    /// Fails when the client could no longer be written to.
    pub result: Result<()>,
}

impl DurableStreams {
    /// Delivers a reply, once.
    ///
    /// Invariant: the response to an append is written only after the append is durable. If this future is dropped
    /// before, the response is lost, and the client learns from a retry whether its append was committed.
    ///
    /// The reply stays where it is: moved in, each future on the way would have room for it, and an SSE reader's
    /// futures live for an hour.
    pub async fn deliver(
        &self,
        reply: &mut StreamReply,
        out: &mut impl ReplyWriter,
    ) -> DeliveredReply {
        if let PendingReply::Durable(ticket) = &mut reply.pending {
            let durable = ticket.durable(&self.counters).await;
            reply.commit_wait = Some(ticket.received.elapsed());
            // The body no longer counts as bytes in flight.
            reply.pending = PendingReply::Nothing;
            if let Err(rejection) = durable {
                reply.response = render_rejection(&rejection);
                reply.problem = Some(rejection.code());
            }
        }
        reply.response.headers.append(&mut reply.cors);
        if self.stopping.has_begun() {
            out.close_after();
        }
        let events = matches!(reply.pending, PendingReply::Events(_));
        if let Some((began, mode)) = reply.server_timing.zip(reply.mode).filter(|_| !events) {
            reply.response.headers.push(time::server_timing(mode, began.elapsed()));
        }
        let response = reply.take_response();
        let result = match &mut reply.pending {
            PendingReply::Nothing | PendingReply::Durable(_) | PendingReply::Room { .. } => {
                out.whole(response).await
            }
            PendingReply::Events(live) => self.follow(response, live, out).await,
            PendingReply::Body(body) => self.stream(response, body, out).await,
            PendingReply::ClientLeft => {
                Err(Error::explain(ErrorType::ConnectionClosed, "while a long-poll waited"))
            }
        };
        if let Some(mode) = reply.mode {
            let WrittenReply { status, received, sent } = out.written();
            self.counters.request(mode, &reply.method, status);
            self.counters.bytes(received, sent);
            if let Some(usage) = self.counters.usage() {
                usage.count(reply.usage, mode, status, received, sent);
            }
        }
        DeliveredReply { problem: reply.problem, commit_wait: reply.commit_wait, result }
    }

    /// Writes the head of a live read and its events.
    async fn follow(
        &self,
        response: Response,
        live: &mut LiveRead,
        out: &mut impl ReplyWriter,
    ) -> Result<()> {
        out.head(response).await?;
        self.drive(live, out).await
    }

    /// Writes a body piece by piece: the next one is read when the client has taken the one before. What a client does
    /// not take at once of a large piece is read again later.
    ///
    /// If the stream's bytes go meanwhile, this fails, and the transport cuts the response off: no client takes the part
    /// for the whole.
    async fn stream(
        &self,
        response: Response,
        body: &mut StreamedBody,
        out: &mut impl ReplyWriter,
    ) -> Result<()> {
        if body.begins_at_once() {
            out.head_of_piece(response).await?;
        } else {
            out.head(response).await?;
        }
        let files = out.sends_files();
        loop {
            if files && let Some(part) = body.next_file(&self.engine).await.map_err(cut_off)? {
                out.file(part).await?;
                if body.is_one_of_many() {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            match body.next(&self.engine, &self.answers).await {
                Ok(Some(piece)) => {
                    let taken = if body.is_encoded() { 0 } else { out.part(&piece).await? };
                    if let Some(rest) = body.rest(piece, taken) {
                        out.piece(rest).await?;
                    }
                    if body.is_one_of_many() {
                        tokio::task::yield_now().await;
                    }
                }
                Ok(None) => return out.end().await,
                Err(rejection) => return Err(cut_off(rejection)),
            }
        }
    }
}

/// The error of a response that cannot be written to its end. The client's HTTP library reports it.
pub(crate) fn cut_off(rejection: Rejection) -> Box<Error> {
    tracing::debug!(%rejection, "a response is cut off");
    Error::because(ErrorType::Custom("cut_off"), "while its stream was read", rejection)
}
