//! A request body on its way to an upstream.

use bytes::Bytes;

/// Keeps Pingora from writing the last chunk twice.
///
/// An HTTP/2 client may end its body with an empty DATA frame. Pingora 0.9.1 writes that frame as a chunk of no bytes,
/// which is the last chunk, and then the last chunk itself (cloudflare/pingora issue 935): an HTTP/1.1 upstream takes
/// the second one for the next request. An end without a frame is written once. To be removed when Pingora has fixed
/// it; `tests/proxy/uploads.rs` fails without it until then.
pub(crate) fn end_once(body: &mut Option<Bytes>, end: bool) {
    if end && body.as_ref().is_some_and(Bytes::is_empty) {
        *body = None;
    }
}
