//! The bounds on what clients may ask for, each with unit and reason.
//!
//! The defaults are those of the parts that enforce the bounds: the engine and the edge.

use durable_streams_engine::EngineLimits;
use durable_streams_protocol::MAX_PATH_BYTES;

use crate::config::reader::setting::settings;
use crate::config::units::{ByteSize, HumanDuration};
use crate::edge::HttpLimits;

settings! {
    /// Bounds on requests, connections and storage. What exceeds one is answered with 413, 414,
    /// 429, 431, 503 or 507, never with a server that stops.
    pub struct LimitsConfig {
        /// Largest body of one append or create, in bytes.
        max_append: ByteSize = EngineLimits::DEFAULT.max_append.into()
            => ByteSize::bytes(1), ByteSize::gib(1);
        /// Most stream bytes in one catch-up response; when not set, a response reaches the tail.
        max_read: Option<ByteSize> = EngineLimits::DEFAULT.max_read.map(ByteSize::from);
        /// Longest stream path, in bytes after percent-decoding.
        max_path: usize = MAX_PATH_BYTES => 16, MAX_PATH_BYTES;
        /// Most header fields of one request. The HTTP/1 parser holds 256.
        max_headers: usize = HttpLimits::DEFAULT.max_headers => 8, 256;
        /// Most bytes of all header fields of one request.
        max_header_size: ByteSize = HttpLimits::DEFAULT.max_header_bytes.into()
            => ByteSize::kib(1), ByteSize::kib(1023);
        /// Most connections open at once. Each takes a file descriptor.
        max_connections: usize = HttpLimits::DEFAULT.max_connections => 1, 10_000_000;
        /// Most long-polls and SSE readers waiting at once.
        max_live_readers: usize = EngineLimits::DEFAULT.max_live_readers => 1, 10_000_000;
        /// Most bytes of request bodies held at once, over all appends.
        max_inflight_append: ByteSize = EngineLimits::DEFAULT.max_inflight_append.into()
            => ByteSize::bytes(1), ByteSize::tib(1);
        /// Most streams; unlimited when not set.
        max_streams: Option<u64> = EngineLimits::DEFAULT.max_streams;
        /// Most bytes stored over all streams; unlimited when not set.
        max_total: Option<ByteSize> = EngineLimits::DEFAULT.max_total.map(ByteSize::bytes);
        /// Longest time to receive a request's headers.
        header_timeout: HumanDuration = HttpLimits::DEFAULT.header_timeout.into()
            => HumanDuration::millis(100), HumanDuration::secs(3600);
        /// Longest pause between two parts of a request's body.
        body_timeout: HumanDuration = HttpLimits::DEFAULT.body_timeout.into()
            => HumanDuration::millis(100), HumanDuration::secs(3600);
        /// How long an idle keep-alive connection is kept.
        idle_timeout: HumanDuration = HttpLimits::DEFAULT.keepalive_timeout.into()
            => HumanDuration::millis(100), HumanDuration::secs(86_400);
        /// Longest time a reader may take none of what is sent to it.
        write_timeout: HumanDuration = HttpLimits::DEFAULT.write_timeout.into()
            => HumanDuration::millis(100), HumanDuration::secs(3600);
    }
}
