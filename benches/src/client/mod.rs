//! The load generator: a minimal HTTP/1.1 client on one thread and nonblocking sockets.
//!
//! It has to be cheaper per request than any server it measures, so requests are prebuilt bytes,
//! responses are parsed in place, and the load is a [`Traffic`] called back by the [`engine`].

mod engine;
mod offset;
mod request;
mod response;

pub(crate) use engine::{Engine, Pace, Plan, Summary};
pub(crate) use offset::Offset;
pub(crate) use request::{Method, Target, request};
pub(crate) use response::Head;

use std::time::Instant;

/// What a connection does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// The request is in the buffer: send it.
    Send,
    /// Nothing now; ask again after the next event.
    Wait,
    /// This connection has nothing more to do.
    Done,
}

/// One load: it supplies the requests and judges every response.
///
/// An `Err` ends the run: a figure made of wrong answers is not a figure.
pub(crate) trait Traffic {
    /// Puts the next request of connection `conn` into the empty `out`. `due` is the moment its
    /// latency counts from: now in a closed loop, the scheduled time in an open one.
    fn next(&mut self, conn: usize, due: Instant, out: &mut Vec<u8>) -> Next;

    /// Judges the head of a response, before its body.
    fn head(&mut self, _conn: usize, _head: &Head) -> Result<(), String> {
        Ok(())
    }

    /// Takes body bytes (already out of their chunked framing) as they arrive.
    fn body(&mut self, _conn: usize, _bytes: &[u8], _now: Instant) -> Result<(), String> {
        Ok(())
    }

    /// Judges a whole response.
    fn reply(&mut self, conn: usize, head: &Head, body_len: u64) -> Result<(), String>;

    /// The measured window opens (`true`) or closes (`false`).
    fn measuring(&mut self, _on: bool) {}
}
