//! The one place where a request is let through or refused.

use std::sync::Arc;

use durable_streams_protocol::{StreamPath, Timestamp, subscription::Glob};

use crate::{
    AccessControl, AccessError, Operation, OperationSet, Principal, RequestHead,
    live_readers::{LiveReaders, ReaderPermit, ReaderQuotas},
    memo::{CredentialHeader, CredentialMemo},
    meter::ByteMeter,
    rates::{RateLimits, RateRules},
    stored_path,
};

/// How refusals look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardOptions {
    /// A principal that may not read a stream gets a 404 for every operation on it but create, as if it
    /// did not exist, instead of a 403.
    pub hide_unreadable: bool,
    /// Streams may be made public, and public ones are readable without credentials. Otherwise nobody may make one,
    /// and those that were made before are read as any other stream.
    pub public_streams: bool,
}

impl Default for GuardOptions {
    fn default() -> Self {
        GuardOptions { hide_unreadable: true, public_streams: true }
    }
}

/// Authenticates, authorises and maps paths: what stands between a request and the engine.
#[derive(Clone)]
pub struct AccessGuard {
    control: Arc<dyn AccessControl>,
    memo: Arc<CredentialMemo>,
    options: GuardOptions,
    rates: Option<Arc<RateLimits>>,
    readers: Option<Arc<LiveReaders>>,
}

/// What a request takes beside its place among the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestSize {
    /// A body of so many bytes, as far as its head tells.
    Body(usize),
    /// A response with bytes of a stream.
    Read,
    /// A live read.
    LiveRead,
}

/// A request that was let through.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// On whose behalf.
    pub principal: Arc<Principal>,
    /// Where the stream is stored.
    pub stored: StreamPath,
}

impl AccessGuard {
    /// A guard that goes by `control`.
    pub fn new(control: Arc<dyn AccessControl>, options: GuardOptions) -> Self {
        let memo = Arc::new(CredentialMemo::new());
        AccessGuard { control, memo, options, rates: None, readers: None }
    }

    /// The same guard, which lets requests through at certain rates only.
    #[must_use]
    pub fn with_rates(mut self, rules: RateRules) -> Self {
        self.rates = Some(Arc::new(RateLimits::new(rules)));
        self
    }

    /// The same guard, which lets so many live readers through only.
    #[must_use]
    pub fn with_reader_quotas(mut self, quotas: ReaderQuotas) -> Self {
        self.readers = Some(Arc::new(LiveReaders::new(quotas)));
        self
    }

    /// Takes a request that was let through off the rates of its path and of bytes, and a live read off the quotas.
    /// Returns what its bytes are taken from, and the place of the live read. `path` is the client's name for the
    /// stream.
    ///
    /// # Errors
    /// [`AccessError::RateLimited`].
    pub fn charge(
        &self,
        head: &RequestHead<'_>,
        principal: Option<&Principal>,
        path: &StreamPath,
        size: RequestSize,
    ) -> Result<(Option<ByteMeter>, Option<ReaderPermit>), AccessError> {
        let tenant = principal.and_then(|one| one.tenant.as_ref());
        let tenantless = tenant.is_none().then_some(path);
        let mut meter = None;
        if let Some(rates) = &self.rates {
            tenantless.map_or(Ok(()), |path| rates.path(path))?;
            meter = rates.meter(head, principal, tenantless);
        }
        match (&meter, size) {
            (Some(meter), RequestSize::Body(bytes)) => meter.take(bytes, head.now)?,
            (Some(meter), RequestSize::Read | RequestSize::LiveRead) => meter.begin(head.now)?,
            (None, _) => {}
        }
        let readers = self.readers.as_ref().filter(|_| size == RequestSize::LiveRead);
        let permit = readers.map(|readers| readers.enter(head, principal, tenantless));
        Ok((meter, permit.transpose()?))
    }

    /// Takes a request that needs no principal off the rate of its client's address.
    ///
    /// # Errors
    /// [`AccessError::RateLimited`].
    pub fn charge_client(&self, head: &RequestHead<'_>) -> Result<(), AccessError> {
        self.rates.as_ref().map_or(Ok(()), |rates| rates.client(head))
    }

    /// The principal of a request.
    ///
    /// # Errors
    /// As [`AccessControl::authenticate`], and [`AccessError::RateLimited`]; a principal whose time has come is
    /// [`AccessError::InvalidCredentials`], whatever its provider says.
    pub async fn authenticate(
        &self,
        head: &RequestHead<'_>,
    ) -> Result<Arc<Principal>, AccessError> {
        self.charge_client(head)?;
        let header = CredentialHeader::of(head.headers);
        // Before the providers look at their keys: what changes meanwhile makes the entry old, never new.
        let revision = self.control.revision();
        let known = header.and_then(|header| self.memo.find(header, revision, head.now));
        let principal = match known {
            Some(known) => known,
            None => {
                let principal = self.verify(head).await?;
                if let Some(header) = header
                    && self.control.may_be_remembered(&principal)
                {
                    self.memo.insert(header, revision, &principal, head.now);
                }
                principal
            }
        };
        if let Some(rates) = &self.rates {
            rates.principal(&principal)?;
        }
        Ok(principal)
    }

    /// Asks the providers, in their order, for the principal of the request.
    async fn verify(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        let principal = (*self.control).authenticate(head).await?;
        if !self.control.is_current(&principal, head.now) {
            return Err(AccessError::InvalidCredentials("they have expired or were revoked"));
        }
        Ok(principal)
    }

    /// Lets a request do all of `operations` on a stream without calling a provider: its credential was verified a
    /// moment ago, and the principal's grants allow them. `None` decides nothing; so it is wherever requests have rates
    /// or live readers quotas.
    pub fn admit_known(
        &self,
        head: &RequestHead<'_>,
        operations: OperationSet,
        path: &StreamPath,
    ) -> Option<Admitted> {
        let publishes = operations.contains(Operation::Publish);
        if self.rates.is_some() || self.readers.is_some() || publishes || operations.is_empty() {
            return None;
        }
        let header = CredentialHeader::of(head.headers)?;
        let principal = self.memo.find(header, self.control.revision(), head.now)?;
        if !operations.iter().all(|operation| principal.allows(operation, path)) {
            return None;
        }
        let stored = stored_path(principal.tenant.as_ref(), path).ok()?;
        Some(Admitted { principal, stored })
    }

    /// Lets a request do all of `operations` on a stream, or refuses it.
    ///
    /// # Errors
    /// Every [`AccessError`].
    pub async fn admit(
        &self,
        head: &RequestHead<'_>,
        operations: OperationSet,
        path: &StreamPath,
    ) -> Result<Admitted, AccessError> {
        let principal = self.authenticate(head).await?;
        self.admit_principal(head, principal, operations, path).await
    }

    /// The same for a principal that [`AccessGuard::authenticate`] returned for this request: a fork's
    /// source, a subscription's streams.
    ///
    /// # Errors
    /// Every [`AccessError`].
    pub async fn admit_principal(
        &self,
        head: &RequestHead<'_>,
        principal: Arc<Principal>,
        operations: OperationSet,
        path: &StreamPath,
    ) -> Result<Admitted, AccessError> {
        let stored = self.admit_path(head, &principal, operations, path).await?;
        Ok(Admitted { principal, stored })
    }

    /// Where the stream is stored on which a principal of this request may do all of `operations`.
    ///
    /// # Errors
    /// Every [`AccessError`].
    pub async fn admit_path(
        &self,
        head: &RequestHead<'_>,
        principal: &Principal,
        operations: OperationSet,
        path: &StreamPath,
    ) -> Result<StreamPath, AccessError> {
        if operations.is_empty() {
            return Err(AccessError::NotAllowed);
        }
        if operations.contains(Operation::Publish) && !self.options.public_streams {
            return Err(denied(principal));
        }
        // Asked for before the provider is called, whose verdict is a future on the heap.
        let by_grants = self.control.may_be_remembered(principal);
        for operation in operations.iter() {
            if by_grants && principal.allows(operation, path) {
                continue;
            }
            let verdict = (*self.control).authorize(head, principal, operation, path).await;
            if let Err(error) = verdict {
                return Err(self.refusal(head, principal, operation, path, error).await);
            }
        }
        // Only paths that could never have been created fail here.
        stored_path(principal.tenant.as_ref(), path).map_err(|_| AccessError::NotAllowed)
    }

    /// Lets a request read a stream of the server's own: for a principal of no tenant that may administer everything, or has
    /// a grant to read this very path. A pattern with wildcards does not count, since it is meant for streams of clients.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate); [`AccessError::NoCredentials`], [`AccessError::NotAllowed`], or
    /// [`AccessError::Hidden`] where [`GuardOptions::hide_unreadable`] says so.
    pub async fn admit_system(
        &self,
        head: &RequestHead<'_>,
        path: &StreamPath,
    ) -> Result<Arc<Principal>, (AccessError, Option<Arc<Principal>>)> {
        let principal = self.authenticate(head).await.map_err(|error| (error, None))?;
        let everything = Glob::parse("**");
        let administers =
            everything.is_ok_and(|every| principal.covers(Operation::Administer, &every));
        let names = principal.grants.iter().any(|grant| grant.names(Operation::Read, path));
        if principal.tenant.is_none() && (administers || names) {
            return Ok(principal);
        }
        let error = match denied(&principal) {
            AccessError::NotAllowed if self.options.hide_unreadable => AccessError::Hidden,
            error => error,
        };
        Err((error, Some(principal)))
    }

    /// Lets a principal subscribe to every stream that a pattern can match, in the principal's own paths.
    ///
    /// # Errors
    /// [`AccessError::NotAllowed`] unless it provably may read all of them, and subscribe there too;
    /// [`AccessError::NoCredentials`] for an anonymous one.
    pub fn admit_pattern(&self, principal: &Principal, pattern: &Glob) -> Result<(), AccessError> {
        let covers = |operation| self.control.covers(principal, operation, pattern);
        if covers(Operation::Read) && covers(Operation::Subscribe) {
            return Ok(());
        }
        Err(denied(principal))
    }

    /// How refusals look.
    pub fn options(&self) -> GuardOptions {
        self.options
    }

    /// Whether a principal that was let through may still go on.
    pub fn is_current(&self, principal: &Principal, now: Timestamp) -> bool {
        self.control.is_current(principal, now)
    }

    /// Where a stream is stored whose reading was refused, if it is to be read all the same when it is public: the
    /// request has no credentials, or valid ones that do not allow this. `principal` is the request's, if it has one.
    pub fn public_path(
        &self,
        principal: Option<&Principal>,
        path: &StreamPath,
        refused: &AccessError,
    ) -> Option<StreamPath> {
        let readable = match refused {
            AccessError::NoCredentials | AccessError::NotAllowed | AccessError::Hidden => true,
            // Closures refuse like this whatever the request carries.
            AccessError::UnknownCredentials => principal.is_some(),
            AccessError::Forwarded { reads_public, .. } => *reads_public,
            _ => false,
        };
        if !self.options.public_streams || !readable {
            return None;
        }
        stored_path(principal.and_then(|one| one.tenant.as_ref()), path).ok()
    }

    async fn refusal(
        &self,
        head: &RequestHead<'_>,
        principal: &Principal,
        operation: Operation,
        path: &StreamPath,
        error: AccessError,
    ) -> AccessError {
        if error != AccessError::NotAllowed {
            return error;
        }
        if principal.anonymous {
            return denied(principal);
        }
        // That a stream may not be created says nothing about whether one exists.
        let creates = matches!(operation, Operation::Create | Operation::Publish);
        if !self.options.hide_unreadable || creates {
            return AccessError::NotAllowed;
        }
        match (*self.control).authorize(head, principal, Operation::Read, path).await {
            Ok(()) => AccessError::NotAllowed,
            Err(_) => AccessError::Hidden,
        }
    }
}

/// What a principal that may not do something is answered: without credentials, that it needs some.
fn denied(principal: &Principal) -> AccessError {
    if principal.anonymous { AccessError::NoCredentials } else { AccessError::NotAllowed }
}

#[cfg(test)]
mod tests;
