//! One appender and many subscribers of one stream.
//!
//! Every message carries its number. A subscriber must see every number once and in order; the
//! time from an append's due moment to the number's arrival is the delivery latency.

use super::{MESSAGE, expect_offset, expect_status};
use crate::client::{Head, Method, Next, Offset, Target, Traffic, request};
use hdrhistogram::Histogram;
use std::time::Instant;

/// How subscribers follow the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Via {
    Sse,
    LongPoll,
}

/// Digits of a message number, after a `@` that occurs nowhere else.
const DIGITS: usize = 12;

/// Finds the numbers in a body that may be cut anywhere.
#[derive(Clone, Default)]
struct Scanner {
    partial: Vec<u8>,
}

impl Scanner {
    fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(u64)) {
        while !self.partial.is_empty() {
            let Some((first, rest)) = bytes.split_first() else { return };
            self.partial.push(*first);
            bytes = rest;
            if self.partial.len() == DIGITS + 1 {
                found(number(&self.partial[1..]));
                self.partial.clear();
            }
        }
        while let Some(at) = memchr::memchr(b'@', bytes) {
            match bytes.get(at + 1..at + 1 + DIGITS) {
                Some(digits) => found(number(digits)),
                None => return self.partial.extend_from_slice(&bytes[at..]),
            }
            bytes = &bytes[at + 1 + DIGITS..];
        }
    }
}

/// Anything but digits gives a number that no message has.
fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |n: u64, b| match b {
        b'0'..=b'9' => n.saturating_mul(10).saturating_add(u64::from(b - b'0')),
        _ => u64::MAX,
    })
}

struct Subscriber {
    at: Offset,
    expected: u64,
    scanner: Scanner,
    connected: bool,
}

/// Connection 0 appends, the others subscribe.
pub(crate) struct Fan {
    target: Target,
    path: String,
    via: Via,
    subscribers: Vec<Subscriber>,
    connected: usize,
    /// Messages that may be under way to the slowest on average; `None` leaves it to the pace.
    window: Option<u64>,
    /// Append nothing for now.
    idle: bool,
    /// When each message was due.
    sent: Vec<Instant>,
    delivered_in_all: u64,
    counting: bool,
    /// Deliveries within the window, and their latency in nanoseconds.
    pub(crate) delivered: u64,
    pub(crate) latency: Histogram<u64>,
}

impl Fan {
    /// `tail` is the offset the stream stands at.
    pub(crate) fn new(
        target: &Target,
        stream: &str,
        tail: Offset,
        via: Via,
        subscribers: usize,
    ) -> Result<Self, hdrhistogram::CreationError> {
        let subscriber =
            || Subscriber { at: tail, expected: 0, scanner: Scanner::default(), connected: false };
        Ok(Self {
            path: target.path(stream),
            target: target.clone(),
            via,
            subscribers: (0..subscribers).map(|_| subscriber()).collect(),
            connected: 0,
            window: None,
            idle: false,
            sent: Vec::new(),
            delivered_in_all: 0,
            counting: false,
            delivered: 0,
            latency: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
        })
    }

    /// Appends as fast as deliveries keep up, with `window` messages under way.
    pub(crate) fn saturating(self, window: u64) -> Self {
        Self { window: Some(window), ..self }
    }

    /// Every subscriber is in place. A long-poll shows no sign of it before its data.
    pub(crate) fn is_joined(&self) -> bool {
        self.via == Via::LongPoll || self.connected == self.subscribers.len()
    }

    /// Every message sent so far has reached every subscriber.
    pub(crate) fn all_delivered(&self) -> bool {
        self.delivered_in_all == self.sent.len() as u64 * self.subscribers.len() as u64
    }

    /// Appends no more until [`Fan::resume`].
    pub(crate) fn quiet(&mut self) {
        self.idle = true;
    }

    pub(crate) fn resume(&mut self) {
        self.idle = false;
    }

    fn may_append(&self) -> bool {
        if self.idle {
            return false;
        }
        let count = self.subscribers.len() as u64;
        let under_way = self.sent.len() as u64 * count - self.delivered_in_all;
        self.window.is_none_or(|window| under_way < window * count)
    }

    fn append(&mut self, due: Instant, out: &mut Vec<u8>) -> Next {
        if !self.may_append() {
            return Next::Wait;
        }
        let mut body = format!("@{:0DIGITS$};", self.sent.len()).into_bytes();
        body.resize(MESSAGE, b'x');
        request(out, Method::Post, &self.target, &self.path, &["Content-Type: text/plain"], &body);
        self.sent.push(due);
        Next::Send
    }
}

impl Traffic for Fan {
    fn next(&mut self, conn: usize, due: Instant, out: &mut Vec<u8>) -> Next {
        let Some(index) = conn.checked_sub(1) else { return self.append(due, out) };
        let subscriber = &self.subscribers[index];
        if subscriber.connected && self.via == Via::Sse {
            return Next::Wait;
        }
        let live = match self.via {
            Via::Sse => "sse",
            Via::LongPoll => "long-poll",
        };
        let path = format!("{}?live={live}&offset={}", self.path, subscriber.at);
        request(out, Method::Get, &self.target, &path, &[], b"");
        Next::Send
    }

    fn head(&mut self, conn: usize, head: &Head) -> Result<(), String> {
        if conn == 0 || (self.via == Via::LongPoll && head.status == 204) {
            return Ok(());
        }
        expect_status(head, 200, "subscribe")?;
        let subscriber = &mut self.subscribers[conn - 1];
        if !subscriber.connected {
            subscriber.connected = true;
            self.connected += 1;
        }
        Ok(())
    }

    fn body(&mut self, conn: usize, bytes: &[u8], now: Instant) -> Result<(), String> {
        let Some(index) = conn.checked_sub(1) else { return Ok(()) };
        let Subscriber { scanner, expected, .. } = &mut self.subscribers[index];
        let (sent, latency, counting) = (&self.sent, &mut self.latency, self.counting);
        let mut arrived = 0;
        let mut wrong = None;
        scanner.feed(bytes, |number| {
            if number != *expected || number >= sent.len() as u64 {
                wrong.get_or_insert((number, *expected));
                return;
            }
            *expected += 1;
            arrived += 1;
            if counting {
                let waited = now.saturating_duration_since(sent[number as usize]).as_nanos();
                latency.saturating_record(u64::try_from(waited).unwrap_or(u64::MAX));
            }
        });
        self.delivered_in_all += arrived;
        if counting {
            self.delivered += arrived;
        }
        match wrong {
            None => Ok(()),
            Some((got, wanted)) => Err(format!("subscriber got message {got}, not {wanted}")),
        }
    }

    fn reply(&mut self, conn: usize, head: &Head, _: u64) -> Result<(), String> {
        let Some(index) = conn.checked_sub(1) else {
            expect_status(head, 204, "append")?;
            return expect_offset(head, "append");
        };
        if self.via == Via::Sse {
            return Err("the server ended an SSE response".into());
        }
        expect_offset(head, "long-poll")?;
        self.subscribers[index].at = head.next_offset;
        Ok(())
    }

    fn measuring(&mut self, on: bool) {
        self.counting = on;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_however_the_body_is_cut() {
        let body = b"event: data\ndata:@000000000007;xx\n\n@000000000008;@000000000009;";
        for step in 1..body.len() {
            let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
            for piece in body.chunks(step) {
                scanner.feed(piece, |number| seen.push(number));
            }
            assert_eq!(seen, [7, 8, 9], "cut every {step} bytes");
        }
    }
}
