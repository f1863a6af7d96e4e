//! Forward auth for streams: from the configuration to the provider, which asks over HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use durable_streams_auth::{
    ClaimTemplate, ForwardAuth, ForwardClient, ForwardFailure, ForwardOptions, ForwardedAnswer,
    ForwardedRequest,
};

use super::access::AccessSetupError;
use crate::config::ForwardAuthConfig;
use crate::edge::SubrequestClient;

/// Bytes for answers that are remembered.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// The most bytes of an answer's body that are read, only to keep the connection.
const SKIPPED_BYTES: usize = 16 * 1024;

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
    let client = SubrequestClient::new(url.0.clone(), options.timeout)?;
    Ok(Some(ForwardAuth::new(options, Arc::new(HttpForwardClient(client)))))
}

/// Asks over HTTP, and has no use for the body of an answer.
struct HttpForwardClient(SubrequestClient);

#[async_trait]
impl ForwardClient for HttpForwardClient {
    async fn ask(&self, request: ForwardedRequest) -> Result<ForwardedAnswer, ForwardFailure> {
        let answer = self.0.ask(request, SKIPPED_BYTES).await?;
        Ok(ForwardedAnswer { status: answer.status, headers: answer.headers })
    }
}
