//! The seam: what the server asks before a request reaches a stream.

use std::{net::IpAddr, pin::Pin, sync::Arc};

use async_trait::async_trait;
use durable_streams_protocol::{StreamPath, Timestamp, subscription::Glob};
use http::{HeaderMap, Method};

use crate::{AccessError, Operation, Principal};

/// The head of a request, as far as access depends on it.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The query, without `?`, as it was sent.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The stream that the URL names, in the client's words; `None` for a control request (§6), and for one that is not
    /// about streams.
    pub path: Option<&'a StreamPath>,
    /// The path of the URL, where that is outside the stream route: the administration API's.
    pub other_path: Option<&'a str>,
    /// The client's address, when it is known.
    pub client: Option<IpAddr>,
    /// The certificate (DER) by which the client proved its identity in the TLS handshake. Never taken from
    /// a header.
    pub certificate: Option<&'a [u8]>,
    /// The time.
    pub now: Timestamp,
}

/// Decides who a request comes from and what it may do. All ready-made providers are built on this.
///
/// # Example
///
/// One secret for everything, compared in constant time:
///
/// ```
/// use std::sync::Arc;
/// use durable_streams_auth::{
///     AccessControl, AccessError, Grant, OperationSet, Principal, RequestHead, bearer, secrets_match,
/// };
///
/// struct OneSecret(String);
///
/// #[async_trait::async_trait]
/// impl AccessControl for OneSecret {
///     fn name(&self) -> &str {
///         "one-secret"
///     }
///
///     async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
///         let token = bearer(head)?.ok_or(AccessError::NoCredentials)?;
///         if !secrets_match(token, &self.0) {
///             return Err(AccessError::InvalidCredentials("wrong secret"));
///         }
///         let everything = Grant::everywhere(OperationSet::ALL);
///         Ok(Arc::new(Principal::new("owner").with_grant(everything)))
///     }
/// }
/// ```
#[async_trait]
pub trait AccessControl: Send + Sync {
    /// Names the provider in configuration, logs and [`Principal::provider`].
    fn name(&self) -> &str;

    /// Returns the principal on whose behalf the request is made.
    ///
    /// # Errors
    /// [`AccessError::NoCredentials`] and [`AccessError::UnknownCredentials`] leave the request to the next
    /// provider of a chain; any other error is final.
    async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError>;

    /// Decides whether the principal may do an operation on a stream, named in the client's words. It is
    /// called for each stream that a request touches: a fork's source too, whose path is not the head's.
    ///
    /// # Errors
    /// [`AccessError::NotAllowed`], or [`AccessError::Unavailable`]. The default goes by
    /// [`Principal::grants`].
    async fn authorize(
        &self,
        _head: &RequestHead<'_>,
        principal: &Principal,
        operation: Operation,
        path: &StreamPath,
    ) -> Result<(), AccessError> {
        if principal.allows(operation, path) { Ok(()) } else { Err(AccessError::NotAllowed) }
    }

    /// Whether the principal may do an operation on every stream that a pattern can match; `false` where that
    /// cannot be proved. The default goes by [`Principal::grants`].
    fn covers(&self, principal: &Principal, operation: Operation, pattern: &Glob) -> bool {
        principal.covers(operation, pattern)
    }

    /// Whether an authenticated principal may still go on: a live read ends soon after this turns `false`.
    /// The default goes by [`Principal::expires`]; a provider whose credentials can be revoked adds that.
    fn is_current(&self, principal: &Principal, now: Timestamp) -> bool {
        !principal.is_expired(now)
    }

    /// Whether a guard may remember a principal of this provider for the header that carried its credential: every
    /// request with the same `Authorization` or `X-Api-Key` then is the same principal's, whatever else it carries,
    /// until it expires or [`revision`](Self::revision) changes, and [`authorize`](Self::authorize) goes by the
    /// principal's grants alone. A chain also passes principals of the providers behind this one: may they be
    /// remembered, although this provider would see the request first?
    ///
    /// The default is `false`: the provider decides about every request.
    fn may_be_remembered(&self, _principal: &Principal) -> bool {
        false
    }

    /// Changes with every revocation, new key and reload, after which principals that were remembered before are
    /// authenticated again. It need not count what a principal's expiry says.
    fn revision(&self) -> u64 {
        0
    }
}

/// Written without `async_trait`, whose future would wrap the provider's own in another one.
impl<T: AccessControl + ?Sized> AccessControl for Arc<T> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn authenticate<'own, 'head, 'fields, 'call>(
        &'own self,
        head: &'head RequestHead<'fields>,
    ) -> BoxedVerdict<'call, Arc<Principal>>
    where
        Self: 'call,
        'own: 'call,
        'head: 'call,
        'fields: 'call,
    {
        (**self).authenticate(head)
    }

    fn authorize<'own, 'head, 'fields, 'principal, 'path, 'call>(
        &'own self,
        head: &'head RequestHead<'fields>,
        principal: &'principal Principal,
        operation: Operation,
        path: &'path StreamPath,
    ) -> BoxedVerdict<'call, ()>
    where
        Self: 'call,
        'own: 'call,
        'head: 'call,
        'fields: 'call,
        'principal: 'call,
        'path: 'call,
    {
        (**self).authorize(head, principal, operation, path)
    }

    fn covers(&self, principal: &Principal, operation: Operation, pattern: &Glob) -> bool {
        (**self).covers(principal, operation, pattern)
    }

    fn is_current(&self, principal: &Principal, now: Timestamp) -> bool {
        (**self).is_current(principal, now)
    }

    fn may_be_remembered(&self, principal: &Principal) -> bool {
        (**self).may_be_remembered(principal)
    }

    fn revision(&self) -> u64 {
        (**self).revision()
    }
}

type BoxedVerdict<'call, T> = Pin<Box<dyn Future<Output = Result<T, AccessError>> + Send + 'call>>;
