//! Who the client is and what URL it used, as far as proxies in front can be believed.
//!
//! `X-Forwarded-*` and `X-Request-Id` count only when the connection comes from a
//! [`trusted_proxies`](super::EdgeOptions::trusted_proxies) network; any other client could write
//! anything there. Other fields that upstreams may believe are passed on from such a network and taken off otherwise.
//! The `Forwarded` field (RFC 7239) is not read: two fields that say the same thing are two chances to disagree.

use std::net::SocketAddr;

use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use durable_streams_pingora::forwarded::{
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, external_parts, field_list,
};

use super::forward_auth::identity::{dashed, names_identity};

pub(crate) use durable_streams_pingora::forwarded::{client_ip, is_trusted, peer_addr};

/// Fields besides `X-Forwarded-*` and those of a client's identity that servers take a client's address or the requested URL from, or, as a CGI program
/// does with `Proxy`, the proxy for their own requests. In order.
const TRUSTED_FIELDS: [&str; 16] = [
    "cf-connecting-ip",
    "client-ip",
    "fastly-client-ip",
    "forwarded",
    "proxy",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-original-url",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-rewrite-url",
    "x-url-scheme",
];

/// Whether servers behind a proxy take the proxy's word from this field.
fn carries_trust(name: &HeaderName) -> bool {
    let name = dashed(name);
    name.starts_with("x-forwarded-")
        || TRUSTED_FIELDS.binary_search(&&*name).is_ok()
        || names_identity(&name)
}

/// Takes off what only a proxy in front may say.
fn strip(request: &mut RequestHeader) {
    let names: Vec<HeaderName> =
        request.headers.keys().filter(|name| carries_trust(name)).cloned().collect();
    for name in names {
        request.remove_header(&name);
    }
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
        strip(upstream);
    }
    if let Some(peer) = peer {
        let ip = peer.ip().to_canonical();
        let chain =
            if trusted { field_list(&downstream.headers, &X_FORWARDED_FOR) } else { Vec::new() };
        let mut value = chain.join(", ");
        if !value.is_empty() {
            value.push_str(", ");
        }
        value.push_str(&ip.to_string());
        upstream.insert_header(X_FORWARDED_FOR.clone(), value)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;

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
    fn fields_that_upstreams_believe_are_known() {
        assert!(TRUSTED_FIELDS.is_sorted());
        for name in
            ["x-forwarded-port", "x_forwarded_for", "true_client-ip", "proxy", "Remote_User"]
        {
            assert!(carries_trust(&name.to_lowercase().parse().unwrap()), "{name}");
        }
        for name in ["x-forwarded", "x-for", "proxy-x", "cookie", "x-request-id", "forwarded-by"] {
            assert!(!carries_trust(&name.parse().unwrap()), "{name}");
        }
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
}
