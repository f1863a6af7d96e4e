//! A request: typed ([`Request`]), from HTTP ([`Request::parse`]) and to it ([`Request::to_http`]).

mod parse;
#[cfg(test)]
mod tests;
mod to_http;

pub use to_http::{HttpRequestHead, UnsendableHeader};

use crate::{
    ContentType, ContentTypeError, Cursor, Expiry, IfNoneMatch, Offset, Producer, ReadFrom,
    StreamPath, StreamSeq,
};

/// What a request to a stream's URL asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `PUT` (§5.1).
    Create(Create),
    /// `POST` (§5.2, §5.3).
    Append(Append),
    /// `GET` (§5.6 to §5.8).
    Read(Read),
    /// `HEAD` (§5.5).
    Head,
    /// `DELETE` (§5.4).
    Delete,
    /// `PATCH`: an extension of this server.
    Patch(StreamPatch),
    /// `OPTIONS`: a browser's preflight.
    Preflight,
}

/// A `PUT`, its body apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Create {
    /// `Content-Type`.
    pub content_type: Option<ContentType>,
    /// `Stream-TTL` or `Stream-Expires-At`.
    pub expiry: Expiry,
    /// `Stream-Closed: true`.
    pub closed: bool,
    /// The fork headers.
    pub fork: Option<Fork>,
    /// The query parameter `public=true`: the stream is to be readable without credentials. An extension of this
    /// server.
    pub public: bool,
}

/// The fork headers of a `PUT` (§4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// `Stream-Forked-From`.
    pub source: StreamPath,
    /// `Stream-Fork-Offset`; `None` is the source's tail.
    pub offset: Option<Offset>,
    /// `Stream-Fork-Sub-Offset`; bytes, or messages in JSON mode.
    pub sub_offset: u64,
}

/// A `POST`, its body apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Append {
    /// `Content-Type`; `Err` when malformed, which matters only with a body.
    pub content_type: Option<Result<ContentType, ContentTypeError>>,
    /// `Stream-Seq`.
    pub stream_seq: Option<StreamSeq>,
    /// The producer headers.
    pub producer: Option<Producer>,
    /// `Stream-Closed: true`.
    pub close: bool,
}

/// A `PATCH`: what it changes of a stream. Something of it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamPatch {
    /// `Stream-Trim-Before`: everything before this offset goes.
    pub trim_before: Option<Offset>,
    /// `Stream-TTL` or `Stream-Expires-At`, of which `never` ends the present one.
    pub expiry: Option<Expiry>,
}

/// How a `GET` wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LiveMode {
    /// At once, with what there is (§5.6).
    CatchUp,
    /// With the next bytes, or 204 after a while (§5.7).
    LongPoll,
    /// As a stream of events (§5.8).
    Sse,
}

/// A parsed `GET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Where to begin.
    pub from: ReadFrom,
    /// How to answer.
    pub live: LiveMode,
    /// The cursor that the client echoes.
    pub cursor: Option<Cursor>,
    /// What the client holds already.
    pub if_none_match: Option<IfNoneMatch>,
    /// The client has received the event that says that the stream is closed at `from`.
    pub ended: bool,
}
