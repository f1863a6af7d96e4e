//! One request of the admin listener, from its head to the end of its response.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Response;
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use super::{AdminEndpoints, api};
use crate::edge::{HttpLimits, admission, connection};

/// From the end of the head to the end of the response, unless it is the data of a stream: live reads go on for longer, and
/// bodies have the bounds of the stream routes.
const MAX_DURATION: Duration = Duration::from_secs(25);

#[async_trait]
impl HttpServerApp for AdminEndpoints {
    /// One request per connection: nothing here is worth the bookkeeping of idle ones.
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !matches!(session.read_request().await, Ok(true)) {
            return None;
        }
        let timed = connection::head_done(&session);
        admission::configure(&mut session, &HttpLimits::DEFAULT, timed, true);
        session.set_keepalive(None);
        if self.refuse_host(session.req_header()).is_none()
            && api::is_data(session.req_header().uri.path())
        {
            self.api.exchange_data(&mut session).await;
            let _ = session.finish().await;
            return None;
        }
        let _ = tokio::time::timeout(MAX_DURATION, async {
            let response = self.response(&mut session).await;
            write(&mut session, response).await;
            let _ = session.finish().await;
        })
        .await;
        None
    }
}

/// Writes a whole response. A client that has left is no error of the server.
pub(super) async fn write(session: &mut ServerSession, response: Response<Vec<u8>>) {
    let (parts, body) = response.into_parts();
    let head: ResponseHeader = parts.into();
    if let Err(error) = session.write_response_header(Box::new(head)).await {
        return tracing::debug!(%error, "a client of the admin listener left before its response");
    }
    if !body.is_empty()
        && let Err(error) = session.write_response_body(body.into(), true).await
    {
        tracing::debug!(%error, "a client of the admin listener left inside its response");
    }
}
