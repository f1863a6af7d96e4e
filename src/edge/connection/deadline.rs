//! The first bytes of a connection, the time and size of each head, and the end of what has none.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::PREFACE;
use super::{CHUNKED, ClientConnection, ENDLESS, HEAD, HOLD, IDLE, NOTHING, OPEN, UNBOUNDED};
use crate::edge::http1::chunks::ChunkScanner;
use crate::edge::http1::framing::RequestBody;
use crate::edge::problem::EdgeProblem;

/// As much as Pingora reads at first, so that a small request still takes one read.
const FIRST_READ: usize = 4096;

impl ClientConnection {
    /// Reads until the bytes differ from the HTTP/2 preface or are all of it. To be called once,
    /// before Pingora gets the connection: its own look takes 24 bytes however long they take,
    /// and does not end when the server stops. Gives the beginning of the first HTTP/1 request; `None`
    /// for HTTP/2, whose preface is put back.
    ///
    /// # Errors
    /// The client left, or said nothing within the time for a head.
    pub(crate) async fn sniff(&mut self) -> io::Result<Option<BytesMut>> {
        let mut seen = poll_fn(|cx| self.poll_some(cx)).await?;
        if seen.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while seen.len() < PREFACE.len() && PREFACE.starts_with(&seen) {
            if self.read_buf(&mut seen).await? == 0 {
                break;
            }
        }
        self.first = false;
        if !seen.starts_with(PREFACE) {
            return Ok(Some(seen));
        }
        self.timer = None;
        self.unread(seen);
        self.speak_http2();
        Ok(None)
    }

    /// The client speaks HTTP/2, from its preface on.
    pub(super) fn speak_http2(&mut self) {
        *self.phase.get_mut() = OPEN;
        self.first = false;
        self.frames = Some(Box::default());
    }

    /// The client sends nothing more. In a tunnel that is for the upstream, which may still answer.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.half_close.get() {
            Some(shared) => {
                shared.finish();
                self.poll_deadline(cx).map(Err)
            }
            None => Poll::Ready(Ok(())),
        }
    }

    /// Follows what is handed on: the bytes of a tunnel, the frames of HTTP/2.
    pub(super) fn follow(&mut self, read: &[u8]) {
        if let Some(shared) = self.half_close.get() {
            shared.sent(read.len());
        }
        if self.frames.as_mut().is_some_and(|frames| frames.scan(read)) {
            self.deadline = None;
        }
    }

    /// Puts back what was read and is not to be handed on yet.
    fn unread(&mut self, read: BytesMut) {
        let later = std::mem::replace(&mut self.peeked, read);
        self.peeked.unsplit(later);
    }

    /// The head of a request has been read, and `behind` it what follows. Until the parsed head is announced,
    /// nothing more may be read.
    pub(crate) fn head_read(&mut self, behind: BytesMut) {
        *self.phase.get_mut() = OPEN;
        *self.announced.get_mut() = NOTHING;
        self.body = RequestBody::Unknown;
        self.unread(behind);
    }

    /// Puts a whole head back, for a listener whose requests Pingora reads by itself.
    pub(crate) fn head_back(&mut self, head: BytesMut) {
        *self.phase.get_mut() = HEAD;
        self.body = RequestBody::Unbounded;
        self.unread(head);
    }

    /// Says what the body of the present request is, through a shared reference: all that there is to a connection
    /// inside a session.
    pub(super) fn announce(&self, body: u64) {
        self.announced.store(body, Ordering::Relaxed);
    }

    /// Takes over what was announced. A listener that does not split requests keeps all of its bytes together.
    pub(super) fn heed_announced(&mut self) {
        let unknown = matches!(self.body, RequestBody::Unknown);
        match std::mem::replace(self.announced.get_mut(), NOTHING) {
            UNBOUNDED => self.body = RequestBody::Unbounded,
            CHUNKED if unknown => self.body = RequestBody::Chunked(ChunkScanner::default()),
            length if unknown && length != NOTHING => self.body = RequestBody::Length(length),
            _ => {}
        }
    }

    /// Behind the body of the present request: ready when the client has left and sent nothing more. What it has sent
    /// waits, up to a bound.
    pub(super) fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.peeked.len() < HOLD {
            let mut space = [MaybeUninit::uninit(); FIRST_READ];
            let mut buf = ReadBuf::uninit(&mut space);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.peeked.extend_from_slice(buf.filled());
                }
                // The requests that it sent before it left are answered.
                Poll::Ready(Ok(())) if !self.peeked.is_empty() => break,
                Poll::Ready(ended) => return Poll::Ready(ended),
                Poll::Pending => break,
            }
        }
        self.poll_deadline(cx).map(Err)
    }

    /// Reads the beginning of the next HTTP/1 request. Empty when the client has left.
    ///
    /// # Errors
    /// The client left, or was silent for longer than a connection may be kept.
    pub(crate) async fn next_head(&mut self) -> io::Result<BytesMut> {
        *self.phase.get_mut() = IDLE;
        poll_fn(|cx| self.poll_some(cx)).await
    }

    /// Reads what there is, into memory that is taken once there is something: a connection that waits has none,
    /// and each does not have a page of its own, whose beginnings would push one another out of the cache.
    pub(super) fn poll_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
        let mut space = [MaybeUninit::uninit(); FIRST_READ];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(self).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(BytesMut::from(buf.filled())))
    }

    /// While nothing can be read: times a head, ends what is endless when the server stops.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let phase = *self.phase.get_mut();
        if phase == ENDLESS {
            let mut stop = self.stop.clone();
            let cut = self.cut.get_or_insert_with(|| {
                Box::pin(async move {
                    let _ = stop.wait_for(|stopping| *stopping).await;
                })
            });
            ready!(cut.as_mut().poll(cx));
            let why = "the server stops";
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, why));
        }
        if phase == OPEN && !self.frames.as_ref().is_some_and(|frames| frames.is_inside()) {
            return Poll::Pending;
        }
        let deadline = match self.deadline {
            Some((timed, deadline)) if timed == phase => deadline,
            _ => {
                let idle = phase == IDLE && !self.first;
                let timeout = if idle { self.keepalive_timeout } else { self.header_timeout };
                let deadline = Instant::now() + timeout;
                self.deadline = Some((phase, deadline));
                deadline
            }
        };
        ready!(self.poll_until(deadline, cx));
        if phase == HEAD {
            let detail = "the request head did not arrive in time";
            self.refuse(
                cx,
                &EdgeProblem::new(StatusCode::REQUEST_TIMEOUT, "header-timeout", detail),
            );
        }
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client was silent for too long"))
    }

    fn poll_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// Counts bytes of a head. `Err` when it is too long to be one.
    pub(super) fn count(&mut self, n: usize, cx: &mut Context<'_>) -> io::Result<()> {
        match *self.phase.get_mut() {
            OPEN | ENDLESS => return Ok(()),
            IDLE => {
                *self.phase.get_mut() = HEAD;
                self.head_bytes = 0;
                // The time of the first head runs on from the accept.
                self.deadline = match self.deadline {
                    Some((_, deadline)) if self.first => Some((HEAD, deadline)),
                    _ => None,
                };
            }
            _ => {}
        }
        self.head_bytes += n;
        if self.head_bytes <= self.head_cap {
            return Ok(());
        }
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let detail = "the request head is far longer than the limits on URI and header fields";
        self.refuse(cx, &EdgeProblem::new(status, "headers-too-large", detail));
        Err(io::Error::new(io::ErrorKind::InvalidData, "the request head is too long"))
    }

    /// Answers on the bare socket. Best effort: a full send buffer drops the answer.
    fn refuse(&mut self, cx: &mut Context<'_>, problem: &EdgeProblem) {
        let text = problem.http1_text();
        let _ = Pin::new(&mut self.io).poll_write(cx, &text);
        let _ = Pin::new(&mut self.io).poll_flush(cx);
    }
}
