//! Forward auth: a service of the operator's that is asked about each request, on streams or of an upstream.

use durable_streams_auth::{ClaimTemplate, OperationSet};
use http::HeaderName;

use super::access_words::{KeysUrl, OperationWord, TemplateText, operations};
use crate::config::reader::error::ConfigProblems;
use crate::config::reader::setting::{ScalarSetting, settings};
use crate::config::units::HumanDuration;

settings! {
    /// A service that is asked about each request on streams which no provider above knows.
    pub struct ForwardAuthConfig {
        /// Its URL; GET, without a body. 2xx allows, 401 and 403 are passed on, anything else is a 503.
        url: Option<KeysUrl> = None;
        /// The client's headers that are copied to it.
        request_headers: Vec<HeaderName> = vec![http::header::AUTHORIZATION, http::header::COOKIE];
        /// The header of its answer that names the client.
        user_header: HeaderName = HeaderName::from_static("remote-user");
        /// The header of its answer that names the tenant.
        tenant_header: Option<HeaderName> = None;
        /// What every client may do. Not with `allow_header`.
        allow: Vec<OperationWord> = Vec::new();
        /// The header of its answer that lists operations.
        allow_header: Option<HeaderName> = None;
        /// The patterns of every client; `{user}` as a segment is its name. Not with `paths_header`.
        paths: Vec<TemplateText> = Vec::new();
        /// The header of its answer that lists path patterns.
        paths_header: Option<HeaderName> = None;
        /// The longest wait for its answer.
        timeout: HumanDuration = HumanDuration::secs(2)
            => HumanDuration::millis(10), HumanDuration::secs(30);
        /// How long an answer may be used again for requests that differ in `offset`, `live` and `cursor` only;
        /// 0s never.
        cache: HumanDuration = HumanDuration::millis(0)
            => HumanDuration::millis(0), HumanDuration::secs(60);
        /// How long a live read goes on before its client has to ask again.
        valid_for: HumanDuration = HumanDuration::secs(300)
            => HumanDuration::secs(1), HumanDuration::secs(86_400);
        /// The most subrequests at one time.
        max_concurrent: u64 = 64 => 1, 10_000;
    }
}

settings! {
    /// A service that is asked about each request of an upstream.
    pub struct UpstreamAuthConfig {
        /// Its URL; GET, without a body. 2xx lets the request on, redirects and 4xx are the client's answer.
        url: Option<KeysUrl> = None;
        /// The client's headers that are copied to it.
        request_headers: Vec<HeaderName> = vec![
            http::header::AUTHORIZATION,
            http::header::COOKIE,
            http::header::ACCEPT,
            http::header::ACCEPT_LANGUAGE,
            http::header::USER_AGENT,
            HeaderName::from_static("x-requested-with"),
        ];
        /// Headers of its answer that the upstream gets, in place of what the client sent in them.
        copy_headers: Vec<HeaderName> = Vec::new();
        /// The longest wait for its answer.
        timeout: HumanDuration = HumanDuration::secs(2)
            => HumanDuration::millis(10), HumanDuration::secs(30);
        /// How long an answer may be used again for the same URL and headers; 0s never.
        cache: HumanDuration = HumanDuration::millis(0)
            => HumanDuration::millis(0), HumanDuration::secs(60);
        /// The most subrequests at one time.
        max_concurrent: u64 = 64 => 1, 10_000;
    }
}

/// Headers that no subrequest takes from the client: they belong to its connection, or the server writes them.
const NOT_COPIED: [&str; 9] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "expect",
    "x-forwarded-method",
    "x-forwarded-uri",
];

/// Headers that no answer sets for the upstream, besides these: what frames the request, and what the server writes.
const NOT_SET: [&str; 7] = [
    "keep-alive",
    "trailer",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Reports what contradicts itself in the section.
pub(crate) fn check(
    forward: &ForwardAuthConfig,
    beside_anonymous: bool,
    problems: &mut ConfigProblems<'_>,
) {
    let mut broken = |key: &str, rule: &str, fix: &str| {
        let path = format!("auth.forward.{key}");
        problems.broken(&[(&path, "")], rule.to_owned(), fix);
    };
    if forward.url.is_none() {
        broken("url", "is missing", "name the service, such as http://127.0.0.1:9091/verify");
    }
    if forward.allow.is_empty() == forward.allow_header.is_none() {
        broken("allow", "and allow_header exclude each other", "write one of them");
    }
    if forward.paths.is_empty() == forward.paths_header.is_none() {
        broken("paths", "and paths_header exclude each other", "write one of them");
    }
    let parsed = forward.paths.iter().filter_map(|text| ClaimTemplate::parse(text.as_str()).ok());
    if parsed.into_iter().any(|template| template.claims().any(|claim| claim != "user")) {
        broken("paths", "names something else than {user}", "use {user}");
    }
    request_headers(&forward.request_headers, &mut broken);
    if beside_anonymous {
        let fix = "remove one of them: the service decides about requests without credentials too";
        broken("url", "stands beside auth.anonymous, which nothing would reach", fix);
    }
}

/// Reports what contradicts itself in the section of an upstream, `path`.
pub(crate) fn check_upstream(
    forward: &UpstreamAuthConfig,
    path: &str,
    problems: &mut ConfigProblems<'_>,
) {
    let mut broken = |key: &str, rule: &str, fix: &str| {
        problems.broken(&[(&format!("{path}.{key}"), "")], rule.to_owned(), fix);
    };
    if forward.url.is_none() {
        broken("url", "is missing", "name the service, such as http://127.0.0.1:9091/verify");
    }
    request_headers(&forward.request_headers, &mut broken);
    for name in &forward.copy_headers {
        if NOT_COPIED.contains(&name.as_str()) || NOT_SET.contains(&name.as_str()) {
            let rule = format!("names {}, which is not taken from the answer", name.text());
            broken("copy_headers", &rule, "remove it");
        }
    }
}

fn request_headers(names: &[HeaderName], broken: &mut impl FnMut(&str, &str, &str)) {
    for name in names {
        if NOT_COPIED.contains(&name.as_str()) || name.as_str().starts_with("x-forwarded-") {
            let rule = format!("names {}, which is not taken from the client", name.text());
            broken("request_headers", &rule, "remove it");
        }
    }
}

impl ForwardAuthConfig {
    /// What every client may do.
    pub fn operations(&self) -> OperationSet {
        operations(&self.allow)
    }
}
