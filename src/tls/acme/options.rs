//! Which authority, which account, which names.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::tls::CertificateError;

/// How certificates are ordered.
#[derive(Clone, Debug)]
pub struct AcmeOptions {
    /// URL of the ACME server's directory.
    pub directory: String,
    /// Where the authority writes to about the account.
    pub email: Option<String>,
    /// PEM file of the roots that the ACME server's own certificate leads to; the system's by default.
    pub roots: Option<PathBuf>,
    /// Binds the account to one at the authority (RFC 8555 §7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// How control of a name is proved, in order of preference; tried in turn when one fails. Not empty.
    pub challenges: Vec<ChallengeKind>,
    /// Names to have certificates for, lower case.
    pub hosts: Vec<String>,
    /// Where account, certificates and keys are kept.
    pub storage: PathBuf,
}

/// An account that the authority made outside ACME.
#[derive(Clone)]
pub struct ExternalAccount {
    /// The authority's name for it.
    pub key_id: String,
    /// The shared key.
    pub hmac_key: Vec<u8>,
}

impl ExternalAccount {
    /// The account with its shared key from a file: base64url, as authorities show it.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn from_file(key_id: &str, file: &Path) -> Result<Self, CertificateError> {
        let unreadable = |source| CertificateError::Unreadable { path: file.to_owned(), source };
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let key = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('='));
        let hmac_key = key.map_err(|error| CertificateError::Setup {
            reason: format!("{} is not base64url: {error}", file.display()),
        })?;
        Ok(ExternalAccount { key_id: key_id.to_owned(), hmac_key })
    }
}

impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// How control of a name is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// The authority fetches a file from port 80 (RFC 8555 §8.3).
    Http01,
    /// The authority makes a TLS handshake on port 443 (RFC 8737).
    TlsAlpn01,
}

impl ChallengeKind {
    /// As RFC 8555 writes it.
    pub fn name(self) -> &'static str {
        match self {
            ChallengeKind::Http01 => "http-01",
            ChallengeKind::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

impl AcmeOptions {
    /// The challenge for an attempt after this many failures.
    pub(super) fn challenge(&self, failures: u32) -> ChallengeKind {
        let at = failures as usize % self.challenges.len().max(1);
        self.challenges.get(at).copied().unwrap_or(ChallengeKind::TlsAlpn01)
    }
}
