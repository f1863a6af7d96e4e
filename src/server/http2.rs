//! The bounds of an HTTP/2 connection.

use pingora::protocols::http::v2::server::H2Options;

use crate::edge::HttpLimits;

/// Bytes of one HTTP/2 stream that wait inside the protocol's library for their turn on the connection: what a reader
/// that takes nothing costs beside the piece that its response holds. The library's default is 400 KiB.
const H2_SEND_BUFFER: usize = 32 << 10;

/// Settings of the protocol's library.
pub(super) fn h2_options(limits: &HttpLimits) -> H2Options {
    let mut options = H2Options::new();
    options.max_concurrent_streams(limits.h2_max_streams);
    options.max_send_buffer_size(H2_SEND_BUFFER);
    // HPACK counts 32 bytes per field on top of its text (RFC 9113 §6.5.2).
    let list = limits.max_header_bytes + limits.max_uri + 32 * limits.max_headers;
    options.max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX));
    options.max_pending_accept_reset_streams(limits.h2_max_pending_resets);
    options.max_concurrent_reset_streams(limits.h2_max_pending_resets);
    options
}
