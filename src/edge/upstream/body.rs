//! A request body on its way to an upstream.

use bytes::Bytes;
use durable_streams_pingora::transport::BodyPace;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use crate::edge::context::RequestContext;

/// A piece of the body has arrived; `end`: the last one.
///
/// # Errors
/// A body that has arrived too slowly, as one of an append would be refused: it would hold a connection to the upstream
/// for as long as it likes. Once the upstream has answered, the two may converse at any pace.
pub(crate) fn arrived(
    session: &Session,
    body: &mut Option<Bytes>,
    end: bool,
    ctx: &mut RequestContext,
) -> Result<()> {
    end_once(body, end);
    let answered = session.response_written().is_some_and(|r| !r.status.is_informational());
    let Some(piece) = body.as_ref().filter(|_| !end && !answered && !session.was_upgraded()) else {
        return Ok(());
    };
    let options = &ctx.settings.options.streams;
    let pace = ctx.attempt.pace.get_or_insert_with(|| BodyPace::new(options));
    if pace.is_over() {
        let why = "the body arrives more slowly than it may";
        return Err(Error::explain(ErrorType::ReadTimedout, why).into_down());
    }
    pace.arrived(piece.len());
    Ok(())
}

/// Keeps Pingora from writing the last chunk twice.
///
/// An HTTP/2 client may end its body with an empty DATA frame. Pingora 0.9.1 writes that frame as a chunk of no bytes,
/// which is the last chunk, and then the last chunk itself (cloudflare/pingora issue 935): an HTTP/1.1 upstream takes
/// the second one for the next request. An end without a frame is written once. To be removed when Pingora has fixed
/// it; `tests/proxy/uploads.rs` fails without it until then.
fn end_once(body: &mut Option<Bytes>, end: bool) {
    if end && body.as_ref().is_some_and(Bytes::is_empty) {
        *body = None;
    }
}
