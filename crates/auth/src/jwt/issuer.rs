//! One identity provider whose tokens are accepted.

use std::sync::Arc;

use async_trait::async_trait;
use durable_streams_protocol::Timestamp;
use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::{
    ClaimRules, KeySource,
    keys::KeyVerdict,
    source::{KeyFetchError, KeyStore},
};
use crate::{
    AccessControl, AccessError, Principal, RequestHead,
    cache::{TokenCache, token_hash},
    credential::{bearer, cookie},
    jws::{UnverifiedToken, is_access_token, text_claim},
};

/// An identity provider and what its tokens allow.
#[non_exhaustive]
pub struct IssuerOptions {
    /// Names the provider in configuration and logs.
    pub name: String,
    /// The `iss` of its tokens, compared byte for byte.
    pub issuer: String,
    /// The algorithms that its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Where its keys come from.
    pub keys: KeySource,
    /// What is read from its tokens.
    pub claims: ClaimRules,
    /// The cookie that may carry a token in `GET` and `HEAD`.
    pub cookie: Option<String>,
    /// Bytes for tokens that were verified already.
    pub cache_bytes: usize,
}

impl IssuerOptions {
    /// Options with a cache of 8 MiB and no cookie.
    pub fn new(
        name: &str,
        issuer: &str,
        algorithms: Vec<Algorithm>,
        keys: KeySource,
        claims: ClaimRules,
    ) -> Self {
        IssuerOptions {
            name: name.into(),
            issuer: issuer.into(),
            algorithms,
            keys,
            claims,
            cookie: None,
            cache_bytes: 8 * 1024 * 1024,
        }
    }
}

/// Why an issuer's options are refused; for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IssuerOptionsError(String);

/// Authenticates the tokens of one identity provider: `Authorization: Bearer`, or for reads a cookie.
pub struct JwtIssuer {
    name: Arc<str>,
    issuer: String,
    algorithms: Vec<Algorithm>,
    keys: KeyStore,
    claims: ClaimRules,
    cookie: Option<String>,
    cache: TokenCache,
}

impl JwtIssuer {
    /// A provider for an issuer. Keys behind a URL are fetched when they are needed first, or by
    /// [`JwtIssuer::refresh`].
    ///
    /// # Errors
    /// When no algorithm is listed, an algorithm does not go with the kind of key, or the keys are not
    /// usable.
    pub fn new(options: IssuerOptions) -> Result<Self, IssuerOptionsError> {
        let refused = |why: &str| Err(IssuerOptionsError(why.into()));
        if options.algorithms.is_empty() {
            return refused("list the algorithms that the issuer signs with");
        }
        let secret = matches!(options.keys, KeySource::Secret(_));
        let shared = |one: &Algorithm| one.family() == AlgorithmFamily::Hmac;
        if secret && !options.algorithms.iter().all(shared) {
            return refused("a shared secret goes with HS256, HS384 and HS512 only");
        }
        if !secret && options.algorithms.iter().any(shared) {
            return refused("HS256, HS384 and HS512 need a shared secret, not a key set");
        }
        let keys = KeyStore::new(options.keys, &options.issuer).map_err(IssuerOptionsError)?;
        Ok(JwtIssuer {
            name: options.name.into(),
            issuer: options.issuer,
            algorithms: options.algorithms,
            keys,
            claims: options.claims,
            cookie: options.cookie,
            cache: TokenCache::new(options.cache_bytes),
        })
    }

    /// Fetches keys that are old or were never fetched; the server calls it every few seconds. Returns
    /// whether the issuer has other keys than before.
    ///
    /// # Errors
    /// Why they could not be fetched. Those of before stay valid.
    pub async fn refresh(&self, now: Timestamp) -> Result<bool, KeyFetchError> {
        if self.keys.is_due(now) { self.keys.fetch(now).await } else { Ok(false) }
    }

    async fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, AccessError> {
        let hash = token_hash(token);
        if let Some(principal) = self.cache.get(&hash, self.keys.revision(), now) {
            return Ok(principal);
        }
        let parsed = UnverifiedToken::parse(token).ok_or(AccessError::UnknownCredentials)?;
        if text_claim(&parsed.claims, "iss") != Some(self.issuer.as_str()) {
            return Err(AccessError::UnknownCredentials);
        }
        let invalid = AccessError::InvalidCredentials;
        let algorithm: Option<Algorithm> = parsed.header.alg.parse().ok();
        let algorithm = algorithm
            .filter(|one| self.algorithms.contains(one))
            .ok_or(invalid("the token is signed with an algorithm that its issuer does not use"))?;
        if !is_access_token(&parsed.header) {
            return Err(invalid("the token is of a type that is no access token"));
        }
        let revision = self.check(&parsed, algorithm, now).await?;
        let kid = parsed.header.kid;
        let mut principal = self.claims.principal(parsed.claims, now)?;
        principal.identity = format!("{}:{}", self.name, principal.identity).into();
        principal.provider = self.name.clone();
        principal.credential = kid.map(Into::into);
        let principal = Arc::new(principal);
        self.cache.insert(hash, token.len(), revision, principal.clone());
        Ok(principal)
    }

    /// Verifies the signature, with keys that are fetched again when they do not have the token's `kid`.
    /// Returns the revision of the keys that verified it.
    async fn check(
        &self,
        token: &UnverifiedToken<'_>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<u64, AccessError> {
        let verdict = || {
            // In this order: keys that change in between make the entry old, never new.
            let revision = self.keys.revision();
            let keys = self.keys.keys()?;
            let kid = token.header.kid.as_deref();
            Some((keys.verify(kid, algorithm, token.signed, &token.signature), revision))
        };
        let mut found = verdict();
        if !matches!(found, Some((KeyVerdict::Verified | KeyVerdict::Forged, _))) {
            // The host's own refresh reports why a fetch fails.
            let _ = self.keys.fetch(now).await;
            found = verdict();
        }
        match found {
            Some((KeyVerdict::Verified, revision)) => Ok(revision),
            Some((KeyVerdict::Forged, _)) => {
                Err(AccessError::InvalidCredentials("the token's signature is not its issuer's"))
            }
            Some((KeyVerdict::UnknownKey, _)) => {
                Err(AccessError::InvalidCredentials("no key of the issuer signed the token"))
            }
            None => Err(AccessError::Unavailable { reason: "the issuer's keys are not known yet" }),
        }
    }
}

#[async_trait]
impl AccessControl for JwtIssuer {
    fn name(&self) -> &str {
        &self.name
    }

    async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        let token = match (bearer(head)?, &self.cookie) {
            (Some(token), _) => token,
            (None, Some(name)) => cookie(head, name)?.ok_or(AccessError::NoCredentials)?,
            (None, None) => return Err(AccessError::NoCredentials),
        };
        self.verify(token, head.now).await
    }

    fn is_current(&self, principal: &Principal, now: Timestamp) -> bool {
        let kid = principal.credential.as_deref();
        let known =
            kid.is_none_or(|kid| self.keys.keys().is_some_and(|keys| keys.may_have_signed(kid)));
        known && !principal.is_expired(now)
    }

    fn may_be_remembered(&self, _principal: &Principal) -> bool {
        true
    }

    fn revision(&self) -> u64 {
        self.keys.revision()
    }
}
