//! The URLs and addresses that webhooks may have (§12.8): https to public addresses, and nothing else.
//!
//! The URL is judged when a subscription is created and again before each delivery; the addresses that
//! its host resolves to are judged when connecting, because the name may resolve differently by then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// The longest URL, bytes.
const MAX_URL_BYTES: usize = 2048;

/// A host, or all hosts below a domain (`*.example.com`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRule {
    Exact(String),
    /// Any host that ends with this suffix, which begins with a dot.
    Below(String),
}

impl HostRule {
    /// Parses `host` or `*.domain`.
    pub fn parse(text: &str) -> Self {
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') => HostRule::Below(suffix.into()),
            _ => HostRule::Exact(text),
        }
    }

    fn allows(&self, host: &str) -> bool {
        match self {
            HostRule::Exact(name) => host == name,
            HostRule::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

/// The operator's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetRules {
    /// Allow `http://localhost` and `http://127.0.0.x`, for development.
    pub allow_http_localhost: bool,
    /// When not empty, only these hosts. The address rules hold for them too.
    pub allowed_hosts: Vec<HostRule>,
}

/// A webhook URL that the rules allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookTarget {
    /// The URL as it will be requested.
    pub url: Url,
    /// Under the localhost exception: connects to loopback addresses only. All others connect to public
    /// addresses only.
    pub local: bool,
}

impl WebhookTarget {
    /// Judges a URL.
    ///
    /// # Errors
    /// What the rules forbid, as text for the client.
    pub fn parse(text: &str, rules: &TargetRules) -> Result<Self, String> {
        if text.len() > MAX_URL_BYTES {
            return Err(format!("it is longer than {MAX_URL_BYTES} bytes"));
        }
        let mut url = Url::parse(text).map_err(|error| format!("it is not a URL ({error})"))?;
        url.set_fragment(None);
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it has a user name or password; verify Webhook-Signature instead".into());
        }
        let host = url.host().ok_or("it has no host")?.to_owned();
        if url.port() == Some(0) {
            return Err("port 0 cannot be connected to".into());
        }
        match url.scheme() {
            "https" => judge_public(&host, rules)?,
            "http" => return judge_local(url, &host, rules),
            _ => return Err("it must begin with https://".into()),
        }
        Ok(WebhookTarget { url, local: false })
    }

    /// The host of a webhook URL, if it has one; the rules are not applied.
    pub fn host_of(url: &str) -> Option<String> {
        Url::parse(url).ok()?.host_str().map(str::to_owned)
    }

    /// Whether the target may be connected to at this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        if self.local { address.to_canonical().is_loopback() } else { is_public(address) }
    }
}

fn judge_local(url: Url, host: &Host, rules: &TargetRules) -> Result<WebhookTarget, String> {
    let local = match host {
        Host::Domain(name) => name.as_str() == "localhost",
        Host::Ipv4(address) => address.octets().starts_with(&[127, 0, 0]),
        Host::Ipv6(_) => false,
    };
    match (local, rules.allow_http_localhost) {
        (true, true) => Ok(WebhookTarget { url, local: true }),
        (true, false) => Err("http to localhost is for development only; use https".into()),
        (false, _) => Err("it must begin with https://".into()),
    }
}

fn judge_public(host: &Host, rules: &TargetRules) -> Result<(), String> {
    let (public, name) = match host {
        Host::Ipv4(address) => (is_public(IpAddr::V4(*address)), address.to_string()),
        Host::Ipv6(address) => (is_public(IpAddr::V6(*address)), address.to_string()),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let local = ["localhost", "local", "internal"]
                .iter()
                .any(|zone| name == *zone || name.ends_with(&format!(".{zone}")));
            (!local && !name.is_empty(), name)
        }
    };
    if !public {
        return Err(format!("{name} is a private, local or reserved host"));
    }
    let rules = &rules.allowed_hosts;
    if !rules.is_empty() && !rules.iter().any(|rule| rule.allows(&name)) {
        return Err(format!("{name} is not among the hosts that the operator allows"));
    }
    Ok(())
}

/// Whether an address is globally reachable unicast, not private, shared, reserved or special.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let special = match (a, b, c, d) {
        (0 | 10 | 127, ..) => true,  // this network, private, loopback
        (100, 64..=127, ..) => true, // shared address space of carriers
        (168, 63, 129, 16) => true,  // a cloud's host agent, on a public number
        (169, 254, ..) => true,      // link-local, cloud metadata
        (172, 16..=31, ..) => true,  // private
        (192, 0, 0 | 2, _) => true,  // protocol assignments, documentation
        (192, 88, 99, _) => true,    // 6to4 relays
        (192, 168, ..) => true,      // private
        (198, 18 | 19, ..) => true,  // benchmarks
        (198, 51, 100, _) => true,   // documentation
        (203, 0, 113, _) => true,    // documentation
        (224..=255, ..) => true,     // multicast, reserved, broadcast
        _ => false,
    };
    !special
}

/// Only global unicast (2000::/3), less its parts that lead elsewhere. That leaves out loopback,
/// unspecified, unique-local, link-local, site-local, multicast, and every form with an IPv4 address in
/// it: mapped, compatible, translated and NAT64.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let special = match (a, b) {
        (0x2001, 0..=0x01ff) => true, // protocol assignments, Teredo, ORCHID
        (0x2001, 0x0db8) => true,     // documentation
        (0x2002, _) => true,          // 6to4: an IPv4 address inside
        (0x3fff, 0..=0x0fff) => true, // documentation
        _ => false,
    };
    (0x2000..=0x3fff).contains(&a) && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for refused in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(refused.parse().unwrap()), "{refused}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "2001:4860::8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn urls_that_lead_inside_are_refused_however_spelled() {
        let rules = TargetRules { allow_http_localhost: true, ..TargetRules::default() };
        for url in [
            "http://10.0.0.1/hook",
            "http://example.com/",
            "https://10.0.0.1/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://017700000001/",
            "https://127.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[fd00::1]/",
            "https://169.254.169.254/latest",
            "https://metadata.google.internal/",
            "https://printer.local/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "https://user:pw@example.com/",
            "https://",
            "nonsense",
            "http://127.0.1.1/",
            "http://localhost.evil.com/",
            "http://[::1]/",
            "https://x:0/",
            "http://localhost@10.0.0.1/",
        ] {
            assert!(WebhookTarget::parse(url, &rules).is_err(), "{url}");
        }
        assert!(WebhookTarget::parse(&format!("https://a/{}", "x".repeat(2048)), &rules).is_err());
        for url in
            ["https://worker.example/hooks", "https://8.8.8.8/", "https://a.example:8443/x?y"]
        {
            assert!(!WebhookTarget::parse(url, &rules).unwrap().local, "{url}");
        }
    }

    #[test]
    fn localhost_is_for_development_and_stays_local() {
        let dev = TargetRules { allow_http_localhost: true, ..TargetRules::default() };
        for url in ["http://localhost:3000/", "http://127.0.0.1:9/x", "http://127.0.0.250/"] {
            let target = WebhookTarget::parse(url, &dev).unwrap();
            assert!(target.allows("127.0.0.1".parse().unwrap()));
            assert!(!target.allows("8.8.8.8".parse().unwrap()), "the exception is for loopback");
            assert!(WebhookTarget::parse(url, &TargetRules::default()).is_err(), "{url}");
        }
    }

    #[test]
    fn an_allow_list_is_exact_or_below_a_domain() {
        let allowed_hosts =
            ["hooks.example.com", "*.workers.example"].map(HostRule::parse).to_vec();
        let rules = TargetRules { allow_http_localhost: false, allowed_hosts };
        let ok = |url: &str| WebhookTarget::parse(url, &rules).is_ok();
        assert!(ok("https://hooks.example.com/") && ok("https://a.b.workers.example/"));
        assert!(!ok("https://workers.example/") && !ok("https://evilworkers.example/"));
        assert!(!ok("https://example.com/"));
    }
}
