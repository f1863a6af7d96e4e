//! Every reason to refuse a request, and all that is said about it: status, code, advice.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::{ContentType, ContentTypeError, Offset, PathError, StreamSeq, headers::InvalidHeader};

/// A refusal. Each carries what its response needs; none needs a second look at the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The URL does not name a stream.
    #[error("{0}")]
    InvalidPath(PathError),
    /// A header's value is malformed.
    #[error("{name} {rule}")]
    InvalidHeader {
        /// Which header.
        name: HeaderName,
        /// What it must be.
        rule: &'static str,
    },
    /// A query parameter is malformed.
    #[error("the query parameter {name} {rule}")]
    InvalidQuery {
        /// Which parameter.
        name: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// Both kinds of expiry (§5.1).
    #[error("Stream-TTL and Stream-Expires-At cannot both be given; choose one")]
    TwoExpiries,
    /// Some producer headers are missing (§5.2.1).
    #[error("Producer-Id, Producer-Epoch and Producer-Seq must be given together or not at all")]
    PartialProducer,
    /// Fork headers without a source (§4.2).
    #[error("Stream-Fork-Offset and Stream-Fork-Sub-Offset need Stream-Forked-From")]
    ForkWithoutSource,
    /// A `PATCH` without a change.
    #[error("nothing is to be changed; send Stream-Trim-Before, Stream-TTL or Stream-Expires-At")]
    EmptyPatch,
    /// An empty POST that does not close (§5.2).
    #[error("the body is empty; send bytes to append, or Stream-Closed: true to close the stream")]
    EmptyAppend,
    /// Bytes without a type (§5.2).
    #[error("Content-Type is missing; send the stream's content type with the body")]
    MissingContentType,
    /// A type that is none.
    #[error("{0}")]
    InvalidContentType(ContentTypeError),
    /// The body is not JSON (§9.1.4).
    #[error("the body is not valid JSON: {reason}")]
    InvalidJson {
        /// The parser's words, with line and column.
        reason: String,
    },
    /// `[]` appends nothing (§9.1.3).
    #[error("the body is an empty JSON array; send at least one message")]
    EmptyJsonArray,
    /// An offset that was never handed out (§8).
    #[error("the offset is beyond the tail of the stream, {tail}")]
    OffsetBeyondTail {
        /// The tail.
        tail: Offset,
    },
    /// An offset that an earlier stream at this path returned (§8).
    #[error("the offset is of a stream that was deleted; read this one from its start, offset=-1")]
    OffsetOfDeletedStream,
    /// An offset whose bytes were trimmed (§4, §5.6).
    #[error("the bytes at the offset were removed; the earliest offset is {earliest}")]
    OffsetTrimmed {
        /// The first one that can be read.
        earliest: Offset,
    },
    /// An offset inside a JSON message (§9.1.1).
    #[error("the offset lies inside a JSON message; use an offset that the server returned")]
    OffsetInsideMessage,
    /// A sub-offset past the source's data (§4.2).
    #[error("Stream-Fork-Sub-Offset reaches past the data of the source stream")]
    SubOffsetBeyondData,
    /// The fork chain has reached its bound.
    #[error("the fork inherits from more than {limit} streams; fork from an older one")]
    ForkTooDeep {
        /// The bound.
        limit: usize,
    },
    /// A new epoch that does not begin at zero (§5.2.1).
    #[error("a new Producer-Epoch must start with Producer-Seq 0")]
    EpochMustStartAtZero,
    /// No such stream.
    #[error("there is no stream here; create it with PUT")]
    NotFound,
    /// The stream to fork does not exist.
    #[error("the stream named by Stream-Forked-From does not exist")]
    SourceNotFound,
    /// Soft-deleted (§5.4).
    #[error("the stream was deleted; its data is kept only for its forks")]
    Gone,
    /// Not a method of streams.
    #[error("streams answer GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS")]
    MethodNotAllowed,
    /// A change of a stream that only the server writes. An extension of this server.
    #[error("only the server writes this stream; it answers GET, HEAD and OPTIONS")]
    ReadOnly,
    /// A zombie producer (§5.2.1).
    #[error("a newer session of this producer has taken over; its epoch is {current}")]
    StaleEpoch {
        /// The newest epoch.
        current: u64,
        /// The stream's tail.
        tail: Offset,
    },
    /// Exists with another configuration (§5.1).
    #[error("the stream exists with a different {field}")]
    ConfigMismatch {
        /// The header that differs.
        field: &'static str,
        /// The final offset, when the stream is closed.
        closed_at: Option<Offset>,
    },
    /// A soft-deleted stream keeps its path (§4.2).
    #[error("a deleted stream at this path still has forks; the path is free when they are gone")]
    PathBlocked,
    /// The fork's source is soft-deleted (§4.2).
    #[error("the stream named by Stream-Forked-From was deleted")]
    SourceDeleted,
    /// The fork has another type than its source (§4.2).
    #[error("the Content-Type differs from the source stream's, {}", expected.as_str())]
    SourceTypeMismatch {
        /// The source's type.
        expected: ContentType,
    },
    /// Append of another type (§5.2).
    #[error("the Content-Type differs from the stream's, {}", stream.as_str())]
    ContentTypeMismatch {
        /// The stream's type.
        stream: ContentType,
    },
    /// Append to a closed stream (§5.2).
    #[error("the stream is closed at {tail}")]
    StreamClosed {
        /// The final offset.
        tail: Offset,
    },
    /// `Stream-Seq` did not increase (§5.2).
    // Clients look for the words "sequence conflict", since PROTOCOL.md gives this 409 no header of its own.
    #[error("sequence conflict: Stream-Seq must be greater than the last one, {}", last.as_str())]
    SequenceRegression {
        /// The last accepted one.
        last: StreamSeq,
        /// The stream's tail.
        tail: Offset,
    },
    /// A producer's request is missing (§5.2.1).
    #[error("Producer-Seq {received} came before {expected}")]
    SequenceGap {
        /// What would be accepted.
        expected: u64,
        /// What came.
        received: u64,
        /// The stream's tail.
        tail: Offset,
    },
    /// The body is over the limit.
    #[error("the body is larger than {limit} bytes; append it in parts")]
    BodyTooLarge {
        /// The limit, bytes.
        limit: u64,
    },
    /// The body stalled.
    #[error("the body did not arrive in time")]
    BodyTimeout,
    /// The body ended early or its framing is broken.
    #[error("the body is incomplete; nothing was stored")]
    BodyIncomplete,
    /// A `Content-Encoding` on the request.
    #[error("Content-Encoding is not supported on requests; send the bytes as they are")]
    EncodedBody,
    /// Too many live readers.
    #[error("the server has as many live readers as it allows, {limit}; try again later")]
    TooManyReaders {
        /// The limit.
        limit: usize,
    },
    /// Too many live readers of one client.
    #[error(
        "this address has as many live readers as one client may have, {limit}; end some of them"
    )]
    TooManyClientReaders {
        /// The limit.
        limit: usize,
    },
    /// Too many bytes of appends at once.
    #[error("too many bytes are being appended at once; try again shortly")]
    TooManyAppends,
    /// Too many bytes of appends of one client at once.
    #[error(
        "this address appends as many bytes at once as one client may, {limit}; try again shortly"
    )]
    TooManyClientAppends {
        /// The limit, bytes.
        limit: usize,
    },
    /// As many streams as allowed.
    #[error("the server holds as many streams as it allows, {limit}")]
    TooManyStreams {
        /// The limit.
        limit: u64,
    },
    /// As many streams or bytes as the tenant or path prefix may hold.
    #[error("this would exceed the quota here, {limit} {what}; delete streams or raise the quota")]
    QuotaExceeded {
        /// Streams or bytes.
        what: &'static str,
        /// The quota.
        limit: u64,
    },
    /// As many producers as a stream remembers.
    #[error("the stream remembers as many producers as it may, {limit}; use one that it knows")]
    TooManyProducers {
        /// The limit.
        limit: u64,
    },
    /// The stream cannot grow.
    #[error("the stream has reached the largest offset")]
    StreamFull,
    /// No room for more bytes.
    #[error("the server has no room for more data; delete streams or add storage")]
    StorageFull,
    /// The store cannot take writes.
    #[error("the server cannot store data at the moment: {reason}")]
    Unavailable {
        /// Why, without file names.
        reason: &'static str,
    },
    /// Bytes that were moved to an object store cannot be read from there now.
    #[error(
        "this part of the stream is in an object store that cannot be read at the moment; try again later"
    )]
    ObjectStoreUnavailable {
        /// The least time to wait before another try, at least a second.
        retry_after: Duration,
    },
    /// The server is stopping.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Stored bytes are not what was written.
    #[error("stored data of this stream is damaged; the operator's log says where")]
    Damaged,
}

impl Rejection {
    pub(crate) fn invalid_json(error: serde_json::Error) -> Self {
        Rejection::InvalidJson { reason: error.to_string() }
    }

    /// The status code.
    pub fn status(&self) -> StatusCode {
        match self {
            Rejection::InvalidPath(PathError::TooLong) => StatusCode::URI_TOO_LONG,
            Rejection::InvalidPath(_)
            | Rejection::InvalidHeader { .. }
            | Rejection::InvalidQuery { .. }
            | Rejection::TwoExpiries
            | Rejection::PartialProducer
            | Rejection::ForkWithoutSource
            | Rejection::EmptyPatch
            | Rejection::EmptyAppend
            | Rejection::MissingContentType
            | Rejection::InvalidContentType(_)
            | Rejection::InvalidJson { .. }
            | Rejection::EmptyJsonArray
            | Rejection::OffsetBeyondTail { .. }
            | Rejection::OffsetInsideMessage
            | Rejection::SubOffsetBeyondData
            | Rejection::ForkTooDeep { .. }
            | Rejection::EpochMustStartAtZero
            | Rejection::BodyIncomplete => StatusCode::BAD_REQUEST,
            Rejection::StaleEpoch { .. } => StatusCode::FORBIDDEN,
            Rejection::NotFound | Rejection::SourceNotFound => StatusCode::NOT_FOUND,
            Rejection::MethodNotAllowed | Rejection::ReadOnly => StatusCode::METHOD_NOT_ALLOWED,
            Rejection::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Rejection::ConfigMismatch { .. }
            | Rejection::PathBlocked
            | Rejection::SourceDeleted
            | Rejection::SourceTypeMismatch { .. }
            | Rejection::ContentTypeMismatch { .. }
            | Rejection::StreamClosed { .. }
            | Rejection::SequenceRegression { .. }
            | Rejection::SequenceGap { .. } => StatusCode::CONFLICT,
            Rejection::Gone
            | Rejection::OffsetOfDeletedStream
            | Rejection::OffsetTrimmed { .. } => StatusCode::GONE,
            Rejection::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::EncodedBody => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Rejection::TooManyReaders { .. }
            | Rejection::TooManyClientReaders { .. }
            | Rejection::TooManyAppends
            | Rejection::TooManyClientAppends { .. } => StatusCode::TOO_MANY_REQUESTS,
            Rejection::Damaged => StatusCode::INTERNAL_SERVER_ERROR,
            Rejection::Unavailable { .. }
            | Rejection::ObjectStoreUnavailable { .. }
            | Rejection::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::TooManyStreams { .. }
            | Rejection::QuotaExceeded { .. }
            | Rejection::TooManyProducers { .. }
            | Rejection::StreamFull
            | Rejection::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    /// A stable name for programs; part of the public interface.
    pub fn code(&self) -> &'static str {
        match self {
            Rejection::InvalidPath(_) => "invalid-path",
            Rejection::InvalidHeader { .. } => "invalid-header",
            Rejection::InvalidQuery { .. } => "invalid-query",
            Rejection::TwoExpiries => "two-expiries",
            Rejection::PartialProducer => "partial-producer",
            Rejection::ForkWithoutSource => "fork-without-source",
            Rejection::EmptyPatch => "empty-patch",
            Rejection::EmptyAppend => "empty-append",
            Rejection::MissingContentType => "missing-content-type",
            Rejection::InvalidContentType(_) => "invalid-content-type",
            Rejection::InvalidJson { .. } => "invalid-json",
            Rejection::EmptyJsonArray => "empty-json-array",
            Rejection::OffsetBeyondTail { .. } => "offset-beyond-tail",
            Rejection::OffsetOfDeletedStream => "offset-of-deleted-stream",
            Rejection::OffsetTrimmed { .. } => "offset-trimmed",
            Rejection::OffsetInsideMessage => "offset-inside-message",
            Rejection::SubOffsetBeyondData => "sub-offset-beyond-data",
            Rejection::ForkTooDeep { .. } => "fork-too-deep",
            Rejection::EpochMustStartAtZero => "epoch-must-start-at-zero",
            Rejection::NotFound => "not-found",
            Rejection::SourceNotFound => "source-not-found",
            Rejection::Gone => "gone",
            Rejection::MethodNotAllowed => "method-not-allowed",
            Rejection::ReadOnly => "read-only",
            Rejection::StaleEpoch { .. } => "stale-epoch",
            Rejection::ConfigMismatch { .. } => "config-mismatch",
            Rejection::PathBlocked => "path-blocked",
            Rejection::SourceDeleted => "source-deleted",
            Rejection::SourceTypeMismatch { .. } => "source-type-mismatch",
            Rejection::ContentTypeMismatch { .. } => "content-type-mismatch",
            Rejection::StreamClosed { .. } => "stream-closed",
            Rejection::SequenceRegression { .. } => "sequence-regression",
            Rejection::SequenceGap { .. } => "sequence-gap",
            Rejection::BodyTooLarge { .. } => "body-too-large",
            Rejection::BodyTimeout => "body-timeout",
            Rejection::BodyIncomplete => "body-incomplete",
            Rejection::EncodedBody => "encoded-body",
            Rejection::TooManyReaders { .. } | Rejection::TooManyClientReaders { .. } => {
                "too-many-readers"
            }
            Rejection::TooManyAppends | Rejection::TooManyClientAppends { .. } => {
                "too-many-appends"
            }
            Rejection::TooManyStreams { .. } => "too-many-streams",
            Rejection::QuotaExceeded { .. } => "quota-exceeded",
            Rejection::TooManyProducers { .. } => "too-many-producers",
            Rejection::StreamFull => "stream-full",
            Rejection::StorageFull => "storage-full",
            Rejection::Unavailable { .. } => "unavailable",
            Rejection::ObjectStoreUnavailable { .. } => "object-store-unavailable",
            Rejection::ShuttingDown => "shutting-down",
            Rejection::Damaged => "damaged",
        }
    }

    /// When trying the same request again may help.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Rejection::ObjectStoreUnavailable { retry_after } = self {
            return Some(*retry_after);
        }
        match self.status() {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Some(Duration::from_secs(1))
            }
            StatusCode::INSUFFICIENT_STORAGE => Some(Duration::from_secs(30)),
            _ => None,
        }
    }
}

impl From<PathError> for Rejection {
    fn from(error: PathError) -> Self {
        Rejection::InvalidPath(error)
    }
}

impl From<InvalidHeader> for Rejection {
    fn from(InvalidHeader { name, rule }: InvalidHeader) -> Self {
        Rejection::InvalidHeader { name, rule }
    }
}
