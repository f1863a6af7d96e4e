//! Collectors that are down, slow or late: requests do not notice.

use std::time::{Duration, Instant};

use crate::collector::Collector;
use crate::harness::Client;
use crate::process::Process;
use crate::spans::{SOON, ask, config};
use crate::upstreams::Upstream;

const READ: &str = "GET /v1/stream/none HTTP/1.1\r\nhost: a\r\n\r\n";

/// More than the queue of 2048 holds.
const MANY: usize = 3_000;

/// A thousand times what one such request takes; with the exporter in its way it would take forever.
const PATIENCE: Duration = Duration::from_secs(20);

async fn works_as_if_nothing_were_wrong(endpoint: &str) {
    let tracing = format!("{{endpoint: '{endpoint}'}}");
    let mut process = Process::run_with(&config(&tracing, ""), &[SOON]).await;
    let began = Instant::now();
    let mut client = Client::connect(process.addresses().0).await;
    for _ in 0..MANY {
        client.send(READ).await;
        assert_eq!(client.reply().await.status, 404);
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    drop(client);
    let (well, took) = process.stop().await;
    assert!(well, "a server without its collector still stops well");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_does_no_harm() {
    works_as_if_nothing_were_wrong("http://127.0.0.1:9").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_does_no_harm() {
    let silent = Upstream::raw(|socket| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(socket);
    })
    .await;
    works_as_if_nothing_were_wrong(&format!("http://{}", silent.addr)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_delivers_what_is_queued() {
    let collector = Collector::start().await;
    let tracing = format!("{{endpoint: '{}'}}", collector.url);
    let never = ("OTEL_BSP_SCHEDULE_DELAY", "600000");
    let mut process = Process::run_with(&config(&tracing, ""), &[never]).await;
    assert_eq!(ask(&process, READ).await, 404);
    assert!(collector.all().is_empty(), "not before its time");
    let (well, took) = process.stop().await;
    assert!(well && took < Duration::from_secs(5), "{took:?}");
    let names: Vec<String> = collector.all().into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["GET /v1/stream/{path}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_variables_are_enough_and_can_turn_it_off() {
    let collector = Collector::start().await;
    let standard = [
        SOON,
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_SERVICE_NAME", "from-outside"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=outside"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    let process = Process::run_with(&config("", ""), &standard).await;
    assert_eq!(ask(&process, READ).await, 404);
    collector.span("GET /v1/stream/{path}").await;
    let resource = collector.received.resource.lock().unwrap().clone();
    assert_eq!(resource["service.name"], "from-outside");
    assert_eq!(resource["deployment.environment.name"], "test");
    assert_eq!(collector.received.post.lock().unwrap().2, "outside");

    let silent = Collector::start().await;
    let tracing = format!("{{endpoint: '{}'}}", silent.url);
    let off = [SOON, ("OTEL_SDK_DISABLED", "true")];
    let mut process = Process::run_with(&config(&tracing, ""), &off).await;
    assert_eq!(ask(&process, READ).await, 404);
    process.stop().await;
    assert!(silent.all().is_empty());
}
