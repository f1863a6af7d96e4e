//! Which hosts a request may name, for a server that is meant for this machine.
//!
//! A browser lets any page send simple requests to `localhost`, and a name of the page's own domain may resolve to
//! 127.0.0.1 (DNS rebinding). Both show in what the browser sends: the page's `Origin`, or the `Host` that it believes
//! to talk to. Neither can be set by a page.

use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderValue, StatusCode, header};
use pingora::http::RequestHeader;

use super::problem::EdgeProblem;

/// Hosts that requests may name, besides the names of this machine itself: `localhost`, names below it, and loopback
/// addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    /// Lower case; `*.` and a domain for the names below it.
    patterns: Vec<String>,
}

impl AllowedHosts {
    /// Names, addresses without brackets, and `*.` with a domain for all names below it.
    pub fn new(patterns: impl IntoIterator<Item = String>) -> Self {
        let patterns = patterns.into_iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
        AllowedHosts { patterns }
    }

    /// Why the request is refused, if it is. A request that names no host does not come from a browser.
    pub(crate) fn refuse(&self, request: &RequestHeader) -> Option<EdgeProblem> {
        let hosts = request.headers.get_all(header::HOST).iter();
        let named = request.uri.authority().is_none_or(|authority| self.allows(authority.host()));
        if !named || !hosts.map(host_of).all(|host| self.allows_some(host)) {
            return Some(problem("host-not-allowed", "Host"));
        }
        let mut origins = request.headers.get_all(header::ORIGIN).iter();
        let from = origins.all(|origin| self.allows_some(origin_host(origin)));
        (!from).then(|| problem("origin-not-allowed", "Origin"))
    }

    fn allows_some(&self, host: Option<String>) -> bool {
        host.is_some_and(|host| self.allows(&host))
    }

    fn allows(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let host = host.to_ascii_lowercase();
        is_loopback(&host) || self.patterns.iter().any(|pattern| matches(pattern, &host))
    }
}

fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// The host of a `Host` field.
fn host_of(value: &HeaderValue) -> Option<String> {
    let authority: Authority = value.to_str().ok()?.parse().ok()?;
    (!authority.as_str().contains('@')).then(|| authority.host().to_owned())
}

/// The host of an `Origin` field; `None` for `null`, which is the origin of sandboxed and local pages.
fn origin_host(value: &HeaderValue) -> Option<String> {
    let (_, authority) = value.to_str().ok()?.split_once("://")?;
    host_of(&HeaderValue::from_str(authority).ok()?)
}

fn problem(code: &'static str, field: &str) -> EdgeProblem {
    let detail = format!(
        "this server answers requests of this machine only, and the request's {field} names another host; \
         list that host: `dev --allow-host <host>` ('*' for all), or `allowed_hosts` in the configuration"
    );
    EdgeProblem::new(StatusCode::FORBIDDEN, code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(hosts: &[&str], fields: &[(&'static str, &str)]) -> Option<&'static str> {
        let mut request = RequestHeader::build("POST", b"/v1/stream/a", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        let allowed = AllowedHosts::new(hosts.iter().map(|host| (*host).to_owned()));
        allowed.refuse(&request).map(|problem| problem.code)
    }

    #[test]
    fn this_machine_may_be_named_in_each_of_its_ways() {
        for host in [
            "localhost",
            "localhost:4437",
            "LOCALHOST",
            "localhost.",
            "app.localhost:1",
            "127.0.0.1",
            "127.8.9.1:4437",
            "[::1]:4437",
            "[::ffff:127.0.0.1]",
        ] {
            let origin = format!("http://{host}");
            assert_eq!(refused(&[], &[("host", host), ("origin", &origin)]), None, "{host}");
        }
        assert_eq!(refused(&[], &[]), None, "not a browser");
    }

    #[test]
    fn other_hosts_are_refused_unless_listed() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evillocalhost",
            "192.0.2.1:4437",
            "0.0.0.0",
            "[::]",
            "[fe80::1]",
            "localhost@evil.example",
            "evil.example@localhost",
            "",
        ] {
            assert_eq!(refused(&[], &[("host", host)]), Some("host-not-allowed"), "{host}");
            let fields = [("host", "localhost:4437"), ("origin", &*format!("https://{host}"))];
            assert_eq!(refused(&[], &fields), Some("origin-not-allowed"), "{host}");
        }
        for origin in ["null", "", "http:localhost", "https://localhost, https://evil.example"] {
            let fields = [("host", "localhost"), ("origin", origin)];
            assert_eq!(refused(&[], &fields), Some("origin-not-allowed"), "{origin}");
        }
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(refused(&[], &two), Some("host-not-allowed"));
        let listed = ["streams", "*.Test", "192.0.2.1", "2001:db8::1"];
        for host in ["streams:4437", "a.test", "a.b.test:1", "192.0.2.1:4437", "[2001:db8::1]:4437"]
        {
            let origin = format!("https://{host}");
            assert_eq!(refused(&listed, &[("host", host), ("origin", &origin)]), None, "{host}");
        }
        assert_eq!(refused(&listed, &[("host", "test")]), Some("host-not-allowed"));
    }

    #[test]
    fn the_host_of_http2_and_of_absolute_targets_counts() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.set_uri("http://evil.example/v1/stream/a".parse().unwrap());
        let problem = AllowedHosts::default().refuse(&request).unwrap();
        assert_eq!(problem.code, "host-not-allowed");
        assert!(problem.detail.contains("--allow-host"), "{}", problem.detail);
    }
}
