//! The bounds on what clients may ask for, each with unit and reason.
//!
//! The defaults are those of the parts that enforce the bounds: the engine and the edge.

use durable_streams_engine::EngineLimits;
use durable_streams_pingora::ClientShare;
use durable_streams_protocol::MAX_PATH_BYTES;

use crate::config::reader::setting::{InvalidValue, ScalarSetting, settings};
use crate::config::units::{ByteSize, HumanDuration};
use crate::edge::{HttpLimits, StreamOptions};

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
        /// Most bytes of response bodies in memory that clients have not taken yet.
        max_inflight_read: ByteSize = StreamOptions::default().max_inflight_read.into()
            => ByteSize::kib(64), ByteSize::tib(1);
        /// The part of `max_connections`, `max_live_readers`, `max_inflight_append` and
        /// `max_inflight_read` that one client address may hold.
        client_share: ClientShare = HttpLimits::DEFAULT.client_share
            => ClientShare::percent(1), ClientShare::ALL;
        /// Most bytes that the kernel keeps for one connection of what is sent and not acknowledged.
        send_buffer: Option<ByteSize> = HttpLimits::DEFAULT.send_buffer.map(ByteSize::from);
        /// Most streams; unlimited when not set.
        max_streams: Option<u64> = EngineLimits::DEFAULT.max_streams;
        /// Most bytes stored over all streams; unlimited when not set.
        max_total: Option<ByteSize> = EngineLimits::DEFAULT.max_total.map(ByteSize::bytes);
        /// Most producers that one stream remembers; unlimited when not set.
        max_producers: Option<u64> = EngineLimits::DEFAULT.max_producers;
        /// Longest time to receive a request's headers.
        header_timeout: HumanDuration = HttpLimits::DEFAULT.header_timeout.into()
            => HumanDuration::millis(100), HumanDuration::secs(3600);
        /// Longest pause between two parts of a request's body.
        body_timeout: HumanDuration = HttpLimits::DEFAULT.body_timeout.into()
            => HumanDuration::millis(100), HumanDuration::secs(3600);
        /// Slowest that a request's body may arrive, bytes in a second; 0B for no bound.
        min_body_rate: ByteSize = StreamOptions::default().min_body_rate.into()
            => ByteSize::bytes(0), ByteSize::gib(1);
        /// How long an idle keep-alive connection is kept.
        idle_timeout: HumanDuration = HttpLimits::DEFAULT.keepalive_timeout.into()
            => HumanDuration::millis(100), HumanDuration::secs(86_400);
        /// Longest time a reader may take none of what is sent to it.
        write_timeout: HumanDuration = HttpLimits::DEFAULT.write_timeout.into()
            => HumanDuration::millis(100), HumanDuration::secs(3600);
    }
}

impl ScalarSetting for ClientShare {
    const WHAT: &'static str = "a percentage such as 25%";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let fix = "write 25% for a quarter, 100% for no bound on one client";
        let number = text.strip_suffix('%').map(str::trim_end).and_then(|text| text.parse().ok());
        match number {
            Some(percent @ 1..=100) => Ok(ClientShare::percent(percent)),
            _ => Err(InvalidValue::not_a(Self::WHAT).fix(fix)),
        }
    }

    fn text(&self) -> String {
        format!("{}%", self.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!(ClientShare::parse("25%").unwrap(), ClientShare::DEFAULT);
        assert_eq!(ClientShare::parse("100 %").unwrap(), ClientShare::ALL);
        for text in ["25", "0%", "101%", "256%", "-1%", "1.5%", "%", ""] {
            assert!(ClientShare::parse(text).is_err(), "{text:?}");
        }
    }
}
