//! Traces for OpenTelemetry: where they go, and how much of them.
//!
//! The standard variables (`OTEL_…`) are read too. Those with the meaning of a key stand between file and
//! our own variables; the others, such as `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_BSP_…`, the exporter reads itself.

use std::ffi::OsString;

use http::{HeaderName, HeaderValue};

use crate::config::net::base_url;
use crate::config::reader::error::ConfigProblems;
use crate::config::reader::node::{ConfigNode, NodeValue};
use crate::config::reader::setting::{InvalidValue, ScalarSetting, settings};

const GROUP: &str = "telemetry.tracing";

/// The path that collectors listen on.
const TRACES_PATH: &str = "/v1/traces";

/// The URL that spans are posted to. Without a path it gets the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEndpoint(String);

/// A header that goes with each post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: String,
}

/// A part of all traces: 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct TraceRatio(f64);

settings! {
    /// Traces, exported by OTLP over HTTP.
    pub struct TracingConfig {
        /// Where to.
        endpoint: TraceEndpoint = TraceEndpoint(format!("http://localhost:4318{TRACES_PATH}"));
        /// What the server is called in them.
        service_name: String = "durable-streams-server".to_owned();
        /// Which part of the traces that begin here is recorded.
        sample_ratio: TraceRatio = TraceRatio(1.0);
        /// Extra headers of each post to the collector.
        headers: Vec<TraceHeader> = Vec::new();
    }
}

impl TraceEndpoint {
    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TraceRatio {
    /// As a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl ScalarSetting for TraceEndpoint {
    const WHAT: &'static str = "a URL such as http://localhost:4318";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let url = base_url(text).map_err(|fix| InvalidValue::not_a(Self::WHAT).fix(fix))?;
        if matches!(url.path(), "" | "/") && url.query().is_none() {
            return Ok(Self(format!("{}{TRACES_PATH}", text.trim_end_matches('/'))));
        }
        Ok(Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ScalarSetting for TraceHeader {
    const WHAT: &'static str = "a header such as x-team=streams";
    /// Collectors take tokens in headers.
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let fix = "write its name, an equals sign and its value";
        let refuse = || InvalidValue::not_a(Self::WHAT).fix(fix);
        let (name, value) = text.split_once('=').ok_or_else(refuse)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| refuse())?;
        let value = value.trim().to_owned();
        HeaderValue::from_str(&value).map_err(|_| refuse())?;
        Ok(Self { name, value })
    }

    fn text(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}

impl ScalarSetting for TraceRatio {
    const WHAT: &'static str = "a number from 0 to 1";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Self(ratio)),
            _ => Err(InvalidValue::not_a(Self::WHAT).fix("write 0.01 for one trace in a hundred")),
        }
    }

    fn text(&self) -> String {
        self.0.to_string()
    }
}

/// Whether this binary can export traces. A parameter of what depends on it, so that one build tests both.
pub(in crate::config) const CAN_TRACE: bool = cfg!(feature = "otel");

/// A group that this binary can do nothing with.
pub(in crate::config) fn check(
    tracing: Option<&TracingConfig>,
    can_trace: bool,
    problems: &mut ConfigProblems<'_>,
) {
    if tracing.is_some() && !can_trace {
        let rule = "needs a binary that was built with tracing, and this one was not".to_owned();
        let fix = "take a release binary, build with `cargo build --release --features otel`, or remove it";
        problems.broken(&[(GROUP, "")], rule, fix);
    }
}

/// The standard variables that say what a key says: variable, key, text. An endpoint turns tracing on, the
/// others only refine it. A binary without tracing leaves all of them alone: they are often set for every
/// process of a machine.
pub(in crate::config) fn standard_variables(
    variables: &[(OsString, OsString)],
    file: &ConfigNode,
    can_trace: bool,
) -> Vec<(String, &'static str, String)> {
    let value = |name: &str| {
        let found = variables.iter().find(|(known, _)| known == name);
        let text = found.and_then(|(_, value)| value.to_str());
        text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    if !can_trace {
        return Vec::new();
    }
    for (name, off) in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        if value(name).is_some_and(|text| text.eq_ignore_ascii_case(off)) {
            return vec![(name.to_owned(), GROUP, "none".to_owned())];
        }
    }
    let mut found = Vec::new();
    let mut set = |name: &str, key, text| found.push((name.to_owned(), key, text));
    if let Some(base) = value("OTEL_EXPORTER_OTLP_ENDPOINT") {
        let url = format!("{}{TRACES_PATH}", base.trim_end_matches('/'));
        set("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.tracing.endpoint", url);
    }
    if let Some(url) = value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "telemetry.tracing.endpoint", url);
    }
    let written = file.at(GROUP).is_some_and(|node| matches!(node.value, NodeValue::Group(_)));
    let ours = |(name, _): &(OsString, OsString)| {
        name.to_string_lossy().starts_with("DURABLE_STREAMS_TELEMETRY_TRACING_")
    };
    if found.is_empty() && !written && !variables.iter().any(ours) {
        return found;
    }
    let mut set = |name: &str, key, text| found.push((name.to_owned(), key, text));
    if let Some(name) = value("OTEL_SERVICE_NAME") {
        set("OTEL_SERVICE_NAME", "telemetry.tracing.service_name", name);
    }
    let (sampler, argument) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
    let ratio = match value(sampler).as_deref() {
        Some("always_off" | "parentbased_always_off") => Some((sampler, "0".to_owned())),
        Some("always_on" | "parentbased_always_on") => Some((sampler, "1".to_owned())),
        Some("traceidratio" | "parentbased_traceidratio") => {
            value(argument).map(|ratio| (argument, ratio))
        }
        _ => None,
    };
    if let Some((name, ratio)) = ratio {
        set(name, "telemetry.tracing.sample_ratio", ratio);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_path_gets_the_usual_one() {
        for (text, url) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
        ] {
            assert_eq!(TraceEndpoint::parse(text).unwrap().text(), url);
        }
        for text in ["c:4318", "grpc://c:4317", "http://u:p@c", ""] {
            assert!(TraceEndpoint::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn headers_and_ratios_are_checked() {
        assert_eq!(TraceHeader::parse("X-A = b=c").unwrap().text(), "x-a=b=c");
        for text in ["", "x", "=v", "a b=c", "a=b\nc"] {
            assert!(TraceHeader::parse(text).is_err(), "{text:?}");
        }
        for text in ["0", "1", "0.25"] {
            assert_eq!(TraceRatio::parse(text).unwrap().text(), text);
        }
        for text in ["-0.1", "1.1", "NaN", "10%", ""] {
            assert!(TraceRatio::parse(text).is_err(), "{text:?}");
        }
    }
}
