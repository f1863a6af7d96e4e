//! The administration API, `/admin/v1` on the admin listener: what the server holds, and who may use it.
//!
//! Invariant: nothing is read or changed before [`AdminApi::admit`] has let the request through, and a change is logged
//! with who made it.

mod admit;
mod credentials;
mod openapi;
mod request;
mod streams;

use std::sync::Arc;

use durable_streams_engine::Engine;
use durable_streams_protocol::Timestamp;
use http::{Method, Response, StatusCode};
use pingora::protocols::http::ServerSession;
use serde_json::json;

use self::request::ApiRequest;
use super::response::{json, problem};
use crate::telemetry::{build, process};

pub use admit::AdminAccess;

/// What every path of the API begins with.
const ROOT: &str = "/admin/v1";

/// Whether a path is the API's.
pub(super) fn is_api(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The administration API. Who may use it is up to [`AdminAccess`].
pub struct AdminApi {
    engine: Arc<Engine>,
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
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        AdminApi { engine, access: AdminAccess::Closed }
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
        let request = match ApiRequest::receive(session).await {
            Ok(request) => request,
            Err(refusal) => return *refusal.0,
        };
        let response = self.route(&request, not_ready).await.unwrap_or_else(|refusal| *refusal.0);
        if request.method != Method::GET {
            let (method, path, status) =
                (&request.method, &request.path, response.status().as_u16());
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
        match (method, segments.as_slice()) {
            ("GET", []) => Ok(json(StatusCode::OK, &openapi::index())),
            ("GET", ["openapi.json"]) => Ok(openapi::document()),
            ("GET", ["status"]) => Ok(self.status(not_ready())),
            ("GET", ["usage"]) => Ok(self.usage()),
            ("GET", ["streams"]) => self.list_streams(request).await,
            ("GET", ["streams", ..]) => self.show_stream(request).await,
            ("DELETE", ["streams", _, ..]) => self.delete_stream(request).await,
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

    fn status(&self, not_ready: Option<String>) -> Response<Vec<u8>> {
        let stats = self.engine.stats();
        let started = Timestamp::from_millis((process::start() * 1000.0) as u64);
        let value = json!({
            "version": build::VERSION,
            "commit": build::COMMIT,
            "started": started.to_string(),
            "ready": not_ready.is_none(),
            "not_ready": not_ready,
            "streams": stats.store.streams,
            "stored_bytes": stats.store.bytes,
            "live_readers": stats.live_readers,
            "inflight_append_bytes": stats.inflight_append_bytes,
            "expired": stats.expired,
        });
        json(StatusCode::OK, &value)
    }

    /// What is stored: in all, and in each tenant and prefix that the quotas name.
    fn usage(&self) -> Response<Vec<u8>> {
        let stats = self.engine.stats().store;
        let scope = |scope: durable_streams_engine::ScopeUsage| {
            let limits = json!({ "streams": scope.quota.streams, "bytes": scope.quota.bytes });
            json!({ "name": scope.name, "streams": scope.streams, "bytes": scope.bytes, "limits": limits })
        };
        let scopes: Vec<_> = self.engine.scope_usage().into_iter().map(scope).collect();
        let value = json!({ "streams": stats.streams, "bytes": stats.bytes, "scopes": scopes });
        json(StatusCode::OK, &value)
    }
}
