//! Catch-up reads: hot GETs, HEADs, streams read once each, and replays from the start.

use super::{expect_offset, expect_status, name};
use crate::client::{Head, Method, Next, Offset, Target, Traffic, request};
use std::time::Instant;

/// GETs of whole small streams; each response must have exactly the stream's length.
pub(crate) struct Gets {
    requests: Vec<Vec<u8>>,
    length: u64,
    /// Read each stream once and stop, instead of going round.
    once: bool,
    /// Ask for protocol headers (a file server has none).
    protocol: bool,
    next: usize,
}

impl Gets {
    pub(crate) fn new(
        target: &Target,
        prefix: &str,
        streams: usize,
        length: u64,
        once: bool,
        protocol: bool,
    ) -> Self {
        let requests = (0..streams).map(|stream| {
            let mut bytes = Vec::new();
            let path = format!("{}?offset=-1", target.path(&name(prefix, stream)));
            request(&mut bytes, Method::Get, target, &path, &[], b"");
            bytes
        });
        Self { requests: requests.collect(), length, once, protocol, next: 0 }
    }
}

impl Traffic for Gets {
    fn next(&mut self, _: usize, _: Instant, out: &mut Vec<u8>) -> Next {
        if self.next == self.requests.len() {
            if self.once {
                return Next::Done;
            }
            self.next = 0;
        }
        out.extend_from_slice(&self.requests[self.next]);
        self.next += 1;
        Next::Send
    }

    fn reply(&mut self, _: usize, head: &Head, body_len: u64) -> Result<(), String> {
        expect_status(head, 200, "read")?;
        if body_len != self.length {
            return Err(format!("read: {body_len} bytes, not {}", self.length));
        }
        if self.protocol {
            expect_offset(head, "read")?;
            if !head.up_to_date {
                return Err("read: no Stream-Up-To-Date at the tail".into());
            }
        }
        Ok(())
    }
}

/// HEADs of one stream, all of which must name its tail.
pub(crate) struct Heads {
    request: Vec<u8>,
    /// `None` for a file server.
    tail: Option<Offset>,
}

impl Heads {
    pub(crate) fn new(target: &Target, stream: &str, tail: Option<Offset>) -> Self {
        let mut bytes = Vec::new();
        request(&mut bytes, Method::Head, target, &target.path(stream), &[], b"");
        Self { request: bytes, tail }
    }
}

impl Traffic for Heads {
    fn next(&mut self, _: usize, _: Instant, out: &mut Vec<u8>) -> Next {
        out.extend_from_slice(&self.request);
        Next::Send
    }

    fn reply(&mut self, _: usize, head: &Head, _: u64) -> Result<(), String> {
        expect_status(head, 200, "HEAD")?;
        match self.tail {
            Some(tail) if head.next_offset != tail => {
                Err(format!("HEAD: offset {}, not {tail}", head.next_offset))
            }
            _ => Ok(()),
        }
    }
}

/// Reads one stream from the start, response by response, until it is up to date.
pub(crate) struct Replay {
    target: Target,
    path: String,
    /// A pass must yield this many units.
    length: u64,
    /// Count JSON objects instead of bytes.
    objects: bool,
    protocol: bool,
    /// Passes each client makes.
    passes: Option<u32>,
    at: Vec<Offset>,
    seen: Vec<u64>,
    made: Vec<u32>,
    counting: bool,
    /// Body bytes that came within the window.
    pub(crate) bytes: u64,
}

impl Replay {
    pub(crate) fn new(target: &Target, stream: &str, clients: usize, length: u64) -> Self {
        Self {
            path: target.path(stream),
            target: target.clone(),
            length,
            objects: false,
            protocol: true,
            passes: None,
            at: vec![Offset::NONE; clients],
            seen: vec![0; clients],
            made: vec![0; clients],
            counting: false,
            bytes: 0,
        }
    }

    /// One pass per client.
    pub(crate) fn once(self) -> Self {
        Self { passes: Some(1), ..self }
    }

    /// `length` counts JSON objects.
    pub(crate) fn of_objects(self, objects: bool) -> Self {
        Self { objects, ..self }
    }

    /// Whether to hold the server to the protocol; a file server sends all in one response.
    pub(crate) fn protocol(self, protocol: bool) -> Self {
        Self { protocol, ..self }
    }
}

impl Traffic for Replay {
    fn next(&mut self, conn: usize, _: Instant, out: &mut Vec<u8>) -> Next {
        if self.passes == Some(self.made[conn]) {
            return Next::Done;
        }
        let path = match self.at[conn] {
            Offset::NONE => format!("{}?offset=-1", self.path),
            at => format!("{}?offset={at}", self.path),
        };
        request(out, Method::Get, &self.target, &path, &[], b"");
        Next::Send
    }

    fn head(&mut self, _: usize, head: &Head) -> Result<(), String> {
        expect_status(head, 200, "replay")
    }

    fn body(&mut self, conn: usize, bytes: &[u8], _: Instant) -> Result<(), String> {
        self.seen[conn] += match self.objects {
            true => memchr::memchr_iter(b'{', bytes).count() as u64,
            false => bytes.len() as u64,
        };
        if self.counting {
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    fn reply(&mut self, conn: usize, head: &Head, body_len: u64) -> Result<(), String> {
        if self.protocol && !head.up_to_date {
            expect_offset(head, "replay")?;
            if body_len == 0 || !head.next_offset.is_after(&self.at[conn]) {
                return Err(format!("replay: stuck at {}", head.next_offset));
            }
            self.at[conn] = head.next_offset;
            return Ok(());
        }
        if self.seen[conn] != self.length {
            return Err(format!("replay: {} of {} came back", self.seen[conn], self.length));
        }
        self.at[conn] = Offset::NONE;
        self.seen[conn] = 0;
        self.made[conn] += 1;
        Ok(())
    }

    fn measuring(&mut self, on: bool) {
        self.counting = on;
    }
}
