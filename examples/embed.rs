//! Durable Streams inside somebody else's Pingora application.
//!
//! `cargo run --example embed`, then `curl -X PUT localhost:4437/v1/stream/hello`. Every other path goes
//! to the application's own upstream, as before.

use async_trait::async_trait;
use durable_streams_engine::Engine;
use durable_streams_pingora::{DurableStreams, StreamOptions};
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

fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4437".to_owned());
    let mut server = Server::new(None)?;
    server.bootstrap();
    let (streams, background) =
        DurableStreams::mount(Engine::in_memory(), StreamOptions::default());
    let mut proxy = http_proxy_service(&server.configuration, App { streams });
    proxy.add_tcp(&address);
    server.add_service(proxy);
    server.add_service(background_service("durable streams", background));
    server.run_forever();
}
