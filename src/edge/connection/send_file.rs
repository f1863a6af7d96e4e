//! Sealed segments on their way to a client: the kernel sends pages of the file (`sendfile`), and this process copies none.
//!
//! In cleartext only, and on Linux; everywhere else bodies are read and written in pieces.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{future::poll_fn, ops::Range};

use pingora::{ErrorType, OrErr};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::{ClientConnection, ConnectionStream, WritePace};

/// Bytes that one call sends at most, so that other connections of the thread have their turn.
const MOST: u64 = 512 << 10;
/// Bytes that are copied where the socket is full: writing them is how the runtime learns that it must wait for room.
const FEW: usize = 4 << 10;

impl ClientConnection {
    /// Whether [`send_file_in_time`](Self::send_file_in_time) works on this connection.
    pub(crate) fn sends_files(&self) -> bool {
        cfg!(target_os = "linux") && !self.io.is_tls()
    }

    /// Writes a part of a file behind what was held back. The time that the client has begins again with every byte that
    /// it takes, unless it has a rate to keep, as with [`send_in_time`](Self::send_in_time).
    ///
    /// # Errors
    /// `WriteTimedout`, `WriteError`; the latter also when the file ends before the part does.
    pub(crate) async fn send_file_in_time(
        &mut self,
        file: &File,
        mut part: Range<u64>,
        pace: WritePace,
    ) -> pingora::Result<()> {
        let length = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
        let whole = pace.min_send_rate.map(|_| Instant::now() + pace.time_for(length));
        while part.start < part.end {
            let until = whole.unwrap_or_else(|| Instant::now() + pace.write_timeout);
            let sending = poll_fn(|cx| self.poll_file(cx, file, &part));
            let sent = tokio::time::timeout_at(until, sending)
                .await
                .or_err(ErrorType::WriteTimedout, "writing to the client")?
                .or_err(ErrorType::WriteError, "writing to the client")?;
            part.start += sent;
        }
        Ok(())
    }

    /// Sends what was held back, as far as the socket takes it at once; the kernel lets it wait for what follows, and sends one
    /// segment less. Measured: docs/benchmarks.md, "Replays out of sealed segments".
    fn release_with_more(&mut self) {
        if !self.held.is_empty() && !self.io.is_tls() {
            let sent = send_with_more(&self.io, &self.held).unwrap_or_default();
            self.held.drain(..sent);
        }
    }

    /// Sends some of a part of a file, which is not empty. Returns how many bytes.
    fn poll_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        part: &Range<u64>,
    ) -> Poll<io::Result<u64>> {
        self.release_with_more();
        ready!(self.poll_release(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        let left = (part.end - part.start).min(MOST) as usize;
        match send(&self.io, file, part.start, left) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(sent) => Poll::Ready(Ok(sent as u64)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut few = [0; FEW];
                let few = &mut few[..left.min(FEW)];
                file.read_exact_at(few, part.start)?;
                let sent = ready!(Pin::new(&mut self.io).poll_write(cx, few))?;
                Poll::Ready(if sent == 0 {
                    Err(io::ErrorKind::WriteZero.into())
                } else {
                    Ok(sent as u64)
                })
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

#[cfg(target_os = "linux")]
fn send(io: &ConnectionStream, file: &File, mut from: u64, count: usize) -> io::Result<usize> {
    Ok(rustix::fs::sendfile(descriptor(io), file, Some(&mut from), count)?)
}

#[cfg(target_os = "linux")]
fn send_with_more(io: &ConnectionStream, bytes: &[u8]) -> io::Result<usize> {
    use rustix::net::SendFlags;
    let flags = SendFlags::MORE | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::net::send(descriptor(io), bytes, flags)?)
}

#[cfg(target_os = "linux")]
fn descriptor(io: &ConnectionStream) -> BorrowedFd<'_> {
    #[expect(unsafe_code, reason = "Pingora's stream lends its descriptor as a number only")]
    // SAFETY: the descriptor is the stream's, which is borrowed for as long as the result is.
    unsafe {
        BorrowedFd::borrow_raw(io.socket().as_raw_fd())
    }
}

#[cfg(not(target_os = "linux"))]
fn send_with_more(_: &ConnectionStream, _: &[u8]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn send(_: &ConnectionStream, _: &File, _: u64, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}
