//! The bounds on what clients may ask for, each with unit and reason.

use super::setting::settings;
use super::units::{ByteSize, HumanDuration};

settings! {
    /// Bounds on requests, connections and storage. What exceeds one is answered with 413, 414,
    /// 429, 431, 503 or 507, never with a server that stops.
    pub struct Limits {
        /// Largest body of one append or create, in bytes.
        max_append: ByteSize = ByteSize::mib(16) => ByteSize::bytes(1), ByteSize::gib(1);
        /// Most stream bytes in one catch-up response; the client follows `Stream-Next-Offset`.
        max_read: ByteSize = ByteSize::mib(1) => ByteSize::kib(1), ByteSize::gib(1);
        /// Longest stream path, in bytes after percent-decoding.
        max_path: usize = 1024 => 16, 1024;
        /// Most header fields of one request. The HTTP/1 parser holds 256.
        max_headers: usize = 100 => 8, 256;
        /// Most bytes of all header fields of one request.
        max_header_size: ByteSize = ByteSize::kib(16) => ByteSize::kib(1), ByteSize::kib(1023);
        /// Most connections open at once. Each takes a file descriptor.
        max_connections: usize = 65_536 => 1, 10_000_000;
        /// Most long-polls and SSE readers waiting at once.
        max_live_readers: usize = 50_000 => 1, 10_000_000;
        /// Most bytes of request bodies held at once, over all appends.
        max_inflight_append: ByteSize = ByteSize::mib(256) => ByteSize::bytes(1), ByteSize::tib(1);
        /// Most streams; unlimited when not set.
        max_streams: Option<u64> = None;
        /// Most bytes stored over all streams; unlimited when not set.
        max_total: Option<ByteSize> = None;
        /// Longest time to receive a request's headers.
        header_timeout: HumanDuration = HumanDuration::secs(10)
            => HumanDuration::millis(100), HumanDuration::secs(3600);
        /// Longest pause between two parts of a request's body.
        body_timeout: HumanDuration = HumanDuration::secs(30)
            => HumanDuration::millis(100), HumanDuration::secs(3600);
        /// How long an idle keep-alive connection is kept.
        idle_timeout: HumanDuration = HumanDuration::secs(60)
            => HumanDuration::millis(100), HumanDuration::secs(86_400);
        /// Longest time a reader may take none of what is sent to it.
        write_timeout: HumanDuration = HumanDuration::secs(30)
            => HumanDuration::millis(100), HumanDuration::secs(3600);
    }
}
