//! A loopback proxy that spoils requests and responses: cuts, delays, doubles, truncates, refuses.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// How often something goes wrong, in a hundred requests each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultRates {
    /// The connection ends after the request was passed on.
    pub(crate) lost_response: u32,
    /// The request never arrives.
    pub(crate) lost_request: u32,
    /// The response ends somewhere in it.
    pub(crate) truncated: u32,
    /// The request is passed on twice; the client gets the second response.
    pub(crate) doubled_request: u32,
    /// The response is sent twice, one after the other, on a connection that stays open.
    pub(crate) doubled_response: u32,
    /// Up to 30 ms late.
    pub(crate) delayed: u32,
    /// 503 with `Retry-After`, or 429.
    pub(crate) refused: u32,
}

/// A proxy in front of a server that may move.
pub(crate) struct FaultProxy {
    pub(crate) address: SocketAddr,
    state: Arc<ProxyState>,
    task: JoinHandle<()>,
}

struct ProxyState {
    upstream: Mutex<SocketAddr>,
    rates: FaultRates,
    /// Holds the bodies of event streams back.
    buffering: Mutex<bool>,
    faults: AtomicU64,
}

impl FaultProxy {
    pub(crate) async fn before(upstream: SocketAddr, rates: FaultRates) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(ProxyState {
            upstream: Mutex::new(upstream),
            rates,
            buffering: Mutex::new(false),
            faults: AtomicU64::new(0),
        });
        let task = tokio::spawn({
            let state = state.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let state = state.clone();
                    tokio::spawn(async move { serve(client, &state).await });
                }
            }
        });
        FaultProxy { address, state, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1/stream", self.address)
    }

    pub(crate) fn move_to(&self, upstream: SocketAddr) {
        *self.state.upstream.lock().unwrap() = upstream;
    }

    pub(crate) fn buffer_events(&self) {
        *self.state.buffering.lock().unwrap() = true;
    }

    /// How much has gone wrong.
    pub(crate) fn faults(&self) -> u64 {
        self.state.faults.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ProxyState {
    fn happens(&self, rate: impl Fn(&FaultRates) -> u32) -> bool {
        let happens = fastrand::u32(0..100) < rate(&self.rates);
        if happens {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        happens
    }
}

/// The requests of one connection. Its end is the end of the client's connection.
async fn serve(mut client: TcpStream, state: &ProxyState) {
    let _ = client.set_nodelay(true);
    let mut unread = Vec::new();
    while let Some(request) = read_request(&mut client, &mut unread).await {
        if state.happens(|rates| rates.delayed) {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..30))).await;
        }
        if state.happens(|rates| rates.lost_request) {
            return;
        }
        if state.happens(|rates| rates.refused) {
            let refusal = if fastrand::bool() {
                "HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 5\r\n\r\nlater"
            } else {
                "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
            };
            if client.write_all(refusal.as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        if state.happens(|rates| rates.doubled_request) && exchange(&request, state).await.is_none()
        {
            return;
        }
        if pass_on(&request, &mut client, state).await.is_none() {
            return;
        }
    }
}

/// Sends `request` on a connection of its own, and its response to the client. `None` ends the client's connection.
async fn pass_on(request: &[u8], client: &mut TcpStream, state: &ProxyState) -> Option<()> {
    if request.windows(8).any(|bytes| bytes == b"live=sse") {
        return events(request, client, state).await;
    }
    let response = exchange(request, state).await?;
    if state.happens(|rates| rates.lost_response) {
        return None;
    }
    if state.happens(|rates| rates.truncated) {
        let _ = client.write_all(&response[..fastrand::usize(0..response.len())]).await;
        return None;
    }
    client.write_all(&response).await.ok()?;
    if state.happens(|rates| rates.doubled_response) {
        client.write_all(&response).await.ok()?;
    }
    Some(())
}

/// Passes events on as they come, until the proxy cuts them.
async fn events(request: &[u8], client: &mut TcpStream, state: &ProxyState) -> Option<()> {
    let upstream = *state.upstream.lock().unwrap();
    let mut server = TcpStream::connect(upstream).await.ok()?;
    server.write_all(request).await.ok()?;
    if *state.buffering.lock().unwrap() {
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.ok()?;
        client.write_all(&all).await.ok()?;
        return None;
    }
    let mut buffer = vec![0; 16 << 10];
    loop {
        let mut end = [0];
        let read = tokio::select! {
            read = server.read(&mut buffer) => read.ok()?,
            // The client sends nothing more: it is gone.
            _ = client.read(&mut end) => return None,
        };
        if read == 0 {
            return None;
        }
        if state.happens(|rates| rates.truncated) {
            let _ = client.write_all(&buffer[..fastrand::usize(0..read)]).await;
            return None;
        }
        client.write_all(&buffer[..read]).await.ok()?;
    }
}

/// The whole response to a request.
async fn exchange(request: &[u8], state: &ProxyState) -> Option<Vec<u8>> {
    let upstream = *state.upstream.lock().unwrap();
    let mut server = TcpStream::connect(upstream).await.ok()?;
    server.set_nodelay(true).ok()?;
    server.write_all(request).await.ok()?;
    let mut response = Vec::new();
    loop {
        let length = message_length(&response, request.starts_with(b"HEAD"));
        if let Some(length) = length.filter(|length| response.len() >= *length) {
            response.truncate(length);
            return Some(response);
        }
        if response.ends_with(b"\r\n0\r\n\r\n") {
            return Some(response);
        }
        if server.read_buf(&mut response).await.ok()? == 0 {
            return None;
        }
    }
}

async fn read_request(client: &mut TcpStream, unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(length) = message_length(unread, false).filter(|length| unread.len() >= *length)
        {
            let rest = unread.split_off(length);
            return Some(std::mem::replace(unread, rest));
        }
        if client.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    }
}

/// The length of a message whose head is whole, unless it is chunked.
fn message_length(message: &[u8], head_only: bool) -> Option<usize> {
    let head = memchr::memmem::find(message, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&message[..head]).ok()?.to_ascii_lowercase();
    if text.contains("\r\ntransfer-encoding: chunked") && !head_only {
        return None;
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.filter(|_| !head_only).map_or(0, |length| length.parse().unwrap());
    Some(head + length)
}
