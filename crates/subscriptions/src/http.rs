//! Control requests under `{route}/__ds/` (§6): from bytes to bytes, independent of the HTTP framework.

use bytes::Bytes;
use durable_streams_protocol::{
    StreamPath,
    subscription::{
        AckRequest, ClaimRequest, CreateRequest, Refusal, ReleaseRequest, StreamsRequest,
        SubscriptionId, SubscriptionName,
    },
};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{Subscriptions, access::ControlAuthority, requests::AckKind};

/// Characters that are percent-encoded in one segment of a URL.
pub(super) const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A response to a control request.
pub type ControlResponse = (StatusCode, HeaderMap, Bytes);

/// The resource of a control request.
enum ControlRoute {
    Keys,
    Subscription(SubscriptionId),
    Streams(SubscriptionId),
    Stream(SubscriptionId, StreamPath),
    Callback(SubscriptionId),
    Claim(SubscriptionId),
    Ack(SubscriptionId),
    Release(SubscriptionId),
}

/// One control request.
pub struct ControlRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// The raw URL path after `__ds`, with or without its slash, and with its query if it has one.
    pub target: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The stream route as this client reached it (`https://host/v1/stream`). It appears in the response to
    /// this client, is never stored, and never reaches a webhook.
    pub base_url: &'a str,
    /// By what right it is made.
    pub authority: ControlAuthority,
}

impl Subscriptions {
    /// Answers one control request.
    pub async fn handle(&self, request: ControlRequest<'_>) -> ControlResponse {
        let answer = self.answer(request).await;
        answer.unwrap_or_else(|refusal| refused(&refusal))
    }

    async fn answer(&self, request: ControlRequest<'_>) -> Result<ControlResponse, Refusal> {
        let ControlRequest { method, target, headers, body, base_url, authority } = request;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let route = route(path)?;
        let base_url = base_url.trim_end_matches('/').to_owned();
        let limit = self.shared.options.max_body;
        if body.len() > limit {
            return Err(Refusal::TooLarge { limit });
        }
        let named = |id| Ok(SubscriptionName { tenant: authority.tenant()?, id });
        match (route, method) {
            (ControlRoute::Keys, &Method::GET | &Method::HEAD) => Ok(self.keys_response()),
            (ControlRoute::Subscription(id), &Method::PUT) => {
                let name = named(id)?;
                let config = parse::<CreateRequest>(&body)?.into_config()?;
                let (created, view) = self.create(name, config, base_url, authority).await?;
                let status = if created { StatusCode::CREATED } else { StatusCode::OK };
                Ok(with_json(status, &view))
            }
            (ControlRoute::Subscription(id), &Method::GET | &Method::HEAD) => {
                let (name, after) = (named(id)?, page_after(query)?);
                let view = self.view(name, base_url, after, authority).await?;
                Ok(with_json(StatusCode::OK, &view))
            }
            (ControlRoute::Subscription(id), &Method::DELETE) => {
                self.delete(named(id)?, authority).await?;
                Ok(no_content())
            }
            (ControlRoute::Streams(id), &Method::POST) => {
                let name = named(id)?;
                let paths = parse::<StreamsRequest>(&body)?.paths()?;
                self.link(name, paths, authority).await?;
                Ok(no_content())
            }
            (ControlRoute::Stream(id, path), &Method::DELETE) => {
                self.unlink(named(id)?, path, authority).await?;
                Ok(no_content())
            }
            (ControlRoute::Claim(id), &Method::POST) => {
                let name = named(id)?;
                let worker = parse::<ClaimRequest>(&body)?.worker()?;
                Ok(with_json(StatusCode::OK, &self.claim(name, worker, authority).await?))
            }
            (ControlRoute::Callback(id), &Method::POST) => {
                self.ack_response(AckKind::Callback, id, headers, &body).await
            }
            (ControlRoute::Ack(id), &Method::POST) => {
                self.ack_response(AckKind::Ack, id, headers, &body).await
            }
            (ControlRoute::Release(id), &Method::POST) => {
                self.release(id, bearer(headers), parse::<ReleaseRequest>(&body)?).await?;
                Ok(no_content())
            }
            (route, _) => Err(Refusal::MethodNotAllowed { allow: route.methods() }),
        }
    }

    async fn ack_response(
        &self,
        kind: AckKind,
        id: SubscriptionId,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<ControlResponse, Refusal> {
        let request = parse::<AckRequest>(body)?;
        let next_wake = self.ack(kind, id, bearer(headers), request).await?;
        Ok(with_json(StatusCode::OK, &json!({ "ok": true, "next_wake": next_wake })))
    }

    fn keys_response(&self) -> ControlResponse {
        let (status, mut headers, body) = with_json(StatusCode::OK, &self.keys());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        (status, headers, body)
    }
}

impl ControlRoute {
    fn methods(&self) -> &'static str {
        match self {
            ControlRoute::Keys => "GET, HEAD",
            ControlRoute::Subscription(_) => "GET, HEAD, PUT, DELETE",
            ControlRoute::Stream(..) => "DELETE",
            ControlRoute::Streams(_)
            | ControlRoute::Callback(_)
            | ControlRoute::Claim(_)
            | ControlRoute::Ack(_)
            | ControlRoute::Release(_) => "POST",
        }
    }
}

fn route(path: &str) -> Result<ControlRoute, Refusal> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path == "jwks.json" {
        return Ok(ControlRoute::Keys);
    }
    let rest = path.strip_prefix("subscriptions/").ok_or(Refusal::RouteNotFound)?;
    let (id, action) = match rest.split_once('/') {
        Some((id, action)) => (id, Some(action)),
        None => (rest, None),
    };
    let decoded = percent_decode_str(id).decode_utf8();
    let decoded =
        decoded.map_err(|_| Refusal::InvalidRequest("the subscription id is not UTF-8".into()))?;
    let id = SubscriptionId::new(&decoded)?;
    match action {
        None => Ok(ControlRoute::Subscription(id)),
        Some("streams") => Ok(ControlRoute::Streams(id)),
        Some("callback") => Ok(ControlRoute::Callback(id)),
        Some("claim") => Ok(ControlRoute::Claim(id)),
        Some("ack") => Ok(ControlRoute::Ack(id)),
        Some("release") => Ok(ControlRoute::Release(id)),
        Some(action) => {
            let raw = action.strip_prefix("streams/").ok_or(Refusal::RouteNotFound)?;
            let path = StreamPath::from_url(raw)
                .map_err(|error| Refusal::InvalidRequest(error.to_string()))?;
            let trimmed = path.as_str().trim_start_matches('/');
            let path = StreamPath::new(trimmed)
                .map_err(|error| Refusal::InvalidRequest(error.to_string()))?;
            Ok(ControlRoute::Stream(id, path))
        }
    }
}

/// The path after which a page of links begins: `streams_after` of a query.
fn page_after(query: &str) -> Result<Option<StreamPath>, Refusal> {
    let mut fields = query.split('&').filter_map(|field| field.split_once('='));
    let Some((_, after)) = fields.find(|(name, _)| *name == "streams_after") else {
        return Ok(None);
    };
    let path = percent_decode_str(after).decode_utf8().ok();
    let path = path.and_then(|path| StreamPath::new(&path).ok());
    path.map(Some).ok_or_else(|| {
        Refusal::InvalidRequest("streams_after must be a stream path, percent-encoded".into())
    })
}

/// Parses a JSON body. An empty one counts as an empty object, so that the refusal names the missing field.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        Refusal::InvalidRequest(format!("the body is not the JSON object expected: {error}"))
    })
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

fn with_json<T: Serialize>(status: StatusCode, value: &T) -> ControlResponse {
    let mut headers = no_store();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (status, headers, durable_streams_protocol::subscription::json(value).into())
}

fn no_content() -> ControlResponse {
    (StatusCode::NO_CONTENT, no_store(), Bytes::new())
}

fn no_store() -> HeaderMap {
    HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static("no-store"))])
}

fn refused(refusal: &Refusal) -> ControlResponse {
    let (status, mut headers, body) = with_json(refusal.status(), &refusal.body());
    match refusal {
        Refusal::MethodNotAllowed { allow } => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        Refusal::TokenInvalid | Refusal::TokenExpired | Refusal::Unauthorized => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Refusal::Unavailable(_) => {
            headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    (status, headers, body)
}
