//! Access: whether the client may do what its request asks for, decided before the engine is called.
//!
//! Without [`DurableStreams::protect`] everything is allowed, at the price of one branch.
//!
//! | request | needs |
//! |---|---|
//! | `PUT` | create; for a fork, read on its source too |
//! | `POST` | append; with `Stream-Closed: true` close too, or close alone when it has no body |
//! | `PUT` with `public=true` | publish too |
//! | `GET`, `HEAD` | read, or that the stream is public |
//! | `DELETE` | delete |
//! | `OPTIONS`, `__ds/jwks.json` | nothing |
//! | `callback`, `ack`, `release` of a subscription | the token that the protocol issued for them (§12.9) |
//! | `GET`, `HEAD` of `__ds/lifecycle` | administer, or read on this very path, and no tenant |
//! | anything else under `__ds` | subscribe and read on all that the subscription links; `control` decides |

use std::{mem, sync::Arc, time::Duration};

use durable_streams_auth::{
    AccessError, AccessGuard, Admitted, Operation, OperationSet, Principal, RequestHead,
    RequestSize,
};
use durable_streams_engine::Engine;
use durable_streams_protocol::{
    LIFECYCLE_PATH, Rejection, Request, Response, StreamPath, render_problem, render_rejection,
};
use durable_streams_subscriptions::ControlAuthority;
use http::header;
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;

use super::{
    body::BodyHead,
    caching::AccessCaching,
    operations::{operations, size},
    rights::{AccessRights, find_public},
};
use crate::{DurableStreams, StreamOptions, forwarded, request::RequestTarget};

/// The target of refusals and of changes that were allowed, to filter on.
pub const AUDIT_TARGET: &str = "audit";

/// Which decisions are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditLevel {
    /// None.
    Off,
    /// Refusals.
    #[default]
    Refused,
    /// All of them.
    All,
}

/// The guard of the routes.
#[derive(Clone)]
pub(crate) struct StreamAccess {
    pub(super) guard: Arc<AccessGuard>,
    audit: AuditLevel,
    caching: AccessCaching,
}

/// A request that may be dispatched.
pub(super) struct AdmittedRequest {
    /// With the paths under which its streams are stored.
    pub(super) target: RequestTarget,
    /// The client's name for the stream, where that is another.
    pub(super) named: Option<StreamPath>,
    /// Whom the reply is for; `None` for requests that need no principal.
    pub(super) rights: Option<AccessRights>,
    /// For a request about subscriptions: by what right it is made.
    pub(super) control: ControlAuthority,
}

impl AdmittedRequest {
    /// A request for which no principal is needed.
    pub(super) fn unprivileged(target: RequestTarget, control: ControlAuthority) -> Self {
        AdmittedRequest { target, named: None, rights: None, control }
    }
}

/// Why a request is not dispatched.
pub(super) enum Denial {
    Access(AccessError),
    Rejected(Rejection),
}

impl From<AccessError> for Denial {
    fn from(error: AccessError) -> Self {
        match error {
            // The very response that a client gets where there is no stream.
            AccessError::Hidden => Denial::Rejected(Rejection::NotFound),
            error => Denial::Access(error),
        }
    }
}

impl Denial {
    pub(super) fn response(&self) -> (Response, &'static str) {
        match self {
            Denial::Rejected(rejection) => (render_rejection(rejection), rejection.code()),
            Denial::Access(error) => (render_access_error(error, error.to_string()), error.code()),
        }
    }
}

/// The response to a request that access control refuses; `detail` is for people.
pub fn render_access_error(error: &AccessError, detail: String) -> Response {
    let after = error.retry_after().map(Duration::from_secs);
    let mut response = render_problem(error.status(), error.code(), detail, after);
    if let AccessError::RateLimited(refusal) = error {
        response.headers.extend(refusal.fields());
    }
    if let Some(challenge) = error.challenge() {
        response.headers.push((header::WWW_AUTHENTICATE, challenge));
    }
    response
}

impl DurableStreams {
    /// Lets a guard decide about every request from now on.
    pub fn protect(&mut self, guard: AccessGuard, audit: AuditLevel) {
        let (guard, caching) = (Arc::new(guard), AccessCaching::default());
        self.access = Some(Arc::new(StreamAccess { guard, audit, caching }));
    }

    /// Says what caches may do with the responses of [protected](Self::protect) streams.
    pub fn cache_protected(&mut self, caching: AccessCaching) {
        if let Some(access) = &mut self.access {
            Arc::make_mut(access).caching = caching;
        }
    }

    /// Lets a request through whose credential was verified a moment ago; `Err` with its target leaves the decision to
    /// [`admit`](Self::admit).
    ///
    /// Measured: 3,900 -> 2,900 instructions for an append with an API key, beyond one without `auth` (docs/benchmarks.md).
    pub(super) fn admit_known(
        &self,
        access: &StreamAccess,
        request: &RequestHeader,
        target: RequestTarget,
    ) -> Result<AdmittedRequest, RequestTarget> {
        let RequestTarget::Stream(path, parsed) = &target else { return Err(target) };
        let forks = matches!(parsed, Request::Create(create) if create.fork.is_some());
        let closes = matches!(parsed, Request::Append(append) if append.close);
        // A closing request is judged by its body too, a fork by its source.
        if forks || closes || access.audit == AuditLevel::All {
            return Err(target);
        }
        let head = RequestHead {
            method: &request.method,
            query: None,
            headers: &request.headers,
            path: None,
            other_path: None,
            client: None,
            certificate: None,
            now: self.engine.now(),
        };
        let operations = operations(parsed, false);
        let Some(Admitted { principal, stored }) =
            access.guard.admit_known(&head, operations, path)
        else {
            return Err(target);
        };
        let mut admitted = AdmittedRequest::unprivileged(target, ControlAuthority::WakeToken);
        admitted.rights = Some(AccessRights::of(&access.guard, principal));
        if let RequestTarget::Stream(path, _) = &mut admitted.target
            && *path != stored
        {
            admitted.named = Some(mem::replace(path, stored));
        }
        Ok(admitted)
    }

    /// Lets a request through, with the paths under which its streams are stored.
    pub(super) async fn admit(
        &self,
        access: &StreamAccess,
        session: &mut ServerSession,
        options: &StreamOptions,
        target: RequestTarget,
    ) -> Result<AdmittedRequest, Denial> {
        let body = BodyHead::of(session);
        let peer = forwarded::peer_addr(session);
        let tls = session.digest().and_then(|digest| digest.ssl_digest.as_deref());
        let request = session.req_header();
        let path = match &target {
            RequestTarget::Stream(path, _) => Some(path.clone()),
            RequestTarget::Subscriptions(_) | RequestTarget::Invalid(_) => None,
        };
        let head = RequestHead {
            method: &request.method,
            query: request.uri.query(),
            headers: &request.headers,
            path: path.as_ref(),
            other_path: None,
            client: forwarded::client_ip(request, peer, &options.trusted_proxies),
            // As the TLS handshake verified it, DER.
            certificate: tls.map(|tls| tls.cert_digest.as_slice()),
            now: self.engine.now(),
        };
        match target {
            RequestTarget::Stream(path, request) if path.as_str() == LIFECYCLE_PATH => {
                access.lifecycle(&head, path, request).await
            }
            RequestTarget::Stream(path, request) => {
                let operations = operations(&request, body.absent);
                let size = size(&request, body.declared);
                access.stream(&self.engine, &head, path, request, operations, size).await
            }
            RequestTarget::Subscriptions(rest) => {
                let (control, rights) = access.control(&head, &rest).await?;
                let target = RequestTarget::Subscriptions(rest);
                Ok(AdmittedRequest { target, named: None, rights, control })
            }
            // Says nothing about any stream.
            RequestTarget::Invalid(_) => {
                Ok(AdmittedRequest::unprivileged(target, ControlAuthority::WakeToken))
            }
        }
    }
}

impl StreamAccess {
    /// What caches may do with responses.
    pub(super) fn caching(&self) -> &AccessCaching {
        &self.caching
    }

    /// Who the request comes from and where its stream is stored; or the refusal, with the principal if there is one.
    async fn granted(
        &self,
        head: &RequestHead<'_>,
        path: &StreamPath,
        operations: OperationSet,
    ) -> Result<(StreamPath, Arc<Principal>), (AccessError, Option<Arc<Principal>>)> {
        let principal = self.guard.authenticate(head).await.map_err(|error| (error, None))?;
        match self.guard.admit_path(head, &principal, operations, path).await {
            Ok(stored) => Ok((stored, principal)),
            Err(error) => Err((error, Some(principal))),
        }
    }

    async fn stream(
        &self,
        engine: &Engine,
        head: &RequestHead<'_>,
        path: StreamPath,
        mut request: Request,
        operations: OperationSet,
        size: RequestSize,
    ) -> Result<AdmittedRequest, Denial> {
        if matches!(request, Request::Preflight) {
            let target = RequestTarget::Stream(path, request);
            return Ok(AdmittedRequest::unprivileged(target, ControlAuthority::WakeToken));
        }
        let reads = matches!(request, Request::Read(_) | Request::Head);
        let (stored, principal) = match self.granted(head, &path, operations).await {
            Ok(granted) => granted,
            Err((error, principal)) => {
                let public = match self.guard.public_path(principal.as_deref(), &path, &error) {
                    Some(stored) if reads => find_public(engine, stored).await,
                    _ => None,
                };
                let refused = public.is_none().then_some(&error);
                self.log(head, principal.as_deref(), operations, refused);
                let Some(stored) = public else { return Err(error.into()) };
                let mut rights = AccessRights::of_public(&self.guard);
                self.charge(&mut rights, head, &path, size)?;
                let named = (stored != path).then_some(path);
                let target = RequestTarget::Stream(stored, request);
                return Ok(AdmittedRequest {
                    target,
                    named,
                    rights: Some(rights),
                    control: ControlAuthority::WakeToken,
                });
            }
        };
        self.log(head, Some(&principal), operations, None);
        if let Request::Create(create) = &mut request
            && let Some(fork) = &mut create.fork
        {
            let read = OperationSet::of(Operation::Read);
            let source = self.guard.admit_path(head, &principal, read, &fork.source);
            fork.source = match source.await {
                Ok(source) => source,
                Err(AccessError::Hidden) => {
                    return Err(Denial::Rejected(Rejection::SourceNotFound));
                }
                Err(error) => return Err(error.into()),
            };
        }
        let mut rights = AccessRights::of(&self.guard, principal);
        self.charge(&mut rights, head, &path, size)?;
        let rights = Some(rights);
        let named = (stored != path).then_some(path);
        Ok(AdmittedRequest {
            target: RequestTarget::Stream(stored, request),
            named,
            rights,
            control: ControlAuthority::WakeToken,
        })
    }

    /// The principal that reads the lifecycle stream.
    /// [`StreamRequest::parse`](crate::request::StreamRequest::parse) lets only reads of it through.
    async fn lifecycle(
        &self,
        head: &RequestHead<'_>,
        path: StreamPath,
        request: Request,
    ) -> Result<AdmittedRequest, Denial> {
        let target = |request| RequestTarget::Stream(path.clone(), request);
        if matches!(request, Request::Preflight) {
            let control = ControlAuthority::WakeToken;
            return Ok(AdmittedRequest::unprivileged(target(request), control));
        }
        let read = OperationSet::of(Operation::Read);
        let principal = match self.guard.admit_system(head, &path).await {
            Ok(principal) => principal,
            Err((error, principal)) => {
                self.log(head, principal.as_deref(), read, Some(&error));
                return Err(error.into());
            }
        };
        self.log(head, Some(&principal), read, None);
        let mut rights = AccessRights::of(&self.guard, principal);
        self.charge(&mut rights, head, &path, size(&request, None))?;
        let mut admitted =
            AdmittedRequest::unprivileged(target(request), ControlAuthority::WakeToken);
        admitted.rights = Some(rights);
        Ok(admitted)
    }

    fn charge(
        &self,
        rights: &mut AccessRights,
        head: &RequestHead<'_>,
        path: &StreamPath,
        size: RequestSize,
    ) -> Result<(), Denial> {
        let charged = rights.charge(head, path, size);
        charged.map_err(|error| {
            self.log(head, rights.principal(), OperationSet::NONE, Some(&error));
            error.into()
        })
    }

    pub(super) fn log(
        &self,
        head: &RequestHead<'_>,
        principal: Option<&Principal>,
        operations: OperationSet,
        refused: Option<&AccessError>,
    ) {
        let logged = match self.audit {
            AuditLevel::Off => false,
            AuditLevel::Refused => refused.is_some(),
            AuditLevel::All => true,
        };
        if !logged {
            return;
        }
        tracing::info!(
            target: AUDIT_TARGET,
            allowed = refused.is_none(),
            reason = refused.map(AccessError::code),
            operation = %operations,
            path = head.path.map(StreamPath::as_str),
            identity = principal.map(|one| &*one.identity),
            provider = principal.map(|one| &*one.provider),
            credential = principal.and_then(|one| one.credential.as_deref()),
            tenant = principal.and_then(|one| one.tenant.as_ref()).map(tracing::field::display),
            client = head.client.map(tracing::field::display),
            "{}", if refused.is_none() { "allowed" } else { "refused" },
        );
    }
}
