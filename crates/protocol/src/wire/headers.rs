//! The names of the protocol's headers (§13.2) and typed access to a request's headers.

use http::{HeaderMap, HeaderName, HeaderValue};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: HeaderName = HeaderName::from_static($text);)*
    };
}

names! {
    /// Sliding time-to-live, seconds.
    STREAM_TTL = "stream-ttl";
    /// Absolute expiry, RFC 3339.
    STREAM_EXPIRES_AT = "stream-expires-at";
    /// The application's own write sequence.
    STREAM_SEQ = "stream-seq";
    /// Cursor of live responses.
    STREAM_CURSOR = "stream-cursor";
    /// Where to read next.
    STREAM_NEXT_OFFSET = "stream-next-offset";
    /// The response reaches the tail.
    STREAM_UP_TO_DATE = "stream-up-to-date";
    /// The stream is, or is to be, closed.
    STREAM_CLOSED = "stream-closed";
    /// Anyone may read the stream. An extension of this server; `?public=true` of a `PUT` asks for it.
    STREAM_PUBLIC = "stream-public";
    /// A `PATCH` removes everything before this offset. An extension of this server.
    STREAM_TRIM_BEFORE = "stream-trim-before";
    /// The first offset that can be read, of a stream that was trimmed. An extension of this server.
    STREAM_EARLIEST_OFFSET = "stream-earliest-offset";
    /// Source of a fork, a URL path.
    STREAM_FORKED_FROM = "stream-forked-from";
    /// Where a fork leaves its source.
    STREAM_FORK_OFFSET = "stream-fork-offset";
    /// Refinement of the fork offset.
    STREAM_FORK_SUB_OFFSET = "stream-fork-sub-offset";
    /// How SSE data events are encoded.
    STREAM_SSE_DATA_ENCODING = "stream-sse-data-encoding";
    /// Idempotent producer: who.
    PRODUCER_ID = "producer-id";
    /// Idempotent producer: which session.
    PRODUCER_EPOCH = "producer-epoch";
    /// Idempotent producer: which request.
    PRODUCER_SEQ = "producer-seq";
    /// The sequence number that would have been accepted.
    PRODUCER_EXPECTED_SEQ = "producer-expected-seq";
    /// The sequence number that was sent.
    PRODUCER_RECEIVED_SEQ = "producer-received-seq";
    /// The last SSE event id a browser saw.
    LAST_EVENT_ID = "last-event-id";
}

/// The value `true`, as presence headers carry it.
pub const TRUE: HeaderValue = HeaderValue::from_static("true");

/// A header whose value cannot be what the protocol says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} {rule}")]
pub struct InvalidHeader {
    /// Which header.
    pub name: HeaderName,
    /// What it must be.
    pub rule: &'static str,
}

/// A header's only value as text; `None` when absent.
///
/// # Errors
/// When it is repeated or not visible ASCII: a header that cannot be read is refused, never taken as absent.
pub(crate) fn text<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h str>, InvalidHeader> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    if headers.get_all(name).iter().nth(1).is_some() {
        return Err(InvalidHeader { name: name.clone(), rule: "must be given once" });
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| InvalidHeader { name: name.clone(), rule: "must be visible ASCII text" })
}

/// A presence header: `true` without regard to case; every other value is as good as absent (§4.1), as are
/// several that differ.
pub(crate) fn is_true(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.contains_key(name)
        && headers.get_all(name).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}
