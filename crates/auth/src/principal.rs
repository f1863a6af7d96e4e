//! A principal: on whose behalf a request is made, and what it may do.

use std::sync::Arc;

use durable_streams_protocol::{StreamPath, Timestamp, subscription::Glob};
use serde_json::{Map, Value};

use crate::{Grant, Operation, TenantId};

/// On whose behalf a request is made. Providers return it behind an [`Arc`], so a cached one costs a count.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Principal {
    /// The identity that logs and rates name: unique among the principals of one provider. Never a secret.
    pub identity: Arc<str>,
    /// The name of the provider that authenticated it; a [`ProviderChain`](crate::ProviderChain) sets it.
    pub provider: Arc<str>,
    /// The credential that it used, when that can be revoked by itself: a key's id, never the key.
    pub credential: Option<Arc<str>>,
    /// Whose streams it names. `None`: the streams of no tenant.
    pub tenant: Option<TenantId>,
    /// What it may do, in its own paths.
    pub grants: Vec<Grant>,
    /// From when on it may do nothing.
    pub expires: Option<Timestamp>,
    /// What the credential says about it; empty for credentials that say nothing.
    pub claims: Map<String, Value>,
    /// Whether it stands for requests without credentials.
    pub anonymous: bool,
    /// Whether the URL itself is the credential: every client that has the URL is this principal.
    pub by_url: bool,
}

impl Principal {
    /// A principal that may do nothing yet.
    pub fn new(identity: impl Into<Arc<str>>) -> Self {
        Principal {
            identity: identity.into(),
            provider: "".into(),
            credential: None,
            tenant: None,
            grants: Vec::new(),
            expires: None,
            claims: Map::new(),
            anonymous: false,
            by_url: false,
        }
    }

    /// The principal of requests without credentials.
    pub fn anonymous(grants: Vec<Grant>) -> Self {
        Principal { grants, anonymous: true, ..Principal::new("anonymous") }
    }

    /// Adds a grant.
    #[must_use]
    pub fn with_grant(mut self, grant: Grant) -> Self {
        self.grants.push(grant);
        self
    }

    /// Adds grants.
    #[must_use]
    pub fn with_grants(mut self, grants: impl IntoIterator<Item = Grant>) -> Self {
        self.grants.extend(grants);
        self
    }

    /// Makes it name the streams of a tenant.
    #[must_use]
    pub fn with_tenant(mut self, tenant: Option<TenantId>) -> Self {
        self.tenant = tenant;
        self
    }

    /// Ends what it may do at a time.
    #[must_use]
    pub fn with_expiry(mut self, expires: Option<Timestamp>) -> Self {
        self.expires = expires;
        self
    }

    /// Says which credential it used.
    #[must_use]
    pub fn with_credential(mut self, id: impl Into<Arc<str>>) -> Self {
        self.credential = Some(id.into());
        self
    }

    /// Adds what its credential says about it.
    #[must_use]
    pub fn with_claims(mut self, claims: Map<String, Value>) -> Self {
        self.claims = claims;
        self
    }

    /// Whether a grant allows an operation on a path, as the principal names it.
    pub fn allows(&self, operation: Operation, path: &StreamPath) -> bool {
        self.grants.iter().any(|grant| grant.allows(operation, path))
    }

    /// Whether one grant allows an operation on every path that a pattern can match.
    pub fn covers(&self, operation: Operation, pattern: &Glob) -> bool {
        self.grants.iter().any(|grant| grant.covers(operation, pattern))
    }

    /// Whether any grant has this operation, on whatever path.
    pub fn has(&self, operation: Operation) -> bool {
        self.grants.iter().any(|grant| grant.operations.contains(operation))
    }

    /// Whether its time has come.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| now >= end)
    }
}
