//! Parsing a request, once and completely, into types that cannot be wrong.

use http::{HeaderMap, HeaderName, Method, header};

use super::{Append, Create, Fork, LiveMode, Read, Request, StreamPatch};
use crate::{
    ContentType, ContentTypeError, Cursor, Expiry, IfNoneMatch, LastEventId, Offset, Producer,
    ProducerId, ReadFrom, Rejection, StreamPath, StreamSeq, Timestamp,
    headers::{self, is_true, text},
    model::producer::MAX_SAFE_INTEGER,
};

impl Request {
    /// Parses method, query and headers. `route` is the URL path under which streams live; it is cut off
    /// `Stream-Forked-From`, which names its stream by URL path.
    ///
    /// # Errors
    /// The first malformed part, as a 400 or 405.
    pub fn parse(
        method: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
        route: &str,
    ) -> Result<Self, Rejection> {
        match *method {
            Method::POST => Append::parse(headers).map(Request::Append),
            Method::GET => read(query.unwrap_or(""), headers).map(Request::Read),
            Method::HEAD => Ok(Request::Head),
            Method::PUT => Create::parse(query.unwrap_or(""), headers, route).map(Request::Create),
            Method::DELETE => Ok(Request::Delete),
            Method::PATCH => StreamPatch::parse(headers).map(Request::Patch),
            Method::OPTIONS => Ok(Request::Preflight),
            _ => Err(Rejection::MethodNotAllowed),
        }
    }
}

impl Create {
    fn parse(query: &str, headers: &HeaderMap, route: &str) -> Result<Self, Rejection> {
        refuse_encoded_body(headers)?;
        let content_type = match content_type(headers)? {
            None => None,
            Some(Ok(content_type)) => Some(content_type),
            Some(Err(error)) => return Err(Rejection::InvalidContentType(error)),
        };
        Ok(Create {
            content_type,
            expiry: expiry(headers)?,
            closed: is_true(headers, &headers::STREAM_CLOSED),
            fork: fork(headers, route)?,
            public: public(query)?,
        })
    }
}

impl Append {
    fn parse(headers: &HeaderMap) -> Result<Self, Rejection> {
        refuse_encoded_body(headers)?;
        let stream_seq = match text(headers, &headers::STREAM_SEQ)? {
            None => None,
            Some(seq) => Some(StreamSeq::new(seq).ok_or(Rejection::InvalidHeader {
                name: headers::STREAM_SEQ,
                rule: "must be 1 to 256 bytes",
            })?),
        };
        Ok(Append {
            // A close without a body must not be refused for its type (§5.2).
            content_type: content_type(headers).unwrap_or(Some(Err(ContentTypeError::Form))),
            stream_seq,
            producer: producer(headers)?,
            close: is_true(headers, &headers::STREAM_CLOSED),
        })
    }
}

/// The value of `Stream-Expires-At` in a `PATCH` that ends an expiry.
pub(super) const NEVER: &str = "never";

impl StreamPatch {
    fn parse(headers: &HeaderMap) -> Result<Self, Rejection> {
        let trim_before = match text(headers, &headers::STREAM_TRIM_BEFORE)? {
            None => None,
            Some(offset) => Some(Offset::parse(offset).ok_or(Rejection::InvalidHeader {
                name: headers::STREAM_TRIM_BEFORE,
                rule: "must be an offset that the server returned",
            })?),
        };
        let ttl = text(headers, &headers::STREAM_TTL)?;
        let expiry = match (ttl, text(headers, &headers::STREAM_EXPIRES_AT)?) {
            (None, None) => None,
            (None, Some(NEVER)) => Some(Expiry::Never),
            _ => Some(expiry(headers)?),
        };
        let patch = StreamPatch { trim_before, expiry };
        if patch == StreamPatch::default() { Err(Rejection::EmptyPatch) } else { Ok(patch) }
    }
}

fn refuse_encoded_body(headers: &HeaderMap) -> Result<(), Rejection> {
    match text(headers, &header::CONTENT_ENCODING)? {
        None | Some("") => Ok(()),
        // Content codings are case-insensitive (RFC 9110 §8.4.1).
        Some(coding) if coding.eq_ignore_ascii_case("identity") => Ok(()),
        Some(_) => Err(Rejection::EncodedBody),
    }
}

/// Absent, malformed or valid.
fn content_type(
    headers: &HeaderMap,
) -> Result<Option<Result<ContentType, ContentTypeError>>, Rejection> {
    Ok(match text(headers, &header::CONTENT_TYPE)? {
        None | Some("") => None,
        Some(value) => Some(ContentType::from_header(value)),
    })
}

/// Any other text is refused, never taken for one of the two: a typing error must neither open a stream nor leave it
/// closed unnoticed.
fn public(query: &str) -> Result<bool, Rejection> {
    match parameter(query, "public")?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Rejection::InvalidQuery { name: "public", rule: "must be true or false" }),
    }
}

fn expiry(headers: &HeaderMap) -> Result<Expiry, Rejection> {
    match (text(headers, &headers::STREAM_TTL)?, text(headers, &headers::STREAM_EXPIRES_AT)?) {
        (None, None) => Ok(Expiry::Never),
        (Some(_), Some(_)) => Err(Rejection::TwoExpiries),
        (Some(ttl), None) => Expiry::parse_ttl(ttl).ok_or(Rejection::InvalidHeader {
            name: headers::STREAM_TTL,
            rule: "must be a whole number of seconds without sign or leading zeros",
        }),
        (None, Some(at)) => {
            Timestamp::parse_rfc3339(at).map(Expiry::At).ok_or(Rejection::InvalidHeader {
                name: headers::STREAM_EXPIRES_AT,
                rule: "must be an RFC 3339 time, for example 2030-01-31T12:00:00Z",
            })
        }
    }
}

fn fork(headers: &HeaderMap, route: &str) -> Result<Option<Fork>, Rejection> {
    let offset = text(headers, &headers::STREAM_FORK_OFFSET)?;
    let sub_offset = text(headers, &headers::STREAM_FORK_SUB_OFFSET)?;
    let Some(source) = text(headers, &headers::STREAM_FORKED_FROM)? else {
        let alone = offset.is_some() || sub_offset.is_some();
        return if alone { Err(Rejection::ForkWithoutSource) } else { Ok(None) };
    };
    let relative = source.strip_prefix(route).and_then(|rest| rest.strip_prefix('/'));
    let source = relative.and_then(|rest| StreamPath::from_url(rest).ok()).ok_or(
        Rejection::InvalidHeader {
            name: headers::STREAM_FORKED_FROM,
            rule: "must be the URL path of a stream on this server",
        },
    )?;
    let offset = match offset {
        None => None,
        Some(text) => match ReadFrom::parse(text) {
            Some(ReadFrom::At(offset)) => Some(offset),
            Some(ReadFrom::Start) => Some(Offset::ZERO),
            Some(ReadFrom::Now) | None => {
                return Err(Rejection::InvalidHeader {
                    name: headers::STREAM_FORK_OFFSET,
                    rule: "must be an offset that the server returned",
                });
            }
        },
    };
    let sub_offset = match sub_offset {
        None => 0,
        Some(text) => whole_number(text).ok_or(Rejection::InvalidHeader {
            name: headers::STREAM_FORK_SUB_OFFSET,
            rule: "must be a whole number without sign or leading zeros",
        })?,
    };
    Ok(Some(Fork { source, offset, sub_offset }))
}

fn producer(headers: &HeaderMap) -> Result<Option<Producer>, Rejection> {
    let id = text(headers, &headers::PRODUCER_ID)?;
    let epoch = text(headers, &headers::PRODUCER_EPOCH)?;
    let seq = text(headers, &headers::PRODUCER_SEQ)?;
    let (id, epoch, seq) = match (id, epoch, seq) {
        (None, None, None) => return Ok(None),
        (Some(id), Some(epoch), Some(seq)) => (id, epoch, seq),
        _ => return Err(Rejection::PartialProducer),
    };
    let number = |name: HeaderName, text: &str| {
        whole_number(text).ok_or(Rejection::InvalidHeader {
            name,
            rule: "must be a whole number from 0 to 9007199254740991",
        })
    };
    Ok(Some(Producer {
        id: ProducerId::new(id).ok_or(Rejection::InvalidHeader {
            name: headers::PRODUCER_ID,
            rule: "must be 1 to 256 bytes",
        })?,
        epoch: number(headers::PRODUCER_EPOCH, epoch)?,
        seq: number(headers::PRODUCER_SEQ, seq)?,
    }))
}

/// Decimal digits, no sign, no leading zeros, at most JavaScript's largest safe integer.
fn whole_number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let value = if canonical && digits { text.parse().ok()? } else { return None };
    (value <= MAX_SAFE_INTEGER).then_some(value)
}

fn read(query: &str, headers: &HeaderMap) -> Result<Read, Rejection> {
    let offset = parameter(query, "offset")?;
    let from = match offset.as_deref() {
        None => ReadFrom::Start,
        Some(text) => ReadFrom::parse(text).ok_or(Rejection::InvalidQuery {
            name: "offset",
            rule: "must be -1, now or an offset that the server returned",
        })?,
    };
    let live = match parameter(query, "live")?.as_deref() {
        None => LiveMode::CatchUp,
        Some("long-poll") => LiveMode::LongPoll,
        Some("sse") => LiveMode::Sse,
        Some(_) => {
            return Err(Rejection::InvalidQuery { name: "live", rule: "must be long-poll or sse" });
        }
    };
    if live != LiveMode::CatchUp && offset.is_none() {
        return Err(Rejection::InvalidQuery { name: "offset", rule: "is required for live reads" });
    }
    // A browser's EventSource reconnects to the same URL and says here how far it came.
    let resumed = match live {
        LiveMode::Sse => text(headers, &headers::LAST_EVENT_ID)?.and_then(LastEventId::parse),
        LiveMode::CatchUp | LiveMode::LongPoll => None,
    };
    Ok(Read {
        from: resumed.map_or(from, |id| ReadFrom::At(id.offset)),
        ended: resumed.is_some_and(|id| id.closed),
        live,
        cursor: parameter(query, "cursor")?.as_deref().and_then(Cursor::parse),
        if_none_match: IfNoneMatch::parse(headers.get_all(header::IF_NONE_MATCH).iter()),
    })
}

/// The decoded value of a query parameter that may be given once.
fn parameter(query: &str, name: &'static str) -> Result<Option<String>, Rejection> {
    let mut values = query.as_bytes().split(|byte| *byte == b'&').filter_map(|pair| {
        let rest = pair.strip_prefix(name.as_bytes())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"=") }
    });
    let Some(raw) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Rejection::InvalidQuery { name, rule: "must be given once" });
    }
    let value = percent_encoding::percent_decode(raw).decode_utf8();
    value
        .map(|value| Some(value.into_owned()))
        .map_err(|_| Rejection::InvalidQuery { name, rule: "must be UTF-8" })
}
