//! One accepted connection, between the socket and Pingora.
//!
//! Pingora 0.9 bounds each *read* of a request head, not the head: a client that sends one byte a
//! minute holds a connection for ever. It also waits for 24 bytes before it believes that a client
//! is not HTTP/2, with no limit at all. This transport closes both gaps, and lingers on close.
//!
//! - From the accept, or the first byte of a later request, the whole head has `header_timeout`;
//!   then 408, or just the end if not one byte came. A head far beyond its limit is 431.
//! - Between requests it may be silent for `keepalive_timeout`.
//! - One timer per connection, moved only when it fires: the usual request, whose head arrives in one
//!   read, costs a look at the clock, where Pingora's own keep-alive sets up a timer for each.
//! - Over HTTP/2 the rest of a frame or header block has `header_timeout`, too; see `frames`.
//! - HTTP/2 by prior knowledge is recognised as soon as the bytes can be told apart.
//! - One request at a time is handed on: its head, then its body to the last byte. What follows waits.
//! - Closing lingers: it waits for the client to have read the answer, half a second, or as long as the client goes on
//!   sending (bounded in time and bytes). Without that, an early answer (413, 431) is lost to the reset that unread
//!   request bytes cause.
//! - A proxied tunnel or event stream is cut when a stop begins (HTTP/1.1; on HTTP/2 it is cut by
//!   `shutdown_timeout`).
//! - Dropping it returns the connection's permit.
//!
//! What it does about heads and stops is in `deadline`, what Pingora asks of a transport besides bytes
//! in `transport`, how it writes in `send`.

mod deadline;
mod frames;
mod half_close;
mod send;
mod send_file;
mod stream;
mod transport;

pub(crate) use half_close::HalfClose;
pub(crate) use send::WritePace;
pub use stream::ConnectionStream;

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pingora::protocols::ALPN;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use frames::FrameScanner;
use send_file::SendBuffer;

use super::http1::chunks::InvalidChunk;
use super::http1::framing::RequestBody;
use super::options::HttpLimits;
use durable_streams_pingora::transport::ClientPermit;

/// Writes up to this many bytes are held back until a flush or a larger one.
pub(crate) const HOLD: usize = 4096;

/// Before the first byte of a head.
const IDLE: u8 = 0;
/// Inside a head.
const HEAD: u8 = 1;
/// Body, tunnel or HTTP/2: the session has its own timeouts.
const OPEN: u8 = 2;
/// A proxied tunnel or event stream: it has no end to wait for when the server stops.
const ENDLESS: u8 = 3;

/// Nothing was announced since the last read.
const NOTHING: u64 = u64::MAX;
/// A chunked body.
const CHUNKED: u64 = u64::MAX - 1;
/// A tunnel. Any other number: the length of the body, bytes.
const UNBOUNDED: u64 = u64::MAX - 2;

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The transport handed to Pingora.
pub struct ClientConnection {
    io: ConnectionStream,
    phase: AtomicU8,
    /// Bytes that were read and not handed on: the HTTP/2 preface, a body behind its head, what a client sent ahead of
    /// its next request. At most one read and [`HOLD`].
    peeked: BytesMut,
    /// What of the present request may be read, once its head has been.
    body: RequestBody,
    /// The body of the present request as its parsed head has it, for the next read; see [`announce`].
    announced: AtomicU64,
    /// Small writes that wait for what follows them, such as a response's head for its body, or for
    /// a flush: one system call for both, without copying a large body.
    held: Vec<u8>,
    send_buffer: SendBuffer,
    /// There in a tunnel whose upstream can be told of the client's end.
    half_close: OnceLock<Arc<HalfClose>>,
    /// There over HTTP/2.
    frames: Option<Box<FrameScanner>>,
    head_bytes: usize,
    head_cap: usize,
    header_timeout: Duration,
    keepalive_timeout: Duration,
    /// The first head is timed from the accept, later ones from their first byte.
    first: bool,
    /// When the present wait ends, and the phase it belongs to.
    deadline: Option<(u8, Instant)>,
    /// Fires at the deadline or earlier.
    timer: Option<Pin<Box<Sleep>>>,
    stop: ShutdownWatch,
    /// Waits for `stop`; there only while the phase is `ENDLESS`.
    cut: Option<BoxFuture>,
    _permit: OwnedSemaphorePermit,
    client_place: Option<ClientPermit>,
}

impl std::fmt::Debug for ClientConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("io", &self.io).finish_non_exhaustive()
    }
}

impl ClientConnection {
    /// Wraps an accepted socket; `permit` is returned when the connection is gone.
    pub fn new(
        io: impl Into<ConnectionStream>,
        limits: &HttpLimits,
        stop: ShutdownWatch,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        ClientConnection {
            io: io.into(),
            phase: AtomicU8::new(IDLE),
            peeked: BytesMut::new(),
            body: RequestBody::Unbounded,
            announced: AtomicU64::new(NOTHING),
            held: Vec::new(),
            send_buffer: limits.send_buffer.map_or(SendBuffer::System, |_| SendBuffer::Kept),
            half_close: OnceLock::new(),
            frames: None,
            head_bytes: 0,
            // Pingora's buffer doubles as it reads, so a head within bounds, read together with
            // the start of its body, stays below this.
            head_cap: 2 * (limits.max_header_bytes + limits.max_uri) + 8192,
            header_timeout: limits.header_timeout,
            keepalive_timeout: limits.keepalive_timeout,
            first: true,
            deadline: None,
            timer: None,
            stop,
            cut: None,
            _permit: permit,
            client_place: None,
        }
    }

    /// Keeps the place of its client as long as the connection is open.
    #[must_use]
    pub(crate) fn of_client(mut self, place: Option<ClientPermit>) -> Self {
        self.client_place = place;
        self
    }

    /// Whether the TLS handshake agreed on HTTP/2. The client then speaks it.
    pub(crate) fn agreed_on_http2(&mut self) -> bool {
        let agreed = self.io.alpn() == Some(ALPN::H2);
        if agreed {
            self.speak_http2();
        }
        agreed
    }

    /// While a response is under way: ready when the client has left. What it sends meanwhile waits.
    pub(crate) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        *self.announced.get_mut() = NOTHING;
        // The rest of a body that was refused is not read.
        self.body = RequestBody::Length(0);
        let left = ready!(self.poll_behind(cx));
        Poll::Ready(left.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))
    }
}

/// The head of the current request has been parsed: its clock stops, and its body may be read. Says whether this
/// transport times the silence between requests; in an application with listeners of its own there is another, which
/// does not.
pub(crate) fn head_done(session: &ServerSession) -> bool {
    let Some(connection) = of(session) else { return false };
    connection.announce(match RequestBody::of(session.req_header()) {
        RequestBody::Chunked(_) => CHUNKED,
        RequestBody::Length(length) => length,
        RequestBody::Unknown | RequestBody::Unbounded => UNBOUNDED,
    });
    connection.phase.store(OPEN, Ordering::Relaxed);
    true
}

/// Whether this connection can send parts of files.
pub(crate) fn sends_files(session: &ServerSession) -> bool {
    of(session).is_some_and(ClientConnection::sends_files)
}

/// The connection belongs to the two ends from here on. `half_close`: what it shares with the upstream's socket.
pub(crate) fn tunnel(session: &ServerSession, half_close: Option<Arc<HalfClose>>) {
    if let Some(connection) = of(session) {
        if let Some(shared) = half_close {
            let _ = connection.half_close.set(shared);
        }
        connection.announce(UNBOUNDED);
    }
    endless(session);
}

/// The response being passed on has no end of its own: a stop does not wait for it.
pub(crate) fn endless(session: &ServerSession) {
    if let Some(connection) = of(session) {
        connection.phase.store(ENDLESS, Ordering::Relaxed);
    }
}

fn of(session: &ServerSession) -> Option<&ClientConnection> {
    let stream = session.as_http1()?.stream();
    // `**`: the transport in the box, not the box, which is `Any` as well.
    (**stream).as_any().downcast_ref()
}

impl AsyncRead for ClientConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let in_head = *this.phase.get_mut() <= HEAD;
        if !in_head {
            this.heed_announced();
            if matches!(this.body, RequestBody::Unknown) {
                let why = "the head has another end for its parser";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            if this.body.is_done() {
                return this.poll_behind(cx);
            }
        }
        if !this.peeked.is_empty() {
            let n = this.peeked.len().min(buf.remaining());
            let n = if in_head { n } else { this.body.take(&this.peeked[..n]).map_err(invalid)? };
            buf.put_slice(&this.peeked[..n]);
            this.follow(&buf.filled()[buf.filled().len() - n..]);
            this.peeked.advance(n);
            if this.peeked.is_empty() {
                this.peeked = BytesMut::new();
            }
            return Poll::Ready(this.count(n, cx));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let read = &buf.filled()[before..];
                if read.is_empty() {
                    return this.poll_end(cx);
                }
                let mut n = read.len();
                if !in_head {
                    n = this.body.take(read).map_err(invalid)?;
                    this.peeked.extend_from_slice(&read[n..]);
                    buf.set_filled(before + n);
                }
                this.follow(&buf.filled()[before..]);
                Poll::Ready(this.count(n, cx))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.poll_deadline(cx).map(Err),
        }
    }
}

/// Chunks that are not valid, as an error that [`is_invalid`](super::http1::framing::is_invalid) recognizes.
fn invalid(error: InvalidChunk) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
