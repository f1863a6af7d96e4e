//! Options of a listener with TLS.

use std::path::PathBuf;

/// How one listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// Where its certificates come from.
    pub source: CertificateSource,
    /// Names that it serves, lower case. Each must be covered by a certificate. Empty: whatever the
    /// certificates cover.
    pub hosts: Vec<String>,
    /// Client certificates; `None` asks for none.
    pub client_auth: Option<ClientAuthOptions>,
}

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// From files; the first also answers clients that send no server name.
    Files(Vec<CertificateFiles>),
    /// From an authority of the server's own, whose root is kept in this directory.
    Internal(PathBuf),
    /// From an ACME server.
    Automatic,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the certificate first, then the chain up to, not including, the root.
    pub certificate: PathBuf,
    /// PEM: the private key, PKCS#8, PKCS#1 or SEC1, unencrypted.
    pub key: PathBuf,
}

/// Client certificates (mutual TLS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthOptions {
    /// PEM: the authorities whose client certificates are accepted.
    pub authorities: PathBuf,
    /// Whether a client without a certificate is refused in the handshake.
    pub required: bool,
}

impl CertificateSource {
    pub(super) fn is_internal(&self) -> bool {
        matches!(self, CertificateSource::Internal(_))
    }
}
