//! The admin listener's answers: is the process up, may it be given work, what does it do.
//!
//! | path | answer |
//! |---|---|
//! | `/` | what there is |
//! | `/healthz` | 200 while the process answers at all: restart it when it does not |
//! | `/readyz` | 200 while the store accepts writes and no stop has begun, else 503 with the reason |
//! | `/metrics` | Prometheus' text format |
//!
//! Served beside the streams, on an address of its own and without their limits, so that it answers when
//! they are at their limits, and while they stop.

use durable_streams_engine::store::Store;
use std::sync::Arc;

use async_trait::async_trait;
use durable_streams_engine::Engine;
use durable_streams_protocol::{Body, render_problem};
use http::{HeaderValue, Method, Response, StatusCode, header};
use pingora::{apps::http_app::ServeHttp, protocols::http::ServerSession, server::ShutdownWatch};

use crate::{
    edge::EdgeControl, telemetry, telemetry::Exposition, telemetry::build, telemetry::metrics,
    telemetry::process, tls::TlsService,
};

const HELP: &str = "\
durable-streams-server, admin listener

/healthz   200 while the process is up
/readyz    200 while it accepts writes, else 503 with the reason
/metrics   metrics in Prometheus' text format
";

/// See the module.
pub struct AdminEndpoints {
    engine: Arc<Engine>,
    edge: EdgeControl,
    tls: Option<Arc<TlsService>>,
    stopping: ShutdownWatch,
}

impl AdminEndpoints {
    /// Answers about these; `stopping` turns `true` when a stop begins.
    pub fn new(
        engine: Arc<Engine>,
        edge: EdgeControl,
        tls: Option<Arc<TlsService>>,
        stopping: ShutdownWatch,
    ) -> Self {
        AdminEndpoints { engine, edge, tls, stopping }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Vec<u8>> {
        let known = matches!(path, "/" | "/healthz" | "/readyz" | "/metrics");
        if known && method != Method::GET && method != Method::HEAD {
            let detail = "only GET and HEAD are answered here";
            let mut refusal = problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail);
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
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

    fn tls_metrics(&self, out: &mut Exposition) {
        let Some(tls) = &self.tls else { return };
        let (completed, failed) = tls.handshake_counts();
        out.number(metrics::TLS_HANDSHAKES, &["ok"], completed as f64);
        for (reason, count) in failed {
            out.number(metrics::TLS_HANDSHAKES, &[reason], count as f64);
        }
        for certificate in tls.certificates() {
            let expiry = certificate.not_after.millis() as f64 / 1000.0;
            // One series per certificate; a certificate has a hundred names at most, and the first tells which it is.
            let name = certificate.names.first().map(String::as_str).unwrap_or_default();
            out.number(metrics::TLS_EXPIRY, &[name], expiry);
        }
        for host in tls.ordered() {
            out.number(metrics::TLS_ORDER_FAILURES, &[&host.host], host.failures.into());
        }
    }

    fn metrics(&self) -> String {
        let mut out = Exposition::default();
        let built = [build::VERSION, build::COMMIT, build::TARGET, build::STORE_FORMAT];
        out.number(metrics::BUILD_INFO, &built, 1.0);
        out.number(metrics::READY, &[], f64::from(u8::from(self.not_ready().is_none())));
        self.edge.write(&mut out);
        self.engine_metrics(&mut out);
        self.tls_metrics(&mut out);
        process::write(&mut out);
        out.text()
    }

    fn engine_metrics(&self, out: &mut Exposition) {
        let stats = self.engine.stats();
        for (metric, value) in [
            (metrics::STREAMS, stats.store.streams),
            (metrics::STORED_BYTES, stats.store.bytes),
            (metrics::CELLS, stats.cells as u64),
            (metrics::INFLIGHT, stats.inflight_append_bytes as u64),
            (metrics::EVICTED, stats.evicted),
            (metrics::EXPIRED, stats.expired),
        ] {
            out.number(metric, &[], value as f64);
        }
        let Some(disk) = self.engine.store().disk_stats() else { return };
        out.sizes(metrics::BATCH_EVENTS, &disk.batches);
        out.durations(metrics::SYNC_DURATION, &disk.syncs);
        let files = &disk.files;
        for (metric, labels, value) in [
            (metrics::LOG_WRITTEN, &[][..], files.wal_written_bytes),
            (metrics::LOG_BYTES, &[], files.wal_reserved_bytes),
            (metrics::DATABASE_BYTES, &[], files.index_bytes),
            (metrics::DATABASE_FREE, &[], files.index_free_bytes),
            (metrics::INDEX_AVAILABLE, &[], u64::from(files.index_available)),
            (metrics::INDEX_REOPENED, &[], files.index_reopenings),
            (metrics::KEPT_STREAMS, &[], files.kept_streams),
            (metrics::KEPT_BYTES, &[], files.kept_bytes),
            (metrics::CHECKPOINTS, &["ok"], files.checkpoints),
            (metrics::CHECKPOINTS, &["failed"], files.checkpoint_failures),
            (metrics::CHECKPOINT_LAG, &[], files.checkpoint_lag_events),
            (metrics::CHECKPOINT_PENDING, &[], files.pending_bytes),
        ] {
            out.number(metric, labels, value as f64);
        }
        out.number(metrics::CHECKPOINT_SECONDS, &[], files.checkpoint_time.as_secs_f64());
    }
}

#[async_trait]
impl ServeHttp for AdminEndpoints {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        // One request per connection: nothing here is worth the bookkeeping of idle ones.
        session.set_keepalive(None);
        let request = session.req_header();
        let (head_only, path) = (request.method == Method::HEAD, request.uri.path());
        let mut response = match self.edge.refuse_host(request) {
            Some(refusal) => rendered(refusal),
            None => self.answer(&request.method, path),
        };
        if head_only {
            response.body_mut().clear();
        }
        response
    }
}

fn text(body: Vec<u8>) -> Response<Vec<u8>> {
    answer(StatusCode::OK, "text/plain; charset=utf-8", body)
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response<Vec<u8>> {
    rendered(render_problem(status, code, detail.to_owned(), None))
}

fn rendered(problem: durable_streams_protocol::Response) -> Response<Vec<u8>> {
    let body = match problem.body {
        Body::Full(chunks) => chunks.concat(),
        Body::Empty | Body::Streamed(_) | Body::Live => Vec::new(),
    };
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() = problem.status;
    response.headers_mut().extend(problem.headers);
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

fn answer(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
