//! The admin listener's answers: is the process up, may it be given work, what does it do.
//!
//! | path | answer |
//! |---|---|
//! | `/` | what there is; for browsers the page of `page` |
//! | `/healthz` | 200 while the process answers at all: restart it when it does not |
//! | `/readyz` | 200 while the store accepts writes and no stop has begun, else 503 with the reason |
//! | `/metrics` | Prometheus' text format |
//! | `/admin/v1` | the administration API, see [`AdminApi`] |
//!
//! Served beside the streams, on an address of its own and without their limits, so that it answers when
//! they are at their limits, and while they stop.

mod api;
mod control;
mod page;
mod response;
mod scrape;
mod serve;
mod tier_metrics;

use std::sync::Arc;

use durable_streams_engine::Engine;
use durable_streams_pingora::DurableStreams;
use durable_streams_subscriptions::Subscriptions;
use http::{HeaderValue, Method, Response, StatusCode, header};
use pingora::{
    http::RequestHeader, protocols::http::ServerSession, server::ShutdownWatch,
    services::background::BackgroundService,
};

use self::page::AdminPage;
use self::response::{answer, problem, rendered, text};
use crate::{edge::EdgeControl, telemetry, tier::Tier, tls::TlsService};

pub use api::{AdminAccess, AdminApi};
pub use control::{LogLevelState, ReloadedKey, ServerControl};

const HELP: &str = "\
durable-streams-server, admin listener

/healthz   200 while the process is up
/readyz    200 while it accepts writes, else 503 with the reason
/metrics   metrics in Prometheus' text format
/admin/v1  streams, keys, projects; /admin/v1/openapi.json describes it
";

/// See the module.
pub struct AdminEndpoints {
    engine: Arc<Engine>,
    edge: EdgeControl,
    tls: Option<Arc<TlsService>>,
    tier: Option<Tier>,
    stopping: ShutdownWatch,
    api: AdminApi,
    page: Option<AdminPage>,
}

impl AdminEndpoints {
    /// Answers about these; `stopping` turns `true` when a stop begins.
    pub fn new(
        engine: Arc<Engine>,
        edge: EdgeControl,
        tls: Option<Arc<TlsService>>,
        streams: DurableStreams,
        stopping: ShutdownWatch,
    ) -> Self {
        let api = AdminApi::new(engine.clone(), edge.clone(), streams, tls.clone());
        AdminEndpoints { engine, edge, tls, tier: None, stopping, api, page: None }
    }

    /// Says who may use the administration API; without this nobody may.
    pub fn administer(&mut self, access: AdminAccess) {
        self.api.allow(access);
    }

    /// Serves the page at `/`.
    pub fn serve_page(&mut self) {
        self.page = Some(AdminPage::new());
    }

    /// The work of the administration API beside its requests.
    pub fn background(&self) -> Arc<dyn BackgroundService + Send + Sync> {
        self.api.background()
    }

    /// Lets the administration API steer the server around it.
    pub fn control_by(&mut self, control: Arc<dyn ServerControl>) {
        self.api.control_by(control);
    }

    /// Shows the object store too.
    pub fn show_tier(&mut self, tier: Tier) {
        self.api.show_tier(tier.clone());
        self.tier = Some(tier);
    }

    /// Shows the subscriptions too.
    pub fn serve_subscriptions(&mut self, subscriptions: Subscriptions) {
        self.api.serve_subscriptions(subscriptions);
    }

    fn answer(&self, request: &RequestHeader) -> Response<Vec<u8>> {
        let (method, path) = (&request.method, request.uri.path());
        let page = self.page.as_ref().and_then(|page| page.answer(request));
        let known = page.is_some() || matches!(path, "/" | "/healthz" | "/readyz" | "/metrics");
        if known && method != Method::GET && method != Method::HEAD {
            let detail = "only GET and HEAD are answered here";
            let mut refusal = problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail);
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        if let Some(page) = page {
            return page;
        }
        match path {
            "/" => text(HELP.into()),
            "/healthz" => text("ok\n".into()),
            "/readyz" => match self.not_ready() {
                None => text("ok\n".into()),
                Some(reason) => problem(StatusCode::SERVICE_UNAVAILABLE, "not-ready", &reason),
            },
            "/metrics" => answer(StatusCode::OK, telemetry::MEDIA_TYPE, self.metrics().into()),
            _ => problem(StatusCode::NOT_FOUND, "not-found", "see / for what there is"),
        }
    }

    /// Why a request is refused whose host or origin is another machine's.
    fn refuse_host(&self, request: &RequestHeader) -> Option<Response<Vec<u8>>> {
        self.edge.refuse_host(request).map(rendered)
    }

    /// The response to any request but those for the data of streams.
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let head_only = request.method == Method::HEAD;
        let mut response = if let Some(refusal) = self.refuse_host(request) {
            refusal
        } else if api::is_api(request.uri.path()) {
            self.api.response(session, || self.not_ready()).await
        } else {
            self.answer(request)
        };
        if head_only {
            response.body_mut().clear();
        }
        response
    }

    /// Why no work should be given to this server.
    fn not_ready(&self) -> Option<String> {
        if *self.stopping.borrow() {
            return Some("the server is stopping".to_owned());
        }
        if let Some(missing) = self.tls.as_ref().and_then(|tls| tls.missing()) {
            return Some(missing);
        }
        self.engine.writable().err().map(|error| error.to_string())
    }
}
