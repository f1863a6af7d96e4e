//! The URL that a client used, as far as proxies in front can be believed.
//!
//! `X-Forwarded-*` counts only when the connection comes from a trusted network, see
//! [`StreamOptions::trusted_proxies`](crate::StreamOptions::trusted_proxies): any other client could write anything
//! there. The `Forwarded` field (RFC 7239) is not read: two fields that say the same thing are two chances to disagree.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;

/// `X-Forwarded-For`.
pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`.
pub static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`.
pub static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The address the connection comes from. `None` on transports without one.
pub fn peer_addr(session: &ServerSession) -> Option<SocketAddr> {
    session.client_addr().and_then(|addr| addr.as_inet()).copied()
}

/// Whether `addr` may speak for others. IPv4 addresses mapped into IPv6 count as IPv4.
pub fn is_trusted(addr: Option<SocketAddr>, trusted: &[IpNet]) -> bool {
    addr.is_some_and(|addr| is_trusted_ip(addr.ip(), trusted))
}

/// As [`is_trusted`], for an address without a port.
pub fn is_trusted_ip(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|net| net.contains(&ip))
}

/// The client: the connection's address, or behind trusted proxies the nearest address in
/// `X-Forwarded-For` that is not one of them.
pub fn client_ip(
    request: &RequestHeader,
    peer: Option<SocketAddr>,
    trusted: &[IpNet],
) -> Option<IpAddr> {
    let peer = peer?.ip().to_canonical();
    if !is_trusted_ip(peer, trusted) {
        return Some(peer);
    }
    let mut nearest = peer;
    for hop in field_list(&request.headers, &X_FORWARDED_FOR).into_iter().rev() {
        // A hop that is no address ends the chain of trust.
        let Some(ip) = parse_ip(hop) else { break };
        nearest = ip;
        if !is_trusted_ip(ip, trusted) {
            break;
        }
    }
    Some(nearest)
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()))?;
    Some(IpAddr::to_canonical(&ip))
}

/// The scheme and authority under which the client reached this server, for `Location`.
///
/// From `X-Forwarded-Proto` and `X-Forwarded-Host` (the first value) of a trusted proxy, else
/// from the request's own authority and the connection's TLS. A value that is not a scheme or an
/// authority is ignored. `None` for the host: an HTTP/1.0 request without `Host`.
pub fn external_url(session: &ServerSession, trusted: &[IpNet]) -> (&'static str, Option<String>) {
    let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    let trusted = is_trusted(peer_addr(session), trusted);
    external_parts(session.req_header(), trusted, tls)
}

/// As [`external_url`], from the request, whether its peer is `trusted`, and whether the connection is encrypted.
pub fn external_parts(
    request: &RequestHeader,
    trusted: bool,
    tls: bool,
) -> (&'static str, Option<String>) {
    let own_scheme = if tls { "https" } else { "http" };
    if !trusted {
        return (own_scheme, own_host(request));
    }
    let scheme = match field_list(&request.headers, &X_FORWARDED_PROTO).first() {
        Some(proto) if proto.eq_ignore_ascii_case("https") => "https",
        Some(proto) if proto.eq_ignore_ascii_case("http") => "http",
        _ => own_scheme,
    };
    let forwarded =
        field_list(&request.headers, &X_FORWARDED_HOST).first().and_then(|host| fit(host));
    (scheme, forwarded.or_else(|| own_host(request)))
}

fn own_host(request: &RequestHeader) -> Option<String> {
    let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| request.uri.authority().map(Authority::as_str)).and_then(fit)
}

fn fit(host: &str) -> Option<String> {
    if host.contains('@') {
        return None;
    }
    host.parse::<Authority>().ok().map(|authority| authority.to_string())
}

/// All elements of a comma-separated field, over all its lines, in order.
pub fn field_list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    #[test]
    fn a_mapped_ipv4_address_is_matched_as_ipv4() {
        assert!(is_trusted("[::ffff:10.0.0.1]:1".parse().ok(), &["10.0.0.0/8".parse().unwrap()]));
    }

    #[test]
    fn the_external_url_comes_from_a_trusted_proxy_or_the_request() {
        let fields = [
            ("host", "inner:80"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "streams.example"),
        ];
        let request = request(&fields);
        let inner = ("http", Some("inner:80".to_owned()));
        assert_eq!(external_parts(&request, false, false), inner);
        let outer = ("https", Some("streams.example".to_owned()));
        assert_eq!(external_parts(&request, true, false), outer);
    }

    #[test]
    fn a_forwarded_value_that_is_no_host_is_ignored() {
        for host in ["a b", "user@host", "x/y", ""] {
            let request = request(&[("host", "inner"), ("x-forwarded-host", host)]);
            assert_eq!(external_parts(&request, true, true).1.as_deref(), Some("inner"), "{host}");
        }
    }
}
