//! Writing to a client: what is held back to go out with what follows, and the time that the client has to take it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use durable_streams_pingora::transport::PATIENCE;
use pingora::{ErrorType, OrErr};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::{ClientConnection, HOLD};
use crate::edge::options::HttpLimits;

/// What an idle connection may keep of the memory for what is held back, bytes.
const KEEP: usize = 1024;

/// Chunks in one vectored write.
const SLICES: usize = 16;

/// How slowly a client may take what is written to it; see [`HttpLimits`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct WritePace {
    pub(super) write_timeout: Duration,
    pub(super) min_send_rate: Option<usize>,
}

impl WritePace {
    /// The longest that a write may take. As Pingora has it: a whole write is judged, and it has a second at least.
    pub(super) fn time_for(self, bytes: usize) -> Duration {
        let slowest = self.min_send_rate.filter(|rate| *rate > 0);
        slowest.map_or(self.write_timeout, |rate| {
            Duration::from_secs_f64(bytes.max(rate) as f64 / rate as f64)
        })
    }
}

impl HttpLimits {
    pub(crate) fn pace(&self) -> WritePace {
        WritePace { write_timeout: self.write_timeout, min_send_rate: self.min_send_rate }
    }
}

impl ClientConnection {
    /// Sends what was held back.
    pub(super) fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.held))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..n);
        }
        if self.held.capacity() > KEEP {
            self.held = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes all of `head` and `body` behind what was held back. The time that the client has begins again with every
    /// byte that it takes, unless it has a rate to keep.
    ///
    /// # Errors
    /// `WriteTimedout`, `WriteError`.
    pub(crate) async fn send_in_time(
        &mut self,
        mut head: &[u8],
        mut body: &[u8],
        pace: WritePace,
    ) -> pingora::Result<()> {
        let whole = pace.time_for(head.len() + body.len());
        let whole = pace.min_send_rate.map(|_| Instant::now() + whole);
        if !self.held.is_empty() && self.held.len() + head.len() <= HOLD {
            self.held.extend_from_slice(head);
            head = &[];
        }
        loop {
            let until = whole.unwrap_or_else(|| Instant::now() + pace.write_timeout);
            let sent = tokio::time::timeout_at(until, self.send_some(&mut head, &mut body))
                .await
                .or_err(ErrorType::WriteTimedout, "writing to the client")?
                .or_err(ErrorType::WriteError, "writing to the client")?;
            if sent {
                return Ok(());
            }
        }
    }

    /// Holds `text` back, to go out with what follows at once. Writes it where it is too long.
    ///
    /// # Errors
    /// `WriteTimedout`, `WriteError`.
    pub(crate) async fn hold_or_send(
        &mut self,
        text: Vec<u8>,
        pace: WritePace,
    ) -> pingora::Result<()> {
        if self.held.len() + text.len() > HOLD {
            return self.send_in_time(&text, &[], pace).await;
        }
        if self.held.is_empty() {
            self.held = text;
        } else {
            self.held.extend_from_slice(&text);
        }
        Ok(())
    }

    /// Writes `chunks` behind what was held back, as far as the client takes them within [`PATIENCE`]. Returns how many
    /// bytes that is. Over TLS some of them may wait for [`flush_in_time`](Self::flush_in_time).
    ///
    /// # Errors
    /// `WriteError`.
    pub(crate) async fn send_at_once(&mut self, chunks: &[Bytes]) -> pingora::Result<usize> {
        let total: usize = chunks.iter().map(Bytes::len).sum();
        let mut taken = 0;
        let sending = poll_fn(|cx| {
            while taken < total {
                taken += ready!(self.poll_chunks(cx, chunks, taken))?;
            }
            Poll::Ready(Ok::<(), io::Error>(()))
        });
        if let Ok(sent) = tokio::time::timeout(PATIENCE, sending).await {
            sent.or_err(ErrorType::WriteError, "writing to the client")?;
        }
        Ok(taken)
    }

    /// Writes what was held back and some of `chunks` after their first `skip` bytes. Returns how many of these.
    fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &[Bytes],
        mut skip: usize,
    ) -> Poll<io::Result<usize>> {
        let ClientConnection { io, held, .. } = self;
        let mut slices = [io::IoSlice::new(held); SLICES];
        let mut count = usize::from(!held.is_empty());
        for chunk in chunks {
            let from = skip.min(chunk.len());
            skip -= from;
            let Some(slice) = slices.get_mut(count) else { break };
            if from < chunk.len() {
                *slice = io::IoSlice::new(&chunk[from..]);
                count += 1;
            }
        }
        let n = ready!(Pin::new(io).poll_write_vectored(cx, &slices[..count]))?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_held = n.min(held.len());
        held.drain(..of_held);
        if held.is_empty() && held.capacity() > KEEP {
            *held = Vec::new();
        }
        Poll::Ready(Ok(n - of_held))
    }

    /// Writes what TLS keeps of what was sent.
    ///
    /// # Errors
    /// Those of [`send_in_time`](Self::send_in_time).
    pub(crate) async fn flush_in_time(&mut self, pace: WritePace) -> pingora::Result<()> {
        match self.io.is_tls() {
            true => self.send_in_time(&[], &[], pace).await,
            false => Ok(()),
        }
    }

    /// Writes something. Returns whether that was all.
    async fn send_some(&mut self, head: &mut &[u8], body: &mut &[u8]) -> io::Result<bool> {
        poll_fn(|cx| {
            ready!(self.poll_release(cx))?;
            if !head.is_empty() || !body.is_empty() {
                let io = Pin::new(&mut self.io);
                let n = match (head.is_empty(), body.is_empty()) {
                    (true, _) => ready!(io.poll_write(cx, body))?,
                    (false, true) => ready!(io.poll_write(cx, head))?,
                    (false, false) => {
                        let both = [io::IoSlice::new(head), io::IoSlice::new(body)];
                        ready!(io.poll_write_vectored(cx, &both))?
                    }
                };
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                let of_head = n.min(head.len());
                *head = head.get(of_head..).unwrap_or_default();
                *body = body.get(n - of_head..).unwrap_or_default();
                if !head.is_empty() || !body.is_empty() {
                    return Poll::Ready(Ok(false));
                }
            }
            // A TLS record that the socket did not take stays with TLS until it is flushed.
            if self.io.is_tls() {
                ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            }
            Poll::Ready(Ok(true))
        })
        .await
    }
}

/// Bytes that were held back and never flushed (a response just before a failure) are written, as far as
/// the socket takes it at once.
impl Drop for ClientConnection {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            let _ = self.poll_release(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl AsyncWrite for ClientConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.held.len() + buf.len() <= HOLD {
            this.held.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        while !this.held.is_empty() {
            let both = [io::IoSlice::new(&this.held), io::IoSlice::new(buf)];
            let n = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, &both))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let held = this.held.len().min(n);
            this.held.drain(..held);
            if n > held {
                return Poll::Ready(Ok(n - held));
            }
        }
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
