//! A client that shows every byte of an HTTP/1.1 conversation.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing in these tests may take longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `check` until it holds or patience ends.
pub async fn eventually<Fut: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> Fut) {
    let deadline = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An HTTP/1.1 answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    /// Without the incarnation in `Stream-Next-Offset`: tests compare positions.
    pub head: String,
    /// `Stream-Next-Offset` as it came.
    pub offset: Option<String>,
    pub body: Vec<u8>,
    /// The body ended as its framing says it should.
    pub complete: bool,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// Every field of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).collect()
    }

    /// The `code` of a problem body; panics when it is none.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(value["status"], self.status, "{self:?}");
        value["code"].as_str().unwrap().to_owned()
    }
}

/// An offset without its incarnation; anything else as it is.
pub fn position_of(offset: &str) -> String {
    match offset.split_once('_') {
        Some((first, position)) if first.len() == 16 => format!("0000000000000000_{position}"),
        _ => offset.to_owned(),
    }
}

/// A connection.
pub struct Client {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Client { socket, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    /// One more read. `false` at the end of the connection, however it came.
    pub async fn more(&mut self) -> bool {
        let read = self.socket.read_buf(&mut self.buffer);
        let n = tokio::time::timeout(PATIENCE, read).await.expect("the server is silent");
        n.unwrap_or(0) > 0
    }

    /// Whether bytes are there, or come within `wait`.
    pub async fn has_answer_within(&mut self, wait: Duration) -> bool {
        !self.buffer.is_empty() || tokio::time::timeout(wait, self.more()).await.is_ok()
    }

    /// Everything up to and including `end`. Panics when the connection ends first.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, end) {
                return self.take(at + end.len());
            }
            let more = self.more().await;
            assert!(more, "ended at {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// The head of the next answer.
    pub async fn head(&mut self) -> Reply {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply { status, head, offset: None, body: Vec::new(), complete: false };
        reply.offset = reply.header("stream-next-offset").map(str::to_owned);
        if let Some(offset) = &reply.offset {
            reply.head = reply.head.replacen(offset, &position_of(offset), 1);
        }
        reply
    }

    /// The next answer, to anything but `HEAD`.
    pub async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        let chunked = reply.header("transfer-encoding").is_some_and(|v| v == "chunked");
        if chunked {
            reply.complete = self.chunks(&mut reply.body).await;
        } else if let Some(length) = reply.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length && self.more().await {}
            let take = length.min(self.buffer.len());
            reply.body = self.take(take);
            reply.complete = take == length;
        } else if !matches!(reply.status, 100..200 | 204 | 304) {
            while self.more().await {}
            reply.body = std::mem::take(&mut self.buffer);
            reply.complete = true;
        } else {
            reply.complete = true;
        }
        reply
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            match self.chunk().await {
                None => return false,
                Some(chunk) if chunk.is_empty() => return true,
                Some(chunk) => body.extend_from_slice(&chunk),
            }
        }
    }

    /// The next chunk of a chunked body, the last one empty; `None` when the connection ends first.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        while memchr::memmem::find(&self.buffer, b"\r\n").is_none() {
            if !self.more().await {
                return None;
            }
        }
        let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        while self.buffer.len() < size + 2 {
            if !self.more().await {
                return None;
            }
        }
        let chunk = self.take(size);
        self.take(2);
        Some(chunk)
    }

    /// The next bytes of what was read. An unoptimised build would drain a buffer byte by byte.
    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// What has come and was not asked for yet.
    pub fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// Drops what has come, and says how many bytes that was.
    pub fn take_unread(&mut self) -> usize {
        // With room for more than the few bytes that an empty buffer would be read into.
        std::mem::replace(&mut self.buffer, Vec::with_capacity(64 << 10)).len()
    }

    /// Whether the server ends the connection, with nothing more to say.
    pub async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }
}
