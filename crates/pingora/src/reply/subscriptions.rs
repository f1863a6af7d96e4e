//! Requests under the reserved segment (§6), handed to the subscriptions.

use bytes::Bytes;
use durable_streams_protocol::{Body, Outcome, PathError, Rejection, Response, render};
use durable_streams_subscriptions::{ControlAuthority, ControlRequest, Subscriptions};
use http::{Method, StatusCode};
use pingora_core::protocols::http::ServerSession;

use crate::{DurableStreams, StreamOptions, forwarded};

impl DurableStreams {
    /// Serves subscriptions too. Without them control paths are refused.
    pub fn serve_subscriptions(&mut self, subscriptions: Subscriptions) {
        self.subscriptions = Some(subscriptions);
    }

    pub(super) async fn subscriptions(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        path: &str,
        authority: ControlAuthority,
    ) -> Result<Response, Rejection> {
        let Some(subscriptions) = &self.subscriptions else {
            return Err(PathError::Reserved.into());
        };
        let received = self.receive(session, options).await?;
        let method = session.req_header().method.clone();
        if method == Method::OPTIONS {
            return Ok(render(Outcome::Preflight));
        }
        let headers = session.req_header().headers.clone();
        let (scheme, host) = forwarded::external_url(session, &options.trusted_proxies);
        let base = match host {
            Some(host) => format!("{scheme}://{host}{}", options.route),
            None => options.route.clone(),
        };
        let query = session.req_header().uri.query();
        let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let (status, headers, bytes) = subscriptions
            .handle(ControlRequest {
                method: &method,
                target: &target,
                headers: &headers,
                body: received.bytes,
                base_url: &base,
                authority,
            })
            .await;
        Ok(response(status, headers, bytes))
    }
}

fn response(status: StatusCode, headers: http::HeaderMap, bytes: Bytes) -> Response {
    let mut response = Response::new(status);
    let fields = headers.iter().map(|(name, value)| (name.clone(), value.clone()));
    response.headers.extend(fields);
    if !bytes.is_empty() {
        response.body = Body::Full(vec![bytes]);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, header};

    #[test]
    fn control_responses_have_the_headers_of_every_response() {
        let headers = HeaderMap::from_iter([(header::ALLOW, "GET".parse().unwrap())]);
        let response = response(StatusCode::METHOD_NOT_ALLOWED, headers, Bytes::from_static(b"{}"));
        let headers = HeaderMap::from_iter(response.headers);
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["cross-origin-resource-policy"], "cross-origin");
        assert_eq!(headers["content-security-policy"], "sandbox; default-src 'none'");
        assert_eq!(headers["allow"], "GET");
    }
}
