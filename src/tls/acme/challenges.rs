//! Answers to challenges, published while the authority looks for them.

use std::{collections::HashMap, sync::Arc};

use instant_acme::KeyAuthorization;
use parking_lot::Mutex;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use super::{ChallengeKind, failure::AcmeFailure};
use crate::tls::resolver::AlpnChallenges;

/// Where the authority fetches the answer to HTTP-01 (RFC 8555 §8.3).
const HTTP_PREFIX: &str = "/.well-known/acme-challenge/";

/// Answers to HTTP-01, by token.
#[derive(Debug, Default)]
pub struct HttpChallenges(Mutex<HashMap<String, String>>);

impl HttpChallenges {
    /// The answer to a request for this path, if an order waits for it.
    pub fn answer(&self, path: &str) -> Option<String> {
        self.0.lock().get(path.strip_prefix(HTTP_PREFIX)?).cloned()
    }
}

/// All answers.
#[derive(Clone, Debug)]
pub(super) struct Challenges {
    pub(super) http: Arc<HttpChallenges>,
    alpn: Arc<AlpnChallenges>,
}

/// An answer that is published until this is dropped.
pub(super) struct PublishedAnswer {
    challenges: Challenges,
    kind: ChallengeKind,
    key: String,
}

impl Challenges {
    pub(super) fn new(alpn: Arc<AlpnChallenges>) -> Self {
        Challenges { http: Arc::default(), alpn }
    }

    /// Publishes the answer to a challenge for `host`.
    ///
    /// # Errors
    /// The certificate of TLS-ALPN-01 cannot be made.
    pub(super) fn publish(
        &self,
        kind: ChallengeKind,
        host: &str,
        token: &str,
        authorization: &KeyAuthorization,
    ) -> Result<PublishedAnswer, AcmeFailure> {
        let key = match kind {
            ChallengeKind::Http01 => {
                let answer = authorization.as_str().to_owned();
                self.http.0.lock().insert(token.to_owned(), answer);
                token.to_owned()
            }
            ChallengeKind::TlsAlpn01 => {
                let certificate = alpn_certificate(host, authorization.digest().as_ref())
                    .map_err(|error| AcmeFailure::new("the challenge cannot be answered", error))?;
                self.alpn.insert(host, Arc::new(certificate));
                host.to_owned()
            }
        };
        Ok(PublishedAnswer { challenges: self.clone(), kind, key })
    }
}

impl Drop for PublishedAnswer {
    fn drop(&mut self) {
        match self.kind {
            ChallengeKind::Http01 => drop(self.challenges.http.0.lock().remove(&self.key)),
            ChallengeKind::TlsAlpn01 => self.challenges.alpn.remove(&self.key),
        }
    }
}

/// The certificate of RFC 8737 §3: self-signed, with the digest in an extension of its own.
fn alpn_certificate(
    host: &str,
    digest: &[u8],
) -> Result<CertifiedKey, Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = vec![certificate.der().clone()];
    // Not `from_der`: it parses the certificate, and refuses the critical extension that this one is for.
    Ok(CertifiedKey::new(chain, ring::sign::any_supported_type(&key)?))
}
