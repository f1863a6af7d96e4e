//! A reply is a value: a response, and what its delivery has to wait for.
//!
//! Routes return replies and never write. [`DurableStreams::deliver`](crate::DurableStreams::deliver) waits, writes and
//! counts, through the one [`ReplyWriter`](crate::transport::ReplyWriter) that a transport has.
//!
//! | file | what it does |
//! |---|---|
//! | `access` | whether the client may do this |
//! | `operations` | what a request needs for that |
//! | `caching` | what caches may do with the response |
//! | `rights` | what a request that was let through may do, and for how long |
//! | `control` | what the client may do with subscriptions |
//! | `dispatch` | from a request to its reply, through the engine |
//! | `append`, `read`, `events` | appends; catch-up and long-poll; SSE |
//! | `large_event` | SSE events that are written in pieces |
//! | `subscriptions` | requests under the reserved segment |
//! | `body` | receives a request body, bounded |
//! | `streamed` | a body that is read while it is written |
//! | `piece_size` | how much is read at a time for one reader |
//! | `compress` | content encoding of catch-up responses |
//! | `time` | durations on the engine's clock |

pub(crate) mod access;
mod append;
pub(crate) mod body;
pub(crate) mod caching;
mod compress;
mod control;
mod dispatch;
mod events;
mod large_event;
mod operations;
mod piece_size;
mod read;
mod rights;
mod streamed;
mod subscriptions;
pub(crate) mod time;

use std::time::{Duration, Instant};

use durable_streams_engine::Ticket;
use durable_streams_protocol::headers::STREAM_NEXT_OFFSET;
use durable_streams_protocol::{Body, Rejection, Response};
use http::{HeaderName, HeaderValue, Method};
use pingora_http::RequestHeader;

use body::BodyRoom;
pub(crate) use compress::StreamEncoders;
pub(crate) use events::LiveRead;
pub(crate) use streamed::StreamedBody;

use crate::{
    answers::AnswerRoom,
    cors::CorsPolicy,
    counters::{RequestMode, StreamCounters, UsagePlace},
};

/// The response to one request, not yet written.
pub struct StreamReply {
    pub(crate) response: Response,
    pub(crate) pending: PendingReply,
    pub(crate) problem: Option<&'static str>,
    /// `None`: the request was refused before it was known what it is.
    pub(crate) mode: Option<RequestMode>,
    pub(crate) method: Method,
    /// Fields for browsers; every response to the request carries them, a late refusal too.
    pub(crate) cors: Vec<(HeaderName, HeaderValue)>,
    /// When the request began, if the response reports how long it took.
    pub(crate) server_timing: Option<Instant>,
    pub(crate) commit_wait: Option<Duration>,
    /// Where it counts by prefix and by tenant.
    pub(crate) usage: UsagePlace,
}

/// What the delivery of a response has to wait for.
pub(crate) enum PendingReply {
    Nothing,
    /// Written once the append is durable.
    Durable(AppendTicket),
    /// The head is written at once, then events until the live read ends.
    Events(Box<LiveRead>),
    /// The head is written at once, then the body piece by piece.
    Body(Box<StreamedBody>),
    /// Written at once; its body holds this until then.
    Room {
        _held: Box<AnswerRoom>,
    },
    /// Nothing is written: the client left while its long-poll waited.
    ClientLeft,
}

impl PendingReply {
    /// Written at once, with room for its body if that takes any.
    pub(crate) fn holding(room: Option<Box<AnswerRoom>>) -> Self {
        room.map_or(PendingReply::Nothing, |room| PendingReply::Room { _held: room })
    }
}

/// A decided append that may not be durable yet. Its response must not be written before
/// [`durable`](Self::durable) returns.
pub(crate) struct AppendTicket {
    pub(crate) ticket: Option<Ticket>,
    /// The body's share of the bytes in flight, of all clients and of its own.
    pub(crate) _room: Option<BodyRoom>,
    pub(crate) received: Instant,
}

impl AppendTicket {
    /// Waits until the append is durable.
    ///
    /// # Errors
    /// The store failed; nothing was appended.
    pub(crate) async fn durable(&mut self, metrics: &StreamCounters) -> Result<(), Rejection> {
        if let Some(ticket) = self.ticket.take() {
            ticket.wait().await?;
        }
        metrics.appended(self.received.elapsed());
        Ok(())
    }
}

impl StreamReply {
    /// A refusal of a request that did not become a stream request.
    pub fn refusal(response: Response, code: &'static str) -> Self {
        StreamReply {
            response,
            pending: PendingReply::Nothing,
            problem: Some(code),
            mode: None,
            method: Method::default(),
            cors: Vec::new(),
            server_timing: None,
            commit_wait: None,
            usage: UsagePlace::default(),
        }
    }

    /// Adds a field to the response.
    #[must_use]
    pub fn with_field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.response.headers.push((name, value));
        self
    }

    /// Adds the fields that let the browser page behind `request` read the response.
    #[must_use]
    pub fn with_cors(mut self, cors: &CorsPolicy, request: &RequestHeader) -> Self {
        self.cors = cors.fields(&request.method, &request.headers);
        self
    }

    /// The response, to be written; an empty one takes its place.
    pub(crate) fn take_response(&mut self) -> Response {
        let empty =
            Response { status: self.response.status, headers: Vec::new(), body: Body::Empty };
        std::mem::replace(&mut self.response, empty)
    }

    /// The code of the problem that the response reports, if it reports one.
    pub fn problem(&self) -> Option<&'static str> {
        self.problem
    }

    /// The offset that the client is to continue from, as the response says it.
    pub fn next_offset(&self) -> Option<&str> {
        let field = self.response.headers.iter().find(|(name, _)| *name == STREAM_NEXT_OFFSET);
        field.and_then(|(_, value)| value.to_str().ok())
    }
}
