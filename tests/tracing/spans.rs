//! What the spans of requests say, and how they hang together with those of other servers.

use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;

use crate::collector::Collector;
use crate::harness::Client;
use crate::process::Process;
use crate::upstreams::{Upstream, full};

/// Spans are sent this soon, milliseconds.
pub(crate) const SOON: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "50");

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

pub(crate) fn config(tracing: &str, rest: &str) -> String {
    format!(
        "listen: '127.0.0.1:0'\nadmin: {{listen: '127.0.0.1:0'}}\nlog: {{format: json}}\n\
         telemetry:\n  tracing: {tracing}\n{rest}"
    )
}

pub(crate) async fn ask(process: &Process, request: &str) -> u16 {
    let mut client = Client::connect(process.addresses().0).await;
    client.send(request).await;
    client.reply().await.status
}

/// A request with a body, and `field` among its headers.
fn request(method: &str, path: &str, field: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n{field}\
         content-length: {length}\r\n\r\n{body}"
    )
}

/// A server that answers `200` and keeps the `traceparent` of each request with its path.
async fn witness() -> (Upstream, Arc<Mutex<Vec<(String, String)>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let server = Upstream::http(move |request| {
        let field = request.headers().get("traceparent");
        let field = field.map_or("", |field| field.to_str().unwrap()).to_owned();
        kept.lock().unwrap().push((request.uri().path().to_owned(), field));
        async move {
            let _ = request.into_body().collect().await;
            http::Response::builder().status(200).body(full("{}")).unwrap()
        }
    });
    (server.await, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_a_read_and_a_proxied_request_are_told_as_they_were() {
    spans_of_requests("").await;
    let data = tempfile::tempdir().unwrap();
    spans_of_requests(&format!("data_dir: {}\n", data.path().join("data").display())).await;
}

async fn spans_of_requests(store: &str) {
    let collector = Collector::start().await;
    let (upstream, seen) = witness().await;
    let tracing = format!(
        "{{endpoint: '{}', service_name: orders, headers: [x-team=streams]}}",
        collector.url
    );
    let rest =
        format!("upstreams: [{{path: /app, servers: ['http://{}']}}]\n{store}", upstream.addr);
    let process = Process::run_with(&config(&tracing, &rest), &[SOON]).await;

    let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: v=1\r\n");
    assert_eq!(ask(&process, &request("PUT", "/v1/stream/a", "", "")).await, 201);
    assert_eq!(ask(&process, &request("POST", "/v1/stream/a", &parent, "12345")).await, 204);
    let read = "GET /v1/stream/a?offset=-1&token=secret HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(ask(&process, read).await, 200);
    assert_eq!(ask(&process, &request("GET", "/app/x", &parent, "")).await, 200);

    let append = collector.span("POST /v1/stream/{path}").await;
    assert_eq!((append.trace.as_str(), append.parent.as_str()), (TRACE, PARENT));
    assert_eq!((append.kind, append.status), (2, 0), "a server's, and no error");
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/stream/{path}"),
        ("url.path", "/v1/stream/a"),
        ("http.response.status_code", "204"),
        ("http.request.body.size", "5"),
        ("durable_streams.mode", "append"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(append.fact(key), value, "{key}: {append:?}");
    }
    let next = append.fact("durable_streams.next_offset");
    assert!(
        next.ends_with("_0000000000000005") && !next.starts_with("0000000000000000_"),
        "{next}"
    );
    let waited: f64 = append.fact("durable_streams.commit_wait").parse().unwrap();
    assert!(waited > 0.0 && waited <= append.nanoseconds as f64 / 1e9, "{append:?}");

    let read = collector.span("GET /v1/stream/{path}").await;
    assert_eq!(read.parent, "", "it began here");
    assert_ne!(read.trace, TRACE);
    for (key, value) in [
        ("durable_streams.mode", "catch_up"),
        ("durable_streams.offset", "-1"),
        ("http.response.status_code", "200"),
        ("http.response.body.size", "5"),
    ] {
        assert_eq!(read.fact(key), value, "{key}: {read:?}");
    }
    assert!(!format!("{read:?}").contains("secret"), "queries carry tokens: {read:?}");

    let proxied = collector.span("GET /app").await;
    assert_eq!((proxied.trace.as_str(), proxied.parent.as_str()), (TRACE, PARENT));
    assert_eq!(proxied.fact("durable_streams.upstream"), upstream.addr.to_string());
    let handed_on = format!("00-{TRACE}-{}-01", proxied.id);
    assert_eq!(*seen.lock().unwrap(), [("/app/x".to_owned(), handed_on)]);

    let resource = collector.received.resource.lock().unwrap().clone();
    assert_eq!(resource["service.name"], "orders");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    let post = collector.received.post.lock().unwrap().clone();
    let expected = ("/v1/traces", "application/x-protobuf", "streams");
    assert_eq!((post.0.as_str(), post.1.as_str(), post.2.as_str()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_upstream_is_an_error_and_a_missing_stream_is_none() {
    let collector = Collector::start().await;
    let tracing = format!("{{endpoint: '{}'}}", collector.url);
    let rest = "upstreams: [{path: /app, servers: ['http://127.0.0.1:9']}]\n";
    let process = Process::run_with(&config(&tracing, rest), &[SOON]).await;
    assert_eq!(ask(&process, &request("GET", "/v1/stream/none", "", "")).await, 404);
    assert_eq!(ask(&process, &request("GET", "/app", "", "")).await, 502);
    let missing = collector.span("GET /v1/stream/{path}").await;
    assert_eq!((missing.status, missing.fact("error.type")), (0, ""));
    assert_eq!(missing.fact("durable_streams.problem"), "not-found");
    let failed = collector.span("GET /app").await;
    assert_eq!((failed.status, failed.fact("error.type")), (2, "502"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_a_span_and_carries_it() {
    let collector = Collector::start().await;
    let (hook, seen) = witness().await;
    let tracing = format!("{{endpoint: '{}'}}", collector.url);
    let rest = "subscriptions: {allow_http_localhost: true}\n";
    let process = Process::run_with(&config(&tracing, rest), &[SOON]).await;
    let url = format!("http://localhost:{}/hook/secret", hook.addr.port());
    let subscription =
        format!(r#"{{"type": "webhook", "pattern": "in/*", "webhook": {{"url": "{url}"}}}}"#);
    let path = "/v1/stream/__ds/subscriptions/s";
    let status = ask(&process, &request("PUT", path, "", &subscription)).await;
    assert_eq!(status, 201);
    assert_eq!(ask(&process, &request("PUT", "/v1/stream/in/a", "", "x")).await, 201);
    let span = collector.span("POST webhook").await;
    assert_eq!((span.kind, span.status), (3, 0));
    assert_eq!(span.fact("server.address"), "localhost");
    assert_eq!(span.fact("http.response.status_code"), "200");
    assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    let (path, field) = seen.lock().unwrap().first().cloned().unwrap();
    assert_eq!(path, "/hook/secret");
    assert_eq!(field, format!("00-{}-{}-01", span.trace, span.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trusted_sender_decides_what_is_recorded() {
    let collector = Collector::start().await;
    let tracing = format!("{{endpoint: '{}', sample_ratio: 0}}", collector.url);
    let (upstream, seen) = witness().await;
    let upstreams = format!("upstreams: [{{path: /app, servers: ['http://{}']}}]\n", upstream.addr);
    let sampled = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");

    let mut process = Process::run_with(&config(&tracing, &upstreams), &[SOON]).await;
    assert_eq!(ask(&process, &request("GET", "/app", &sampled, "")).await, 200);
    process.stop().await;
    assert!(collector.all().is_empty(), "{:?}", collector.all());
    let (_, field) = seen.lock().unwrap().pop().unwrap();
    assert!(field.starts_with(&format!("00-{TRACE}-")) && field.ends_with("-00"), "{field}");

    let trusting = format!("{upstreams}trusted_proxies: [127.0.0.1]\n");
    let process = Process::run_with(&config(&tracing, &trusting), &[SOON]).await;
    assert_eq!(ask(&process, &request("GET", "/app", &sampled, "")).await, 200);
    assert_eq!(collector.span("GET /app").await.trace, TRACE);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tracer_the_context_passes_untouched() {
    let (upstream, seen) = witness().await;
    let rest = format!("upstreams: [{{path: /, servers: ['http://{}']}}]\n", upstream.addr);
    let process = Process::run(&config("none", &rest)).await;
    let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    assert_eq!(ask(&process, &request("GET", "/", &parent, "")).await, 200);
    assert_eq!(seen.lock().unwrap()[0].1, format!("00-{TRACE}-{PARENT}-01"));
}
