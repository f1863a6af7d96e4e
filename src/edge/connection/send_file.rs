//! Sealed segments on their way to a client: the kernel sends pages of the file (`sendfile`), and this process copies none.
//!
//! In cleartext only, and on Linux; everywhere else bodies are read and written in pieces.
//!
//! Several long responses at once to clients on the same machine, such as a proxy in front, have small send buffers: what waits in
//! a large one has left the processor's cache when the client reads it. Others keep theirs, since a client that is some
//! milliseconds away gets no more than a send buffer in a round trip. Measured: docs/benchmarks.md, "Replays out of sealed segments".

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::{future::poll_fn, ops::Range};

use pingora::{ErrorType, OrErr};
use socket2::SockRef;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::{ClientConnection, ConnectionStream, WritePace};

/// Bytes that one call sends at most, so that other connections of the thread have their turn.
const MOST: u64 = 512 << 10;
/// Bytes that are copied where the socket is full: writing them is how the runtime learns that it must wait for room.
const FEW: usize = 4 << 10;

/// A part of a file with fewer bytes than this fits a small send buffer, or nearly.
const LONG: usize = 128 << 10;
/// So many long parts at once make send buffers small, and fewer than half as many make them large again.
const CROWD: usize = 4;
/// The long parts of files that are being sent, by all connections of the process.
static SENDING: AtomicUsize = AtomicUsize::new(0);

/// The size of a connection's send buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SendBuffer {
    /// As it was set, or as the system has it for a client on another machine.
    Kept,
    /// As the system has it, for a client that may be on this machine.
    System,
    /// 64 KiB, which Linux doubles.
    Small,
    /// 1 MiB, or what the system allows (`net.core.wmem_max`). There is no way back to `System`.
    Large,
}

/// A long part of a file that is being sent.
struct Sending;

impl Sending {
    /// With the number of them, this one included.
    fn begin() -> (Self, usize) {
        (Sending, SENDING.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        SENDING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SendBuffer {
    /// What it should be while so many long parts are sent.
    fn beside(self, sending: usize) -> Self {
        match self {
            SendBuffer::System | SendBuffer::Large if sending >= CROWD => SendBuffer::Small,
            SendBuffer::Small if sending < CROWD / 2 => SendBuffer::Large,
            same => same,
        }
    }
}

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
        let _sending = (length >= LONG).then(|| {
            let (sending, count) = Sending::begin();
            self.fit_send_buffer(count);
            sending
        });
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

    /// Changes the send buffer where the number of long parts that are being sent asks for it.
    fn fit_send_buffer(&mut self, sending: usize) {
        let wanted = self.send_buffer.beside(sending);
        if wanted == self.send_buffer {
            return;
        }
        self.send_buffer = set_send_buffer(&self.io, wanted).unwrap_or(SendBuffer::Kept);
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

/// Sets the send buffer of a client on this machine; another keeps what it has.
#[cfg(target_os = "linux")]
fn set_send_buffer(io: &ConnectionStream, wanted: SendBuffer) -> io::Result<SendBuffer> {
    let socket = descriptor(io);
    let socket = SockRef::from(&socket);
    let address = socket.peer_addr()?.as_socket();
    if !address.is_some_and(|address| address.ip().to_canonical().is_loopback()) {
        return Ok(SendBuffer::Kept);
    }
    socket.set_send_buffer_size(if wanted == SendBuffer::Small { 64 << 10 } else { 1 << 20 })?;
    Ok(wanted)
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
fn set_send_buffer(_: &ConnectionStream, _: SendBuffer) -> io::Result<SendBuffer> {
    Ok(SendBuffer::Kept)
}

#[cfg(not(target_os = "linux"))]
fn send(_: &ConnectionStream, _: &File, _: u64, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use pingora::protocols::l4::stream::Stream as L4Stream;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{Semaphore, watch};

    use super::*;
    use crate::edge::options::HttpLimits;

    /// An accepted connection, and its client.
    async fn connection(limits: &HttpLimits) -> (ClientConnection, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = L4Stream::from(listener.accept().await.unwrap().0);
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (_, stop) = watch::channel(false);
        (ClientConnection::new(socket, limits, stop, permit), client)
    }

    fn size(connection: &ClientConnection) -> usize {
        SockRef::from(&descriptor(&connection.io)).send_buffer_size().unwrap()
    }

    #[tokio::test]
    async fn a_send_buffer_is_small_beside_others_and_large_again_without_them() {
        let (mut connection, _client) = connection(&HttpLimits::DEFAULT).await;
        let system = size(&connection);
        connection.fit_send_buffer(CROWD - 1);
        assert_eq!(size(&connection), system);
        connection.fit_send_buffer(CROWD);
        assert_eq!(size(&connection), 128 << 10, "64 KiB, doubled");
        for sending in (CROWD / 2)..CROWD {
            connection.fit_send_buffer(sending);
            assert_eq!(size(&connection), 128 << 10);
        }
        connection.fit_send_buffer(1);
        assert!(size(&connection) > 256 << 10, "{} bytes", size(&connection));
        connection.fit_send_buffer(CROWD);
        assert_eq!(size(&connection), 128 << 10);
    }

    #[tokio::test]
    async fn a_configured_send_buffer_is_kept() {
        let limits = HttpLimits { send_buffer: Some(512 << 10), ..HttpLimits::DEFAULT };
        let (mut connection, _client) = connection(&limits).await;
        let before = size(&connection);
        connection.fit_send_buffer(CROWD);
        assert_eq!(size(&connection), before);
    }

    #[test]
    fn a_client_on_another_machine_keeps_the_systems_send_buffer() {
        for sending in [1, CROWD, 100 * CROWD] {
            assert!(SendBuffer::Kept.beside(sending) == SendBuffer::Kept);
        }
    }

    #[tokio::test]
    async fn long_parts_are_counted_while_they_are_sent() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let pace = WritePace { write_timeout: Duration::from_secs(30), min_send_rate: None };
        let mut stalled = Vec::new();
        for _ in 0..CROWD {
            let (mut connection, client) = connection(&HttpLimits::DEFAULT).await;
            let file = file.try_clone().unwrap();
            // The client reads nothing, and this is more than the buffers of both sockets take.
            let sending = tokio::spawn(async move {
                for _ in 0..64 {
                    connection.send_file_in_time(&file, 0..1 << 20, pace).await?;
                }
                Ok::<_, Box<pingora::Error>>(connection)
            });
            stalled.push((sending, client));
        }
        while SENDING.load(Ordering::Relaxed) < CROWD {
            tokio::task::yield_now().await;
        }
        let (mut last, mut reader) = connection(&HttpLimits::DEFAULT).await;
        let reading = tokio::spawn(async move {
            let mut sink = tokio::io::sink();
            tokio::io::copy(&mut reader, &mut sink).await.unwrap()
        });
        last.send_file_in_time(&file, 0..100, pace).await.unwrap();
        assert!(last.send_buffer == SendBuffer::System, "a short part");
        last.send_file_in_time(&file, 0..1 << 20, pace).await.unwrap();
        assert!(last.send_buffer == SendBuffer::Small);
        for (sending, _client) in stalled {
            sending.abort();
            let _ = sending.await;
        }
        last.send_file_in_time(&file, 0..1 << 20, pace).await.unwrap();
        assert!(last.send_buffer == SendBuffer::Large);
        drop(last);
        assert_eq!(reading.await.unwrap(), (2 << 20) + 100);
    }
}
