//! The administration API, `/admin/v1` on the admin listener: what the server holds, and who may use it.
//!
//! | file | what it does |
//! |---|---|
//! | `admit` | which principals may use it |
//! | `request` | a request: path, query and body, bounded and checked |
//! | `list`, `list_page` | the list of streams, page by page |
//! | `streams` | one stream |
//! | `usage` | what is stored and asked for, by prefix and tenant |
//! | `data` | the data of streams, through the stream routes |
//! | `subscriptions` | subscriptions |
//! | `jobs` | deletion by prefix and backups, which outlast their requests |
//! | `segments` | sealed segments: the list of all of them |
//! | `server` | status, configuration, log level |
//! | `overview` | counters of the moment and of the last minutes |
//! | `credentials` | keys, projects, signed URLs |
//! | `openapi` | what there is |
//!
//! Invariant: nothing is read or changed before [`AdminApi::admit`] has let the request through, and a change is logged
//! with who made it.

mod admit;
mod credentials;
mod data;
mod jobs;
mod list;
mod list_page;
mod openapi;
mod overview;
mod request;
mod segments;
mod server;
mod streams;
mod subscriptions;
mod usage;

use std::sync::{Arc, OnceLock};

use durable_streams_engine::Engine;
use durable_streams_pingora::DurableStreams;
use durable_streams_subscriptions::Subscriptions;
use http::{Method, Response, StatusCode};
use pingora::protocols::http::ServerSession;
use serde_json::json;
use tokio::sync::Semaphore;

use self::{
    admit::Administrator, jobs::JobTable, openapi::ROOT, overview::OverviewHistory,
    request::ApiRequest, subscriptions::SubscriptionAction,
};
use super::{
    ReloadedKey, ServerControl,
    response::{json, problem},
};
use crate::{edge::EdgeControl, tier::Tier, tls::TlsService};

pub use admit::AdminAccess;
pub(super) use data::is_data;

/// Requests for data at once, of the 128 connections of the listener. A live tail holds one for as long as somebody looks at it;
/// what is left is for health checks, scrapes and the other endpoints.
const MAX_DATA_REQUESTS: usize = 96;

/// Whether a path is the API's.
pub(super) fn is_api(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The administration API. Who may use it is up to [`AdminAccess`].
pub struct AdminApi {
    engine: Arc<Engine>,
    edge: EdgeControl,
    /// Without a guard: each request gets its own.
    streams: DurableStreams,
    /// Set once, after the task of the overview has got its handle.
    subscriptions: Arc<OnceLock<Subscriptions>>,
    history: Arc<OverviewHistory>,
    jobs: JobTable,
    /// Held by a walk over the index for the owners of segments.
    segment_walks: Arc<tokio::sync::Mutex<()>>,
    /// For the requests for data that are open.
    data_places: Semaphore,
    tls: Option<Arc<TlsService>>,
    tier: Option<Tier>,
    /// `None` where the server was embedded without a configuration.
    control: Option<Arc<dyn ServerControl>>,
    access: AdminAccess,
}

/// Why a request is refused, as its response. Boxed: most requests have none.
struct ApiRefusal(Box<Response<Vec<u8>>>);

impl From<Response<Vec<u8>>> for ApiRefusal {
    fn from(response: Response<Vec<u8>>) -> Self {
        ApiRefusal(Box::new(response))
    }
}

impl ApiRefusal {
    fn new(status: StatusCode, code: &str, detail: &str) -> Self {
        problem(status, code, detail).into()
    }
}

/// What an endpoint answers.
type ApiResult = Result<Response<Vec<u8>>, ApiRefusal>;

impl AdminApi {
    /// An API that refuses every request until [`AdminApi::allow`].
    pub(super) fn new(
        engine: Arc<Engine>,
        edge: EdgeControl,
        streams: DurableStreams,
        tls: Option<Arc<TlsService>>,
    ) -> Self {
        AdminApi {
            engine,
            edge,
            streams,
            subscriptions: Arc::default(),
            history: Arc::default(),
            jobs: JobTable::default(),
            segment_walks: Arc::default(),
            data_places: Semaphore::new(MAX_DATA_REQUESTS),
            tls,
            tier: None,
            control: None,
            access: AdminAccess::Closed,
        }
    }

    /// Steers the server around it.
    pub(super) fn control_by(&mut self, control: Arc<dyn ServerControl>) {
        self.control = Some(control);
    }

    /// Shows the object store too.
    pub(super) fn show_tier(&mut self, tier: Tier) {
        self.tier = Some(tier);
    }

    /// Shows the subscriptions too.
    pub(super) fn serve_subscriptions(&mut self, subscriptions: Subscriptions) {
        let _ = self.subscriptions.set(subscriptions);
    }

    /// Says who may use it.
    pub(super) fn allow(&mut self, access: AdminAccess) {
        self.access = access;
    }

    /// Answers one request. `not_ready`: why the server should be given no work.
    pub(super) async fn response(
        &self,
        session: &mut ServerSession,
        not_ready: impl FnOnce() -> Option<String>,
    ) -> Response<Vec<u8>> {
        let who = match self.admit(session).await {
            Ok(who) => who,
            Err(refusal) => return *refusal.0,
        };
        let request = match ApiRequest::receive(session, who).await {
            Ok(request) => request,
            Err(refusal) => return *refusal.0,
        };
        let response = self.route(&request, not_ready).await.unwrap_or_else(|refusal| *refusal.0);
        if request.method != Method::GET {
            let (who, method, path) = (&request.who, &request.method, &request.path);
            let status = response.status().as_u16();
            tracing::info!(target: "audit", %who, %method, path, status, "administration");
        }
        response
    }

    async fn route(
        &self,
        request: &ApiRequest,
        not_ready: impl FnOnce() -> Option<String>,
    ) -> ApiResult {
        let method = request.method.as_str();
        let segments: Vec<&str> = request.segments().collect();
        if request.who.tenant.is_some() && !openapi::is_for_tenants(&segments) {
            let detail = "this is for administrators of the whole server";
            return Err(ApiRefusal::new(StatusCode::FORBIDDEN, "not-allowed", detail));
        }
        match (method, segments.as_slice()) {
            ("GET", []) => Ok(json(StatusCode::OK, &openapi::index())),
            ("GET", ["openapi.json"]) => Ok(openapi::document()),
            ("GET", ["me"]) => Ok(me(request)),
            ("GET", ["status"]) => Ok(self.status(not_ready())),
            ("GET", ["overview"]) => Ok(self.overview(not_ready())),
            ("GET", ["config"]) => self.show_config(),
            ("POST", ["reload"]) => self.reload(request).await,
            ("GET", ["log-level"]) => self.show_log_level(),
            ("PUT", ["log-level"]) => self.set_log_level(request),
            ("DELETE", ["log-level"]) => self.reset_log_level(),
            ("POST", ["backups"]) => self.start_backup(request),
            ("GET", ["jobs"]) => self.list_jobs(request),
            ("POST", ["jobs"]) => self.start_job(request),
            ("GET", ["jobs", id]) => self.show_job(request, id),
            ("DELETE", ["jobs", id]) => self.cancel_job(request, id),
            ("GET", ["usage"]) => self.usage(request).await,
            ("GET", ["segments"]) => self.list_segments(request).await,
            ("GET", ["tenants"]) => self.list_tenants(request).await,
            ("GET", ["streams"]) => self.list_streams(request).await,
            ("GET", ["streams", ..]) => self.show_stream(request).await,
            ("PATCH", ["streams", _, ..]) => self.patch_stream(request).await,
            ("DELETE", ["streams", _, ..]) => self.delete_stream(request).await,
            ("GET", ["producers", _, ..]) => self.list_producers(request).await,
            ("GET", ["tail", _, ..]) => self.find_tail(request).await,
            ("GET", ["subscriptions"]) => self.list_subscriptions(request).await,
            ("GET", ["subscriptions", id]) => self.show_subscription(request, id).await,
            ("DELETE", ["subscriptions", id]) => self.delete_subscription(request, id).await,
            ("POST", ["subscriptions", id, "retry"]) => {
                self.steer_subscription(request, id, SubscriptionAction::Retry).await
            }
            ("POST", ["subscriptions", id, "pause"]) => {
                self.steer_subscription(request, id, SubscriptionAction::Pause).await
            }
            ("POST", ["subscriptions", id, "resume"]) => {
                self.steer_subscription(request, id, SubscriptionAction::Resume).await
            }
            ("GET", ["keys"]) => self.list_keys(),
            ("POST", ["keys"]) => self.create_key(request),
            ("DELETE", ["keys", id]) => self.revoke_key(id),
            ("GET", ["projects"]) => self.list_projects(),
            ("POST", ["projects"]) => self.create_project(request),
            ("DELETE", ["projects", name]) => self.delete_project(name),
            ("POST", ["projects", name, "rotate"]) => self.rotate_project(name, request),
            ("POST", ["tokens"]) => self.issue_token(request),
            ("GET", ["url-keys"]) => self.list_url_keys(),
            ("POST", ["url-keys"]) => self.create_url_key(request),
            ("DELETE", ["url-keys", id]) => self.delete_url_key(id),
            ("POST", ["signed-urls"]) => self.sign_url(request),
            _ if openapi::knows(&segments) => {
                let detail = "this path has other methods; /admin/v1/openapi.json lists them";
                Err(ApiRefusal::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail))
            }
            _ => {
                let detail = "/admin/v1/openapi.json lists what there is";
                Err(ApiRefusal::new(StatusCode::NOT_FOUND, "not-found", detail))
            }
        }
    }
}

/// The principal that the credentials of the request name.
fn me(request: &ApiRequest) -> Response<Vec<u8>> {
    let Administrator { identity, tenant, .. } = &request.who;
    let value = json!({ "identity": &**identity, "tenant": tenant, "global": tenant.is_none() });
    json(StatusCode::OK, &value)
}
