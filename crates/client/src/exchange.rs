//! One request and the head of its response.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use durable_streams_protocol::{ResponseFacts, headers};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy;
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use crate::{
    auth::RequestAuth, connect::StreamConnector, dedicated::DedicatedConnection,
    error::ClientError, position::StreamOffset, receipt::BatchReceipt, refusal::refusal, telemetry,
};

/// More of a refusal's body than this is not read, bytes.
pub(crate) const LONGEST_PROBLEM: usize = 64 << 10;
/// How often a request is sent again at once that an HTTP/2 server has certainly not begun.
const UNSEEN_REPEATS: u32 = 2;

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct StreamCall {
    /// What spans and metrics call it.
    pub(crate) operation: &'static str,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// The URL for messages, see [`shown`](crate::target::shown).
    pub(crate) shown: Arc<str>,
    /// All but the credential of the client.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Until the head of the response has come.
    pub(crate) timeout: Duration,
}

/// How requests travel, shared by all handles of a client.
#[derive(Debug)]
pub(crate) struct HttpTransport {
    pub(crate) http: legacy::Client<StreamConnector, Full<Bytes>>,
    /// Of connections that do not belong to `http`.
    pub(crate) connector: StreamConnector,
    pub(crate) auth: RequestAuth,
    /// Those that every request begins with.
    pub(crate) headers: HeaderMap,
    /// No connection is HTTP/2.
    pub(crate) only_http1: bool,
    /// Silence after which a response's body counts as lost.
    pub(crate) read_timeout: Duration,
}

/// A response that says yes: its head, and its body to be read.
#[derive(Debug)]
pub(crate) struct StreamResponse {
    pub(crate) status: StatusCode,
    pub(crate) facts: ResponseFacts,
    /// Opaque, as `Stream-Cursor` has it.
    pub(crate) cursor: Option<Box<str>>,
    pub(crate) earliest: Option<StreamOffset>,
    next_offset: Option<StreamOffset>,
    body: Incoming,
    url: Arc<str>,
    read_timeout: Duration,
}

impl StreamCall {
    fn into_request(self, authorization: Option<HeaderValue>) -> Request<Full<Bytes>> {
        let mut headers = self.headers;
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        // A body of no bytes has no length, which `POST` must have.
        if self.method == Method::POST && self.body.is_empty() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = headers;
        request
    }
}

impl HttpTransport {
    /// Sends `call` once.
    pub(crate) async fn send(&self, call: StreamCall) -> Result<StreamResponse, ClientError> {
        let (url, read_timeout) = (call.shown.clone(), self.read_timeout);
        self.observed(call, None, |response| StreamResponse::new(response, url, read_timeout)).await
    }

    /// Sends `call` once, where only the head of the response matters.
    pub(crate) async fn send_for_head(
        &self,
        call: StreamCall,
    ) -> Result<StreamResponse, ClientError> {
        let mut response = self.send(call).await?;
        finish(&mut response.body, self.read_timeout).await;
        Ok(response)
    }

    /// Sends a producer's batch once, over `connection` where that can be HTTP/1.1 only. Of the head of the response it
    /// parses what a producer needs.
    pub(crate) async fn send_batch(
        &self,
        call: StreamCall,
        connection: &mut DedicatedConnection,
    ) -> Result<BatchReceipt, ClientError> {
        let url = call.shown.clone();
        let received = self.observed(call, Some(&mut *connection), |response| {
            let (head, body) = response.into_parts();
            let receipt = BatchReceipt::parse(head.status, &head.headers);
            let receipt = receipt.map_err(|reason| invalid(&url, reason))?;
            Ok((receipt, body))
        });
        let (receipt, mut body) = received.await?;
        if !body.is_end_stream() {
            Box::pin(connection.along(finish(&mut body, self.read_timeout))).await;
        }
        Ok(receipt)
    }

    /// Sends `call` once in a span, counts it, and makes of a response that says yes what `read` makes of it.
    async fn observed<T>(
        &self,
        call: StreamCall,
        connection: Option<&mut DedicatedConnection>,
        read: impl FnOnce(Response<Incoming>) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let operation = call.operation;
        let span = tracing::debug_span!(
            "durable_stream",
            operation,
            url = &*call.shown,
            status = field::Empty,
        );
        let began = Instant::now();
        let result = self.exchange(call, connection).instrument(span).await.and_then(read);
        telemetry::request_ended(operation, &result, began.elapsed());
        result
    }

    async fn exchange(
        &self,
        call: StreamCall,
        connection: Option<&mut DedicatedConnection>,
    ) -> Result<Response<Incoming>, ClientError> {
        let (url, timeout) = (call.shown.clone(), call.timeout);
        let produces = call.headers.contains_key(headers::PRODUCER_ID);
        let authorization = self.auth.header().await?;
        let mut connection = connection.filter(|_| self.only_http1);
        let answered = async {
            let Some(connection) = &mut connection else {
                let answered = Box::pin(self.request(call, authorization)).await;
                return answered.map_err(|error| transport(&url, &error, error.is_connect()));
            };
            let request = call.into_request(authorization);
            let answered = connection.request(&self.connector, request).await;
            answered.map_err(|error| transport(&url, &*error.cause, error.unsent))
        };
        let response = match tokio::time::timeout(timeout, answered).await {
            Ok(answered) => answered?,
            Err(_) => {
                connection.into_iter().for_each(DedicatedConnection::close);
                return Err(silent(&url, timeout));
            }
        };
        Span::current().record("status", response.status().as_u16());
        // A response that was sent twice can be taken for that to the next request on its connection.
        let of_producer = |name| response.headers().contains_key(name);
        if !produces
            && (of_producer(headers::PRODUCER_EPOCH) || of_producer(headers::PRODUCER_EXPECTED_SEQ))
        {
            return Err(broken(&url, "it answers the request of a producer"));
        }
        if response.status().is_success() {
            Ok(response)
        } else {
            let refused = Box::pin(refusal(response, url.to_string(), self.read_timeout));
            Err(match connection {
                Some(connection) => connection.along(refused).await,
                None => refused.await,
            })
        }
    }

    /// Sends the request until the server has seen it.
    async fn request(
        &self,
        call: StreamCall,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let repeats = if self.only_http1 { 0 } else { UNSEEN_REPEATS };
        for _ in 0..repeats {
            let request = call.clone().into_request(authorization.clone());
            match self.http.request(request).await {
                Err(error) if is_unseen(&error) => {}
                answered => return answered,
            }
        }
        self.http.request(call.into_request(authorization)).await
    }
}

/// The HTTP/2 server refused the stream before it began it, or was closing the connection already (RFC 9113 §8.7).
fn is_unseen(error: &legacy::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let closing = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (closing || refused);
        }
        cause = error.source();
    }
    false
}

/// The next piece of a body; `None` at its end. Cancelling it loses nothing.
pub(crate) async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = body.frame().await {
        // Anything else is trailers.
        if let Ok(piece) = frame?.into_data() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

/// Receives what is left of the body, which no caller uses: a response that is dropped before its end costs its
/// connection over HTTP/1.1, and a reset over HTTP/2, of which a connection survives a thousand.
async fn finish(body: &mut Incoming, read_timeout: Duration) {
    let mut left = LONGEST_PROBLEM;
    while !body.is_end_stream() {
        match tokio::time::timeout(read_timeout, next_piece(body)).await {
            Ok(Ok(Some(piece))) if piece.len() <= left => left -= piece.len(),
            _ => break,
        }
    }
}

impl StreamResponse {
    fn new(
        response: Response<Incoming>,
        url: Arc<str>,
        read_timeout: Duration,
    ) -> Result<Self, ClientError> {
        let (mut head, body) = response.into_parts();
        let OpaqueFields { next_offset, earliest, cursor } = take_opaque(&mut head.headers, &url)?;
        let facts = ResponseFacts::parse(&head.headers);
        let facts = facts.map_err(|error| invalid(&url, error.to_string()))?;
        let status = head.status;
        Ok(StreamResponse { status, facts, cursor, earliest, next_offset, body, url, read_timeout })
    }

    /// `Stream-Next-Offset`, which a response must have.
    pub(crate) fn next_offset(&self) -> Result<StreamOffset, ClientError> {
        self.next_offset.clone().ok_or_else(|| self.invalid("it has no Stream-Next-Offset"))
    }

    /// The next piece of the body; `None` at its end. Cancelling it loses nothing.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let next = tokio::time::timeout(self.read_timeout, next_piece(&mut self.body)).await;
        let chunk = next
            .map_err(|_| silent(&self.url, self.read_timeout))?
            .map_err(|error| transport(&self.url, &error, false))?;
        telemetry::received(chunk.as_ref().map_or(0, Bytes::len));
        Ok(chunk)
    }

    /// The same with another patience.
    pub(crate) fn set_read_timeout(&mut self, timeout: Duration) {
        self.read_timeout = timeout;
    }

    pub(crate) fn invalid(&self, reason: &str) -> ClientError {
        invalid(&self.url, reason)
    }

    /// The response ends early, or contradicts the request, as one that belongs to another request does. The next may
    /// be whole.
    pub(crate) fn broken(&self, reason: impl Into<String>) -> ClientError {
        broken(&self.url, reason)
    }

    /// The body cannot be parsed.
    pub(crate) fn damaged(&self, reason: impl Into<String>) -> ClientError {
        ClientError::DamagedBody { url: self.url.to_string(), reason: reason.into() }
    }
}

/// What servers form in different ways.
#[derive(Default)]
pub(crate) struct OpaqueFields {
    pub(crate) next_offset: Option<StreamOffset>,
    pub(crate) earliest: Option<StreamOffset>,
    cursor: Option<Box<str>>,
}

/// Takes offsets and cursor, which other servers form in other ways than [`ResponseFacts`] reads.
pub(crate) fn take_opaque(headers: &mut HeaderMap, url: &str) -> Result<OpaqueFields, ClientError> {
    let next_offset = take_offset(headers, headers::STREAM_NEXT_OFFSET, url)?;
    let earliest = take_offset(headers, headers::STREAM_EARLIEST_OFFSET, url)?;
    let cursor = headers.remove(headers::STREAM_CURSOR);
    let cursor = cursor.as_ref().and_then(|value| value.to_str().ok()).map(Into::into);
    Ok(OpaqueFields { next_offset, earliest, cursor })
}

fn take_offset(
    headers: &mut HeaderMap,
    name: HeaderName,
    url: &str,
) -> Result<Option<StreamOffset>, ClientError> {
    let invalid = |reason: &str| ClientError::InvalidResponse {
        url: url.to_owned(),
        reason: format!("{name} {reason}"),
    };
    if headers.get_all(&name).iter().nth(1).is_some() {
        return Err(invalid("is given twice"));
    }
    match headers.remove(&name) {
        None => Ok(None),
        Some(value) => {
            let offset = value.to_str().ok().and_then(StreamOffset::new);
            Ok(Some(offset.ok_or_else(|| invalid("is no offset"))?))
        }
    }
}

fn invalid(url: &str, reason: impl Into<String>) -> ClientError {
    ClientError::InvalidResponse { url: url.to_owned(), reason: reason.into() }
}

/// The response contradicts the request, or ends early.
pub(crate) fn broken(url: &str, reason: impl Into<String>) -> ClientError {
    ClientError::Transport { url: url.to_owned(), reason: reason.into(), unsent: false }
}

fn silent(url: &str, timeout: Duration) -> ClientError {
    broken(url, format!("nothing arrived for {} s", timeout.as_secs_f64()))
}

fn transport(url: &str, error: &(dyn Error + 'static), unsent: bool) -> ClientError {
    let mut reason = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !reason.contains(&text) {
            reason += if reason.is_empty() { "" } else { ": " };
            reason += &text;
        }
        cause = error.source();
    }
    ClientError::Transport { url: url.to_owned(), reason, unsent }
}
