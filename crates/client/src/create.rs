//! What a stream is created with.

use std::time::Duration;

use bytes::Bytes;
use durable_streams_protocol::{ContentType, Timestamp, headers};
use http::{HeaderMap, header};

use crate::{error::ClientError, fields::put, position::StreamOffset, stream::Stream};

/// What a stream is created with (§5.1, §4.2). Without options: an empty open stream of `application/octet-stream`
/// that does not expire.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    content_type: Option<ContentType>,
    ttl: Option<Duration>,
    expires_at: Option<Timestamp>,
    closed: bool,
    data: Bytes,
    fork: Option<ForkOptions>,
}

#[derive(Clone, Debug)]
struct ForkOptions {
    source: String,
    offset: Option<StreamOffset>,
    sub_offset: u64,
}

impl CreateOptions {
    /// Of this type. Streams of `application/json` hold messages, others bytes (§9).
    pub fn of_type(content_type: &ContentType) -> Self {
        CreateOptions { content_type: Some(content_type.clone()), ..CreateOptions::default() }
    }

    /// A stream of JSON messages (§9.1).
    pub fn json() -> Self {
        CreateOptions {
            content_type: ContentType::parse(crate::stream::JSON),
            ..CreateOptions::default()
        }
    }

    /// A stream of text.
    pub fn text() -> Self {
        CreateOptions {
            content_type: ContentType::parse("text/plain; charset=utf-8"),
            ..CreateOptions::default()
        }
    }

    /// A stream that begins as `source` up to `offset`, without `offset` up to its tail, and goes its own way from
    /// there. The source must be on the same server.
    pub fn fork_of(source: &Stream, offset: Option<StreamOffset>) -> Self {
        let path = source
            .url()
            .split_once("://")
            .and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
        let source = path.unwrap_or("/").to_owned();
        let fork = ForkOptions { source, offset, sub_offset: 0 };
        CreateOptions { fork: Some(fork), ..CreateOptions::default() }
    }

    /// Inherits so many bytes (of a JSON stream, messages) after the offset of the fork, too (§4.2).
    #[must_use]
    pub fn fork_sub_offset(mut self, sub_offset: u64) -> Self {
        if let Some(fork) = &mut self.fork {
            fork.sub_offset = sub_offset;
        }
        self
    }

    /// Goes away after this long without a read or a write; in whole seconds, rounded up.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Goes away at this time.
    #[must_use]
    pub fn expires_at(mut self, time: Timestamp) -> Self {
        self.expires_at = Some(time);
        self
    }

    /// Closed from the beginning: `data` is all there will be.
    #[must_use]
    pub fn closed(mut self) -> Self {
        self.closed = true;
        self
    }

    /// The first bytes.
    #[must_use]
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = data.into();
        self
    }

    pub(crate) fn body(&self) -> Bytes {
        self.data.clone()
    }

    pub(crate) fn headers(&self) -> Result<HeaderMap, ClientError> {
        let mut fields = HeaderMap::new();
        if let Some(content_type) = &self.content_type {
            put(&mut fields, header::CONTENT_TYPE, content_type.as_str())?;
        }
        if let Some(ttl) = self.ttl {
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            put(&mut fields, headers::STREAM_TTL, &seconds.to_string())?;
        }
        if let Some(time) = self.expires_at {
            put(&mut fields, headers::STREAM_EXPIRES_AT, &time.to_string())?;
        }
        if self.closed {
            fields.insert(headers::STREAM_CLOSED, headers::TRUE);
        }
        if let Some(fork) = &self.fork {
            put(&mut fields, headers::STREAM_FORKED_FROM, &fork.source)?;
            if let Some(offset) = &fork.offset {
                put(&mut fields, headers::STREAM_FORK_OFFSET, offset.as_str())?;
            }
            if fork.sub_offset > 0 {
                let sub_offset = fork.sub_offset.to_string();
                put(&mut fields, headers::STREAM_FORK_SUB_OFFSET, &sub_offset)?;
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    #[test]
    fn options_become_the_protocols_headers() {
        let options = CreateOptions::json().ttl(Duration::from_millis(1500)).closed();
        let fields = options.headers().unwrap();
        assert_eq!(fields[header::CONTENT_TYPE], "application/json");
        assert_eq!(
            (&fields["stream-ttl"], &fields["stream-closed"]),
            (&"2".parse().unwrap(), &headers::TRUE)
        );
        let at = CreateOptions::text().expires_at(Timestamp::from_millis(1_000));
        assert_eq!(at.headers().unwrap()["stream-expires-at"], "1970-01-01T00:00:01Z");
        assert!(CreateOptions::default().headers().unwrap().is_empty());
    }

    #[test]
    fn a_fork_names_the_path_of_its_source() {
        let source = Client::new("http://h.test/v1/stream").unwrap().stream("a b/c").unwrap();
        let fork = CreateOptions::fork_of(&source, StreamOffset::new("7")).fork_sub_offset(2);
        let fields = fork.headers().unwrap();
        assert_eq!(fields["stream-forked-from"], "/v1/stream/a%20b/c");
        assert_eq!(
            (&fields["stream-fork-offset"], &fields["stream-fork-sub-offset"]),
            (&"7".parse().unwrap(), &"2".parse().unwrap())
        );
        let fields = CreateOptions::fork_of(&source, None).headers().unwrap();
        assert_eq!(fields.len(), 1);
    }
}
