//! Traces for OpenTelemetry, in a binary built with the feature `otel`.
//!
//! - A [`Tracer`] makes a [`Span`] for each request; one that is off, as in the default, makes empty ones.
//! - [`start`] returns the tracer and the [`Exporter`] behind it. Ended spans go into a bounded queue; a thread
//!   of its own posts them as OTLP over HTTP. A full queue loses spans, and never makes a request wait.
//!
//! Without the feature the types are there and empty, so that code that marks a request needs no condition and
//! pays nothing.

#[cfg(not(feature = "otel"))]
mod off;
#[cfg(feature = "otel")]
mod otlp;
#[cfg(feature = "otel")]
mod span;

#[cfg(not(feature = "otel"))]
pub use off::{Exporter, Span, Tracer, start};
#[cfg(feature = "otel")]
pub use otlp::{Exporter, start};
#[cfg(feature = "otel")]
pub use span::{Span, Tracer};

/// Where spans go and which.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// The URL to post to, path included.
    pub endpoint: String,
    /// Sent with each post; `OTEL_EXPORTER_OTLP_HEADERS` adds to it.
    pub headers: Vec<(String, String)>,
    /// `service.name` of the spans.
    pub service_name: String,
    /// Which part of the traces that begin here is recorded, 0 to 1.
    pub sample_ratio: f64,
}

/// Spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("cannot export traces: {0}")]
pub struct TraceError(String);
