//! A certificate chain and its key, read and judged before any client sees them.

use std::{io, path::PathBuf, sync::Arc};

use durable_streams_protocol::Timestamp;
use rustls::{
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::{
    options::CertificateFiles,
    pem::{certificates, private_key},
};

/// Why a certificate or a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The operating system refuses the file.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Far larger than certificates are.
    #[error("{} has {size} bytes, the limit is {limit}; is it a PEM file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// Not PEM.
    #[error("{} is not PEM: {reason}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        reason: String,
    },
    /// PEM without a certificate.
    #[error("{} holds no certificate; the section should begin with -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// PEM without a usable key.
    #[error("{} holds no private key{}", path.display(), if *.encrypted {
        " that is not encrypted; decrypt it with `openssl pkey -in FILE -out NEW`"
    } else {
        "; the section should begin with -----BEGIN PRIVATE KEY-----"
    })]
    NoKey {
        /// The file.
        path: PathBuf,
        /// Whether it holds an encrypted one.
        encrypted: bool,
    },
    /// Every user of the machine may read the key.
    #[error("{} can be read by every user (mode {mode:04o}); run chmod o-r on it", path.display())]
    KeyReadableByAll {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not an X.509 certificate.
    #[error("{origin}: certificate {position} of the chain is not X.509: {reason}")]
    Malformed {
        /// The file or host.
        origin: String,
        /// 1 is the leaf.
        position: usize,
        /// The parser's reason.
        reason: String,
    },
    /// The key is of a kind that rustls cannot sign with.
    #[error("{origin}: the private key cannot be used: {reason}")]
    UnusableKey {
        /// The file or host.
        origin: String,
        /// The library's reason.
        reason: String,
    },
    /// Certificate and key do not belong together.
    #[error("{origin}: the private key does not belong to the certificate")]
    Mismatch {
        /// The file or host.
        origin: String,
    },
    /// Past its `notAfter`.
    #[error("{origin}: the certificate for {names} expired at {at}")]
    Expired {
        /// The file or host.
        origin: String,
        /// The names it covers.
        names: String,
        /// When.
        at: String,
    },
    /// Before its `notBefore`.
    #[error(
        "{origin}: the certificate for {names} is not valid before {at}; is the machine's clock right?"
    )]
    NotYetValid {
        /// The file or host.
        origin: String,
        /// The names it covers.
        names: String,
        /// From when on.
        at: String,
    },
    /// A certificate of the chain was not issued by the next one.
    #[error(
        "{origin}: the chain is incomplete: certificate {position} ({issuer}) is not issued by the next one; put the intermediate certificates behind the certificate, in order"
    )]
    BrokenChain {
        /// The file or host.
        origin: String,
        /// 1 is the leaf.
        position: usize,
        /// Who issued it.
        issuer: String,
    },
    /// No `subjectAltName`, which browsers demand.
    #[error("{origin}: the certificate names no host (no subjectAltName); clients refuse it")]
    NoNames {
        /// The file or host.
        origin: String,
    },
    /// A configured host that no certificate covers.
    #[error("no certificate covers {host}; there are certificates for {names}")]
    HostNotCovered {
        /// The host.
        host: String,
        /// What is covered.
        names: String,
    },
    /// The authorities of client certificates.
    #[error("client authorities: {reason}")]
    Authorities {
        /// The library's reason.
        reason: String,
    },
    /// rustls refuses the whole.
    #[error("TLS cannot be set up: {reason}")]
    Setup {
        /// The library's reason.
        reason: String,
    },
}

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// DNS names and addresses that it covers, lower case; `*.example.com` for a wildcard.
    pub names: Vec<String>,
    /// First moment at which it is valid.
    pub not_before: Timestamp,
    /// Last moment at which it is valid.
    pub not_after: Timestamp,
    /// Whether it names where its issuer's certificate can be fetched, yet comes without it. Such a chain
    /// is incomplete unless clients trust the issuer itself.
    pub lacks_issuer: bool,
}

/// A chain with its key, ready to be served.
#[derive(Clone, Debug)]
pub(super) struct LoadedCertificate {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) facts: CertificateFacts,
}

impl LoadedCertificate {
    /// Reads and judges a pair of files.
    ///
    /// # Errors
    /// Every variant of [`CertificateError`] that names a file or a chain.
    pub(super) fn from_files(
        files: &CertificateFiles,
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        let chain = certificates(&files.certificate)?;
        let key = private_key(&files.key)?;
        Self::new(chain, key, &files.certificate.display().to_string(), now)
    }

    /// Judges a chain and its key; `origin` names them in errors.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files).
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        origin: &str,
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        let facts = judge(&chain, origin, now)?;
        let provider: CryptoProvider = ring::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                CertificateError::Mismatch { origin: origin.to_owned() }
            }
            other => CertificateError::UnusableKey {
                origin: origin.to_owned(),
                reason: other.to_string(),
            },
        })?;
        Ok(LoadedCertificate { key: Arc::new(key), facts })
    }
}

/// What the leaf says, once the chain holds together and the leaf is valid now.
fn judge(
    chain: &[CertificateDer<'_>],
    origin: &str,
    now: Timestamp,
) -> Result<CertificateFacts, CertificateError> {
    let parsed = parse(chain, origin)?;
    for (at, pair) in parsed.windows(2).enumerate() {
        let [certificate, issuer] = pair else { continue };
        if certificate.issuer() != issuer.subject() {
            return Err(CertificateError::BrokenChain {
                origin: origin.to_owned(),
                position: at + 1,
                issuer: certificate.issuer().to_string(),
            });
        }
    }
    let Some(leaf) = parsed.first() else {
        return Err(CertificateError::NoNames { origin: origin.to_owned() });
    };
    let names = names(leaf);
    if names.is_empty() {
        return Err(CertificateError::NoNames { origin: origin.to_owned() });
    }
    let validity = leaf.validity();
    let moment = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_millis(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000))
    };
    let facts = CertificateFacts {
        names,
        not_before: moment(validity.not_before),
        not_after: moment(validity.not_after),
        lacks_issuer: parsed.len() == 1
            && leaf.issuer() != leaf.subject()
            && names_its_issuer(leaf),
    };
    let all = facts.names.join(", ");
    if now > facts.not_after {
        let at = validity.not_after.to_string();
        return Err(CertificateError::Expired { origin: origin.to_owned(), names: all, at });
    }
    if now < facts.not_before {
        let at = validity.not_before.to_string();
        return Err(CertificateError::NotYetValid { origin: origin.to_owned(), names: all, at });
    }
    Ok(facts)
}

fn parse<'c>(
    chain: &'c [CertificateDer<'_>],
    origin: &str,
) -> Result<Vec<X509Certificate<'c>>, CertificateError> {
    let one = |(at, der): (usize, &'c CertificateDer<'_>)| {
        X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|error| {
            CertificateError::Malformed {
                origin: origin.to_owned(),
                position: at + 1,
                reason: error.to_string(),
            }
        })
    };
    chain.iter().enumerate().map(one).collect()
}

/// The names of `subjectAltName`, the only ones that clients look at (RFC 9525 §2).
pub(super) fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(text).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
}

/// Whether the certificate says where its issuer's can be fetched (RFC 5280 §4.2.2.1), as those of public
/// authorities do.
fn names_its_issuer(certificate: &X509Certificate<'_>) -> bool {
    certificate.extensions().iter().any(|extension| {
        let ParsedExtension::AuthorityInfoAccess(access) = extension.parsed_extension() else {
            return false;
        };
        // 1.3.6.1.5.5.7.48.2: id-ad-caIssuers.
        access
            .accessdescs
            .iter()
            .any(|one| one.access_method.to_id_string() == "1.3.6.1.5.5.7.48.2")
    })
}

/// Whether a certificate for `name` (exact, or a wildcard for one label) covers `host`.
pub(super) fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => {
            host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
        }
        None => name == host,
    }
}
