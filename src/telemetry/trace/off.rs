//! Tracing as it is without the feature: nothing.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{TraceError, TraceOptions};

/// Makes spans.
#[derive(Clone, Debug, Default)]
pub struct Tracer(());

/// One piece of work.
#[derive(Debug, Default)]
pub struct Span(());

/// Delivers ended spans.
#[derive(Debug)]
pub struct Exporter;

/// Begins to export spans.
///
/// # Errors
/// Always: there is nothing to export with.
pub fn start(_: &TraceOptions) -> Result<(Tracer, Exporter), TraceError> {
    Err(TraceError("this binary was built without the feature otel".to_owned()))
}

impl Tracer {
    /// Whether it makes spans.
    #[inline]
    pub fn is_on(&self) -> bool {
        false
    }

    /// The span of a request that came in.
    #[inline]
    pub fn server(&self, _: &HeaderMap, _: bool) -> Span {
        Span(())
    }

    /// The span of a request that goes out, and of nothing before it.
    #[inline]
    pub fn client(&self, _: &'static str) -> Span {
        Span(())
    }
}

impl Span {
    /// Whether attributes that are set will be exported.
    #[inline]
    pub fn is_recorded(&self) -> bool {
        false
    }

    /// Says what it is, in few different words.
    #[inline]
    pub fn rename(&mut self, _: String) {}

    /// Adds a fact.
    #[inline]
    pub fn text(&mut self, _: &'static str, _: &str) {}

    /// Adds a number.
    #[inline]
    pub fn number(&mut self, _: &'static str, _: u64) {}

    /// Adds a duration, in seconds.
    #[inline]
    pub fn seconds(&mut self, _: &'static str, _: std::time::Duration) {}

    /// Returns the fields that make another server's spans children of this one.
    #[inline]
    pub fn propagate(&self, _: impl FnMut(HeaderName, HeaderValue)) {}

    /// Ends it. `error`: why it failed.
    #[inline]
    pub fn end(&mut self, _: Option<&str>) {}
}

impl Exporter {
    /// Delivers what is queued.
    pub fn finish(self) {}
}
