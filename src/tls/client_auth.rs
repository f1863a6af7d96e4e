//! Client certificates (mutual TLS): who may connect, and the identity they prove.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    crypto::ring,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    certificate::{CertificateError, names},
    options::ClientAuthOptions,
    pem::certificates,
};

/// Who a verified client certificate says the client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The subject, as RFC 4514 writes it: `CN=worker-1, O=Example`.
    pub subject: String,
    /// The common name of the subject, if it has one.
    pub common_name: Option<String>,
    /// DNS names and addresses of `subjectAltName`, lower case.
    pub names: Vec<String>,
}

impl ClientIdentity {
    /// The identity in a certificate (DER) that the handshake has verified; `None` where there is none.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let subject = parsed.subject();
        let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        Some(ClientIdentity {
            subject: subject.to_string(),
            common_name: common_name.map(str::to_owned),
            names: names(&parsed),
        })
    }
}

/// The verifier of a listener that asks for client certificates.
///
/// # Errors
/// The file of authorities cannot be used.
pub(super) fn verifier(
    options: &ClientAuthOptions,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let refused = |reason: String| CertificateError::Authorities {
        reason: format!("{}: {reason}", options.authorities.display()),
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&options.authorities)? {
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    let provider = Arc::new(ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if options.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| refused(error.to_string()))
}
