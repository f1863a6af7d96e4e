//! A Pingora application with streams behind a guard, which the examples of providers share.

use async_trait::async_trait;
use durable_streams_auth::AccessGuard;
use durable_streams_engine::Engine;
use durable_streams_pingora::{AuditLevel, DurableStreams, StreamOptions};
use pingora::prelude::*;

struct App {
    streams: DurableStreams,
}

#[async_trait]
impl ProxyHttp for App {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        self.streams.request_filter(session).await
    }

    async fn upstream_peer(&self, _: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new("127.0.0.1:3000", false, String::new())))
    }
}

/// Serves streams behind `guard` on the address that the command line names last, or on port 4437.
pub(crate) fn serve(guard: AccessGuard) -> Result<()> {
    let address = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:4437".to_owned());
    let mut server = Server::new(None)?;
    server.bootstrap();
    let (mut streams, background) =
        DurableStreams::mount(Engine::in_memory(), StreamOptions::default());
    streams.protect(guard, AuditLevel::Refused);
    let mut proxy = http_proxy_service(&server.configuration, App { streams });
    proxy.add_tcp(&address);
    server.add_service(proxy);
    server.add_service(background_service("durable streams", background));
    server.run_forever();
}
