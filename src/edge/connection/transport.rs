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

use super::{ClientConnection, ConnectionStream};

/// How long a closing connection waits for the client to close too.
const LINGER: Duration = Duration::from_millis(500);

/// As [`LINGER`], for each pause of a client that is still sending.
const LINGER_PAUSE: Duration = Duration::from_secs(2);

/// How long a closing connection discards what the client still sends, all pauses together.
const LINGER_TOTAL: Duration = Duration::from_secs(30);

/// How much a closing connection discards, bytes.
const LINGER_BYTES: usize = 256 << 20;

/// What is discarded at once, bytes.
const DISCARD: usize = 16 << 10;

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
    /// Closes with lingering (RFC 9112 §9.6): ends the sending side, and reads on until the client has closed. A
    /// client that is still sending a request body would otherwise lose the response to the reset that unread bytes
    /// cause; many proxies read a response only after they have sent the whole request. A stop ends the wait.
    async fn shutdown(&mut self) {
        self.io.end().await;
        let mut stop = self.stop.clone();
        let stopped = async {
            let _ = stop.wait_for(|stopping| *stopping).await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            () = discard(&mut self.io) => {}
            () = stopped => {}
            () = tokio::time::sleep(LINGER_TOTAL) => {}
        }
    }
}

/// Reads until the client has closed, pauses or has sent enough.
async fn discard(io: &mut ConnectionStream) {
    let mut sink = vec![0; DISCARD];
    let (mut pause, mut left) = (LINGER, LINGER_BYTES);
    while left > 0 {
        match tokio::time::timeout(pause, io.read(&mut sink)).await {
            Ok(Ok(n)) if n > 0 => left = left.saturating_sub(n),
            _ => return,
        }
        pause = LINGER_PAUSE;
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
