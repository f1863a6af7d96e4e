//! Client certificates of mutual TLS: from a name in the certificate to a principal.
//!
//! The TLS handshake has verified the certificate; nothing here reads a header, so no client can imitate one.
//! A browser sends its certificate with every request, whichever page causes it: like a cookie, it must not
//! be what lets a page of another site change something.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use durable_streams_protocol::Timestamp;
use http::{Method, header::AUTHORIZATION};
use serde_json::{Map, Value};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time,
};

use crate::{
    AccessControl, AccessError, ClaimTemplate, Grant, OperationSet, Principal, RequestHead,
    TenantId, X_API_KEY,
    cache::{TokenCache, bytes_hash},
};

/// The claim that holds what a rule's `*` stood for, or the whole name.
const NAME: &str = "name";
/// The most letters that a `*` stands for.
const MAX_STAR_BYTES: usize = 64;
/// The longest certificate that is looked at, bytes.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// The names in a client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The common name of the subject, if it has exactly one.
    pub common_name: Option<String>,
    /// DNS names of `subjectAltName`, lower case.
    pub dns: Vec<String>,
    /// URIs of `subjectAltName`, as SPIFFE writes identities.
    pub uris: Vec<String>,
    /// Mail addresses of `subjectAltName`.
    pub emails: Vec<String>,
    /// From when on the certificate is not valid.
    pub expires: Option<Timestamp>,
}

impl ClientIdentity {
    /// The names in a certificate (DER) that the handshake has verified; `None` where there is none.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        if certificate.len() > MAX_CERTIFICATE_BYTES {
            return None;
        }
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let mut common_names = parsed.subject().iter_common_name();
        let common_name = common_names.next().filter(|_| common_names.next().is_none());
        let common_name = common_name.and_then(|name| name.as_str().ok()).and_then(plain);
        let mut identity = ClientIdentity {
            common_name,
            expires: Some(timestamp(parsed.validity().not_after)),
            ..ClientIdentity::default()
        };
        if let Ok(Some(names)) = parsed.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::DNSName(name) => {
                        identity.dns.extend(plain(&name.to_ascii_lowercase()));
                    }
                    GeneralName::URI(name) => identity.uris.extend(plain(name)),
                    GeneralName::RFC822Name(name) => identity.emails.extend(plain(name)),
                    _ => {}
                }
            }
        }
        Some(identity)
    }
}

/// A name that is what it looks like.
fn plain(name: &str) -> Option<String> {
    (!name.is_empty() && !name.chars().any(char::is_control)).then(|| name.to_owned())
}

fn timestamp(time: ASN1Time) -> Timestamp {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    Timestamp::from_millis(seconds.saturating_mul(1_000))
}

/// A name to compare with, in which one `*` may stand for 1 to 64 letters, digits, `-` and `_`, and outside
/// DNS names dots too: never for more than one label or path segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    before: String,
    /// What follows the `*`; `None` without one.
    after: Option<String>,
}

impl NamePattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 512 || text.chars().any(char::is_control) {
            return Err("a name has 1 to 512 bytes".into());
        }
        match text.split_once('*') {
            None => Ok(NamePattern { before: text.into(), after: None }),
            Some((_, after)) if after.contains('*') => Err("a name may have one *".into()),
            Some((before, after)) => {
                Ok(NamePattern { before: before.into(), after: Some(after.into()) })
            }
        }
    }

    /// What the `*` stands for in a name, or all of the name where there is none.
    fn find<'a>(&self, name: &'a str, dots: bool) -> Option<&'a str> {
        let Some(after) = &self.after else { return (self.before == name).then_some(name) };
        let star = name.strip_prefix(&self.before)?.strip_suffix(after)?;
        let allowed = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (dots && byte == b'.')
        };
        let sized = (1..=MAX_STAR_BYTES).contains(&star.len());
        (sized && star.bytes().all(allowed)).then_some(star)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.after {
            None => f.write_str(&self.before),
            Some(after) => write!(f, "{}*{after}", self.before),
        }
    }
}

/// Which name of a certificate a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// The common name of the subject.
    CommonName(NamePattern),
    /// A DNS name.
    Dns(NamePattern),
    /// A URI.
    Uri(NamePattern),
    /// A mail address.
    Email(NamePattern),
}

impl CertificateName {
    /// The certificate's name that fits, and what the `*` stands for in it.
    fn find<'a>(&self, identity: &'a ClientIdentity) -> Option<(&'static str, &'a str, &'a str)> {
        let (kind, pattern, names, dots) = match self {
            CertificateName::CommonName(one) => ("cn", one, identity.common_name.as_slice(), true),
            CertificateName::Dns(one) => ("dns", one, identity.dns.as_slice(), false),
            CertificateName::Uri(one) => ("uri", one, identity.uris.as_slice(), true),
            CertificateName::Email(one) => ("email", one, identity.emails.as_slice(), true),
        };
        let mut found = names.iter().filter_map(|name| Some((name, pattern.find(name, dots)?)));
        found.next().map(|(name, star)| (kind, name.as_str(), star))
    }
}

/// Whose streams the clients of a rule name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateTenant {
    /// Those of no tenant.
    None,
    /// Those of one tenant.
    Fixed(TenantId),
    /// Those of the tenant that the `*` of the rule's name names.
    Named,
}

/// What certificates with a certain name may do.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateRule {
    /// Which certificates the rule is for.
    pub name: CertificateName,
    /// Whose streams they name.
    pub tenant: CertificateTenant,
    /// What they may do.
    pub operations: OperationSet,
    /// On which paths; `{name}` as a segment is what the `*` of the name stands for.
    pub paths: Vec<ClaimTemplate>,
}

/// Authenticates the client certificates of TLS connections, by the first rule that fits.
///
/// It stands behind the providers that read headers: a request that carries `Authorization` or `X-Api-Key`
/// is theirs to decide.
pub struct ClientCertificates {
    rules: Vec<CertificateRule>,
    cache: TokenCache,
}

impl ClientCertificates {
    /// The provider's name.
    pub const NAME: &'static str = "client-certificates";

    /// Rules, the first that fits decides; `cache_bytes` bounds what is remembered of certificates.
    pub fn new(rules: Vec<CertificateRule>, cache_bytes: usize) -> Self {
        ClientCertificates { rules, cache: TokenCache::new(cache_bytes) }
    }

    /// The principal of a certificate; `None` when no rule is for it.
    fn principal(&self, certificate: &[u8]) -> Result<Option<Principal>, AccessError> {
        let Some(identity) = ClientIdentity::of(certificate) else { return Ok(None) };
        let fits = |rule: &CertificateRule| {
            rule.name
                .find(&identity)
                .map(|(kind, name, star)| (rule.clone(), format!("{kind}:{name}"), star.to_owned()))
        };
        let Some((rule, identified, star)) = self.rules.iter().find_map(fits) else {
            return Ok(None);
        };
        let unusable = AccessError::InvalidCredentials("the certificate's name cannot be a path");
        let tenant = match rule.tenant {
            CertificateTenant::None => None,
            CertificateTenant::Fixed(tenant) => Some(tenant),
            CertificateTenant::Named => Some(TenantId::new(&star).map_err(|_| unusable.clone())?),
        };
        let claims = Map::from_iter([(NAME.to_owned(), Value::String(star))]);
        let paths = rule.paths.iter().map(|template| template.fill(&claims));
        let paths = paths.collect::<Option<Vec<_>>>().ok_or(unusable)?;
        let mut principal = Principal::new(identified)
            .with_tenant(tenant)
            .with_grant(Grant { operations: rule.operations, paths })
            .with_expiry(identity.expires)
            .with_claims(claims);
        principal.provider = Self::NAME.into();
        Ok(Some(principal))
    }
}

/// Whether a browser sent the request for a page of another site, and it would change something.
fn is_foreign_change(head: &RequestHead<'_>) -> bool {
    let reads = matches!(*head.method, Method::GET | Method::HEAD);
    let mut sites = head.headers.get_all("sec-fetch-site").iter();
    !reads && sites.any(|site| site != "same-origin" && site != "none")
}

#[async_trait]
impl AccessControl for ClientCertificates {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        let certificate = head.certificate.filter(|bytes| !bytes.is_empty());
        let certificate = certificate.ok_or(AccessError::NoCredentials)?;
        // The providers before this one did not know it, and a certificate does not make it right.
        if head.headers.contains_key(AUTHORIZATION) || head.headers.contains_key(X_API_KEY) {
            return Err(AccessError::UnknownCredentials);
        }
        if is_foreign_change(head) {
            return Err(AccessError::InvalidCredentials("a page of another site sent the request"));
        }
        let hash = bytes_hash(certificate);
        if let Some(known) = self.cache.get(&hash, 0, head.now) {
            return Ok(known);
        }
        let principal = self.principal(certificate)?.ok_or(AccessError::NoCredentials)?;
        if principal.is_expired(head.now) {
            return Err(AccessError::InvalidCredentials("the certificate has expired"));
        }
        let principal = Arc::new(principal);
        self.cache.insert(hash, certificate.len(), 0, principal.clone());
        Ok(principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label_or_segment() {
        for (pattern, name, dots, expected) in [
            ("a.example", "a.example", false, Some("a.example")),
            ("a.example", "b.a.example", false, None),
            ("*.example", "a.example", false, Some("a")),
            ("*.example", ".example", false, None),
            ("*.example", "a.b.example", false, None),
            ("*.example", "a.example.evil", false, None),
            ("*@example.com", "ada.l@example.com", true, Some("ada.l")),
            ("*@example.com", "ada@evil@example.com", true, None),
            ("spiffe://x/sa/*", "spiffe://x/sa/worker", true, Some("worker")),
            ("spiffe://x/sa/*", "spiffe://x/sa/worker/more", true, None),
            ("spiffe://x/sa/*", "spiffe://x/sa/a%2Fb", true, None),
            ("a*a", "a", true, None),
        ] {
            let found = NamePattern::parse(pattern).unwrap().find(name, dots);
            assert_eq!(found, expected, "{pattern} {name}");
        }
        let long = format!("{}.example", "x".repeat(65));
        assert_eq!(NamePattern::parse("*.example").unwrap().find(&long, false), None);
        for text in ["", "a*b*c", "a\n"] {
            assert!(NamePattern::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_names_nobody() {
        for bytes in [&b""[..], b"x", &[0x30, 0x82, 0x01, 0x00], &[0; 32], &[0x30; 20_000]] {
            assert_eq!(ClientIdentity::of(bytes), None);
        }
    }
}
