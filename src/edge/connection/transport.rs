//! What Pingora asks of a transport besides bytes; mostly forwarded to the socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::AsyncReadExt;

use super::ClientConnection;

/// How long a closing connection waits for the client to close too.
const LINGER: Duration = Duration::from_millis(500);

#[async_trait]
impl Peek for ClientConnection {
    /// What `Connection::sniff` has seen, zero-filled; Pingora compares it with the preface.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        buf.fill(0);
        let n = self.peeked.len().min(buf.len());
        buf[..n].copy_from_slice(&self.peeked[..n]);
        Ok(true)
    }
}

#[async_trait]
impl Shutdown for ClientConnection {
    async fn shutdown(&mut self) {
        self.io.end().await;
        let drain = async {
            let mut sink = [0; 4096];
            while self.io.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
}

impl UniqueID for ClientConnection {
    fn id(&self) -> UniqueIDType {
        self.io.id()
    }
}

impl Ssl for ClientConnection {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.io.ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.io.alpn()
    }
}

impl GetTimingDigest for ClientConnection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.io.socket().get_timing_digest()
    }
}

impl GetProxyDigest for ClientConnection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.io.socket().get_proxy_digest()
    }
}

impl GetSocketDigest for ClientConnection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.io.socket().get_socket_digest()
    }
}
