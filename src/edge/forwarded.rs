//! Who the client is and what URL it used, as far as proxies in front can be believed.
//!
//! `X-Forwarded-*` and `X-Request-Id` count only when the connection comes from a
//! [`trusted_proxies`](super::EdgeOptions::trusted_proxies) network; anybody else could write
//! anything there. The `Forwarded` field (RFC 7239) is not read and not passed on from
//! untrusted peers: two fields that say the same thing are two chances to disagree.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use super::context::RequestContext;
use super::request_id::X_REQUEST_ID;

pub(crate) static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The address the connection comes from. `None` on transports without one.
pub(crate) fn peer_addr(session: &ServerSession) -> Option<SocketAddr> {
    session.client_addr().and_then(|addr| addr.as_inet()).copied()
}

/// Whether `addr` may speak for others. IPv4 addresses mapped into IPv6 count as IPv4.
pub(crate) fn is_trusted(addr: Option<SocketAddr>, trusted: &[IpNet]) -> bool {
    addr.is_some_and(|addr| contains(trusted, addr.ip()))
}

fn contains(nets: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    nets.iter().any(|net| net.contains(&ip))
}

/// Notes whom the connection comes from, and takes over the request id of a trusted proxy.
pub(crate) fn note_peer(session: &ServerSession, trusted: &[IpNet], ctx: &mut RequestContext) {
    ctx.client = peer_addr(session);
    if !is_trusted(ctx.client, trusted) {
        return;
    }
    if let Some(id) = session.req_header().headers.get(&X_REQUEST_ID) {
        ctx.request_id.adopt(id);
    }
}

/// The client: the connection's address, or behind trusted proxies the nearest address in
/// `X-Forwarded-For` that is not one of them.
pub(crate) fn client_ip(
    request: &RequestHeader,
    peer: Option<SocketAddr>,
    trusted: &[IpNet],
) -> Option<IpAddr> {
    let peer = peer?.ip().to_canonical();
    if !contains(trusted, peer) {
        return Some(peer);
    }
    let mut nearest = peer;
    for hop in list(&request.headers, &X_FORWARDED_FOR).into_iter().rev() {
        // A hop nobody can read ends the chain of trust.
        let Some(ip) = parse_ip(hop) else { break };
        nearest = ip;
        if !contains(trusted, ip) {
            break;
        }
    }
    Some(nearest)
}

/// The scheme and authority under which the client reached this server, for `Location`.
///
/// From `X-Forwarded-Proto` and `X-Forwarded-Host` (the first value) of a trusted proxy, else
/// from the request's own authority and the connection's TLS. A value that is not a scheme or an
/// authority is ignored. `None` for the host: an HTTP/1.0 request without `Host`.
pub(crate) fn external_url(
    session: &ServerSession,
    trusted: &[IpNet],
) -> (&'static str, Option<String>) {
    let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    let trusted = is_trusted(peer_addr(session), trusted);
    external_parts(session.req_header(), trusted, tls)
}

fn external_parts(
    request: &RequestHeader,
    trusted: bool,
    tls: bool,
) -> (&'static str, Option<String>) {
    let own_scheme = if tls { "https" } else { "http" };
    if !trusted {
        return (own_scheme, own_host(request));
    }
    let scheme = match list(&request.headers, &X_FORWARDED_PROTO).first() {
        Some(proto) if proto.eq_ignore_ascii_case("https") => "https",
        Some(proto) if proto.eq_ignore_ascii_case("http") => "http",
        _ => own_scheme,
    };
    let forwarded = list(&request.headers, &X_FORWARDED_HOST).first().and_then(|host| fit(host));
    (scheme, forwarded.or_else(|| own_host(request)))
}

/// The authority the request itself names.
pub(crate) fn own_host(request: &RequestHeader) -> Option<String> {
    let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| request.uri.authority().map(Authority::as_str)).and_then(fit)
}

fn fit(host: &str) -> Option<String> {
    if host.contains('@') {
        return None;
    }
    host.parse::<Authority>().ok().map(|authority| authority.to_string())
}

/// Writes `X-Forwarded-*` for the next hop: extended from a trusted proxy, replaced otherwise.
pub(crate) fn write(
    downstream: &RequestHeader,
    upstream: &mut RequestHeader,
    peer: Option<SocketAddr>,
    trusted: bool,
    tls: bool,
) -> pingora::Result<()> {
    let (scheme, host) = external_parts(downstream, trusted, tls);
    if !trusted {
        upstream.remove_header(&header::FORWARDED);
        upstream.remove_header(&X_REAL_IP);
    }
    if let Some(peer) = peer {
        let ip = peer.ip().to_canonical();
        let chain = if trusted { list(&downstream.headers, &X_FORWARDED_FOR) } else { Vec::new() };
        let mut value = chain.join(", ");
        if !value.is_empty() {
            value.push_str(", ");
        }
        value.push_str(&ip.to_string());
        upstream.insert_header(X_FORWARDED_FOR.clone(), value)?;
    } else if !trusted {
        upstream.remove_header(&X_FORWARDED_FOR);
    }
    upstream.insert_header(X_FORWARDED_PROTO.clone(), HeaderValue::from_static(scheme))?;
    match host {
        Some(host) => upstream.insert_header(X_FORWARDED_HOST.clone(), host)?,
        None => {
            upstream.remove_header(&X_FORWARDED_HOST);
        }
    }
    Ok(())
}

/// All elements of a comma-separated field, over all its lines, in order.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|item| !item.is_empty()).collect()
}

/// An address as proxies write it: bare, with a port, or bracketed.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()))?;
    Some(IpAddr::to_canonical(&ip))
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

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn addr(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_stranger_cannot_choose_its_address() {
        let request = request(&[("x-forwarded-for", "1.2.3.4")]);
        let ip = client_ip(&request, addr("9.9.9.9:1"), &nets(&["10.0.0.0/8"]));
        assert_eq!(ip, Some("9.9.9.9".parse().unwrap()));
    }

    #[test]
    fn the_client_is_the_nearest_address_that_is_not_a_proxy() {
        let trusted = nets(&["10.0.0.0/8", "::1/128"]);
        let cases = [
            ("1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4, 10.0.0.7", "1.2.3.4"),
            ("1.2.3.4:5555", "1.2.3.4"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("6.6.6.6, garbage, 10.0.0.7", "10.0.0.7"),
            ("", "10.0.0.1"),
        ];
        for (field, expected) in cases {
            let request = request(&[("x-forwarded-for", field)]);
            let ip = client_ip(&request, addr("10.0.0.1:1"), &trusted);
            assert_eq!(ip, Some(expected.parse().unwrap()), "{field}");
        }
    }

    #[test]
    fn a_mapped_ipv4_address_is_matched_as_ipv4() {
        assert!(is_trusted(addr("[::ffff:10.0.0.1]:1"), &nets(&["10.0.0.0/8"])));
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
