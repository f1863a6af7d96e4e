//! The access log says what happened, once per request.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use durable_streams_server::edge::EdgeOptions;
use serde_json::Value;

use crate::support::upstreams::{Upstream, ok};
use crate::support::{TestServer, edge, eventually, to};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The event of a request, by method and path; other tests log as well.
    fn of(&self, request: &str) -> Option<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let begins =
            |message: &Value| message.as_str().is_some_and(|text| text.starts_with(request));
        events.map(|event| event["fields"].clone()).find(|fields| begins(&fields["message"]))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_leaves_one_event_with_what_an_operator_asks_for() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .init();
    let upstream = Upstream::http(|_| async { ok("hello") }).await;
    let server =
        TestServer::start(EdgeOptions { access_log: true, ..edge(vec![to(&[&upstream])]) });
    let reply = server.get("/logged?token=secret").await;
    server.get("/v1/stream/../logged").await;
    let fields = "host: a\r\ncontent-type: text/plain\r\nstream-closed: true\r\ncontent-length: 3";
    server.ask(format!("PUT /v1/stream/logged HTTP/1.1\r\n{fields}\r\n\r\nabc")).await;
    let events = server.get("/v1/stream/logged?offset=-1&live=sse").await;
    eventually("all are logged", || async {
        ["GET /logged", "GET /v1/stream/../logged", "GET /v1/stream/logged"]
            .iter()
            .all(|request| lines.of(request).is_some())
    })
    .await;

    let event = lines.of("GET /logged").unwrap();
    assert_eq!(event["method"], "GET");
    assert_eq!(event["status"], 200);
    assert_eq!(event["bytes_out"], 5);
    assert_eq!(event["client"], "127.0.0.1");
    assert_eq!(event["upstream"], upstream.addr.to_string());
    assert_eq!(event["request_id"].as_str(), reply.header("x-request-id"));
    assert!(event["duration_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(event["message"], "GET /logged 200");
    assert!(!event.to_string().contains("secret"), "the query was logged: {event}");

    let live = lines.of("GET /v1/stream/logged").unwrap();
    assert_eq!((&live["status"], &live["route"]), (&200.into(), &"stream".into()));
    assert_eq!(live["bytes_out"], events.body.len(), "{events:?}");
    assert!(live["duration_ms"].as_f64().unwrap() > 0.0 && live["ended"].is_null(), "{live}");

    let refused = lines.of("GET /v1/stream/../logged").unwrap();
    assert_eq!((&refused["status"], &refused["problem"]), (&400.into(), &"ambiguous-path".into()));
}
