//! Where an issuer's keys come from, and when they are fetched again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use durable_streams_protocol::Timestamp;
use serde::Deserialize;
use url::Url;

use super::keys::VerifyingKeys;
use crate::cache::{TokenHash, bytes_hash};

/// At least so long between two fetches that tokens with an unknown `kid` cause, seconds.
pub const REFETCH_PAUSE_SECONDS: u64 = 30;
/// How old keys may be before [`JwtIssuer::refresh`](super::JwtIssuer::refresh) fetches them again.
pub(super) const MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// Fetches what a URL holds: the server's HTTP client.
///
/// An implementation bounds the time and the size (1 MiB is ample), and follows redirects only to HTTPS.
#[async_trait]
pub trait FetchKeys: Send + Sync {
    /// The body of a `GET` that was answered with 200.
    async fn fetch(&self, url: &Url) -> Result<Vec<u8>, KeyFetchError>;
}

/// Why keys could not be fetched; for the operator's log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyFetchError(pub String);

/// Where an issuer's keys come from.
#[derive(Clone)]
#[non_exhaustive]
pub enum KeySource {
    /// A secret shared with the issuer, for HS256, HS384 and HS512: at least 32 bytes.
    Secret(Vec<u8>),
    /// The text of a JSON Web Key Set.
    Jwks(Vec<u8>),
    /// The URL of a JSON Web Key Set.
    JwksUrl(Url, Arc<dyn FetchKeys>),
    /// The issuer's own metadata, `{issuer}/.well-known/openid-configuration`, says where the keys are.
    Discovery(Arc<dyn FetchKeys>),
}

/// Keys that may be fetched again.
pub(super) struct KeyStore {
    origin: Option<KeyOrigin>,
    keys: ArcSwapOption<VerifyingKeys>,
    /// Grows whenever other keys take the place of these.
    revision: AtomicU64,
    /// Milliseconds since 1970 of the last fetch, and of the last that succeeded; 0 is never.
    attempted: AtomicU64,
    fetched: AtomicU64,
    /// Held while fetching, with the hash of the set that was fetched last.
    fetching: tokio::sync::Mutex<Option<TokenHash>>,
}

struct KeyOrigin {
    place: KeyPlace,
    fetch: Arc<dyn FetchKeys>,
}

enum KeyPlace {
    Jwks(Url),
    /// The metadata, and the issuer that it must name.
    Metadata(Url, String),
}

#[derive(Deserialize)]
struct IssuerMetadata {
    issuer: String,
    jwks_uri: String,
}

impl KeyStore {
    pub(super) fn new(source: KeySource, issuer: &str) -> Result<Self, String> {
        let (keys, origin) = match source {
            KeySource::Secret(secret) if secret.len() < 32 => {
                return Err("a shared secret needs at least 32 bytes".into());
            }
            KeySource::Secret(secret) => (Some(VerifyingKeys::from_secret(&secret)), None),
            KeySource::Jwks(text) => (Some(VerifyingKeys::from_jwks(&text)?), None),
            KeySource::JwksUrl(url, fetch) => {
                (None, Some(KeyOrigin { place: KeyPlace::Jwks(url), fetch }))
            }
            KeySource::Discovery(fetch) => {
                let place = KeyPlace::Metadata(metadata_url(issuer)?, issuer.into());
                (None, Some(KeyOrigin { place, fetch }))
            }
        };
        Ok(KeyStore {
            origin,
            keys: ArcSwapOption::from_pointee(keys),
            revision: AtomicU64::new(1),
            attempted: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            fetching: tokio::sync::Mutex::new(None),
        })
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(super) fn keys(&self) -> Option<Arc<VerifyingKeys>> {
        self.keys.load_full()
    }

    /// Whether it is time to fetch the keys again although nothing asks for others.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let age = now.millis().saturating_sub(self.fetched.load(Ordering::Relaxed));
        self.origin.is_some() && u128::from(age) >= MAX_AGE.as_millis() && self.may_fetch(now)
    }

    fn may_fetch(&self, now: Timestamp) -> bool {
        let last = self.attempted.load(Ordering::Acquire);
        last == 0 || now.millis().saturating_sub(last) >= REFETCH_PAUSE_SECONDS * 1000
    }

    /// Fetches the keys unless that was tried a moment ago; returns whether others are there now. Callers
    /// that come while a fetch is under way wait for it and share its outcome. After a failure the keys
    /// that were fetched before stay.
    ///
    /// # Errors
    /// Why the keys could not be fetched.
    pub(super) async fn fetch(&self, now: Timestamp) -> Result<bool, KeyFetchError> {
        let Some(origin) = &self.origin else { return Ok(false) };
        let before = self.revision();
        let mut last = self.fetching.lock().await;
        if !self.may_fetch(now) {
            return Ok(self.revision() != before);
        }
        self.attempted.store(now.millis().max(1), Ordering::Release);
        let text = origin.fetch().await?;
        let hash = bytes_hash(&text);
        let keys = VerifyingKeys::from_jwks(&text).map_err(KeyFetchError)?;
        self.fetched.store(now.millis(), Ordering::Relaxed);
        if *last == Some(hash) {
            return Ok(false);
        }
        *last = Some(hash);
        self.keys.store(Some(Arc::new(keys)));
        self.revision.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }
}

impl KeyOrigin {
    async fn fetch(&self) -> Result<Vec<u8>, KeyFetchError> {
        let url = match &self.place {
            KeyPlace::Jwks(url) => url.clone(),
            KeyPlace::Metadata(url, issuer) => {
                let text = self.fetch.fetch(url).await?;
                keys_url(url, issuer, &text).map_err(KeyFetchError)?
            }
        };
        self.fetch.fetch(&url).await
    }
}

fn metadata_url(issuer: &str) -> Result<Url, String> {
    let text = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    Url::parse(&text).map_err(|error| format!("the issuer {issuer:?} is no URL: {error}"))
}

/// Where the metadata says that the keys are (OpenID Connect Discovery, section 4.3).
fn keys_url(metadata: &Url, issuer: &str, text: &[u8]) -> Result<Url, String> {
    let found: IssuerMetadata =
        serde_json::from_slice(text).map_err(|error| format!("no issuer metadata: {error}"))?;
    if found.issuer != issuer {
        return Err(format!("the metadata is of another issuer, {:?}", found.issuer));
    }
    let keys = Url::parse(&found.jwks_uri)
        .map_err(|error| format!("the metadata's jwks_uri is no URL: {error}"))?;
    // An operator who configured an issuer without TLS is testing.
    let as_configured = metadata.scheme() == "http" && keys.scheme() == "http";
    if keys.scheme() == "https" || as_configured {
        return Ok(keys);
    }
    Err("the metadata's jwks_uri is not https".into())
}
