//! Posting wakes.
//!
//! No redirects, no proxy, no cookies; bounded in time, in bytes read and in number. A receiver whose last
//! attempt failed or was slow posts in another lane, so slow and dead ones wait for each other only.

use std::{
    error::Error,
    sync::{Arc, OnceLock},
    time::Duration,
};

use durable_streams_protocol::subscription::WebhookTarget;
use reqwest::{
    Client, ClientBuilder, Response,
    header::{CONTENT_TYPE, HeaderMap, HeaderName},
    redirect,
};
use tokio::sync::Semaphore;

use super::{Options, resolve::Guarded};

const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The client and its lanes.
pub(super) struct Webhooks {
    /// Made when first needed: it takes the system's certificates, which a machine that posts nowhere may
    /// lack.
    public: OnceLock<Client>,
    local: Client,
    options: Options,
    first: Arc<Semaphore>,
    again: Arc<Semaphore>,
}

/// One request.
pub(super) struct Post {
    pub(super) target: WebhookTarget,
    pub(super) body: Vec<u8>,
    pub(super) signature: String,
    /// For all of it, the answer's body included.
    pub(super) timeout: Duration,
}

/// What came back.
#[derive(Debug)]
pub(super) enum Answer {
    /// 2xx with `{"done": true}`.
    Done,
    /// 2xx with anything else.
    Accepted,
    /// Nobody took it, and why.
    Refused(String),
    /// Nobody knows, and why.
    Unknown(String),
}

impl Webhooks {
    pub(super) fn new(options: &Options) -> Result<Self, String> {
        // The same provider as the listeners'; whoever comes first installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Webhooks {
            public: OnceLock::new(),
            // Speaks no TLS, so it trusts nobody.
            local: build(client(options, true).tls_certs_only([]))?,
            first: Arc::new(Semaphore::new(options.max_deliveries.max(1))),
            again: Arc::new(Semaphore::new(options.max_retries.max(1))),
            options: options.clone(),
        })
    }

    fn public(&self) -> Result<&Client, String> {
        if let Some(client) = self.public.get() {
            return Ok(client);
        }
        let client = build(client(&self.options, false))?;
        Ok(self.public.get_or_init(|| client))
    }

    /// The lane of a receiver; `suspect` when its last attempt failed or was slow.
    pub(super) fn lane(&self, suspect: bool) -> Arc<Semaphore> {
        if suspect { self.again.clone() } else { self.first.clone() }
    }

    pub(super) async fn post(&self, post: Post) -> Answer {
        let client = if post.target.local { Ok(&self.local) } else { self.public() };
        let client = match client {
            Ok(client) => client,
            Err(error) => return Answer::Refused(format!("the webhook client: {error}")),
        };
        let mut span = self.options.tracer.client("POST webhook");
        // Not the path: it may hold a secret.
        span.text("server.address", post.target.url.host_str().unwrap_or_default());
        let mut headers = HeaderMap::new();
        span.propagate(|name, value| drop(headers.insert(name, value)));
        let request = client
            .post(post.target.url)
            .headers(headers)
            .header(CONTENT_TYPE, "application/json")
            .header(SIGNATURE, post.signature)
            .timeout(post.timeout)
            .body(post.body);
        let sent = request.send().await;
        if let Ok(response) = &sent {
            span.number("http.response.status_code", response.status().as_u16().into());
        }
        span.end(match &sent {
            Ok(response) if response.status().is_success() => None,
            Ok(_) => Some("status"),
            Err(error) if error.is_timeout() => Some("timeout"),
            Err(error) if error.is_connect() => Some("connect"),
            Err(_) => Some("broken_off"),
        });
        match sent {
            Ok(response) if response.status().is_success() => {
                if self.says_done(response).await {
                    Answer::Done
                } else {
                    Answer::Accepted
                }
            }
            Ok(response) => Answer::Refused(format!("status {}", response.status().as_u16())),
            Err(error) if error.is_connect() || error.is_builder() => {
                Answer::Refused(causes(&error))
            }
            Err(error) => Answer::Unknown(causes(&error)),
        }
    }

    /// Whether the answer is `{"done": true}`. One that is too long, late, cut off or not JSON is not.
    async fn says_done(&self, mut response: Response) -> bool {
        #[derive(serde::Deserialize)]
        struct Reply {
            done: bool,
        }
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= self.options.max_answer => {
                    body.extend_from_slice(&chunk);
                }
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => return false,
            }
        }
        serde_json::from_slice::<Reply>(&body).is_ok_and(|reply| reply.done)
    }
}

fn client(options: &Options, local: bool) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("durable-streams-server/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(4)
        .dns_resolver(Arc::new(Guarded { inner: options.resolver.clone(), local }))
}

fn build(client: ClientBuilder) -> Result<Client, String> {
    client.build().map_err(|error| causes(&error))
}

/// An error with its causes, without the URL, which may hold a secret.
fn causes(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    if text.is_empty() { "no answer".into() } else { text }
}
