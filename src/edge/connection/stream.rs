//! The bytes of a connection: the socket itself, or TLS on it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{ALPN, Shutdown, UniqueID};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;

/// Where the bytes of a connection come from and go to.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "cleartext and TLS do not mix on a listener; a box around the socket would cost every read a look more"
)]
pub enum ConnectionStream {
    /// Cleartext.
    Plain(L4Stream),
    /// TLS, boxed: its state is far larger than a socket.
    Tls(Box<TlsStream<L4Stream>>, Arc<SslDigest>),
}

impl From<L4Stream> for ConnectionStream {
    fn from(socket: L4Stream) -> Self {
        ConnectionStream::Plain(socket)
    }
}

impl From<TlsStream<L4Stream>> for ConnectionStream {
    fn from(stream: TlsStream<L4Stream>) -> Self {
        let digest = Arc::new(digest(&stream));
        ConnectionStream::Tls(Box::new(stream), digest)
    }
}

/// What Pingora keeps of a handshake. The peer's certificate is kept whole, as access control needs its names.
fn digest(stream: &TlsStream<L4Stream>) -> SslDigest {
    let session = stream.get_ref().1;
    let suite = session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    let version = session.protocol_version().map(|version| format!("{version:?}"));
    let peer = session.peer_certificates().and_then(|chain| chain.first());
    let certificate = peer.map(|der| der.to_vec()).unwrap_or_default();
    SslDigest::new(suite.unwrap_or_default(), version.unwrap_or_default(), None, None, certificate)
}

impl ConnectionStream {
    pub(super) fn socket(&self) -> &L4Stream {
        match self {
            ConnectionStream::Plain(socket) => socket,
            ConnectionStream::Tls(stream, _) => stream.get_ref().0,
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self, ConnectionStream::Tls(..))
    }

    pub(super) fn ssl_digest(&self) -> Option<Arc<SslDigest>> {
        match self {
            ConnectionStream::Plain(_) => None,
            ConnectionStream::Tls(_, digest) => Some(digest.clone()),
        }
    }

    /// The protocol that the handshake agreed on; `None` in cleartext and where the client named none.
    pub(super) fn alpn(&self) -> Option<ALPN> {
        let ConnectionStream::Tls(stream, _) = self else { return None };
        match stream.get_ref().1.alpn_protocol()? {
            b"h2" => Some(ALPN::H2),
            _ => Some(ALPN::H1),
        }
    }

    pub(super) fn id(&self) -> pingora::protocols::UniqueIDType {
        self.socket().id()
    }

    /// Ends the sending side: TLS says so first, as a truncated stream could otherwise not be told from a whole one.
    pub(super) async fn end(&mut self) {
        match self {
            ConnectionStream::Plain(socket) => Shutdown::shutdown(socket).await,
            ConnectionStream::Tls(stream, _) => {
                let _ = stream.shutdown().await;
            }
        }
    }
}

/// Calls a method on whichever stream it is.
macro_rules! on_stream {
    ($this:expr, $method:ident($($argument:expr),*)) => {
        match $this.get_mut() {
            ConnectionStream::Plain(socket) => Pin::new(socket).$method($($argument),*),
            ConnectionStream::Tls(stream, _) => Pin::new(&mut **stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for ConnectionStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for ConnectionStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            ConnectionStream::Plain(socket) => socket.is_write_vectored(),
            ConnectionStream::Tls(stream, _) => stream.is_write_vectored(),
        }
    }
}
