//! Appends to one or many streams.
//!
//! With at least as many streams as connections each stream belongs to one connection, which goes
//! round its own; with fewer they share. In both cases the offsets one connection sees of one
//! stream must strictly grow, and the harness knows how much every stream must hold at the end.

use super::{MESSAGE, expect_offset, expect_status, name};
use crate::client::{Head, Method, Next, Offset, Target, Traffic, request};
use std::time::Instant;

/// What one append carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// [`MESSAGE`] bytes.
    Binary,
    /// One JSON object of [`MESSAGE`] bytes.
    JsonOne,
    /// An array of [`Kind::ARRAY`] objects of 100 bytes.
    JsonArray,
    /// As `Binary`, by an idempotent producer per connection.
    Producer,
    /// Binary of another size: the way a stream is filled.
    Bulk(usize),
}

impl Kind {
    /// Messages in a [`Kind::JsonArray`].
    pub(crate) const ARRAY: usize = 100;

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::JsonOne | Self::JsonArray => "application/json",
            Self::Binary | Self::Producer | Self::Bulk(_) => "application/octet-stream",
        }
    }

    pub(crate) fn is_json(self) -> bool {
        matches!(self, Self::JsonOne | Self::JsonArray)
    }

    /// What one append adds to a read: bytes, or objects of a JSON stream.
    pub(crate) fn units(self) -> u64 {
        let units = match self {
            Self::JsonOne => 1,
            Self::JsonArray => Self::ARRAY,
            Self::Binary | Self::Producer => MESSAGE,
            Self::Bulk(size) => size,
        };
        units as u64
    }

    fn body(self) -> Vec<u8> {
        let object = |size: usize| format!("{{\"v\":\"{}\"}}", "x".repeat(size - 8));
        match self {
            Self::JsonOne => object(MESSAGE).into_bytes(),
            Self::JsonArray => {
                format!("[{}]", vec![object(100); Self::ARRAY].join(",")).into_bytes()
            }
            Self::Binary | Self::Producer => vec![b'x'; MESSAGE],
            Self::Bulk(size) => (0..size).map(|n| (n % 251) as u8).collect(),
        }
    }
}

/// A request with its variable places: the stream's digits and the producer's sequence number.
struct Template {
    bytes: Vec<u8>,
    digits_at: usize,
    /// Where the sequence number goes in, for a producer.
    seq_at: Option<usize>,
}

/// The digits of a stream name.
const DIGITS: usize = 7;

impl Template {
    fn new(target: &Target, prefix: &str, kind: Kind, conn: usize) -> Self {
        let mut bytes = Vec::new();
        let content_type = format!("Content-Type: {}", kind.content_type());
        let path = target.path(&name(prefix, 0));
        let digits_at = "POST ".len() + path.len() - DIGITS;
        let producer = format!("Producer-Id: bench-{conn}");
        let mut headers = vec![content_type.as_str()];
        if kind == Kind::Producer {
            headers.extend([producer.as_str(), "Producer-Epoch: 0", "Producer-Seq: "]);
        }
        request(&mut bytes, Method::Post, target, &path, &headers, &kind.body());
        let mark = b"Producer-Seq: ";
        let seq_at = memchr::memmem::find(&bytes, mark).map(|at| at + mark.len());
        Self { bytes, digits_at, seq_at: seq_at.filter(|_| kind == Kind::Producer) }
    }

    fn write(&self, stream: usize, seq: u64, out: &mut Vec<u8>) {
        match self.seq_at {
            None => out.extend_from_slice(&self.bytes),
            Some(at) => {
                out.extend_from_slice(&self.bytes[..at]);
                out.extend_from_slice(seq.to_string().as_bytes());
                out.extend_from_slice(&self.bytes[at..]);
            }
        }
        let mut rest = stream;
        for place in (0..DIGITS).rev() {
            out[self.digits_at + place] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

pub(crate) struct Appends {
    kind: Kind,
    connections: usize,
    streams: usize,
    /// One, or one per producer.
    templates: Vec<Template>,
    /// Stops after this many appends in all.
    limit: Option<u64>,
    /// Stops after this many appends on each stream; streams have one owner then.
    each: Option<u64>,
    issued: u64,
    /// The stream each connection has just appended to.
    current: Vec<usize>,
    /// Appends each connection has sent.
    sent: Vec<u64>,
    /// The last offset by stream if each has one owner, by connection if they are shared.
    last: Vec<Offset>,
    /// Acknowledged appends by stream.
    acked: Vec<u32>,
}

impl Appends {
    pub(crate) fn new(
        target: &Target,
        prefix: &str,
        kind: Kind,
        connections: usize,
        streams: usize,
    ) -> Self {
        let producers = if kind == Kind::Producer { connections } else { 1 };
        Self {
            kind,
            connections,
            streams,
            templates: (0..producers).map(|n| Template::new(target, prefix, kind, n)).collect(),
            limit: None,
            each: None,
            issued: 0,
            current: (0..connections).map(|conn| conn % streams).collect(),
            sent: vec![0; connections],
            last: vec![Offset::NONE; connections.max(streams)],
            acked: vec![0; streams],
        }
    }

    /// The same, ending after `limit` appends.
    pub(crate) fn limited(self, limit: u64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// The same, ending after `each` appends on each of the streams, of which there are no fewer than connections.
    pub(crate) fn on_each(self, each: u64) -> Self {
        Self { each: Some(each), ..self }
    }

    /// Whether a connection has sent all that the streams it owns are to get.
    fn has_filled(&self, conn: usize) -> bool {
        let owned = self.streams.saturating_sub(conn).div_ceil(self.connections) as u64;
        self.each.is_some_and(|each| self.sent[conn] == each * owned)
    }

    /// What a read of `stream` must yield in all: bytes, or JSON objects.
    pub(crate) fn expected(&self, stream: usize) -> u64 {
        u64::from(self.acked[stream]) * self.kind.units()
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The furthest offset acknowledged on `stream`.
    pub(crate) fn tail(&self, stream: usize) -> Offset {
        if self.streams >= self.connections {
            return self.last[stream];
        }
        let owners = (stream..self.connections).step_by(self.streams);
        owners
            .map(|conn| self.last[conn])
            .fold(Offset::NONE, |tail, offset| if offset.is_after(&tail) { offset } else { tail })
    }

    /// Streams that took at least one append.
    pub(crate) fn touched(&self) -> impl Iterator<Item = usize> {
        self.acked.iter().enumerate().filter(|(_, acked)| **acked > 0).map(|(stream, _)| stream)
    }
}

impl Traffic for Appends {
    fn next(&mut self, conn: usize, _: Instant, out: &mut Vec<u8>) -> Next {
        if self.limit == Some(self.issued) || self.has_filled(conn) {
            return Next::Done;
        }
        if self.streams > self.connections && self.sent[conn] > 0 {
            let ahead = self.current[conn] + self.connections;
            self.current[conn] = if ahead < self.streams { ahead } else { conn };
        }
        let template = &self.templates[conn % self.templates.len()];
        template.write(self.current[conn], self.sent[conn], out);
        self.sent[conn] += 1;
        self.issued += 1;
        Next::Send
    }

    fn reply(&mut self, conn: usize, head: &Head, _: u64) -> Result<(), String> {
        // New data of an idempotent producer is 200, a plain append 204 (PROTOCOL 5.2, 5.2.1).
        let wanted = if self.kind == Kind::Producer { 200 } else { 204 };
        expect_status(head, wanted, "append")?;
        expect_offset(head, "append")?;
        let stream = self.current[conn];
        let slot = if self.streams >= self.connections { stream } else { conn };
        if !head.next_offset.is_after(&self.last[slot]) {
            return Err(format!("append: offset {} after {}", head.next_offset, self.last[slot]));
        }
        self.last[slot] = head.next_offset;
        self.acked[stream] += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            addr: ([127, 0, 0, 1], 4437).into(),
            base: "/v1/stream/".into(),
            headers: Vec::new(),
        }
    }

    #[test]
    fn connections_go_round_their_own_streams() {
        let mut appends = Appends::new(&target(), "s", Kind::Binary, 2, 5);
        let mut seen = Vec::new();
        for conn in [0, 0, 0, 0, 1, 1, 1] {
            let mut out = Vec::new();
            assert_eq!(appends.next(conn, Instant::now(), &mut out), Next::Send);
            let line =
                String::from_utf8_lossy(&out[..out.iter().position(|b| *b == b'\r').unwrap()])
                    .into_owned();
            seen.push(line);
        }
        let of = |n: usize| format!("POST /v1/stream/s{n:07} HTTP/1.1");
        assert_eq!(seen, [of(0), of(2), of(4), of(0), of(1), of(3), of(1)]);
    }

    #[test]
    fn each_stream_is_filled_alike_however_fast_its_connection_is() {
        let mut appends = Appends::new(&target(), "s", Kind::Binary, 2, 5).on_each(2);
        let mut sent = |conn: usize| {
            let mut out = Vec::new();
            (0..9)
                .take_while(|_| appends.next(conn, Instant::now(), &mut out) == Next::Send)
                .count()
        };
        assert_eq!((sent(0), sent(1)), (6, 4));
    }

    #[test]
    fn producers_count_up_and_bodies_have_their_size() {
        let mut appends = Appends::new(&target(), "s", Kind::Producer, 2, 1);
        for seq in 0..12 {
            let mut out = Vec::new();
            appends.next(1, Instant::now(), &mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains(&format!("\r\nProducer-Seq: {seq}\r\n")), "{text}");
            assert!(text.contains("\r\nProducer-Id: bench-1\r\n"));
            assert!(text.ends_with(&format!("\r\n\r\n{}", "x".repeat(MESSAGE))));
        }
        assert_eq!(Kind::JsonOne.body().len(), MESSAGE);
        assert_eq!(Kind::JsonArray.body().len(), 100 * 100 + 99 + 2);
    }
}
