//! The way out: a queue, a thread, OTLP as protobuf over HTTP.

use std::{collections::HashMap, thread, time::Duration};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use reqwest::{blocking::Client, redirect};

use super::{TraceError, TraceOptions, Tracer};
use crate::telemetry::build;

/// For connecting to the collector; `OTEL_EXPORTER_OTLP_TIMEOUT` (10 s) bounds a whole post.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a stop waits for the last spans to be delivered.
const LAST_CHANCE: Duration = Duration::from_secs(3);

/// Delivers ended spans.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

/// Begins to export spans. A collector that is not there is no error: it may come.
///
/// # Errors
/// The endpoint is no URL, or the HTTP client cannot be made.
pub fn start(options: &TraceOptions) -> Result<(Tracer, Exporter), TraceError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client(options)?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&options.endpoint)
        .with_headers(options.headers.iter().cloned().collect::<HashMap<_, _>>())
        .build()
        .map_err(|error| TraceError(error.to_string()))?;
    // `OTEL_RESOURCE_ATTRIBUTES` adds to these.
    let resource = Resource::builder()
        .with_service_name(options.service_name.clone())
        .with_attribute(opentelemetry::KeyValue::new("service.version", build::VERSION))
        .build();
    let own = Sampler::TraceIdRatioBased(options.sample_ratio);
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(own.clone())))
        .build();
    Ok((Tracer::new(provider.tracer("durable-streams-server"), own), Exporter(provider)))
}

/// The client of the webhooks' crate, without its rules: collectors are on private addresses as a rule.
fn client(options: &TraceOptions) -> Result<Client, TraceError> {
    // The same provider as the listeners'; the first of the two to start installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("durable-streams-server/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT);
    // Cleartext needs no certificates, which a machine may lack.
    let builder = match options.endpoint.starts_with("https:") {
        true => builder,
        false => builder.tls_certs_only([]),
    };
    // A blocking client must not be made on a thread that runs futures.
    let made = thread::spawn(|| builder.build()).join();
    let made = made.map_err(|_| TraceError("the HTTP client panicked".to_owned()))?;
    made.map_err(|error| TraceError(format!("the HTTP client: {error}")))
}

impl Exporter {
    /// Delivers what is queued, as far as the collector takes it in a short time.
    pub fn finish(self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_CHANCE) {
            tracing::warn!(%error, "the last traces were not delivered");
        }
    }
}
