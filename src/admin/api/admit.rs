//! Who may use the administration API.

use std::{fmt, sync::Arc};

use durable_streams_auth::{
    AccessError, AccessGuard, CredentialFile, Operation, Principal, RequestHead, TenantId,
};
use durable_streams_engine::Clock;
use durable_streams_pingora::transport::render_access_error;
use durable_streams_protocol::subscription::Glob;
use http::{Method, StatusCode, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use super::{AdminApi, ApiRefusal};
use crate::{admin::response::rendered, edge::AllowedHosts};

/// Who may use the administration API.
#[derive(Clone, Default)]
pub enum AdminAccess {
    /// Nobody.
    #[default]
    Closed,
    /// Everybody who reaches the listener, which is on loopback; there are no credentials to ask for. Requests that a web
    /// page of another host made are refused, and changes that one of another origin made.
    Loopback,
    /// Principals that may [administer](Operation::Administer) everything, or everything of their tenant. A service of the
    /// operator's that decides about requests sees the path and the query of this API as they were sent.
    Guarded {
        /// Decides.
        guard: AccessGuard,
        /// What the endpoints of keys and projects change.
        credentials: Option<Arc<CredentialFile>>,
    },
}

/// On whose behalf a request is made.
#[derive(Clone)]
pub(super) struct Administrator {
    pub(super) identity: Arc<str>,
    /// The tenant whose streams it sees; `None` for all of them.
    pub(super) tenant: Option<TenantId>,
    /// What says whether it may go on; `None` where there are no credentials.
    pub(super) granted: Option<(AccessGuard, Arc<Principal>)>,
}

impl fmt::Display for Administrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.identity)
    }
}

impl AdminApi {
    /// Lets a request through, or refuses it.
    pub(super) async fn admit(&self, session: &ServerSession) -> Result<Administrator, ApiRefusal> {
        let request = session.req_header();
        match &self.access {
            AdminAccess::Closed => {
                let detail = "the administration API is off: it needs an auth section in the configuration, or an admin \
                              listener on loopback, and not admin.api: false";
                Err(ApiRefusal::new(StatusCode::NOT_FOUND, "not-found", detail))
            }
            AdminAccess::Loopback => match AllowedHosts::default().refuse(request) {
                Some(refused) => Err(rendered(refused.response()).into()),
                None => {
                    if !matches!(request.method, Method::GET | Method::HEAD) {
                        refuse_other_origins(request)?;
                    }
                    Ok(Administrator { identity: "local".into(), tenant: None, granted: None })
                }
            },
            AdminAccess::Guarded { guard, .. } => {
                let client = session.client_addr().and_then(|address| address.as_inet());
                let head = RequestHead {
                    method: &request.method,
                    query: request.uri.query(),
                    headers: &request.headers,
                    path: None,
                    other_path: Some(request.uri.path()),
                    client: client.map(|address| address.ip()),
                    certificate: None,
                    now: Clock::System.now(),
                };
                let principal = guard.authenticate(&head).await.map_err(|error| refused(&error))?;
                let everything =
                    Glob::parse("**").map_err(|_| refused(&AccessError::NotAllowed))?;
                if !principal.covers(Operation::Administer, &everything) {
                    let error = match principal.anonymous {
                        true => AccessError::NoCredentials,
                        false => AccessError::NotAllowed,
                    };
                    tracing::info!(target: "audit", who = %principal.identity, path = request.uri.path(), "administration refused");
                    return Err(refused(&error));
                }
                let (identity, tenant) = (principal.identity.clone(), principal.tenant.clone());
                let granted = Some((guard.clone(), principal));
                Ok(Administrator { identity, tenant, granted })
            }
        }
    }

    /// The file of keys and projects.
    pub(super) fn credentials(&self) -> Result<&CredentialFile, ApiRefusal> {
        let AdminAccess::Guarded { credentials: Some(file), .. } = &self.access else {
            let detail = "there is no credentials file: set auth.credentials in the configuration";
            return Err(ApiRefusal::new(StatusCode::CONFLICT, "no-credentials-file", detail));
        };
        Ok(file)
    }
}

/// Refuses what a page of another origin has a browser send: another page of this machine, too, whose host is as good as the
/// listener's.
pub(super) fn refuse_other_origins(request: &RequestHeader) -> Result<(), ApiRefusal> {
    let text = |name| request.headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let site = text(header::HeaderName::from_static("sec-fetch-site"));
    let by_site = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
    let host = text(header::HOST).unwrap_or_default();
    let origin = text(header::ORIGIN);
    let by_origin = origin.is_none_or(|origin| {
        origin.split_once("://").is_some_and(|(_, authority)| authority == host)
    });
    if by_site && by_origin {
        return Ok(());
    }
    let detail =
        "a page of another origin may not change anything here, nor use the data of streams";
    Err(ApiRefusal::new(StatusCode::FORBIDDEN, "origin-not-allowed", detail))
}

fn refused(error: &AccessError) -> ApiRefusal {
    let detail = match error {
        AccessError::NotAllowed => {
            "these credentials do not administer; `key create --allow administer` makes some that do".to_owned()
        }
        other => other.to_string(),
    };
    rendered(render_access_error(error, detail)).into()
}
