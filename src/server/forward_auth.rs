//! Forward auth over HTTP: the subrequest to the operator's service.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use durable_streams_auth::{
    ClaimTemplate, ForwardAuth, ForwardClient, ForwardFailure, ForwardOptions, ForwardedAnswer,
    ForwardedRequest,
};
use reqwest::{Client, Url, redirect};

use super::access::AccessSetupError;
use crate::config::ForwardAuthConfig;

/// Bytes for answers that are remembered.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// The most bytes of an answer's body that are read, only to keep the connection.
const SKIPPED_BYTES: usize = 16 * 1024;
/// Idle connections to the service that are kept.
const IDLE_CONNECTIONS: usize = 32;

/// The provider of a configuration; `None` where it names no service. `route` is that of streams.
pub(super) fn provider(
    config: &ForwardAuthConfig,
    route: &str,
) -> Result<Option<ForwardAuth>, AccessSetupError> {
    let Some(url) = &config.url else { return Ok(None) };
    let mut options = ForwardOptions::new(route, config.user_header.clone());
    options.request_headers.clone_from(&config.request_headers);
    options.tenant.clone_from(&config.tenant_header);
    options.allow.clone_from(&config.allow_header);
    options.operations = config.operations();
    options.paths.clone_from(&config.paths_header);
    let templates = config.paths.iter().filter_map(|one| ClaimTemplate::parse(one.as_str()).ok());
    options.templates = templates.collect();
    options.timeout = config.timeout.get();
    options.cache = config.cache.get();
    options.cache_bytes = CACHE_BYTES;
    options.valid_for = config.valid_for.get();
    options.max_concurrent = usize::try_from(config.max_concurrent).unwrap_or(usize::MAX);
    let client = HttpForwardClient::new(url.0.clone(), options.timeout)?;
    Ok(Some(ForwardAuth::new(options, Arc::new(client))))
}

/// Sends subrequests: no redirects, no body, bounded in time and bytes.
struct HttpForwardClient {
    client: Client,
    url: Url,
}

impl HttpForwardClient {
    fn new(url: Url, timeout: Duration) -> Result<Self, reqwest::Error> {
        // The same provider as the listeners'; the first of them installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(timeout)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(IDLE_CONNECTIONS);
        Ok(HttpForwardClient { client: client.build()?, url })
    }
}

#[async_trait]
impl ForwardClient for HttpForwardClient {
    async fn ask(&self, request: ForwardedRequest) -> Result<ForwardedAnswer, ForwardFailure> {
        let failed = |error: reqwest::Error| {
            let error = error.without_url();
            tracing::warn!(%error, "the authorization service gives no answer");
            ForwardFailure(error.to_string())
        };
        let mut asked = self.client.get(self.url.clone());
        for (name, value) in request.headers {
            asked = asked.header(name, value);
        }
        asked = asked.header("x-forwarded-method", request.method.as_str());
        asked = asked.header("x-forwarded-uri", request.uri);
        if let Some(client) = request.client {
            asked = asked.header("x-forwarded-for", client.to_string());
        }
        let mut response = asked.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut skipped = 0;
        // A longer body ends the connection instead.
        while skipped <= SKIPPED_BYTES
            && let Ok(Some(chunk)) = response.chunk().await
        {
            skipped += chunk.len();
        }
        Ok(ForwardedAnswer { status, headers })
    }
}
