//! One request and the head of its response.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use durable_streams_protocol::{ProblemDetails, ResponseFacts, headers};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy;
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use crate::{
    auth::RequestAuth,
    connect::StreamConnector,
    error::{ClientError, RefusedRequest},
    position::StreamOffset,
    telemetry,
};

/// More of a refusal's body than this is not read, bytes.
const LONGEST_PROBLEM: usize = 64 << 10;
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
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Until the head of the response has come.
    pub(crate) timeout: Duration,
}

/// How requests travel, shared by all handles of a client.
#[derive(Debug)]
pub(crate) struct HttpTransport {
    pub(crate) http: legacy::Client<StreamConnector, Full<Bytes>>,
    pub(crate) auth: RequestAuth,
    /// Sent with every request.
    pub(crate) headers: HeaderMap,
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

impl HttpTransport {
    /// Sends `call` once.
    pub(crate) async fn send(&self, call: &StreamCall) -> Result<StreamResponse, ClientError> {
        let span = tracing::debug_span!(
            "durable_stream",
            operation = call.operation,
            url = &*call.shown,
            status = field::Empty,
        );
        let began = Instant::now();
        let result = self.exchange(call).instrument(span).await;
        telemetry::request_ended(call.operation, &result, began.elapsed());
        result
    }

    /// Sends `call` once, where only the head of the response matters.
    pub(crate) async fn send_for_head(
        &self,
        call: &StreamCall,
    ) -> Result<StreamResponse, ClientError> {
        let mut response = self.send(call).await?;
        response.finish().await;
        Ok(response)
    }

    async fn exchange(&self, call: &StreamCall) -> Result<StreamResponse, ClientError> {
        let url = &call.shown;
        let authorization = self.auth.header().await?;
        let sent = tokio::time::timeout(call.timeout, self.request(call, authorization)).await;
        let response = sent
            .map_err(|_| silent(url, call.timeout))?
            .map_err(|error| transport(url, &error, error.is_connect()))?;
        Span::current().record("status", response.status().as_u16());
        // A response that was sent twice can be taken for that to the next request on its connection.
        let of_producer = |name| response.headers().contains_key(name);
        if !call.headers.contains_key(headers::PRODUCER_ID)
            && (of_producer(headers::PRODUCER_EPOCH) || of_producer(headers::PRODUCER_EXPECTED_SEQ))
        {
            let reason = "it answers the request of a producer".to_owned();
            return Err(ClientError::Transport { url: url.to_string(), reason, unsent: false });
        }
        if response.status().is_success() {
            StreamResponse::new(response, url.clone(), self.read_timeout)
        } else {
            Err(refusal(response, url.to_string(), self.read_timeout).await)
        }
    }

    /// Sends the request until the server has seen it.
    async fn request(
        &self,
        call: &StreamCall,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let mut headers = call.headers.clone();
        for (name, value) in &self.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        // A body of no bytes has no length, which `POST` must have.
        if call.method == Method::POST && call.body.is_empty() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut repeats = 0;
        loop {
            let mut request = Request::new(Full::new(call.body.clone()));
            *request.method_mut() = call.method.clone();
            *request.uri_mut() = call.uri.clone();
            if repeats == UNSEEN_REPEATS {
                *request.headers_mut() = headers;
                return self.http.request(request).await;
            }
            request.headers_mut().clone_from(&headers);
            match self.http.request(request).await {
                Err(error) if is_unseen(&error) => repeats += 1,
                answered => return answered,
            }
        }
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
async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = body.frame().await {
        // Anything else is trailers.
        if let Ok(piece) = frame?.into_data() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

impl StreamResponse {
    /// Receives what is left of the body, which no caller uses: a response that is dropped before its end costs its
    /// connection over HTTP/1.1, and a reset over HTTP/2, of which a connection survives a thousand.
    async fn finish(&mut self) {
        let mut left = LONGEST_PROBLEM;
        while !self.body.is_end_stream() {
            match tokio::time::timeout(self.read_timeout, next_piece(&mut self.body)).await {
                Ok(Ok(Some(piece))) if piece.len() <= left => left -= piece.len(),
                _ => break,
            }
        }
    }

    fn new(
        response: Response<Incoming>,
        url: Arc<str>,
        read_timeout: Duration,
    ) -> Result<Self, ClientError> {
        let (mut head, body) = response.into_parts();
        let OpaqueFields { next_offset, earliest, cursor } = take_opaque(&mut head.headers, &url)?;
        let facts = ResponseFacts::parse(&head.headers).map_err(|error| {
            ClientError::InvalidResponse { url: url.to_string(), reason: error.to_string() }
        })?;
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
        ClientError::InvalidResponse { url: self.url.to_string(), reason: reason.to_owned() }
    }

    /// The response ends early, or contradicts the request, as one that belongs to another request does. The next may
    /// be whole.
    pub(crate) fn broken(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Transport { url: self.url.to_string(), reason: reason.into(), unsent: false }
    }

    /// The body cannot be parsed.
    pub(crate) fn damaged(&self, reason: impl Into<String>) -> ClientError {
        ClientError::DamagedBody { url: self.url.to_string(), reason: reason.into() }
    }
}

/// What servers form in different ways.
#[derive(Default)]
struct OpaqueFields {
    next_offset: Option<StreamOffset>,
    earliest: Option<StreamOffset>,
    cursor: Option<Box<str>>,
}

/// Takes offsets and cursor, which other servers form in other ways than [`ResponseFacts`] reads.
fn take_opaque(headers: &mut HeaderMap, url: &str) -> Result<OpaqueFields, ClientError> {
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

async fn refusal(response: Response<Incoming>, url: String, read_timeout: Duration) -> ClientError {
    let (mut head, mut incoming) = response.into_parts();
    let status = head.status;
    let OpaqueFields { next_offset, earliest, .. } =
        take_opaque(&mut head.headers, &url).unwrap_or_default();
    let facts = ResponseFacts::parse(&head.headers).unwrap_or_default();
    let mut body = Vec::new();
    // What the body adds helps people only: a refusal whose body is lost is still one.
    while body.len() < LONGEST_PROBLEM {
        match tokio::time::timeout(read_timeout, next_piece(&mut incoming)).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            _ => break,
        }
    }
    if let (StatusCode::GONE, Some(earliest)) = (status, earliest) {
        return ClientError::Trimmed { url, earliest };
    }
    let problem = ProblemDetails::parse(&body).unwrap_or_else(|_| ProblemDetails {
        // Other servers send a line of text.
        detail: first_line(&body).into(),
        ..ProblemDetails::default()
    });
    ClientError::Refused(Box::new(RefusedRequest {
        url,
        status,
        code: problem.code.into_owned(),
        detail: problem.detail.into_owned(),
        retry_after: facts.retry_after,
        closed: facts.closed,
        next_offset,
        producer_epoch: facts.producer_epoch,
        expected_seq: facts.expected_seq,
    }))
}

/// The first line of a short text, for people.
fn first_line(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default().trim();
    let shown = line.len() <= 200 && !line.starts_with(['<', '{', '[']);
    line.chars().filter(|c| shown && !c.is_control()).collect()
}

fn silent(url: &str, timeout: Duration) -> ClientError {
    let reason = format!("nothing arrived for {} s", timeout.as_secs_f64());
    ClientError::Transport { url: url.to_owned(), reason, unsent: false }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_text_explains_a_refusal() {
        assert_eq!(first_line(b"Sequence conflict\r\nmore"), "Sequence conflict");
        for other in [&b"<html>"[..], b"{\"error\":1}", b"\xff", b"", &[b'x'; 300]] {
            assert_eq!(first_line(other), "");
        }
    }
}
