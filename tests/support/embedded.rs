//! Somebody else's Pingora application with the streams mounted in it, as in examples/embed.rs.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use durable_streams_engine::Engine;
use durable_streams_server::edge::{AuditLevel, DurableStreams, StreamOptions};
use pingora::apps::ServerApp;
use pingora::prelude::{HttpPeer, ProxyHttp, Result, Session};
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::{GetSocketDigest, SocketDigest};
use pingora::server::configuration::ServerConf;
use pingora::services::background::BackgroundService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::served::{ServedFeatures, open_subscriptions};
use super::server::TestServer;
use super::transports::upstream;

struct App {
    streams: DurableStreams,
}

#[async_trait]
impl ProxyHttp for App {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        if !self.streams.matches(session.req_header().uri.path()) {
            return Ok(false);
        }
        self.streams.handle(session.as_downstream_mut()).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(upstream(), false, String::new())))
    }
}

/// Serves the streams of `engine` on a free port, in this runtime, until the server is dropped.
pub fn serve(
    options: StreamOptions,
    features: ServedFeatures,
    engine: Engine,
) -> (TestServer, Arc<Engine>) {
    let (mut streams, background) = DurableStreams::mount(engine, options);
    if let Some((guard, caching)) = features.access {
        streams.protect(guard, AuditLevel::All);
        streams.cache_protected(caching);
    }
    if let Some(options) = features.subscriptions {
        streams.serve_subscriptions(open_subscriptions(streams.engine(), options));
    }
    let (engine, counters) = (streams.engine().clone(), streams.counters().clone());
    let proxy =
        Arc::new(pingora::proxy::http_proxy(&Arc::new(ServerConf::default()), App { streams }));
    let (stop, stopping) = watch::channel(false);
    let background_stopping = stopping.clone();
    tokio::spawn(async move { background.start(background_stopping).await });
    let (listener, addr) = listener();
    tokio::spawn(async move {
        let mut stopped = stopping.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let Ok((socket, peer)) = accepted else { return };
            let (proxy, stopping) = (proxy.clone(), stopping.clone());
            tokio::spawn(async move {
                let mut next: Option<pingora::protocols::Stream> = Some(connection(socket, peer));
                while let Some(stream) = next {
                    next = proxy.process_new(stream, &stopping).await;
                }
            });
        }
    });
    (TestServer::embedded(addr, counters, stop), engine)
}

/// A listener on a free port.
pub fn listener() -> (TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    (TcpListener::from_std(listener).unwrap(), addr)
}

/// A connection as Pingora's own accept loop makes it.
fn connection(socket: TcpStream, peer: SocketAddr) -> Box<Stream> {
    socket.set_nodelay(true).unwrap();
    let digest = SocketDigest::from_raw_fd(std::os::fd::AsRawFd::as_raw_fd(&socket));
    let _ = digest.peer_addr.set(Some(peer.into()));
    let mut stream = Stream::from(socket);
    stream.set_socket_digest(digest);
    Box::new(stream)
}
