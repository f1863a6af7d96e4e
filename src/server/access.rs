//! Access control as configured: its providers, and the work beside the requests that keeps them current.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use durable_streams_auth::{
    AccessGuard, AnonymousAccess, ApiKeys, ClientCertificates, CredentialFile, CredentialFileError,
    DuplicateProvider, GuardOptions, ProjectTokens, ProviderChain, SignedUrls, X_API_KEY,
    jwt::{
        AudienceRule, ClaimRules, ClaimTemplate, FetchKeys, IssuerOptions, IssuerOptionsError,
        JwtIssuer, KeyFetchError, KeySource, Url,
    },
};
use durable_streams_engine::Clock;
use http::header;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};
use reqwest::{Client, redirect};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::forward_auth;
use crate::admin::AdminAccess;
use crate::config::{
    AccessCacheConfig, AuditConfig, AuthConfig, CertificateConfig, IssuerConfig, operations,
};
use crate::edge::{AccessCaching, AuditLevel};

use super::quotas;

/// How often the credentials file is looked at.
const REFRESH: Duration = Duration::from_secs(1);
/// How often the last uses of keys are written.
const SAVE_USAGE: Duration = Duration::from_secs(60);
/// Bytes for verified tokens of each provider.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// The longest wait for an issuer's keys, and the most bytes of them.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_KEYS_BYTES: usize = 1024 * 1024;

/// Why access control cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum AccessSetupError {
    /// The credentials file.
    #[error("auth.credentials: {0}")]
    Credentials(#[from] CredentialFileError),
    /// A file of an issuer.
    #[error("auth.issuers, {issuer}: {path}: {error}")]
    File {
        /// Which issuer.
        issuer: String,
        /// Which file.
        path: String,
        /// Why it cannot be read.
        error: std::io::Error,
    },
    /// An issuer's options.
    #[error("auth.issuers, {issuer}: {error}")]
    Issuer {
        /// Which issuer.
        issuer: String,
        /// What is wrong.
        error: IssuerOptionsError,
    },
    /// Two providers of one name.
    #[error("auth.issuers: {0}")]
    Duplicate(#[from] DuplicateProvider),
    /// The client that fetches keys, or asks a service.
    #[error("auth: {0}")]
    Client(#[from] reqwest::Error),
}

/// Access control, ready to serve.
pub(super) struct ServerAccess {
    pub(super) guard: AccessGuard,
    pub(super) audit: AuditLevel,
    pub(super) caching: AccessCaching,
    pub(super) refresh: AccessRefresh,
}

/// Keeps the credentials file and the issuers' keys current.
pub(super) struct AccessRefresh {
    credentials: Option<Arc<CredentialFile>>,
    issuers: Vec<(String, Arc<JwtIssuer>)>,
    clock: Clock,
    /// Whether a failure to save the last uses was reported.
    reported: AtomicBool,
}

impl ServerAccess {
    pub(super) fn new(config: &AuthConfig, route: &str) -> Result<Self, AccessSetupError> {
        let cookie = config.cookie.as_ref().map(|name| name.as_str().to_owned());
        let credentials = config.credentials.as_deref().map(CredentialFile::open).transpose()?;
        let credentials = credentials.map(Arc::new);
        let mut chain = ProviderChain::new();
        if let Some(file) = &credentials {
            chain.push(Arc::new(ApiKeys::new(file.clone(), cookie.clone())))?;
            chain.push(Arc::new(ProjectTokens::new(file.clone(), cookie.clone(), CACHE_BYTES)))?;
        }
        let mut issuers = Vec::new();
        for configured in &config.issuers {
            let issuer = Arc::new(issuer(configured, cookie.clone())?);
            chain.push(issuer.clone())?;
            issuers.push((configured.name.as_str().to_owned(), issuer));
        }
        if let Some(file) = &credentials {
            chain.push(Arc::new(SignedUrls::new(file.clone())))?;
        }
        if !config.client_certificates.is_empty() {
            let rules = config.client_certificates.iter().filter_map(CertificateConfig::rule);
            chain.push(Arc::new(ClientCertificates::new(rules.collect(), CACHE_BYTES)))?;
        }
        if let Some(forward) = &config.forward
            && let Some(provider) = forward_auth::provider(forward, route)?
        {
            chain.push(Arc::new(provider))?;
        }
        if !config.anonymous.is_empty() {
            let grants = config.anonymous.iter().map(|one| one.grant()).collect();
            chain.push(Arc::new(AnonymousAccess::new(grants)))?;
        }
        let options = GuardOptions {
            hide_unreadable: config.hide_unreadable,
            public_streams: config.public_streams,
        };
        Ok(ServerAccess {
            guard: quotas::guarded(AccessGuard::new(Arc::new(chain), options), config),
            audit: match config.audit {
                AuditConfig::Off => AuditLevel::Off,
                AuditConfig::Refused => AuditLevel::Refused,
                AuditConfig::All => AuditLevel::All,
            },
            caching: caching(config),
            refresh: AccessRefresh {
                credentials,
                issuers,
                clock: Clock::System,
                reported: AtomicBool::new(false),
            },
        })
    }
}

impl ServerAccess {
    /// Who may use the administration API.
    pub(super) fn administrators(&self) -> AdminAccess {
        let credentials = self.refresh.credentials.clone();
        AdminAccess::Guarded { guard: self.guard.clone(), credentials }
    }
}

fn caching(config: &AuthConfig) -> AccessCaching {
    if config.cache == AccessCacheConfig::Private {
        return AccessCaching::private();
    }
    let mut credentials = vec![header::AUTHORIZATION, X_API_KEY];
    // A cookie that is no credential must not keep a cache from sharing.
    credentials.extend(config.cookie.as_ref().map(|_| header::COOKIE));
    credentials.extend(config.forward.iter().flat_map(|one| one.request_headers.clone()));
    AccessCaching::shared(&credentials)
}

fn issuer(config: &IssuerConfig, cookie: Option<String>) -> Result<JwtIssuer, AccessSetupError> {
    let name = config.name.as_str();
    let read = |path: &std::path::Path| {
        fs::read(path).map_err(|error| AccessSetupError::File {
            issuer: name.to_owned(),
            path: path.display().to_string(),
            error,
        })
    };
    let keys = match (&config.secret_file, &config.jwks_file, &config.jwks_url) {
        (Some(path), _, _) => KeySource::Secret(read(path)?.trim_ascii().to_vec()),
        (None, Some(path), _) => KeySource::Jwks(read(path)?),
        (None, None, Some(url)) => KeySource::JwksUrl(url.0.clone(), Arc::new(HttpFetch::new()?)),
        (None, None, None) => KeySource::Discovery(Arc::new(HttpFetch::new()?)),
    };
    let audience = match config.any_audience {
        true => AudienceRule::Unchecked,
        false => AudienceRule::AnyOf(config.audience.clone()),
    };
    let mut claims = ClaimRules::new(audience);
    claims.leeway = config.leeway.get();
    claims.tenant = config.tenant_claim.as_ref().map(|one| one.as_str().to_owned());
    claims.scopes = config.scope_claim.as_ref().map(|pointer| {
        let meaning =
            |one: &crate::config::ScopeConfig| (one.scope.clone(), operations(&one.allow));
        (pointer.as_str().to_owned(), config.scopes.iter().map(meaning).collect())
    });
    claims.operations = operations(&config.allow);
    claims.patterns = config.paths_claim.as_ref().map(|one| one.as_str().to_owned());
    let paths = config.paths.iter().filter_map(|one| ClaimTemplate::parse(one.as_str()).ok());
    claims.paths = paths.collect();
    let algorithms = config.algorithms.iter().map(|one| one.0).collect();
    let mut options = IssuerOptions::new(name, &config.issuer, algorithms, keys, claims);
    options.cookie = cookie;
    options.cache_bytes = CACHE_BYTES;
    JwtIssuer::new(options)
        .map_err(|error| AccessSetupError::Issuer { issuer: name.to_owned(), error })
}

/// Fetches key sets: no redirects, bounded in time and bytes.
struct HttpFetch(Client);

impl HttpFetch {
    fn new() -> Result<Self, reqwest::Error> {
        // The same provider as the listeners'; the first of them installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(FETCH_TIMEOUT).redirect(redirect::Policy::none());
        Ok(HttpFetch(client.build()?))
    }
}

#[async_trait]
impl FetchKeys for HttpFetch {
    async fn fetch(&self, url: &Url) -> Result<Vec<u8>, KeyFetchError> {
        let failed = |error: reqwest::Error| KeyFetchError(format!("{url}: {error}"));
        let mut response = self.0.get(url.clone()).send().await.map_err(failed)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(KeyFetchError(format!("{url} answers {}", response.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_KEYS_BYTES {
                return Err(KeyFetchError(format!(
                    "{url} answers more than {MAX_KEYS_BYTES} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl AccessRefresh {
    /// Reloads the credentials file if it changed. `failing` holds what was reported already.
    fn reload(&self, failing: &mut Option<String>) {
        let Some(file) = &self.credentials else { return };
        match file.refresh() {
            Ok(changed) => {
                if changed || failing.is_some() {
                    tracing::info!(file = %file.path().display(), "credentials reloaded");
                }
                *failing = None;
            }
            Err(error) => {
                let error = error.to_string();
                if failing.as_ref() != Some(&error) {
                    tracing::error!("{error}; the credentials of before stay valid");
                }
                *failing = Some(error);
            }
        }
    }

    /// Writes when keys were last used. A folder that cannot be written to is reported once.
    fn save_usage(&self) {
        let Some(file) = &self.credentials else { return };
        if let Err(error) = file.save_usage()
            && !self.reported.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("the last uses of keys are not saved: {error}");
        }
    }

    async fn refresh_issuers(&self) {
        for (name, issuer) in &self.issuers {
            match issuer.refresh(self.clock.now()).await {
                Ok(false) => {}
                Ok(true) => tracing::info!(issuer = name, "keys fetched"),
                Err(error) => {
                    tracing::error!(issuer = name, %error, "keys cannot be fetched; those of before stay valid");
                }
            }
        }
    }
}

#[async_trait]
impl BackgroundService for AccessRefresh {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let reload = async {
            let mut ticks = interval(REFRESH);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (mut failing, mut saved) = (None, Instant::now());
            loop {
                ticks.tick().await;
                self.reload(&mut failing);
                if saved.elapsed() >= SAVE_USAGE {
                    self.save_usage();
                    saved = Instant::now();
                }
            }
        };
        let fetch = async {
            let mut ticks = interval(REFRESH);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.refresh_issuers().await;
            }
        };
        tokio::select! {
            () = reload => {}
            () = fetch => {}
            _ = shutdown.wait_for(|stopping| *stopping) => {}
        }
        self.save_usage();
    }
}
