//! A typed request as method, URL and headers: the reverse of [`Request::parse`].

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{Append, Create, Fork, LiveMode, Read, Request, StreamPatch, parse::NEVER};
use crate::{Expiry, LastEventId, Producer, ReadFrom, StreamPath, headers};

/// The head of a request, for any HTTP client. Its URL is `target` on the server's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequestHead {
    /// The method.
    pub method: Method,
    /// Path and query, escaped.
    pub target: String,
    /// The protocol's headers and `Content-Type`; the transport's own, such as `Host`, are the client's.
    pub headers: HeaderMap,
}

/// A value that a header cannot carry unchanged: not visible ASCII, or with a space at an end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of {name} must be visible ASCII without spaces at its ends")]
pub struct UnsendableHeader {
    /// The header that would have carried it.
    pub name: HeaderName,
}

impl Request {
    /// Formats the request for the stream at `path`. `route` is the URL path under which streams live on
    /// that server, without a slash at its end, for example `/v1/stream`.
    ///
    /// [`Request::parse`] of the result is the same request, with two exceptions: a malformed
    /// `Content-Type` ([`Append::content_type`]) is left out, and an expiry after the year 9999 becomes its
    /// last millisecond.
    ///
    /// # Errors
    /// [`UnsendableHeader`] for a producer id, a `Stream-Seq` or an entity tag that no header can carry.
    pub fn to_http(
        &self,
        route: &str,
        path: &StreamPath,
    ) -> Result<HttpRequestHead, UnsendableHeader> {
        let mut head = HttpRequestHead {
            method: self.method(),
            target: format!("{route}/{}", path.to_url()),
            headers: HeaderMap::new(),
        };
        match self {
            Request::Create(create) => {
                put_create(&mut head.headers, create, route)?;
                if create.public {
                    head.target.push_str("?public=true");
                }
            }
            Request::Append(append) => put_append(&mut head.headers, append)?,
            Request::Read(read) => {
                head.target.push_str(&read_query(read));
                if let Some(tags) = &read.if_none_match {
                    put(&mut head.headers, header::IF_NONE_MATCH, &tags.to_string())?;
                }
                if let (ReadFrom::At(offset), true) = (read.from, read.ended) {
                    let id = LastEventId { offset, closed: true };
                    put(&mut head.headers, headers::LAST_EVENT_ID, &id.to_string())?;
                }
            }
            Request::Patch(patch) => put_patch(&mut head.headers, patch)?,
            Request::Head | Request::Delete | Request::Preflight => {}
        }
        Ok(head)
    }

    /// The HTTP method.
    pub fn method(&self) -> Method {
        match self {
            Request::Create(_) => Method::PUT,
            Request::Append(_) => Method::POST,
            Request::Read(_) => Method::GET,
            Request::Head => Method::HEAD,
            Request::Delete => Method::DELETE,
            Request::Patch(_) => Method::PATCH,
            Request::Preflight => Method::OPTIONS,
        }
    }
}

fn put_patch(headers: &mut HeaderMap, patch: &StreamPatch) -> Result<(), UnsendableHeader> {
    if let Some(before) = patch.trim_before {
        put(headers, headers::STREAM_TRIM_BEFORE, &before.to_string())?;
    }
    match patch.expiry {
        Some(Expiry::Never) => put(headers, headers::STREAM_EXPIRES_AT, NEVER),
        Some(expiry) => put_expiry(headers, expiry),
        None => Ok(()),
    }
}

fn put_expiry(headers: &mut HeaderMap, expiry: Expiry) -> Result<(), UnsendableHeader> {
    match expiry {
        Expiry::Never => Ok(()),
        Expiry::Ttl(seconds) => put(headers, headers::STREAM_TTL, &seconds.to_string()),
        Expiry::At(time) => put(headers, headers::STREAM_EXPIRES_AT, &time.to_string()),
    }
}

fn put_create(
    headers: &mut HeaderMap,
    create: &Create,
    route: &str,
) -> Result<(), UnsendableHeader> {
    if let Some(content_type) = &create.content_type {
        put(headers, header::CONTENT_TYPE, content_type.as_str())?;
    }
    put_expiry(headers, create.expiry)?;
    put_closed(headers, create.closed);
    if let Some(Fork { source, offset, sub_offset }) = &create.fork {
        let source = format!("{route}/{}", source.to_url());
        put(headers, headers::STREAM_FORKED_FROM, &source)?;
        if let Some(offset) = offset {
            put(headers, headers::STREAM_FORK_OFFSET, &offset.to_string())?;
        }
        if *sub_offset != 0 {
            put(headers, headers::STREAM_FORK_SUB_OFFSET, &sub_offset.to_string())?;
        }
    }
    Ok(())
}

fn put_append(headers: &mut HeaderMap, append: &Append) -> Result<(), UnsendableHeader> {
    if let Some(Ok(content_type)) = &append.content_type {
        put(headers, header::CONTENT_TYPE, content_type.as_str())?;
    }
    if let Some(seq) = &append.stream_seq {
        put(headers, headers::STREAM_SEQ, seq.as_str())?;
    }
    if let Some(Producer { id, epoch, seq }) = &append.producer {
        put(headers, headers::PRODUCER_ID, id.as_str())?;
        put(headers, headers::PRODUCER_EPOCH, &epoch.to_string())?;
        put(headers, headers::PRODUCER_SEQ, &seq.to_string())?;
    }
    put_closed(headers, append.close);
    Ok(())
}

fn put_closed(headers: &mut HeaderMap, closed: bool) {
    if closed {
        headers.insert(headers::STREAM_CLOSED, headers::TRUE);
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) -> Result<(), UnsendableHeader> {
    // A header arrives without the white space around it, and the server takes visible ASCII only.
    let visible = text.trim() == text && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match HeaderValue::from_str(text) {
        Ok(value) if visible => {
            headers.insert(name, value);
            Ok(())
        }
        _ => Err(UnsendableHeader { name }),
    }
}

fn read_query(read: &Read) -> String {
    let mut query = format!("?offset={}", read.from);
    match read.live {
        LiveMode::CatchUp => {}
        LiveMode::LongPoll => query.push_str("&live=long-poll"),
        LiveMode::Sse => query.push_str("&live=sse"),
    }
    if let Some(cursor) = read.cursor {
        query.push_str("&cursor=");
        query.push_str(&cursor.value().to_string());
    }
    query
}
