//! `/admin/v1/data/{path}`: the data of streams, by the stream routes' own code, for the page that the same listener serves.
//!
//! The routes get a guard of their own for each request: it lets the administrator do everything with the streams of one
//! tenant, or of none, and nothing with subscriptions.

use std::sync::Arc;

use async_trait::async_trait;
use durable_streams_auth::{
    AccessControl, AccessError, AccessGuard, Grant, GuardOptions, OperationSet, Principal,
    RequestHead, TenantId,
};
use durable_streams_pingora::{
    AllowedOrigins, AuditLevel, BrowserRules, CorsPolicy, StreamOptions, transport::StreamRequest,
};
use durable_streams_protocol::Timestamp;
use http::{HeaderValue, Method, Response, StatusCode, header};
use pingora::protocols::http::ServerSession;

use super::{
    AdminApi, ApiRefusal, MAX_DATA_REQUESTS,
    admit::{Administrator, refuse_other_origins},
    request::{confined, tenant_of},
};
use crate::admin::{response::problem, serve::write};

/// Seconds after which a refused request may come again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The route of the streams on this listener.
const ROUTE: &str = "/admin/v1/data";

/// Whether a path is that of a stream's data.
pub(in crate::admin) fn is_data(path: &str) -> bool {
    path.strip_prefix(ROUTE).is_some_and(|rest| rest.starts_with('/'))
}

impl AdminApi {
    /// Answers one request for the data of a stream; the response is written to its end.
    pub(in crate::admin) async fn exchange_data(&self, session: &mut ServerSession) {
        let allowed = self.allow_data(session).await;
        let (who, guard) = match allowed {
            Ok(allowed) => allowed,
            Err(refusal) => return write(session, *refusal.0).await,
        };
        let Ok(_place) = self.data_places.try_acquire() else {
            return write(session, too_many_requests()).await;
        };
        let options = self.data_options();
        let mut streams = self.streams.clone();
        streams.protect(guard, AuditLevel::Off);
        let request = StreamRequest::parse(&options, session.req_header());
        let mut reply = streams.reply(session, &options, request).await;
        let head = session.req_header();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let delivered = streams.deliver(&mut reply, session).await;
        if let Err(error) = &delivered.result {
            tracing::debug!(%error, "a client of the admin listener left inside its response");
        }
        if !matches!(method, Method::GET | Method::HEAD) {
            let refused = delivered.problem;
            tracing::info!(target: "audit", %who, %method, path, refused, "administration");
        }
    }

    /// Whose request it is, and the guard that lets it do what it asks for.
    async fn allow_data(
        &self,
        session: &ServerSession,
    ) -> Result<(Administrator, AccessGuard), ApiRefusal> {
        let who = self.admit(session).await?;
        let request = session.req_header();
        refuse_other_origins(request)?;
        let query = request.uri.query().unwrap_or_default().as_bytes();
        let named = url::form_urlencoded::parse(query).find(|(name, _)| name == "tenant");
        let named = tenant_of(named.as_ref().map(|(_, value)| &**value))?;
        let tenant = confined(&who, named)?;
        let control = DataAccess::new(&who, tenant);
        let options = GuardOptions { hide_unreadable: false, public_streams: true };
        Ok((who, AccessGuard::new(Arc::new(control), options)))
    }

    /// The settings of the stream routes, at this listener's path and without what is for pages of other origins.
    fn data_options(&self) -> StreamOptions {
        let no_origins = AllowedOrigins::Listed { origins: Vec::new(), credentials: false };
        StreamOptions {
            route: ROUTE.to_owned(),
            cors: CorsPolicy::new(no_origins, &[]),
            browser: BrowserRules::default(),
            ..self.edge.stream_options()
        }
    }
}

fn too_many_requests() -> Response<Vec<u8>> {
    let detail = format!(
        "{MAX_DATA_REQUESTS} requests for data are open on this listener; close a tail, or read from the stream route"
    );
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "too-many-data-requests", &detail);
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

/// Lets an administrator do everything with the streams of a tenant, or with those of none.
struct DataAccess {
    principal: Arc<Principal>,
    granted: Option<(AccessGuard, Arc<Principal>)>,
}

impl DataAccess {
    fn new(who: &Administrator, tenant: Option<TenantId>) -> Self {
        let everything = Grant::everywhere(OperationSet::ALL);
        let principal = Principal::new(who.identity.clone());
        let principal = Arc::new(principal.with_tenant(tenant).with_grant(everything));
        DataAccess { principal, granted: who.granted.clone() }
    }
}

#[async_trait]
impl AccessControl for DataAccess {
    fn name(&self) -> &str {
        "administration"
    }

    async fn authenticate(&self, _: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        Ok(self.principal.clone())
    }

    /// As long as the credentials that the request came with.
    fn is_current(&self, _: &Principal, now: Timestamp) -> bool {
        self.granted.as_ref().is_none_or(|(guard, principal)| guard.is_current(principal, now))
    }
}
