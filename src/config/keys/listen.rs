//! Where the server listens: plain addresses, or groups with TLS and the PROXY protocol.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::config::net::HostPattern;
use crate::config::reader::error::ConfigProblems;
use crate::config::reader::node::{ConfigNode, NodeValue};
use crate::config::reader::setting::{
    InvalidValue, ScalarSetting, Setting, choice, join, settings,
};

/// Port of the stream listener when none is named.
pub const DEFAULT_PORT: u16 = 4437;

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// One entry of `listen`.
#[derive(Clone, Debug, PartialEq)]
pub enum ListenerConfig {
    /// HTTP in cleartext.
    Address(SocketAddr),
    /// With options.
    Group(ListenerGroup),
}

settings! {
    /// An address with options.
    pub struct ListenerGroup {
        /// An IP and a port.
        address: SocketAddr = SocketAddr::from(([0, 0, 0, 0], 443));
        /// TLS; off by default.
        tls: Option<ListenerTls> = None;
        /// Names that are served here. Needed by `tls: auto`; otherwise all that the certificates cover.
        hosts: Vec<HostPattern> = Vec::new();
        /// Whether a load balancer in `trusted_proxies` sends a PROXY header before everything else.
        proxy_protocol: bool = false;
    }
}

/// TLS of one listener.
#[derive(Clone, Debug, PartialEq)]
pub enum ListenerTls {
    /// Certificates from an ACME server.
    Auto,
    /// Certificates from an authority of the server's own.
    Internal,
    /// Certificates from files.
    Files(TlsFiles),
}

settings! {
    /// Certificates from files, and client certificates.
    pub struct TlsFiles {
        /// Pairs of files; the first also answers clients that send no server name.
        certificates: Vec<CertificatePair> = Vec::new();
        /// PEM file of the authorities whose client certificates are accepted (mutual TLS).
        client_ca: Option<PathBuf> = None;
        /// Whether a client may come without a certificate.
        client_certificate: ClientCertificate = ClientCertificate::Required;
    }
}

settings! {
    /// A certificate and its key.
    pub struct CertificatePair {
        /// PEM: the certificate, then the chain.
        certificate: PathBuf = PathBuf::new();
        /// PEM: the private key.
        key: PathBuf = PathBuf::new();
    }
}

choice! {
    /// Whether clients need a certificate.
    pub enum ClientCertificate: "a rule for client certificates" {
        /// A client without one is refused.
        Required = "required",
        /// A client without one is let in, without an identity.
        Optional = "optional",
    }
}

settings! {
    /// Certificates that the server orders itself.
    pub struct AcmeConfig {
        /// Where the authority writes to about the account.
        email: Option<String> = None;
        /// URL of the ACME server's directory.
        directory: AcmeDirectory = AcmeDirectory::default();
        /// PEM file of the roots that the ACME server's own certificate leads to.
        ca: Option<PathBuf> = None;
        /// How control of a name is proved, in order of preference.
        challenges: Vec<AcmeChallenge> = vec![AcmeChallenge::TlsAlpn01, AcmeChallenge::Http01];
        /// Binds the account to one that the authority made.
        external_account: Option<AcmeExternalAccount> = None;
    }
}

settings! {
    /// An account that the authority made outside ACME.
    pub struct AcmeExternalAccount {
        /// The authority's name for it.
        key_id: String = String::new();
        /// File of the shared key, base64url.
        hmac_key_file: PathBuf = PathBuf::new();
    }
}

choice! {
    /// A way to prove control of a name.
    pub enum AcmeChallenge: "a challenge" {
        /// A file on port 80.
        Http01 = "http-01",
        /// A handshake on port 443.
        TlsAlpn01 = "tls-alpn-01",
    }
}

/// The URL of an ACME server's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeDirectory(String);

impl AcmeDirectory {
    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for AcmeDirectory {
    fn default() -> Self {
        AcmeDirectory(LETS_ENCRYPT.to_owned())
    }
}

impl ScalarSetting for AcmeDirectory {
    const WHAT: &'static str = "the https URL of an ACME directory";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text.parse::<http::Uri>() {
            Ok(url) if url.scheme_str() == Some("https") && url.host().is_some() => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidValue::not_a(Self::WHAT).fix("write it as the authority documents it")),
        }
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ListenerConfig {
    /// Whether clients are asked for a certificate.
    pub(in crate::config) fn asks_for_certificates(&self) -> bool {
        let ListenerConfig::Group(group) = self else { return false };
        matches!(&group.tls, Some(ListenerTls::Files(files)) if files.client_ca.is_some())
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        match self {
            ListenerConfig::Address(address) => *address,
            ListenerConfig::Group(group) => group.address,
        }
    }

    /// Names that are served here, as written.
    pub fn hosts(&self) -> &[HostPattern] {
        match self {
            ListenerConfig::Address(_) => &[],
            ListenerConfig::Group(group) => &group.hosts,
        }
    }

    /// TLS, if there is any.
    pub fn tls(&self) -> Option<&ListenerTls> {
        match self {
            ListenerConfig::Address(_) => None,
            ListenerConfig::Group(group) => group.tls.as_ref(),
        }
    }
}

impl From<SocketAddr> for ListenerConfig {
    fn from(address: SocketAddr) -> Self {
        ListenerConfig::Address(address)
    }
}

impl Setting for ListenerConfig {
    fn read(node: &ConfigNode, path: &str, problems: &mut ConfigProblems<'_>) -> Option<Self> {
        match &node.value {
            NodeValue::Group(_) => {
                let group = ListenerGroup::read(node, path, problems)?;
                if node.child("address").is_none() {
                    let fix = "add one, such as address: 0.0.0.0:443";
                    problems.broken(&[(path, "")], "needs an address".to_owned(), fix);
                    return None;
                }
                Some(ListenerConfig::Group(group))
            }
            _ => SocketAddr::read(node, path, problems).map(ListenerConfig::Address),
        }
    }

    fn write(&self) -> ConfigNode {
        match self {
            ListenerConfig::Address(address) => address.write(),
            ListenerConfig::Group(group) => group.write(),
        }
    }

    fn check(&self, path: &str, problems: &mut ConfigProblems<'_>) {
        if let ListenerConfig::Group(group) = self {
            group.check(path, problems);
        }
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        ListenerGroup::keys(path, keys);
    }
}

impl Setting for ListenerTls {
    fn read(node: &ConfigNode, path: &str, problems: &mut ConfigProblems<'_>) -> Option<Self> {
        match &node.value {
            NodeValue::Group(_) => TlsFiles::read(node, path, problems).map(ListenerTls::Files),
            NodeValue::Text(text) if text == "auto" => Some(ListenerTls::Auto),
            NodeValue::Text(text) if text == "internal" => Some(ListenerTls::Internal),
            _ => {
                let fix = "write auto, internal, or a group with certificates";
                problems.invalid(node, path, InvalidValue::new("is not a way to have TLS", fix));
                None
            }
        }
    }

    fn write(&self) -> ConfigNode {
        match self {
            ListenerTls::Auto => ConfigNode::text("auto"),
            ListenerTls::Internal => ConfigNode::text("internal"),
            ListenerTls::Files(files) => files.write(),
        }
    }

    fn check(&self, path: &str, problems: &mut ConfigProblems<'_>) {
        if let ListenerTls::Files(files) = self {
            files.check(path, problems);
        }
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        TlsFiles::keys(path, keys);
    }
}

/// Rules over several keys.
pub(in crate::config) fn check(config: &super::root::Config, problems: &mut ConfigProblems<'_>) {
    let mut automatic = false;
    for (index, listener) in config.listen.iter().enumerate() {
        let ListenerConfig::Group(group) = listener else { continue };
        let path = format!("listen[{index}]");
        automatic |= group.tls == Some(ListenerTls::Auto);
        group_rules(config, group, &path, problems);
    }
    let tls = config.listen.iter().any(|one| one.tls().is_some());
    if config.hsts.is_some() && !tls {
        let rule = "has no effect: no listener has tls".to_owned();
        problems.broken(&[("hsts", "")], rule, "add tls to a listener, or remove it");
    }
    if config.redirect_http.as_ref().is_some_and(|all| !all.is_empty()) && !tls {
        let rule = "leads nowhere: no listener has tls".to_owned();
        problems.broken(&[("redirect_http", "")], rule, "add tls to a listener, or remove it");
    }
    if !automatic && problems.is_written("acme") {
        let rule = "has no effect: no listener has tls: auto";
        problems.broken(
            &[("acme", "")],
            rule.to_owned(),
            "add tls: auto to a listener, or remove it",
        );
    }
    if automatic && config.acme.challenges.is_empty() {
        let fix = "name tls-alpn-01, http-01 or both";
        problems.broken(&[("acme.challenges", "")], "names no challenge".to_owned(), fix);
    }
    for (index, address) in config.redirect_http.iter().flatten().enumerate() {
        if config.listen.iter().any(|one| one.address() == *address) {
            let path = format!("redirect_http[{index}]");
            let rule = "is one of listen".to_owned();
            problems.broken(&[(&path, &address.text())], rule, "remove one of them");
        }
    }
}

fn group_rules(
    config: &super::root::Config,
    group: &ListenerGroup,
    path: &str,
    problems: &mut ConfigProblems<'_>,
) {
    let at = |key: &str| join(path, key);
    if group.proxy_protocol && config.trusted_proxies.is_empty() {
        let rule = "believes no sender: trusted_proxies is empty".to_owned();
        let fix = "name the load balancer's addresses in trusted_proxies";
        problems.broken(&[(&at("proxy_protocol"), "true")], rule, fix);
    }
    let Some(tls) = &group.tls else {
        if !group.hosts.is_empty() {
            let fix = "add tls, or remove it";
            problems.broken(&[(&at("hosts"), "")], "has no effect without tls".to_owned(), fix);
        }
        return;
    };
    if config.data_dir.is_none() && !matches!(tls, ListenerTls::Files(_)) {
        let rule = "keeps keys and certificates in data_dir, and there is none".to_owned();
        problems.broken(&[(&at("tls"), "")], rule, "set data_dir");
    }
    match tls {
        ListenerTls::Internal => {}
        ListenerTls::Auto => {
            if group.hosts.is_empty() {
                let fix = "name the hosts to have certificates for";
                problems.broken(&[(path, "")], "needs hosts with tls: auto".to_owned(), fix);
            }
            for (index, host) in group.hosts.iter().enumerate() {
                let wildcard = host.as_str().starts_with("*.");
                if wildcard || host.as_str().parse::<IpAddr>().is_ok() {
                    let path = format!("{path}.hosts[{index}]");
                    let rule = "cannot be proved by http-01 or tls-alpn-01".to_owned();
                    let fix =
                        "order wildcards by DNS-01 with another tool, and name its files in tls";
                    problems.broken(&[(&path, host.as_str())], rule, fix);
                }
            }
        }
        ListenerTls::Files(files) => {
            if files.certificates.is_empty() {
                let fix = "name a certificate and its key, or write tls: auto";
                let key = at("tls.certificates");
                problems.broken(&[(&key, "")], "names no certificate".to_owned(), fix);
            }
            for (index, pair) in files.certificates.iter().enumerate() {
                for (key, value) in [("certificate", &pair.certificate), ("key", &pair.key)] {
                    if value.as_os_str().is_empty() {
                        let path = format!("{path}.tls.certificates[{index}].{key}");
                        problems.broken(&[(&path, "")], "is missing".to_owned(), "name a PEM file");
                    }
                }
            }
        }
    }
}
