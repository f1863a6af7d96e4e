//! One request and the head of its response.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use durable_streams_protocol::{ProblemDetails, ResponseFacts, headers};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use tokio::time::Instant;
use tracing::{Instrument, Span, field};
use url::Url;

use crate::{
    auth::RequestAuth,
    error::{ClientError, RefusedRequest},
    position::StreamOffset,
    telemetry,
};

/// More of a refusal's body than this is not read, bytes.
const LONGEST_PROBLEM: usize = 64 << 10;

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct StreamCall {
    /// What spans and metrics call it.
    pub(crate) operation: &'static str,
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// The URL for messages, see [`shown`].
    pub(crate) shown: Arc<str>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Until the head of the response has come.
    pub(crate) timeout: Duration,
}

/// How requests travel, shared by all handles of a client.
#[derive(Debug)]
pub(crate) struct HttpTransport {
    pub(crate) http: reqwest::Client,
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
    response: reqwest::Response,
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

    async fn exchange(&self, call: &StreamCall) -> Result<StreamResponse, ClientError> {
        let url = &call.shown;
        let mut headers = self.headers.clone();
        for (name, value) in &call.headers {
            headers.insert(name, value.clone());
        }
        if let Some(authorization) = self.auth.header().await? {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let request = self.http.request(call.method.clone(), call.url.clone()).headers(headers);
        // A body of no bytes has no type and no length, which `POST` must have.
        let request = match (&call.method, call.body.is_empty()) {
            (&Method::POST, true) => request.header(header::CONTENT_LENGTH, 0),
            (_, true) => request,
            (_, false) => request.body(call.body.clone()),
        };
        let sent = tokio::time::timeout(call.timeout, request.send()).await;
        let response =
            sent.map_err(|_| silent(url, call.timeout))?.map_err(|error| transport(url, &error))?;
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
}

impl StreamResponse {
    fn new(
        mut response: reqwest::Response,
        url: Arc<str>,
        read_timeout: Duration,
    ) -> Result<Self, ClientError> {
        let OpaqueFields { next_offset, earliest, cursor } =
            take_opaque(response.headers_mut(), &url)?;
        let facts = ResponseFacts::parse(response.headers()).map_err(|error| {
            ClientError::InvalidResponse { url: url.to_string(), reason: error.to_string() }
        })?;
        let status = response.status();
        Ok(StreamResponse {
            status,
            facts,
            cursor,
            earliest,
            next_offset,
            response,
            url,
            read_timeout,
        })
    }

    /// `Stream-Next-Offset`, which a response must have.
    pub(crate) fn next_offset(&self) -> Result<StreamOffset, ClientError> {
        self.next_offset.clone().ok_or_else(|| self.invalid("it has no Stream-Next-Offset"))
    }

    /// The next piece of the body; `None` at its end. Cancelling it loses nothing.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let next = tokio::time::timeout(self.read_timeout, self.response.chunk()).await;
        let chunk = next
            .map_err(|_| silent(&self.url, self.read_timeout))?
            .map_err(|error| transport(&self.url, &error))?;
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

async fn refusal(
    mut response: reqwest::Response,
    url: String,
    read_timeout: Duration,
) -> ClientError {
    let status = response.status();
    let OpaqueFields { next_offset, earliest, .. } =
        take_opaque(response.headers_mut(), &url).unwrap_or_default();
    if let (StatusCode::GONE, Some(earliest)) = (status, earliest) {
        return ClientError::Trimmed { url, earliest };
    }
    let facts = ResponseFacts::parse(response.headers()).unwrap_or_default();
    let mut body = Vec::new();
    // What the body adds helps people only: a refusal whose body is lost is still one.
    while body.len() < LONGEST_PROBLEM {
        match tokio::time::timeout(read_timeout, response.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            _ => break,
        }
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

/// A URL for messages: without user, password, query and fragment, which may hold secrets.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // These fail for URLs that have no host and so no user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

fn silent(url: &str, timeout: Duration) -> ClientError {
    let reason = format!("nothing arrived for {} s", timeout.as_secs_f64());
    ClientError::Transport { url: url.to_owned(), reason, unsent: false }
}

fn transport(url: &str, error: &reqwest::Error) -> ClientError {
    // The text of the error itself repeats the URL, query included.
    let mut reason = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !reason.contains(&text) {
            reason += if reason.is_empty() { "" } else { ": " };
            reason += &text;
        }
        cause = error.source();
    }
    if reason.is_empty() {
        reason = "the connection failed".to_owned();
    }
    ClientError::Transport { url: url.to_owned(), reason, unsent: error.is_connect() }
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

    #[test]
    fn a_url_in_a_message_has_no_secrets() {
        let url = Url::parse("https://me:pw@h.test/v1/a?token=x&offset=1#y").unwrap();
        assert_eq!(shown(&url), "https://h.test/v1/a");
    }
}
