//! The HTTP client that posts wakes: reqwest behind [`WebhookClient`].
//!
//! No redirects, no proxy, no cookies; bounded in time and in bytes read.

use std::{
    error::Error,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use durable_streams_subscriptions::{WebhookClient, WebhookError, WebhookRequest, WebhookResponse};
use reqwest::{
    Client, ClientBuilder, Response,
    header::{CONTENT_TYPE, HeaderMap, HeaderName},
    redirect,
};

use super::{HostResolver, SystemResolver, resolver::GuardedResolver};
use crate::telemetry::trace::{Span, Tracer};

const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Settings of the webhook client.
#[derive(Clone)]
pub struct WebhookOptions {
    /// The longest wait for a connection to a webhook's host.
    pub connect_timeout: Duration,
    /// Resolves host names. Each address that it returns is judged before anything connects to it.
    pub resolver: Arc<dyn HostResolver>,
    /// Makes a span of each post.
    pub tracer: Tracer,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        WebhookOptions {
            connect_timeout: Duration::from_secs(5),
            resolver: Arc::new(SystemResolver),
            tracer: Tracer::default(),
        }
    }
}

/// The webhook client cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the webhook client: {0}")]
pub struct WebhookSetupError(String);

/// Posts wakes with reqwest.
pub struct HttpWebhookClient {
    /// Built on first use: it loads the system's certificates, which a machine that posts nowhere may
    /// lack.
    public: OnceLock<Client>,
    local: Client,
    options: WebhookOptions,
}

impl HttpWebhookClient {
    /// Sets up the client; nothing is connected to yet.
    ///
    /// # Errors
    /// [`WebhookSetupError`] when the TLS library refuses its configuration.
    pub fn new(options: WebhookOptions) -> Result<Self, WebhookSetupError> {
        // The same provider as the listeners'; the first of them installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Without TLS, so it needs no certificates.
        let local = build(client(&options, true).tls_certs_only([])).map_err(WebhookSetupError)?;
        Ok(HttpWebhookClient { public: OnceLock::new(), local, options })
    }

    fn public(&self) -> Result<&Client, String> {
        if let Some(client) = self.public.get() {
            return Ok(client);
        }
        let client = build(client(&self.options, false))?;
        Ok(self.public.get_or_init(|| client))
    }
}

#[async_trait]
impl WebhookClient for HttpWebhookClient {
    async fn post(&self, request: WebhookRequest) -> Result<WebhookResponse, WebhookError> {
        let client = if request.target.local { Ok(&self.local) } else { self.public() };
        let client = client
            .map_err(|error| WebhookError::NotSent(format!("the webhook client: {error}")))?;
        let mut span = self.options.tracer.client("POST webhook");
        // Not the path: it may hold a secret.
        span.text("server.address", request.target.url.host_str().unwrap_or_default());
        let mut headers = HeaderMap::new();
        span.propagate(|name, value| drop(headers.insert(name, value)));
        let sent = client
            .post(request.target.url)
            .headers(headers)
            .header(CONTENT_TYPE, "application/json")
            .header(SIGNATURE, request.signature)
            .timeout(request.timeout)
            .body(request.body)
            .send()
            .await;
        end_span(span, &sent);
        match sent {
            Ok(response) => {
                let status = response.status();
                Ok(WebhookResponse { status, body: body(response, request.max_response).await })
            }
            Err(error) if error.is_connect() || error.is_builder() => {
                Err(WebhookError::NotSent(causes(&error)))
            }
            Err(error) => Err(WebhookError::NoResponse(causes(&error))),
        }
    }
}

fn end_span(mut span: Span, sent: &Result<Response, reqwest::Error>) {
    if let Ok(response) = sent {
        span.number("http.response.status_code", response.status().as_u16().into());
    }
    span.end(match sent {
        Ok(response) if response.status().is_success() => None,
        Ok(_) => Some("status"),
        Err(error) if error.is_timeout() => Some("timeout"),
        Err(error) if error.is_connect() => Some("connect"),
        Err(_) => Some("broken_off"),
    });
}

/// The body of a 2xx; `None` for one that is longer than `limit` bytes, late or cut off.
async fn body(mut response: Response, limit: usize) -> Option<Bytes> {
    if !response.status().is_success() {
        return None;
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > limit {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body.freeze())
}

fn client(options: &WebhookOptions, local: bool) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("durable-streams-server/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(4)
        .dns_resolver(Arc::new(GuardedResolver { inner: options.resolver.clone(), local }))
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
