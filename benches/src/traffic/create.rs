//! Creates streams, each once; every connection takes the next one.

use super::{expect_offset, expect_status, name};
use crate::client::{Head, Method, Next, Target, Traffic, request};
use std::time::Instant;

pub(crate) struct Creates {
    target: Target,
    prefix: String,
    content_type: String,
    next: usize,
    count: usize,
    /// Creates answered so far.
    pub(crate) done: usize,
}

impl Creates {
    /// Streams `0..count` under `prefix`.
    pub(crate) fn new(target: &Target, prefix: &str, content_type: &str, count: usize) -> Self {
        let content_type = format!("Content-Type: {content_type}");
        let (target, prefix) = (target.clone(), prefix.to_owned());
        Self { target, prefix, content_type, next: 0, count, done: 0 }
    }
}

impl Traffic for Creates {
    fn next(&mut self, _: usize, _: Instant, out: &mut Vec<u8>) -> Next {
        if self.next == self.count {
            return Next::Done;
        }
        let path = self.target.path(&name(&self.prefix, self.next));
        request(out, Method::Put, &self.target, &path, &[&self.content_type], b"");
        self.next += 1;
        Next::Send
    }

    fn reply(&mut self, _: usize, head: &Head, _: u64) -> Result<(), String> {
        expect_status(head, 201, "create")?;
        self.done += 1;
        expect_offset(head, "create")
    }
}
