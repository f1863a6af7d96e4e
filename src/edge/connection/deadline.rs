//! The first bytes of a connection, the time and size of each head, and the end of what has none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::{Connection, ENDLESS, HEAD, IDLE, OPEN};
use crate::edge::problem::Problem;

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// As much as Pingora reads at first, so that a small request still takes one read.
const FIRST_READ: usize = 4096;

impl Connection {
    /// Reads until the bytes differ from the HTTP/2 preface or are all of it. To be called once,
    /// before Pingora gets the connection: its own look takes 24 bytes however long they take,
    /// and does not end when the server stops.
    ///
    /// # Errors
    /// The client left, or said nothing within the time for a head.
    pub async fn sniff(&mut self) -> io::Result<()> {
        let mut seen = Vec::with_capacity(FIRST_READ);
        while seen.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&seen) {
            match self.read_buf(&mut seen).await? {
                0 if seen.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                0 => break,
                _ => {}
            }
        }
        self.first = false;
        if seen.starts_with(H2_PREFACE) {
            *self.phase.get_mut() = OPEN;
            self.timer = None;
        }
        // They are counted again when they are read again.
        self.head_bytes = 0;
        self.peeked = seen;
        Ok(())
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
        if phase == OPEN || (phase == IDLE && !self.first) {
            self.timer = None;
            return Poll::Pending;
        }
        let timeout = self.header_timeout;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + timeout)));
        ready!(timer.as_mut().poll(cx));
        if phase == HEAD {
            let detail = "the request head did not arrive in time";
            self.refuse(cx, &Problem::new(StatusCode::REQUEST_TIMEOUT, "header-timeout", detail));
        }
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the request head took too long"))
    }

    /// Counts bytes of a head. `Err` when it is too long to be one.
    pub(super) fn count(&mut self, n: usize, cx: &mut Context<'_>) -> io::Result<()> {
        match *self.phase.get_mut() {
            OPEN | ENDLESS => return Ok(()),
            IDLE => {
                *self.phase.get_mut() = HEAD;
                self.head_bytes = 0;
                if !self.first {
                    // Whatever is left of an earlier head's timer.
                    self.timer = None;
                }
            }
            _ => {}
        }
        self.head_bytes += n;
        if self.head_bytes <= self.head_cap {
            return Ok(());
        }
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let detail = "the request head is far longer than the limits on URI and header fields";
        self.refuse(cx, &Problem::new(status, "headers-too-large", detail));
        Err(io::Error::new(io::ErrorKind::InvalidData, "the request head is too long"))
    }

    /// Answers on the bare socket. Best effort: a full send buffer drops the answer.
    fn refuse(&mut self, cx: &mut Context<'_>, problem: &Problem) {
        let text = problem.http1_text();
        let _ = Pin::new(&mut self.io).poll_write(cx, &text);
        let _ = Pin::new(&mut self.io).poll_flush(cx);
    }
}
