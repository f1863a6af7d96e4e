//! From the configuration of listeners to TLS, and to the sockets that speak it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use durable_streams_engine::Clock;
use durable_streams_engine::store::file::keys_dir;
use http::HeaderValue;

use super::{ListenAddress, ListenerProtocol, RedirectOptions};
use crate::config::{self, AcmeChallenge, ClientCertificate, Config, ListenerConfig, ListenerTls};
use crate::tls::acme::{AcmeOptions, ChallengeKind, ExternalAccount};
use crate::tls::{
    CertificateError, CertificateFiles, CertificateSource, ClientAuthOptions, TlsError,
    TlsListener, TlsOptions, TlsService,
};

/// TLS of a configuration, with every certificate read; `None` where no listener has TLS.
///
/// # Errors
/// The first certificate, key or directory that cannot be used.
pub(super) fn open(config: &Config, clock: Clock) -> Result<Option<TlsService>, TlsError> {
    let listeners: Vec<TlsOptions> = config
        .listen
        .iter()
        .filter_map(|listener| match listener {
            ListenerConfig::Address(_) => None,
            ListenerConfig::Group(group) => Some(options(config, group, group.tls.as_ref()?)),
        })
        .collect();
    if listeners.is_empty() {
        return Ok(None);
    }
    let timeout = config.limits.header_timeout.get();
    TlsService::open(listeners, acme(config)?, timeout, clock).map(Some)
}

/// Reads and judges the certificates that a configuration names, without writing anything.
///
/// # Errors
/// The first certificate, key or file of authorities that cannot be used.
pub fn check(config: &Config, clock: &Clock) -> Result<(), TlsError> {
    for listener in &config.listen {
        if let ListenerConfig::Group(group) = listener
            && let Some(tls @ ListenerTls::Files(_)) = &group.tls
        {
            TlsListener::new(options(config, group, tls), Arc::default(), clock.now())?;
        }
    }
    Ok(())
}

/// Where the root behind `tls: internal` lies in a data directory.
pub(crate) fn internal_directory(data_dir: &Path) -> PathBuf {
    directory(data_dir).join("internal")
}

/// Where the keys of TLS lie in a data directory: part of backups.
fn directory(data_dir: &Path) -> PathBuf {
    keys_dir(data_dir).join("tls")
}

fn options(config: &Config, group: &config::ListenerGroup, tls: &ListenerTls) -> TlsOptions {
    let pair = |pair: &config::CertificatePair| CertificateFiles {
        certificate: pair.certificate.clone(),
        key: pair.key.clone(),
    };
    let (source, client_auth) = match tls {
        ListenerTls::Auto => (CertificateSource::Automatic, None),
        ListenerTls::Internal => {
            let internal = config.data_dir.as_deref().map(internal_directory).unwrap_or_default();
            (CertificateSource::Internal(internal), None)
        }
        ListenerTls::Files(files) => {
            let client_auth = files.client_ca.clone().map(|authorities| ClientAuthOptions {
                authorities,
                required: files.client_certificate == ClientCertificate::Required,
            });
            (CertificateSource::Files(files.certificates.iter().map(pair).collect()), client_auth)
        }
    };
    let hosts = group.hosts.iter().map(|host| host.as_str().to_owned()).collect();
    TlsOptions { source, hosts, client_auth }
}

fn acme(config: &Config) -> Result<AcmeOptions, CertificateError> {
    let configured = &config.acme;
    let challenge = |one: &AcmeChallenge| match one {
        AcmeChallenge::Http01 => ChallengeKind::Http01,
        AcmeChallenge::TlsAlpn01 => ChallengeKind::TlsAlpn01,
    };
    let external_account = match &configured.external_account {
        None => None,
        Some(one) => Some(ExternalAccount::from_file(&one.key_id, &one.hmac_key_file)?),
    };
    Ok(AcmeOptions {
        directory: configured.directory.as_str().to_owned(),
        email: configured.email.clone(),
        roots: configured.ca.clone(),
        external_account,
        challenges: configured.challenges.iter().map(challenge).collect(),
        hosts: Vec::new(),
        storage: config.data_dir.as_deref().map(directory).unwrap_or_default().join("acme"),
    })
}

/// Every address, with what is spoken there.
pub(super) fn addresses(config: &Config, tls: Option<&TlsService>) -> Vec<ListenAddress> {
    let mut listeners = tls.map(TlsService::listeners).unwrap_or_default().iter();
    if let [ListenerConfig::Address(v4), ListenerConfig::Address(v6)] = config.listen.as_slice()
        && are_localhost(v4, v6)
    {
        return vec![format!("localhost:{}", v4.port()).into()];
    }
    config
        .listen
        .iter()
        .map(|listener| ListenAddress {
            address: listener.address().to_string(),
            protocol: ListenerProtocol {
                tls: listener.tls().and_then(|_| listeners.next().cloned()),
                proxy_header: matches!(listener, ListenerConfig::Group(group) if group.proxy_protocol),
            },
        })
        .collect()
}

/// Both loopback addresses on one port are `localhost`, of which a machine may lack the IPv6 half.
fn are_localhost(v4: &SocketAddr, v6: &SocketAddr) -> bool {
    v4.port() == v6.port()
        && v4.ip().is_loopback()
        && v6.ip().is_loopback()
        && v4.is_ipv4() != v6.is_ipv4()
}

/// The listeners that send HTTP to HTTPS.
pub(super) fn redirects(config: &Config) -> Vec<RedirectOptions> {
    let secure = |one: &&ListenerConfig| one.tls().is_some();
    let https_port = config.listen.iter().find(secure).map_or(443, |one| one.address().port());
    if let Some(addresses) = &config.redirect_http {
        let redirect = |address: &SocketAddr| RedirectOptions {
            address: *address,
            https_port,
            optional: false,
        };
        return addresses.iter().map(redirect).collect();
    }
    let automatic = config
        .listen
        .iter()
        .filter(|one| one.tls() == Some(&ListenerTls::Auto) && one.address().port() == 443);
    let taken = |address: SocketAddr| config.listen.iter().any(|one| one.address() == address);
    automatic
        .map(|one| SocketAddr::new(one.address().ip(), 80))
        .filter(|address| !taken(*address))
        .map(|address| RedirectOptions { address, https_port, optional: true })
        .collect()
}

/// `Strict-Transport-Security`, where it is configured.
pub(super) fn hsts(config: &Config) -> Option<HeaderValue> {
    let seconds = config.hsts?.get().as_secs();
    HeaderValue::from_str(&format!("max-age={seconds}")).ok()
}
