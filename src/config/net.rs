//! Network values: addresses to listen on, servers to proxy to, origins, hosts, networks.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderName, Uri};
use ipnet::IpNet;

use super::reader::setting::{InvalidValue, ScalarSetting};

/// A server to proxy to: `http://host:port` or `https://host:port`, without a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    /// True for `https`.
    pub tls: bool,
    /// Name or address, without the brackets of IPv6.
    pub host: String,
    /// Port; 80 or 443 when none was written.
    pub port: u16,
}

/// An origin whose browser pages may use the streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigin {
    /// `*`: pages of every origin.
    Any,
    /// Pages of this origin, `https://app.example.com`.
    Exact(String),
}

/// A host name, an address, or `*.` and a domain for all its subdomains. Lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(String);

/// The URL under which clients reach this server, without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl HostPattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<IpAddr> for HostPattern {
    fn from(ip: IpAddr) -> Self {
        HostPattern(ip.to_string())
    }
}

impl PublicUrl {
    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ScalarSetting for SocketAddr {
    const WHAT: &'static str = "an IP address and a port, such as 127.0.0.1:4437 or [::]:4437";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        text.parse().map_err(|_| InvalidValue::not_a(Self::WHAT).fix(address_fix(text)))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// What the author of a listen address that is none probably wanted.
fn address_fix(text: &str) -> String {
    let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    match (text.rsplit_once(':'), port) {
        (Some(("localhost", _)), Some(port)) => {
            format!("write \"127.0.0.1:{port}\" and \"[::1]:{port}\"")
        }
        (Some(("" | "*", _)) | None, Some(port)) => {
            format!("write \"0.0.0.0:{port}\" (IPv4) or \"[::]:{port}\" (IPv6)")
        }
        // Without brackets the port looks like the address's last group.
        (Some((ip, _)), Some(port)) if ip.parse::<Ipv6Addr>().is_ok() => {
            format!("write \"[{ip}]:{port}\"")
        }
        _ => match text.parse::<IpAddr>() {
            Ok(ip) => format!("add a port: \"{}\"", SocketAddr::new(ip, 4437)),
            Err(_) => "host names are not looked up; write the address".to_owned(),
        },
    }
}

impl ScalarSetting for IpNet {
    const WHAT: &'static str = "an IP address or network, such as 10.0.0.0/8 or ::1";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::from(ip));
        }
        let net: Self = text.parse().map_err(|_| InvalidValue::not_a(Self::WHAT))?;
        if net.trunc() != net {
            let fix =
                format!("write {} for the network or {} for the one host", net.trunc(), net.addr());
            return Err(InvalidValue::new("has bits set beyond its prefix", fix));
        }
        Ok(net)
    }

    fn text(&self) -> String {
        if self.prefix_len() == self.max_prefix_len() {
            self.addr().to_string()
        } else {
            self.to_string()
        }
    }
}

impl ScalarSetting for HeaderName {
    const WHAT: &'static str = "the name of a header";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        text.parse()
            .map_err(|_| InvalidValue::not_a(Self::WHAT).fix("write a name such as x-user-id"))
    }

    fn text(&self) -> String {
        self.as_str().to_owned()
    }
}

impl ScalarSetting for ServerUrl {
    const WHAT: &'static str = "a server such as http://127.0.0.1:3000";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let url = base_url(text).map_err(|fix| InvalidValue::not_a(Self::WHAT).fix(fix))?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            let fix = "remove everything after the port; `path` and `strip_prefix` choose paths";
            return Err(InvalidValue::new("has a path", fix));
        }
        let tls = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if port == 0 {
            return Err(InvalidValue::new(
                "has port 0",
                "write the port that the server listens on",
            ));
        }
        Ok(Self { tls, host, port })
    }

    fn text(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            format!("{scheme}://[{}]:{}", self.host, self.port)
        } else {
            format!("{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl ScalarSetting for CorsOrigin {
    const WHAT: &'static str = "\"*\" or an origin such as https://app.example.com";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.contains('*') {
            let fix = "name each origin; \"*\" alone allows all";
            return Err(InvalidValue::new("has a wildcard inside", fix));
        }
        let url = base_url(text).map_err(|fix| InvalidValue::not_a(Self::WHAT).fix(fix))?;
        // Compared with what a browser sends, byte for byte: no path, not even a slash.
        let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(InvalidValue::not_a(Self::WHAT));
        };
        let origin = format!("{scheme}://{authority}").to_ascii_lowercase();
        if origin == text {
            Ok(Self::Exact(origin))
        } else {
            let rule = "is not written as a browser sends it";
            Err(InvalidValue::new(rule, format!("write \"{origin}\"")))
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Exact(origin) => origin.clone(),
        }
    }
}

impl ScalarSetting for HostPattern {
    const WHAT: &'static str = "a host such as hooks.example.com or *.example.com";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let host = text.strip_prefix("*.").unwrap_or(text);
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let is_ip = host.len() == text.len() && host.parse::<IpAddr>().is_ok();
        if is_ip || (host.len() <= 253 && host.split('.').all(is_label)) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(InvalidValue::not_a(Self::WHAT)
                .fix("write the host alone, without scheme, port or path"))
        }
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ScalarSetting for PublicUrl {
    const WHAT: &'static str = "a URL such as https://streams.example.com";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let url = base_url(text).map_err(|fix| InvalidValue::not_a(Self::WHAT).fix(fix))?;
        if url.query().is_some() {
            return Err(InvalidValue::new("has a query", "remove everything from the `?` on"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// An absolute `http` or `https` URL without user information, or what to change.
pub(super) fn base_url(text: &str) -> Result<Uri, &'static str> {
    let url: Uri = text.parse().map_err(|_| "write scheme, host and port")?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err("start it with http:// or https://");
    }
    let authority = url.authority().ok_or("write the host after the scheme")?;
    if authority.as_str().contains('@') {
        return Err("remove the user name and password");
    }
    if authority.host().is_empty() {
        return Err("write the host after the scheme");
    }
    if authority.port_u16().is_none() && authority.as_str().len() != authority.host().len() {
        return Err("write a port from 1 to 65535");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fix<T: ScalarSetting>(text: &str) -> String {
        T::parse(text).err().unwrap_or_else(|| panic!("{text:?} must be refused")).fix
    }

    #[test]
    fn servers_are_read_with_their_default_ports() {
        for (text, shown) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("https://API.example.com", "https://api.example.com:443"),
            ("http://[::1]:80/", "http://[::1]:80"),
        ] {
            assert_eq!(ServerUrl::parse(text).unwrap().text(), shown);
        }
        for text in [
            "",
            "localhost:3000",
            "ftp://x",
            "http://",
            "http://u:p@x",
            "http://x/path",
            "http://x:0",
            "http://x:99999",
            "http://x:",
            "http://x?q",
        ] {
            assert!(ServerUrl::parse(text).is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn a_listen_address_that_is_none_gets_advice() {
        assert!(fix::<SocketAddr>("localhost:8080").contains("127.0.0.1:8080"));
        assert!(fix::<SocketAddr>(":8080").contains("0.0.0.0:8080"));
        assert!(fix::<SocketAddr>("8080").contains("0.0.0.0:8080"));
        assert!(fix::<SocketAddr>("10.0.0.1").contains("10.0.0.1:4437"));
        assert!(fix::<SocketAddr>("::1").contains("[::1]:4437"));
        assert!(fix::<SocketAddr>("::1:5240").contains("\"[::1]:5240\""));
        assert!(fix::<SocketAddr>("fe80::1").contains("[fe80::1]:4437"));
        assert!(fix::<SocketAddr>("example.com:1").contains("not looked up"));
    }

    #[test]
    fn networks_and_origins_are_strict_about_what_they_match() {
        assert_eq!(IpNet::parse("10.1.2.3").unwrap().text(), "10.1.2.3");
        assert_eq!(IpNet::parse("fd00::/8").unwrap().text(), "fd00::/8");
        assert!(fix::<IpNet>("10.1.2.3/8").contains("10.0.0.0/8"));
        assert_eq!(CorsOrigin::parse("https://a.b").unwrap().text(), "https://a.b");
        assert!(fix::<CorsOrigin>("https://a.b/").contains("\"https://a.b\""));
        assert!(fix::<CorsOrigin>("https://*.a.b").contains("each origin"));
        assert!(HostPattern::parse("*.example.com").is_ok());
        assert!(HostPattern::parse("https://example.com").is_err());
        assert!(HostPattern::parse("a*.example.com").is_err());
    }
}
