//! A reply is a value: a response, and what its delivery has to wait for.
//!
//! Routes return replies and never write. [`DurableStreams::deliver`](super::DurableStreams::deliver) waits, writes and
//! counts, through the one [`ReplyWriter`](super::ReplyWriter) that a transport has.

use std::time::{Duration, Instant};

use durable_streams_engine::{Permit, Ticket};
use durable_streams_protocol::headers::STREAM_NEXT_OFFSET;
use durable_streams_protocol::{Rejection, Response};
use http::{HeaderName, HeaderValue, Method};
use pingora::http::RequestHeader;

use super::{Cors, events::LiveRead};
use crate::telemetry::metrics::{Metrics, Mode};

/// The response to one request, not yet written.
pub(in crate::edge) struct Reply {
    pub(super) response: Response,
    pub(super) pending: Pending,
    pub(super) problem: Option<&'static str>,
    /// `None`: the request was refused before it was known what it is.
    pub(super) operation: Option<Mode>,
    pub(super) method: Method,
    /// Fields for browsers; every response to the request carries them, a late refusal too.
    pub(super) cors: Vec<(HeaderName, HeaderValue)>,
    /// When the request began, if the response reports how long it took.
    pub(super) server_timing: Option<Instant>,
    pub(super) commit_wait: Option<Duration>,
}

/// What the delivery of a response has to wait for.
pub(super) enum Pending {
    Nothing,
    /// Written once the append is durable.
    Durable(AppendTicket),
    /// The head is written at once, then events until the live read ends.
    Events(Box<LiveRead>),
}

/// A decided append that may not be durable yet. Its response must not be written before
/// [`durable`](Self::durable) returns.
pub(super) struct AppendTicket {
    pub(super) ticket: Option<Ticket>,
    /// The body's share of the bytes in flight.
    pub(super) _room: Option<Permit>,
    pub(super) received: Instant,
}

impl AppendTicket {
    /// Waits until the append is durable.
    ///
    /// # Errors
    /// The store failed; nothing was appended.
    pub(super) async fn durable(self, metrics: &Metrics) -> Result<(), Rejection> {
        if let Some(ticket) = self.ticket {
            ticket.wait().await?;
        }
        metrics.appended(self.received.elapsed());
        Ok(())
    }
}

impl Reply {
    /// A refusal of a request that did not become a stream request.
    pub(in crate::edge) fn refusal(response: Response, code: &'static str) -> Self {
        Reply {
            response,
            pending: Pending::Nothing,
            problem: Some(code),
            operation: None,
            method: Method::default(),
            cors: Vec::new(),
            server_timing: None,
            commit_wait: None,
        }
    }

    /// Adds the fields that let the browser page behind `request` read the response.
    pub(in crate::edge) fn with_cors(mut self, cors: &Cors, request: &RequestHeader) -> Self {
        self.cors = cors.fields(&request.method, &request.headers);
        self
    }

    /// The code of the problem that the response reports, if it reports one.
    pub(in crate::edge) fn problem(&self) -> Option<&'static str> {
        self.problem
    }

    /// The offset that the client is to continue from, as the response says it.
    pub(in crate::edge) fn next_offset(&self) -> Option<&str> {
        let field = self.response.headers.iter().find(|(name, _)| *name == STREAM_NEXT_OFFSET);
        field.and_then(|(_, value)| value.to_str().ok())
    }
}
