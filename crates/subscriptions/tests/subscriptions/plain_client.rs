//! Posts webhooks to receivers on this machine: enough of HTTP/1.1 for those of the tests.

use std::sync::Arc;

use bytes::Bytes;
use durable_streams_subscriptions::{WebhookClient, WebhookError, WebhookRequest, WebhookResponse};
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

struct PlainClient;

pub(crate) fn http_client() -> Arc<dyn WebhookClient> {
    Arc::new(PlainClient)
}

#[async_trait::async_trait]
impl WebhookClient for PlainClient {
    async fn post(&self, request: WebhookRequest) -> Result<WebhookResponse, WebhookError> {
        let exchange = tokio::time::timeout(request.timeout, exchange(&request));
        exchange.await.unwrap_or_else(|_| Err(WebhookError::NoResponse("no answer in time".into())))
    }
}

async fn exchange(request: &WebhookRequest) -> Result<WebhookResponse, WebhookError> {
    let url = &request.target.url;
    let host = format!("{}:{}", url.host_str().unwrap(), url.port_or_known_default().unwrap());
    let not_sent = |error: std::io::Error| WebhookError::NotSent(error.to_string());
    let mut stream = TcpStream::connect(&host).await.map_err(not_sent)?;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nWebhook-Signature: {}\r\n\r\n",
        url.path(),
        request.body.len(),
        request.signature
    );
    stream.write_all(head.as_bytes()).await.map_err(not_sent)?;
    stream.write_all(&request.body).await.map_err(not_sent)?;
    let no_response = || WebhookError::NoResponse("no whole response".into());
    let mut received = Vec::new();
    loop {
        if let Some(response) = whole(&received, request.max_response) {
            return Ok(response);
        }
        if stream.read_buf(&mut received).await.map_err(|_| no_response())? == 0 {
            return Err(no_response());
        }
    }
}

/// A response, once its body is there.
fn whole(received: &[u8], max_response: usize) -> Option<WebhookResponse> {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&received[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse::<StatusCode>().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    let body = received.get(end..end + length.parse::<usize>().ok()?)?;
    let body = (body.len() <= max_response).then(|| Bytes::copy_from_slice(body));
    Some(WebhookResponse { status, body })
}
