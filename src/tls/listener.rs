//! One listener with TLS: its rustls configuration, and the certificates behind it, replaced while it serves.

use std::sync::Arc;

use arc_swap::ArcSwap;
use durable_streams_protocol::Timestamp;
use rustls::{
    ServerConfig,
    crypto::ring::{self, Ticketer},
    server::{NoClientAuth, ServerSessionMemoryCache},
    version,
};

use super::{
    certificate::{CertificateError, CertificateFacts, LoadedCertificate},
    client_auth, internal,
    options::{CertificateSource, TlsOptions},
    resolver::{ACME_ALPN, AlpnChallenges, CertificateResolver, CertificateTable},
};

/// Sessions kept for TLS 1.2 clients that resume by id. TLS 1.3 and tickets need no memory here.
const SESSIONS: usize = 1024;

/// A listener's side of TLS. What can change by a reload is behind a swap: a connection keeps the
/// configuration with which its handshake began.
#[derive(Debug)]
pub struct TlsListener {
    options: TlsOptions,
    config: ArcSwap<ServerConfig>,
    resolver: Arc<CertificateResolver>,
}

impl TlsListener {
    /// Reads the certificates and sets TLS up. With [`CertificateSource::Automatic`] the listener has no
    /// certificate until the certificate manager brings one.
    ///
    /// # Errors
    /// Everything that is wrong with a file, naming it.
    pub fn new(
        options: TlsOptions,
        challenges: Arc<AlpnChallenges>,
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        let resolver = Arc::new(CertificateResolver::new(options.hosts.clone(), challenges));
        if let Some(certificates) = load(&options, now)? {
            resolver.replace(table(certificates, &options.hosts)?);
        }
        let config = ArcSwap::from_pointee(server_config(&options, resolver.clone())?);
        Ok(TlsListener { options, config, resolver })
    }

    /// Reads files again: certificates, keys and client authorities. Handshakes from now on use them.
    ///
    /// # Errors
    /// As [`new`](Self::new); what was in use stays in use then.
    pub fn reload(&self, now: Timestamp) -> Result<(), CertificateError> {
        let options = &self.options;
        let certificates = load(options, now)?;
        let config = server_config(options, self.resolver.clone())?;
        if let Some(certificates) = certificates {
            self.resolver.replace(table(certificates, &options.hosts)?);
        }
        self.config.store(Arc::new(config));
        Ok(())
    }

    /// Serves these certificates from now on.
    pub(super) fn replace(&self, certificates: Vec<LoadedCertificate>) {
        self.resolver.replace(CertificateTable::new(certificates));
    }

    /// The configuration of the next handshake.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// The options it was made from.
    pub fn options(&self) -> &TlsOptions {
        &self.options
    }

    /// What the certificates in use say about themselves.
    pub fn facts(&self) -> Vec<CertificateFacts> {
        self.resolver.facts()
    }
}

fn table(
    certificates: Vec<LoadedCertificate>,
    hosts: &[String],
) -> Result<CertificateTable, CertificateError> {
    let table = CertificateTable::new(certificates);
    table.check_covers(hosts)?;
    Ok(table)
}

/// The certificates that are there at once; `None` where they are still to be ordered.
fn load(
    options: &TlsOptions,
    now: Timestamp,
) -> Result<Option<Vec<LoadedCertificate>>, CertificateError> {
    match &options.source {
        CertificateSource::Automatic => Ok(None),
        CertificateSource::Internal(directory) => {
            internal::certificate(directory, &options.hosts, now).map(|one| Some(vec![one]))
        }
        CertificateSource::Files(files) => {
            let all = files.iter().map(|pair| LoadedCertificate::from_files(pair, now));
            all.collect::<Result<Vec<_>, _>>().map(Some)
        }
    }
}

fn server_config(
    options: &TlsOptions,
    resolver: Arc<CertificateResolver>,
) -> Result<ServerConfig, CertificateError> {
    let setup = |error: rustls::Error| CertificateError::Setup { reason: error.to_string() };
    let verifier = match &options.client_auth {
        None => Arc::new(NoClientAuth) as _,
        Some(client_auth) => client_auth::verifier(client_auth)?,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if options.source == CertificateSource::Automatic {
        config.alpn_protocols.push(ACME_ALPN.to_vec());
    }
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    config.ticketer = Ticketer::new().map_err(setup)?;
    Ok(config)
}
