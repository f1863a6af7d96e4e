//! Spans: made, marked, handed on, ended.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator,
    trace::{Span as _, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, Tracer as _},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{self as sdk, Sampler, SamplingDecision, SdkTracer, ShouldSample},
};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Makes spans.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<SpanSource>>);

struct SpanSource {
    tracer: SdkTracer,
    /// Decides for traces whose sender is not trusted to.
    own: Sampler,
    context: TraceContextPropagator,
}

/// One piece of work. Ends when it is dropped, at the latest.
#[derive(Default)]
pub struct Span(Option<Box<sdk::Span>>);

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tracer({})", if self.0.is_some() { "on" } else { "off" })
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({:?})", self.0.as_ref().map(|span| span.span_context()))
    }
}

impl Tracer {
    pub(super) fn new(tracer: SdkTracer, own: Sampler) -> Self {
        Tracer(Some(Arc::new(SpanSource { tracer, own, context: TraceContextPropagator::new() })))
    }

    /// Whether it makes spans.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The span of a request that came in: a child of the span that its `traceparent` names. Whether that one
    /// is recorded decides for this one too if the sender is `trusted`; anybody can write that field, so
    /// otherwise it is for the ratio to say.
    pub fn server(&self, headers: &HeaderMap, trusted: bool) -> Span {
        let Some(source) = &self.0 else { return Span(None) };
        let mut parent = Context::new();
        if headers.contains_key(&TRACEPARENT) {
            parent = source.context.extract_with_context(&parent, &HeaderExtractor(headers));
            if !trusted && parent.span().span_context().is_valid() {
                parent = source.judged(parent.span().span_context());
            }
        }
        source.begin("request", SpanKind::Server, &parent)
    }

    /// The span of a request that goes out, and of nothing before it.
    pub fn client(&self, name: &'static str) -> Span {
        let Some(source) = &self.0 else { return Span(None) };
        source.begin(name, SpanKind::Client, &Context::new())
    }
}

impl SpanSource {
    fn begin(&self, name: &'static str, kind: SpanKind, parent: &Context) -> Span {
        let builder = self.tracer.span_builder(name).with_kind(kind);
        Span(Some(Box::new(self.tracer.build_with_context(builder, parent))))
    }

    /// The same parent, recorded if the ratio says so.
    fn judged(&self, parent: &SpanContext) -> Context {
        let trace = parent.trace_id();
        let judged = self.own.should_sample(None, trace, "", &SpanKind::Server, &[], &[]);
        let flags = match judged.decision {
            SamplingDecision::RecordAndSample => TraceFlags::SAMPLED,
            SamplingDecision::Drop | SamplingDecision::RecordOnly => TraceFlags::default(),
        };
        let state = parent.trace_state().clone();
        let parent = SpanContext::new(trace, parent.span_id(), flags, true, state);
        Context::new().with_remote_span_context(parent)
    }
}

impl Span {
    /// Whether attributes that are set will be exported.
    pub fn is_recorded(&self) -> bool {
        self.0.as_ref().is_some_and(|span| span.is_recording())
    }

    /// Says what it is, in few different words.
    pub fn rename(&mut self, name: String) {
        if let Some(span) = &mut self.0 {
            span.update_name(name);
        }
    }

    /// Adds a fact.
    pub fn text(&mut self, key: &'static str, value: &str) {
        if self.is_recorded() {
            self.set(KeyValue::new(key, value.to_owned()));
        }
    }

    /// Adds a number.
    pub fn number(&mut self, key: &'static str, value: u64) {
        self.set(KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX)));
    }

    /// Adds a duration, in seconds.
    pub fn seconds(&mut self, key: &'static str, value: Duration) {
        self.set(KeyValue::new(key, value.as_secs_f64()));
    }

    fn set(&mut self, fact: KeyValue) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(fact);
        }
    }

    /// Gives the fields that make another server's spans children of this one. One that is not recorded gives
    /// them too, so that all servers of a trace decide alike.
    pub fn propagate(&self, mut put: impl FnMut(HeaderName, HeaderValue)) {
        let Some(span) = &self.0 else { return };
        let context = span.span_context();
        if !context.is_valid() {
            return;
        }
        let (trace, own) = (context.trace_id(), context.span_id());
        let parent = format!("00-{trace}-{own}-{:02x}", context.trace_flags().to_u8());
        for (name, value) in [(&TRACEPARENT, parent), (&TRACESTATE, context.trace_state().header())]
        {
            if let Ok(value) = HeaderValue::try_from(value)
                && !value.is_empty()
            {
                put(name.clone(), value);
            }
        }
    }

    /// Ends it. `error`: why it failed.
    pub fn end(&mut self, error: Option<&str>) {
        let Some(mut span) = self.0.take() else { return };
        if let Some(error) = error.filter(|_| span.is_recording()) {
            span.set_attribute(KeyValue::new("error.type", error.to_owned()));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}
