//! Responses for HTTP/1.0 clients, which know neither chunks nor interim responses (RFC 9112 §6.1, RFC 9110 §15.2).
//!
//! Pingora adds `Transfer-Encoding: chunked` to every response of unknown length, for HTTP/2 upstreams behind its last
//! hook. So the field is taken off by a module, which runs right before the head is written. Only requests of HTTP/1.0
//! get one.

use std::any::Any;

use async_trait::async_trait;
use http::{Version, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::modules::http::{HttpModule, HttpModuleBuilder, HttpModules, Module};
use pingora::proxy::Session;

/// Prepares the session of an HTTP/1.0 request; leaves any other as it is.
pub(crate) fn prepare(session: &mut Session) {
    if session.req_header().version != Version::HTTP_10 {
        return;
    }
    session.set_ignore_info_resp(true);
    let mut modules = HttpModules::new();
    modules.add_module(Box::new(Unchunked));
    session.downstream_modules_ctx = modules.build_ctx();
}

/// Ends the connection behind a response to HTTP/1.0 whose length is not known.
pub(super) fn end_by_closing(session: &mut Session, response: &ResponseHeader) {
    let open_end = !response.headers.contains_key(header::CONTENT_LENGTH);
    if open_end && session.req_header().version == Version::HTTP_10 {
        session.set_keepalive(None);
    }
}

/// Lets the end of the connection end a body of unknown length.
struct Unchunked;

impl HttpModuleBuilder for Unchunked {
    fn init(&self) -> Module {
        Box::new(Unchunked)
    }
}

#[async_trait]
impl HttpModule for Unchunked {
    async fn response_header_filter(
        &mut self,
        response: &mut ResponseHeader,
        _end_of_stream: bool,
    ) -> Result<()> {
        response.remove_header(&header::TRANSFER_ENCODING);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
