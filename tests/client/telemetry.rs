//! What an application learns of its client: metrics through the facade, spans through `tracing`.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex},
};

use durable_streams_client::{CreateOptions, RetryPolicy, StartFrom};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

use crate::{
    proxy::{FaultProxy, FaultRates},
    scene::{Scene, end, next},
};

/// Sums of counters and counts of histograms, by name and labels.
#[derive(Clone, Default)]
struct MetricTotals(Arc<Mutex<BTreeMap<String, u64>>>);

struct MetricTotal {
    totals: MetricTotals,
    key: String,
}

impl MetricTotal {
    fn add(&self, count: u64) {
        *self.totals.0.lock().unwrap().entry(self.key.clone()).or_default() += count;
    }
}

impl CounterFn for MetricTotal {
    fn increment(&self, value: u64) {
        self.add(value);
    }

    fn absolute(&self, _: u64) {}
}

impl HistogramFn for MetricTotal {
    fn record(&self, _: f64) {
        self.add(1);
    }
}

impl MetricTotals {
    fn total(&self, key: &Key) -> Arc<MetricTotal> {
        let labels: Vec<_> = key.labels().map(|label| label.value()).collect();
        let name = key.name().trim_start_matches("durable_streams_client_");
        let key = [&[name], labels.as_slice()].concat().join(" ");
        Arc::new(MetricTotal { totals: self.clone(), key })
    }

    fn of(&self, key: &str) -> u64 {
        self.0.lock().unwrap().get(key).copied().unwrap_or_default()
    }
}

impl Recorder for MetricTotals {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.total(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.total(key))
    }
}

#[tokio::test]
async fn requests_retries_and_messages_are_counted() {
    let scene = Scene::start();
    let totals = MetricTotals::default();
    let recording = metrics::set_default_local_recorder(&totals);
    let stream = scene.client().stream("counted").unwrap();
    stream.create(&CreateOptions::json()).await.unwrap();
    let producer = stream.producer("p").epoch(0).max_batch_messages(2).start().await.unwrap();
    for number in 0..4 {
        producer.append_json(&number).await.unwrap();
    }
    producer.close_stream().await.unwrap();
    let mut subscription = stream.subscribe(StartFrom::Start);
    assert_eq!(next(&mut subscription).await.json::<u32>().unwrap(), [0, 1, 2, 3]);
    end(&mut subscription).await;
    let missing = scene.client().stream("missing").unwrap();
    missing.head().await.unwrap_err();
    let refusing = FaultRates { refused: 100, ..FaultRates::default() };
    let proxy = FaultProxy::before(scene.server.address, refusing).await;
    let away = durable_streams_client::Client::builder(&proxy.url());
    let patience = std::time::Duration::from_millis(300);
    let away = away.retry(RetryPolicy { give_up_after: Some(patience), ..RetryPolicy::default() });
    away.build().unwrap().stream("a").unwrap().head().await.unwrap_err();
    drop(recording);

    for (key, count) in [
        ("requests_total create ok", 1),
        ("requests_total head refused", 1),
        ("producer_messages_total acknowledged", 4),
        ("received_bytes_total", "[0,1,2,3]".len() as u64),
    ] {
        assert!(totals.of(key) >= count, "{key}: {:?}", totals.0);
    }
    let produced = totals.of("requests_total produce ok");
    assert_eq!(produced, totals.of("producer_batch_bytes"), "{:?}", totals.0);
    assert!(produced >= 2 && totals.of("request_seconds produce") == produced, "{:?}", totals.0);
    assert!(totals.of("requests_total read ok") + totals.of("requests_total follow ok") >= 1);
    let retries = totals.of("retries_total head");
    assert!(retries >= 1 && totals.of("requests_total head refused") > retries);
}

/// Lines of a log.
#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_request_has_a_span() {
    use tracing_subscriber::fmt::format::FmtSpan;
    let scene = Scene::start();
    let log = LogBuffer::default();
    let writer = log.clone();
    let client = scene.client();
    // The span is known to `tracing` from its first use on. Were this one used first by another test, while the subscriber
    // of this thread is the only one, it would be off for good: `tracing` asks the other thread's subscriber, which is none.
    client.stream("untraced").unwrap().head().await.unwrap_err();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let logging = tracing::subscriber::set_default(subscriber);
    // Another test may have been at its first use just then.
    tracing::callsite::rebuild_interest_cache();
    let stream = client.stream(&format!("{}/traced?secret=x", scene.url())).unwrap();
    stream.create(&CreateOptions::json().data("1").closed()).await.unwrap();
    stream.read(StartFrom::Start).collect().await.unwrap();
    stream.append_json(&2).await.unwrap_err();
    drop(logging);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let url = stream.url();
    for (operation, status) in [("create", 201), ("read", 200), ("append", 409)] {
        let span =
            format!("durable_stream{{operation=\"{operation}\" url=\"{url}\" status={status}}}");
        assert!(log.contains(&span), "no {span} in\n{log}");
    }
    assert!(!log.contains("secret"), "{log}");
}
