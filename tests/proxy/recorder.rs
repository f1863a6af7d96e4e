//! An upstream that keeps every byte that it is sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::upstreams::Upstream;

/// Answers every request with `ok` and keeps what came, one entry for each connection.
pub struct Recorder {
    pub upstream: Upstream,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    /// `answer` is sent when the bytes of a connection satisfy `is_whole`, and `linger` has passed; then the connection
    /// ends.
    pub async fn answering(
        answer: &'static str,
        is_whole: fn(&[u8]) -> bool,
        linger: Duration,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        let upstream = Upstream::raw(move |mut socket| {
            let kept = kept.clone();
            async move {
                let mut bytes = Vec::new();
                while !is_whole(&bytes) {
                    if !socket.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
                        break;
                    }
                }
                // What is one byte too many comes right behind.
                let more =
                    async { while socket.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {} };
                let _ = tokio::time::timeout(linger, more).await;
                kept.lock().unwrap().push(String::from_utf8_lossy(&bytes).into_owned());
                let _ = socket.write_all(answer.as_bytes()).await;
                let _ = socket.shutdown().await;
            }
        })
        .await;
        Recorder { upstream, seen }
    }

    /// Answers `200 ok` to each head.
    pub async fn new() -> Self {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        Self::answering(answer, has_head, Duration::ZERO).await
    }

    /// Answers `answer` to each head.
    pub async fn saying(answer: &'static str) -> Self {
        Self::answering(answer, has_head, Duration::ZERO).await
    }

    /// What came since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn has_head(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"\r\n\r\n").is_some()
}
