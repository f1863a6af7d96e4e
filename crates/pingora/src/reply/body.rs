//! Receiving a request body: bounded before it is read, whole or not at all.
//!
//! A body is charged to the limits by what has arrived of it, not by what its head announces: a client that announces
//! much and sends nothing takes nothing from others. It cannot be slow for long either, see [`BodyPace`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use durable_streams_engine::LimitPermit;
use durable_streams_protocol::Rejection;
use http::header;
use pingora_core::{ErrorType, protocols::http::ServerSession};
use pingora_http::RequestHeader;
use tokio::time::Instant;

use crate::{
    DurableStreams, StreamOptions,
    clients::{ClientAddress, ClientPermit},
};

/// Memory reserved for a body on the word of its head, bytes. Beyond it memory grows with what arrives.
const RESERVED: usize = 1 << 20;

/// A received body and its share of the limits.
pub(super) struct ReceivedBody {
    pub(super) bytes: Bytes,
    pub(super) room: Option<BodyRoom>,
}

/// What a body holds of the limits on bytes of appends; dropping this returns it.
pub(crate) struct BodyRoom {
    all: LimitPermit,
    /// The part of its client, only where the body came in several pieces: one that comes at once is gone at once.
    /// Boxed: rare, and a reply that waits for the disk has room for it.
    client: Option<Box<ClientPermit>>,
}

/// How long the rest of a body may take: silence for `silence` at most, and over time no less than `rate`.
///
/// Each byte moves the deadline on by its share of a second, up to `silence` from the moment of its arrival. So bytes
/// that came fast make up for a pause, but never for more than one.
#[derive(Clone, Copy, Debug)]
pub struct BodyPace {
    deadline: Instant,
    silence: Duration,
    /// Bytes in a second; 0 is no bound.
    rate: usize,
}

impl BodyPace {
    /// For a body that begins now, at the pace of [`StreamOptions::min_body_rate`] and
    /// [`StreamOptions::body_timeout`].
    pub fn new(options: &StreamOptions) -> Self {
        let silence = options.body_timeout;
        BodyPace { deadline: Instant::now() + silence, silence, rate: options.min_body_rate }
    }

    /// Whether the body is too slow already.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// A piece of the body has arrived.
    pub fn arrived(&mut self, bytes: usize) {
        let latest = Instant::now() + self.silence;
        self.deadline = match self.rate {
            0 => latest,
            rate => {
                let earned = Duration::from_secs_f64(bytes as f64 / rate as f64);
                latest.min(self.deadline + earned.min(self.silence))
            }
        };
    }
}

impl DurableStreams {
    /// Receives the whole body.
    ///
    /// # Errors
    /// [`Rejection::BodyTooLarge`] before more than the limit is read, [`Rejection::TooManyAppends`],
    /// [`Rejection::TooManyClientAppends`], [`Rejection::BodyTimeout`], [`Rejection::BodyIncomplete`]. A body cut short
    /// is never used.
    pub(super) async fn receive(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
    ) -> Result<ReceivedBody, Rejection> {
        let limit = self.engine.limits().max_append;
        let too_large = || Rejection::BodyTooLarge { limit: limit as u64 };
        let declared = declared_length(session);
        if declared.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        if declared == Some(0) || (declared.is_none() && session.is_body_empty()) {
            return Ok(ReceivedBody { bytes: Bytes::new(), room: None });
        }
        self.engine.append_room(declared.unwrap_or(0))?;
        if expects_continue(session.req_header()) {
            // Pingora takes any head before the end of the body, this one too, for a reason to close.
            let keepalive = session.get_keepalive();
            // Boxed: rare.
            let asked = Box::pin(session.write_continue_response()).await;
            asked.map_err(|_| Rejection::BodyIncomplete)?;
            session.set_keepalive(keepalive);
        }
        let mut pace = BodyPace::new(options);
        let mut room = None;
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        // Pingora knows where a body of declared length ends: reading on would only find nothing there.
        while !session.is_body_done()
            && let Some(piece) = next(session, &pace).await?
        {
            let arrived = piece.len();
            if first.is_empty() {
                first = piece;
            } else {
                if rest.is_empty() {
                    let reserved = declared.unwrap_or(0).min(RESERVED);
                    rest.reserve(reserved.max(first.len() + piece.len()));
                    rest.extend_from_slice(&first);
                }
                rest.extend_from_slice(&piece);
            }
            let length = first.len().max(rest.len());
            if length > limit {
                return Err(too_large());
            }
            self.charge(&mut room, arrived)?;
            if Some(length) != declared {
                self.charge_client(&mut room, length, session, options)?;
                pace.arrived(arrived);
            }
        }
        let bytes = if rest.is_empty() { first } else { rest.freeze() };
        Ok(ReceivedBody { bytes, room })
    }

    /// Charges bytes that have arrived.
    fn charge(&self, room: &mut Option<BodyRoom>, bytes: usize) -> Result<(), Rejection> {
        match room {
            None => {
                *room = Some(BodyRoom { all: self.engine.append_permit(bytes)?, client: None });
                Ok(())
            }
            Some(room) => self.engine.grow_append_permit(&mut room.all, bytes),
        }
    }

    /// Charges a body that is still arriving, of which there are `length` bytes, to its client.
    fn charge_client(
        &self,
        room: &mut Option<BodyRoom>,
        length: usize,
        session: &ServerSession,
        options: &StreamOptions,
    ) -> Result<(), Rejection> {
        let Some(room) = room else { return Ok(()) };
        let limits = self.engine.limits();
        // One body of the largest size is always allowed.
        let limit = options.client_share.of(limits.max_inflight_append).max(limits.max_append);
        let granted = match &mut room.client {
            Some(permit) => permit.grow(length - permit.units(), limit),
            empty => match ClientAddress::of(session, options) {
                None => true,
                Some(client) => {
                    *empty = self.client_appends.take(client, length, limit).map(Box::new);
                    empty.is_some()
                }
            },
        };
        granted.then_some(()).ok_or(Rejection::TooManyClientAppends { limit })
    }
}

async fn next(session: &mut ServerSession, pace: &BodyPace) -> Result<Option<Bytes>, Rejection> {
    // Pingora times each read of a body over HTTP/1, and those over HTTP/2 not at all.
    let read = tokio::time::timeout_at(pace.deadline, session.read_request_body());
    let read = read.await.map_err(|_| Rejection::BodyTimeout)?;
    read.map_err(|error| match error.etype() {
        ErrorType::ReadTimedout => Rejection::BodyTimeout,
        _ => Rejection::BodyIncomplete,
    })
}

/// Whether the client waits for `100 Continue` before it sends the body.
pub(super) fn expects_continue(request: &RequestHeader) -> bool {
    request.version != http::Version::HTTP_10
        && request
            .headers
            .get(header::EXPECT)
            .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// What the head of a request says of its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyHead {
    /// There is none.
    pub(super) absent: bool,
    /// Its length, bytes, where that is known.
    pub(super) declared: Option<usize>,
}

impl BodyHead {
    pub(super) fn of(session: &mut ServerSession) -> Self {
        let declared = declared_length(session);
        BodyHead { absent: declared == Some(0) || session.is_body_empty(), declared }
    }
}

pub(super) fn declared_length(session: &ServerSession) -> Option<usize> {
    let headers = &session.req_header().headers;
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Whether a request has no body, as far as its head tells.
pub(super) fn is_absent(session: &mut ServerSession) -> bool {
    declared_length(session) == Some(0) || session.is_body_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paced(rate: usize) -> BodyPace {
        let options = StreamOptions { min_body_rate: rate, ..StreamOptions::default() };
        BodyPace::new(&options)
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_not_waited_for_longer_than_silence() {
        let mut pace = paced(1000);
        let first = pace.deadline;
        for _ in 0..29 {
            tokio::time::advance(Duration::from_secs(1)).await;
            pace.arrived(1);
        }
        assert_eq!(pace.deadline, first + Duration::from_millis(29));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_fast_makes_up_for_one_pause() {
        let mut pace = paced(1000);
        tokio::time::advance(Duration::from_secs(20)).await;
        pace.arrived(16 << 20);
        assert_eq!(pace.deadline, Instant::now() + Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(10)).await;
        pace.arrived(5000);
        assert_eq!(pace.deadline, Instant::now() + Duration::from_secs(25));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_each_byte_buys_a_whole_pause() {
        let mut pace = paced(0);
        tokio::time::advance(Duration::from_secs(29)).await;
        pace.arrived(1);
        assert_eq!(pace.deadline, Instant::now() + Duration::from_secs(30));
    }
}
