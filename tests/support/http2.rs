//! A gateway from HTTP/1.1 to HTTP/2, so that tests that are written once see both.
//!
//! One HTTP/2 connection for each HTTP/1.1 connection. What is said of the connection itself stays here; a response that
//! is reset ends the HTTP/1.1 connection in its middle; a client that leaves resets its request.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderName, HeaderValue, Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::AbortHandle;

/// Listens on a free port, in this runtime, and carries what comes to `server`.
pub fn gateway(server: SocketAddr) -> SocketAddr {
    let (listener, addr) = super::embedded::listener();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(carry(socket, server));
        }
    });
    addr
}

/// Ends a task when dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a client sends.
struct Inbox {
    socket: OwnedReadHalf,
    buffer: BytesMut,
}

/// How long a request's body is.
#[derive(Clone, Copy, PartialEq)]
enum Length {
    Bytes(usize),
    Chunked,
}

/// One connection to its end.
async fn carry(socket: TcpStream, server: SocketAddr) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let upstream = TcpStream::connect(server).await.ok()?;
    upstream.set_nodelay(true).ok()?;
    let (mut client, connection) = h2::client::handshake(upstream).await.ok()?;
    let _task = Task(tokio::spawn(connection).abort_handle());
    let (read, mut write) = socket.into_split();
    let mut inbox = Inbox { socket: read, buffer: BytesMut::new() };
    while let Some(head) = inbox.until(b"\r\n\r\n").await {
        let (request, length) = parse(&head)?;
        exchange(&mut client, request, length, &mut inbox, &mut write).await?;
    }
    Some(())
}

/// One request and its response; `None` when the connection must end.
async fn exchange(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
    length: Length,
    inbox: &mut Inbox,
    write: &mut OwnedWriteHalf,
) -> Option<()> {
    std::future::poll_fn(|cx| client.poll_ready(cx)).await.ok()?;
    let bodiless = request.method() == Method::HEAD;
    let (response, body) = client.send_request(request, length == Length::Bytes(0)).ok()?;
    let download = download(response, bodiless, write);
    tokio::pin!(download);
    tokio::select! {
        biased;
        sent = upload(inbox, length, body) => sent?,
        // An answer before the end of the body: what follows in the connection is no request.
        _ = &mut download => return None,
    }
    loop {
        tokio::select! {
            biased;
            done = &mut download => return done,
            more = inbox.fill() => if !more { return None },
        }
    }
}

/// Sends a body; `None` if the client left or sent no valid chunks.
async fn upload(inbox: &mut Inbox, length: Length, mut body: SendStream<Bytes>) -> Option<()> {
    match length {
        Length::Bytes(0) => {}
        Length::Bytes(length) => inbox.pass(length, true, &mut body).await?,
        Length::Chunked => loop {
            let line = inbox.until(b"\r\n").await?;
            let size = std::str::from_utf8(&line).ok()?.split([';', '\r']).next()?;
            let size = usize::from_str_radix(size, 16).ok()?;
            if size > 0 {
                inbox.pass(size, false, &mut body).await?;
            }
            inbox.until(b"\r\n").await?;
            if size == 0 {
                body.send_data(Bytes::new(), true).ok()?;
                break;
            }
        },
    }
    Some(())
}

/// Writes a response as HTTP/1.1; `None` if either side failed.
async fn download(
    response: ResponseFuture,
    bodiless: bool,
    write: &mut OwnedWriteHalf,
) -> Option<()> {
    let (head, mut body) = response.await.ok()?.into_parts();
    let mut text = BytesMut::from(format!("HTTP/1.1 {} x\r\n", head.status.as_u16()).as_bytes());
    for (name, value) in &head.headers {
        text.extend_from_slice(
            &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat(),
        );
    }
    let bodiless = bodiless || matches!(head.status.as_u16(), 204 | 304);
    let chunked = !bodiless && !head.headers.contains_key("content-length");
    text.extend_from_slice(if chunked { b"transfer-encoding: chunked\r\n\r\n" } else { b"\r\n" });
    write.write_all(&text).await.ok()?;
    while let Some(data) = body.data().await {
        let mut data = data.ok()?;
        body.flow_control().release_capacity(data.len()).ok()?;
        if chunked && !data.is_empty() {
            data = [format!("{:x}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat().into();
        }
        write.write_all(&data).await.ok()?;
    }
    if chunked {
        write.write_all(b"0\r\n\r\n").await.ok()?;
    }
    Some(())
}

impl Inbox {
    /// One more read; `false` at the end.
    async fn fill(&mut self) -> bool {
        // The server ends a connection that sends many small frames.
        self.buffer.reserve(16 << 10);
        self.socket.read_buf(&mut self.buffer).await.is_ok_and(|n| n > 0)
    }

    /// Everything up to and including `end`.
    async fn until(&mut self, end: &[u8]) -> Option<BytesMut> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, end) {
                return Some(self.buffer.split_to(at + end.len()));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Passes `length` bytes on as they come.
    async fn pass(&mut self, length: usize, last: bool, to: &mut SendStream<Bytes>) -> Option<()> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() && !self.fill().await {
                return None;
            }
            let part = self.buffer.len().min(left);
            left -= part;
            let data = self.buffer.copy_to_bytes(part);
            to.send_data(data, last && left == 0).ok()?;
        }
        Some(())
    }
}

/// A request's head; `None` if it cannot be said in HTTP/2.
fn parse(head: &[u8]) -> Option<(Request<()>, Length)> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii());
    let line = std::str::from_utf8(lines.next()?).ok()?;
    let [method, target, _version] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
    let (mut host, mut length) = (String::new(), Length::Bytes(0));
    let mut request = Request::builder().method(method);
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        match name.as_str() {
            "host" => host = value.to_str().ok()?.to_owned(),
            "transfer-encoding" => length = Length::Chunked,
            "connection" | "keep-alive" => {}
            _ => {
                if name == "content-length" {
                    length = Length::Bytes(value.to_str().ok()?.parse().ok()?);
                }
                request = request.header(name, value);
            }
        }
    }
    let uri =
        if target.starts_with('/') { format!("http://{host}{target}") } else { target.to_owned() };
    Some((request.uri(uri).body(()).ok()?, length))
}
