//! Client certificates (mutual TLS): who may connect. What they may do then is access control's.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    crypto::ring,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{certificate::CertificateError, options::ClientAuthOptions, pem::certificates};

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
