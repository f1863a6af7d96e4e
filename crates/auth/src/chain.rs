//! Several providers, asked one after another.

use std::sync::Arc;

use async_trait::async_trait;
use durable_streams_protocol::{StreamPath, Timestamp, subscription::Glob};

use crate::{AccessControl, AccessError, Operation, Principal, RequestHead};

/// Providers, asked in the order in which they were added.
///
/// The first provider that recognises a credential decides: neither its refusal nor its success is seen by
/// the ones behind it. A provider that finds no credential, or one that it did not issue, leaves the
/// request to the next. When none is left, the request is refused with
/// [`AccessError::UnknownCredentials`] if any of them saw a credential, else with
/// [`AccessError::NoCredentials`].
///
/// What a principal may do is decided by the provider that authenticated it.
#[derive(Default)]
pub struct ProviderChain {
    providers: Vec<(Arc<str>, Arc<dyn AccessControl>)>,
}

/// A second provider of the same name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two providers are named {0:?}; each needs a name of its own")]
pub struct DuplicateProvider(pub String);

impl ProviderChain {
    /// A chain without providers; it refuses every request.
    pub fn new() -> Self {
        ProviderChain::default()
    }

    /// Adds a provider behind the others.
    ///
    /// # Errors
    /// When one of them has the same name, since a principal is led back to its provider by that name.
    pub fn push(&mut self, provider: Arc<dyn AccessControl>) -> Result<(), DuplicateProvider> {
        let name: Arc<str> = provider.name().into();
        if self.providers.iter().any(|(other, _)| *other == name) {
            return Err(DuplicateProvider(name.as_ref().into()));
        }
        self.providers.push((name, provider));
        Ok(())
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.providers.iter().map(|(name, _)| &**name)
    }

    fn provider_of(&self, principal: &Principal) -> Option<&dyn AccessControl> {
        let found = self.providers.iter().find(|(name, _)| *name == principal.provider);
        found.map(|(_, provider)| &**provider)
    }
}

#[async_trait]
impl AccessControl for ProviderChain {
    fn name(&self) -> &str {
        "chain"
    }

    async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        let mut refusal = AccessError::NoCredentials;
        for (name, provider) in &self.providers {
            match (**provider).authenticate(head).await {
                // Anonymous access must not forgive a wrong credential.
                Ok(principal) if principal.anonymous && refusal != AccessError::NoCredentials => {
                    return Err(refusal);
                }
                Ok(principal) if principal.provider == *name => return Ok(principal),
                // A provider that does not know the name under which it was added.
                Ok(principal) => {
                    let mut named = Arc::unwrap_or_clone(principal);
                    named.provider = name.clone();
                    return Ok(Arc::new(named));
                }
                Err(AccessError::UnknownCredentials) => refusal = AccessError::UnknownCredentials,
                Err(AccessError::NoCredentials) => {}
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }

    async fn authorize(
        &self,
        head: &RequestHead<'_>,
        principal: &Principal,
        operation: Operation,
        path: &StreamPath,
    ) -> Result<(), AccessError> {
        match self.provider_of(principal) {
            Some(provider) => provider.authorize(head, principal, operation, path).await,
            None => Err(AccessError::NotAllowed),
        }
    }

    fn covers(&self, principal: &Principal, operation: Operation, pattern: &Glob) -> bool {
        self.provider_of(principal)
            .is_some_and(|provider| provider.covers(principal, operation, pattern))
    }

    fn is_current(&self, principal: &Principal, now: Timestamp) -> bool {
        self.provider_of(principal).is_some_and(|provider| provider.is_current(principal, now))
    }

    /// Only where no provider before its own looks at more than the header.
    fn may_be_remembered(&self, principal: &Principal) -> bool {
        for (name, provider) in &self.providers {
            if !provider.may_be_remembered(principal) {
                return false;
            }
            if *name == principal.provider {
                return true;
            }
        }
        false
    }

    fn revision(&self) -> u64 {
        let revisions = self.providers.iter().map(|(_, provider)| provider.revision());
        // Each only grows, so the sum changes whenever one of them does.
        revisions.fold(0, u64::wrapping_add)
    }
}
