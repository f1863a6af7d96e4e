//! A worker on a pull-wake subscription: it follows the wake stream, claims the subscription, reads every stream from
//! where the last worker got, and acknowledges. The server remembers how far each stream is done.
//!
//! ```sh
//! cargo run -- dev                       # a server, in another terminal
//! cargo run --example pull_wake_worker
//! ```

use durable_streams_client::{Client, CreateOptions, StartFrom, StreamOffset, StreamPosition};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A successful claim (PROTOCOL.md section 7.2).
#[derive(Debug, Deserialize)]
struct WakeClaim {
    wake_id: String,
    generation: u64,
    token: String,
    streams: Vec<ClaimedStream>,
}

#[derive(Debug, Deserialize)]
struct ClaimedStream {
    path: String,
    acked_offset: String,
    has_pending: bool,
}

/// Requests to one subscription, which no other part of the protocol resembles.
struct SubscriptionApi {
    http: reqwest::Client,
    url: String,
}

impl SubscriptionApi {
    async fn send(
        &self,
        method: Method,
        action: &str,
        token: &str,
        body: Value,
    ) -> Result<(StatusCode, Vec<u8>), BoxError> {
        let mut request = self.http.request(method, format!("{}{action}", self.url));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        let json = request.header("content-type", "application/json").body(body.to_string());
        let response = json.send().await?;
        Ok((response.status(), response.bytes().await?.to_vec()))
    }

    /// `None` when another worker is faster.
    async fn claim(&self) -> Result<Option<WakeClaim>, BoxError> {
        let worker = json!({"worker": "example"});
        match self.send(Method::POST, "/claim", "", worker).await? {
            (StatusCode::OK, body) => Ok(Some(serde_json::from_slice(&body)?)),
            (StatusCode::CONFLICT, _) => Ok(None),
            (status, body) => Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into()),
        }
    }
}

/// Subscribes, works until it has seen `count` messages of the streams below `prefix`, and returns them.
pub(crate) async fn run(url: &str, prefix: &str, count: usize) -> Result<Vec<Value>, BoxError> {
    let client = Client::new(url)?;
    let wakes = format!("{prefix}-wakes");
    client.stream(&wakes)?.create(&CreateOptions::json()).await?;
    let api = SubscriptionApi {
        http: reqwest::Client::new(),
        url: format!("{url}/__ds/subscriptions/{}", prefix.replace('/', "-")),
    };
    let subscription =
        json!({"type": "pull-wake", "pattern": format!("{prefix}/*"), "wake_stream": wakes});
    let (status, body) = api.send(Method::PUT, "", "", subscription).await?;
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
    }

    let mut done = Vec::new();
    let mut wakes = client.stream(&wakes)?.subscribe(StartFrom::Start);
    while done.len() < count {
        if wakes.next().await?.is_none() {
            return Err("the wake stream is closed".into());
        }
        let Some(claim) = api.claim().await? else { continue };
        let mut acks = Vec::new();
        for work in claim.streams.iter().filter(|work| work.has_pending) {
            let from = match StreamOffset::new(&work.acked_offset) {
                Some(offset) => StreamPosition::at(offset),
                None => StreamPosition::START,
            };
            let mut reader = client.stream(&work.path)?.read(from);
            while let Some(batch) = reader.next().await? {
                done.extend(batch.json::<Value>()?);
            }
            // The offset up to which the work is done.
            if let Some(offset) = reader.position().offset() {
                acks.push(json!({"stream": work.path, "offset": offset.as_str()}));
            }
        }
        let ack = json!({
            "wake_id": claim.wake_id, "generation": claim.generation, "acks": acks, "done": true,
        });
        let (status, body) = api.send(Method::POST, "/ack", &claim.token, ack).await?;
        if !status.is_success() && status != StatusCode::CONFLICT {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
        }
    }
    Ok(done)
}

#[allow(dead_code, reason = "tests call `run`")]
#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = "http://localhost:4437/v1/stream";
    println!("append JSON to {url}/jobs/1, /jobs/2, ...; the worker ends after 10 messages");
    for message in run(url, "jobs", 10).await? {
        println!("done: {message}");
    }
    Ok(())
}
