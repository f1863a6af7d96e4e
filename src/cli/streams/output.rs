//! How what was read is printed.

use std::collections::VecDeque;
use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use durable_streams_client::{StreamBatch, StreamPosition};
use serde_json::json;

/// Writes batches to standard output.
pub(super) struct BatchPrinter {
    /// One JSON object for each batch, with its position.
    json: bool,
    out: io::Stdout,
}

impl BatchPrinter {
    pub(super) fn new(json: bool) -> Self {
        BatchPrinter { json, out: io::stdout() }
    }

    /// Writes a batch whole, so that a reader of the pipe sees it at once.
    pub(super) fn print(&mut self, batch: &StreamBatch) -> io::Result<()> {
        let mut bytes = Vec::new();
        match batch.messages() {
            _ if self.json => bytes = described(batch, batch.position()),
            None => bytes.extend_from_slice(&batch.to_bytes()),
            Some(messages) => {
                for message in messages {
                    push_line(&mut bytes, message);
                }
            }
        }
        self.write(&bytes)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = self.out.lock();
        out.write_all(bytes)?;
        out.flush()
    }
}

/// A JSON message on one line: line ends are white space in JSON.
fn push_line(out: &mut Vec<u8>, message: &[u8]) {
    let start = out.len();
    out.extend_from_slice(message);
    for byte in out.iter_mut().skip(start).filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
    out.push(b'\n');
}

/// A batch as one line of JSON.
fn described(batch: &StreamBatch, position: &StreamPosition) -> Vec<u8> {
    let mut line = format!("{{\"position\":{},", json!(position.to_string())).into_bytes();
    match batch.messages() {
        Some(_) => {
            line.extend_from_slice(b"\"messages\":");
            push_line(&mut line, &batch.to_bytes());
            line.pop();
        }
        None => {
            let bytes = batch.to_bytes();
            let field = match std::str::from_utf8(&bytes) {
                Ok(text) => format!("\"text\":{}", json!(text)),
                Err(_) => format!("\"base64\":{}", json!(STANDARD.encode(&bytes))),
            };
            line.extend_from_slice(field.as_bytes());
        }
    }
    line.extend_from_slice(b"}\n");
    line
}

/// The last messages of a JSON stream, or lines of another.
pub(super) struct LastLines {
    count: usize,
    lines: VecDeque<Vec<u8>>,
    /// The last line has no end yet.
    open: bool,
}

impl LastLines {
    pub(super) fn new(count: usize) -> Self {
        LastLines { count, lines: VecDeque::new(), open: false }
    }

    pub(super) fn push(&mut self, batch: &StreamBatch) {
        let mut bytes = Vec::new();
        match batch.messages() {
            Some(messages) => messages.iter().for_each(|message| push_line(&mut bytes, message)),
            None => bytes.extend_from_slice(&batch.to_bytes()),
        }
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match self.lines.back_mut().filter(|_| self.open) {
                Some(last) => last.extend_from_slice(line),
                None => self.lines.push_back(line.to_vec()),
            }
            self.open = !line.ends_with(b"\n");
            if self.lines.len() > self.count {
                self.lines.pop_front();
            }
        }
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        self.open = false;
        self.lines.drain(..).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        let mut out = Vec::new();
        push_line(&mut out, b"{\n \"a\\n\": 1\r\n}");
        assert_eq!(out, b"{  \"a\\n\": 1  }\n");
    }
}
