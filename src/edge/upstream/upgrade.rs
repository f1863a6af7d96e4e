//! The upstream connection of an upgrade (WebSocket), and what it works around.
//!
//! Pingora 0.9 tears a fresh tunnel down when the upstream's `101` is read before the end of the
//! upgrade request's own, empty body has been taken from an internal queue (cloudflare/pingora
//! issue 946): that end is then mistaken for the end of the tunnel. A quick upstream on the same
//! machine hits this several times in a hundred.
//!
//! So upgrades get connections of their own, whose reader yields a few times after each write.
//! The queue is looked at in the same poll as the socket: by the time the socket may be read, the
//! end of the request body is through. Such a connection is never shared or kept.
//! Over a cleartext connection the client's end is passed on as an end, see [`HalfClose`]; Pingora would end the tunnel.
//! To be removed when Pingora has fixed it; `tests/proxy/websocket.rs` fails without it until then.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::{ALPN, HttpPeer};
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::edge::connection::HalfClose;

/// How often a read yields after a write. One is enough unless the task has used up its turn.
const YIELDS: u8 = 3;

/// Upgrades that were refused leave a connection behind that no later request can use.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(1);

/// Group keys of upgrades are above those of upstreams, and never the same twice.
const FIRST_GROUP: u64 = 1 << 63;

/// Prepares `peer` for an upgrade, which is a matter of HTTP/1.1. Returns what the tunnel's sockets are to share.
pub(super) fn prepare(peer: &mut HttpPeer, silence: Option<Duration>) -> Option<Arc<HalfClose>> {
    static NEXT: AtomicU64 = AtomicU64::new(FIRST_GROUP);
    peer.group_key = NEXT.fetch_add(1, Ordering::Relaxed);
    peer.options.alpn = ALPN::H1;
    peer.options.read_timeout = silence;
    peer.options.idle_timeout = Some(LEFTOVER_TIMEOUT);
    let half_close = (!peer.is_tls()).then(Arc::<HalfClose>::default);
    let connector = UpgradeConnector { half_close: half_close.clone() };
    peer.options.custom_l4 = Some(Arc::new(connector));
    half_close
}

#[derive(Debug)]
struct UpgradeConnector {
    half_close: Option<Arc<HalfClose>>,
}

#[async_trait]
impl L4Connect for UpgradeConnector {
    /// `total_connection_timeout` bounds it from outside.
    async fn connect(&self, addr: &SocketAddr) -> Result<Stream> {
        let Some(addr) = addr.as_inet() else {
            return Error::e_explain(ErrorType::ConnectError, "upgrades go over TCP");
        };
        let socket = TcpStream::connect(addr).await.map_err(|error| {
            let etype = match error.kind() {
                ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    ErrorType::ConnectNoRoute
                }
                _ => ErrorType::ConnectError,
            };
            Error::because(etype, "connecting for an upgrade", error)
        })?;
        let half_close = self.half_close.clone();
        let socket = YieldingSocket { socket, yields: 0, half_close, answered: false };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

/// A socket whose reader lets others go first after each write.
#[derive(Debug)]
struct YieldingSocket {
    socket: TcpStream,
    yields: u8,
    /// There until the client's end has been passed on.
    half_close: Option<Arc<HalfClose>>,
    /// The upstream has sent something: what is written from here on comes out of the tunnel.
    answered: bool,
}

impl VirtualSocket for YieldingSocket {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.socket.set_nodelay(true),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for YieldingSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.yields > 0 {
            self.yields -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.half_close.as_ref().is_some_and(|shared| shared.is_due(cx.waker())) {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            self.half_close = None;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.answered |= buf.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for YieldingSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.yields = YIELDS;
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, buf))?;
        if let Some(shared) = self.half_close.as_ref().filter(|_| self.answered) {
            shared.taken(written);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
