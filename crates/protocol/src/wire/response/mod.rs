//! Rendering: every status and header of a stream response is decided here and nowhere else. [`ResponseFacts`]
//! reads them back.

mod facts;
mod problem;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
pub use facts::ResponseFacts;
use http::{HeaderName, HeaderValue, StatusCode, header};
pub use problem::{ProblemDetails, problem_body};

use crate::{
    AppendOutcome, CachePolicy, ContentType, CreateOutcome, Cursor, ETag, Expiry, LiveMode, Offset,
    Rejection, SseEncoding, StreamId, headers,
};

/// A response without its transport.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers, content length apart.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Body,
}

/// What follows the headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    Empty,
    /// These pieces, one after the other.
    Full(Vec<Bytes>),
    /// Pieces that are read while they are written; their length in all, bytes, where it is known.
    Streamed(Option<u64>),
    /// Events, as they come.
    Live,
}

/// What a request came to.
#[derive(Clone, Debug)]
pub enum Outcome<'o> {
    /// `PUT` succeeded; `location` is the stream's absolute URL.
    Created(&'o CreateOutcome, Cow<'o, str>),
    /// `POST` succeeded.
    Appended(&'o AppendOutcome),
    /// `DELETE` succeeded.
    Deleted,
    /// `PATCH` succeeded; the stream's earliest offset.
    Patched(Offset),
    /// `HEAD` succeeded.
    Head(&'o HeadMeta<'o>),
    /// Bytes for a catch-up or long-poll read.
    Slice(&'o SliceMeta<'o>, Body),
    /// The client holds them already.
    NotModified(&'o SliceMeta<'o>),
    /// A long-poll without news.
    NoNews(&'o SliceMeta<'o>),
    /// An SSE connection begins; the stream's earliest offset.
    Events(&'o ContentType, Offset),
    /// An `EventSource` reconnects though it has received the end of the closed stream, at this offset: 204 stops it.
    AfterTheEnd(Offset),
    /// `OPTIONS`.
    Preflight,
}

/// What `HEAD` tells (§5.5).
#[derive(Clone, Debug)]
pub struct HeadMeta<'m> {
    /// The stream's type.
    pub content_type: &'m ContentType,
    /// The durable tail.
    pub tail: Offset,
    /// The first offset that can be read.
    pub earliest: Offset,
    /// The stream is closed.
    pub closed: bool,
    /// When it goes away by itself.
    pub expiry: Expiry,
    /// Readable without credentials.
    pub public: bool,
}

/// What is said about a range of bytes (§5.6, §5.7).
#[derive(Clone, Debug)]
pub struct SliceMeta<'m> {
    /// The stream.
    pub stream: StreamId,
    /// The stream's type.
    pub content_type: &'m ContentType,
    /// How the client reads.
    pub live: LiveMode,
    /// First position.
    pub start: Offset,
    /// Position after the last byte.
    pub end: Offset,
    /// The slice reaches the tail.
    pub up_to_date: bool,
    /// The stream is closed and the slice reaches its end.
    pub closed: bool,
    /// The client asked for `offset=now`.
    pub from_now: bool,
    /// The client asked for the beginning of the stream, which a trim moves.
    pub from_start: bool,
    /// The first offset that can be read.
    pub earliest: Offset,
    /// The request carried credentials, so only the client itself may cache.
    pub private: bool,
    /// The bytes will be content-encoded, so the tag is weak.
    pub encoded: bool,
    /// The cursor of live reads.
    pub cursor: Option<Cursor>,
}

impl SliceMeta<'_> {
    /// The entity tag; `None` for `offset=now`.
    pub fn etag(&self) -> Option<ETag> {
        let tag =
            ETag { stream: self.stream, start: self.start, end: self.end, closed: self.closed };
        (!self.from_now).then_some(tag)
    }
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// What a browser may do with a response that it shows as a page: no script, no request, no origin. Clients choose the
/// content types of streams, and streams share an origin with the application in front of which they are served.
pub const CONTENT_SECURITY_POLICY: HeaderValue =
    HeaderValue::from_static("sandbox; default-src 'none'");

impl Response {
    /// An empty response, with the headers that every response has.
    pub fn new(status: StatusCode) -> Self {
        let mut headers = Vec::with_capacity(16);
        // §12.7, on every response.
        headers.push((header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
        headers.push((
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("cross-origin"),
        ));
        let mut response = Response { status, headers, body: Body::Empty };
        if response.may_have_body() {
            response.put(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
        }
        response
    }

    /// Whether its status lets it have a body, and so a length (RFC 9110 §8.6).
    pub fn may_have_body(&self) -> bool {
        !matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    fn put(&mut self, name: HeaderName, value: HeaderValue) -> &mut Self {
        self.headers.push((name, value));
        self
    }

    fn put_offset(&mut self, name: HeaderName, offset: Offset) -> &mut Self {
        self.put(name, ascii(&offset.text()))
    }

    /// Says from where the stream can be read, if that is not its beginning.
    fn put_earliest(&mut self, earliest: Offset) -> &mut Self {
        if earliest == Offset::ZERO {
            return self;
        }
        self.put_offset(headers::STREAM_EARLIEST_OFFSET, earliest)
    }

    fn put_flag(&mut self, name: HeaderName, set: bool) -> &mut Self {
        if set { self.put(name, headers::TRUE) } else { self }
    }

    fn put_type(&mut self, content_type: &ContentType) -> &mut Self {
        self.put(header::CONTENT_TYPE, ascii(content_type.as_str().as_bytes()))
    }

    /// The type of the bytes that follow. A browser saves a document instead of showing it.
    fn put_type_of_bytes(&mut self, content_type: &ContentType) -> &mut Self {
        if content_type.is_document() {
            self.put(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
        }
        self.put_type(content_type)
    }
}

/// Header values built from texts that were checked when they came in.
fn ascii(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).unwrap_or(HeaderValue::from_static(""))
}

/// Renders a success.
pub fn render(outcome: Outcome<'_>) -> Response {
    match outcome {
        Outcome::Created(created, location) => {
            let status = if created.created { StatusCode::CREATED } else { StatusCode::OK };
            let mut response = Response::new(status);
            response
                .put_type(&created.content_type)
                .put_offset(headers::STREAM_NEXT_OFFSET, created.next_offset)
                .put_flag(headers::STREAM_CLOSED, created.closed)
                .put_flag(headers::STREAM_PUBLIC, created.public);
            if created.created {
                response.put(header::LOCATION, ascii(location.as_bytes()));
            }
            response
        }
        Outcome::Appended(appended) => render_append(appended),
        Outcome::Deleted => Response::new(StatusCode::NO_CONTENT),
        Outcome::Patched(earliest) => {
            let mut response = Response::new(StatusCode::NO_CONTENT);
            response.put_earliest(earliest);
            response
        }
        Outcome::Head(head) => render_head(head),
        Outcome::Slice(meta, body) => {
            let mut response = Response::new(StatusCode::OK);
            put_slice(&mut response, meta);
            response.put_type_of_bytes(meta.content_type);
            response.body = body;
            response
        }
        Outcome::NotModified(meta) => {
            let mut response = Response::new(StatusCode::NOT_MODIFIED);
            put_slice(&mut response, meta);
            response
        }
        Outcome::NoNews(meta) => {
            let mut response = Response::new(StatusCode::NO_CONTENT);
            put_slice(&mut response, meta);
            response
        }
        Outcome::Events(content_type, earliest) => {
            let mut response = Response::new(StatusCode::OK);
            response
                .put(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))
                .put(header::CACHE_CONTROL, NO_CACHE)
                .put(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
            if SseEncoding::of(content_type) == SseEncoding::Base64 {
                let base64 = HeaderValue::from_static("base64");
                response.put(headers::STREAM_SSE_DATA_ENCODING, base64);
            }
            response.put_earliest(earliest);
            response.body = Body::Live;
            response
        }
        Outcome::AfterTheEnd(tail) => {
            let mut response = Response::new(StatusCode::NO_CONTENT);
            response
                .put_offset(headers::STREAM_NEXT_OFFSET, tail)
                .put_flag(headers::STREAM_UP_TO_DATE, true)
                .put_flag(headers::STREAM_CLOSED, true)
                .put(header::CACHE_CONTROL, NO_STORE);
            response
        }
        Outcome::Preflight => Response::new(StatusCode::NO_CONTENT),
    }
}

fn render_append(appended: &AppendOutcome) -> Response {
    // §5.2.1: with producer headers new data is 200, a duplicate 204; without, always 204.
    let fresh = appended.producer.is_some() && appended.added;
    let mut response = Response::new(if fresh { StatusCode::OK } else { StatusCode::NO_CONTENT });
    response
        .put_offset(headers::STREAM_NEXT_OFFSET, appended.next_offset)
        .put_flag(headers::STREAM_CLOSED, appended.closed);
    if let Some(producer) = appended.producer {
        response
            .put(headers::PRODUCER_EPOCH, producer.epoch.into())
            .put(headers::PRODUCER_SEQ, producer.last_seq.into());
    }
    response
}

fn render_head(head: &HeadMeta<'_>) -> Response {
    let mut response = Response::new(StatusCode::OK);
    response
        .put_type_of_bytes(head.content_type)
        .put_offset(headers::STREAM_NEXT_OFFSET, head.tail)
        .put(header::CACHE_CONTROL, NO_STORE)
        .put_flag(headers::STREAM_CLOSED, head.closed)
        .put_flag(headers::STREAM_PUBLIC, head.public)
        .put_earliest(head.earliest);
    match head.expiry {
        Expiry::Never => {}
        Expiry::Ttl(seconds) => {
            response.put(headers::STREAM_TTL, seconds.into());
        }
        Expiry::At(time) => {
            response.put(headers::STREAM_EXPIRES_AT, ascii(time.to_string().as_bytes()));
        }
    }
    response
}

fn put_slice(response: &mut Response, meta: &SliceMeta<'_>) {
    response
        .put_offset(headers::STREAM_NEXT_OFFSET, meta.end)
        .put_flag(headers::STREAM_UP_TO_DATE, meta.up_to_date)
        .put_flag(headers::STREAM_CLOSED, meta.closed)
        .put_earliest(meta.earliest);
    if let Some(cursor) = meta.cursor {
        response.put(headers::STREAM_CURSOR, cursor.value().into());
    }
    response.put(header::CACHE_CONTROL, CachePolicy::of(meta).cache_control(meta.private));
    if let (Some(etag), true) = (meta.etag(), response.status != StatusCode::NO_CONTENT) {
        response.put(header::ETAG, etag.value(meta.encoded));
    }
}

/// Renders an error that is not the protocol's own, such as a bound of the server around the streams.
pub fn render_problem(
    status: StatusCode,
    code: &str,
    detail: String,
    retry_after: Option<Duration>,
) -> Response {
    let mut response = Response::new(status);
    response
        .put(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))
        .put(header::CACHE_CONTROL, NO_STORE);
    if let Some(after) = retry_after {
        response.put(header::RETRY_AFTER, after.as_secs().into());
    }
    response.body = Body::Full(vec![problem_body(status, code, detail)]);
    response
}

/// Renders a refusal, with the protocol's headers and a problem body.
pub fn render_rejection(rejection: &Rejection) -> Response {
    let (code, detail) = (rejection.code(), rejection.to_string());
    let mut response = render_problem(rejection.status(), code, detail, rejection.retry_after());
    match rejection {
        Rejection::StreamClosed { tail }
        | Rejection::ConfigMismatch { closed_at: Some(tail), .. } => {
            response
                .put(headers::STREAM_CLOSED, headers::TRUE)
                .put_offset(headers::STREAM_NEXT_OFFSET, *tail);
        }
        Rejection::StaleEpoch { current, tail } => {
            response
                .put(headers::PRODUCER_EPOCH, (*current).into())
                .put_offset(headers::STREAM_NEXT_OFFSET, *tail);
        }
        Rejection::SequenceGap { expected, received, tail } => {
            response
                .put(headers::PRODUCER_EXPECTED_SEQ, (*expected).into())
                .put(headers::PRODUCER_RECEIVED_SEQ, (*received).into())
                .put_offset(headers::STREAM_NEXT_OFFSET, *tail);
        }
        Rejection::SequenceRegression { tail, .. } => {
            response.put_offset(headers::STREAM_NEXT_OFFSET, *tail);
        }
        Rejection::OffsetTrimmed { earliest } => {
            response.put_offset(headers::STREAM_EARLIEST_OFFSET, *earliest);
        }
        Rejection::MethodNotAllowed => {
            let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            response.put(header::ALLOW, HeaderValue::from_static(allowed));
        }
        Rejection::ReadOnly => {
            response.put(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
        }
        _ => {}
    }
    response
}
