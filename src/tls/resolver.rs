//! Which certificate answers which server name (SNI, RFC 6066 §3), changed while connections are accepted.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificate::{CertificateError, CertificateFacts, LoadedCertificate, covers};

/// The ALPN protocol of a TLS-ALPN-01 challenge (RFC 8737 §3).
pub(super) const ACME_ALPN: &[u8] = b"acme-tls/1";

/// Certificates by name. Built whole and swapped whole, so a handshake sees one configuration.
#[derive(Debug, Default)]
pub(super) struct CertificateTable {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the part behind `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For clients that send no name, such as those that connect to an address.
    fallback: Option<Arc<CertifiedKey>>,
    facts: Vec<CertificateFacts>,
}

impl CertificateTable {
    /// A table of these certificates. The first that covers a name answers for it.
    pub(super) fn new(certificates: Vec<LoadedCertificate>) -> Self {
        let mut table = CertificateTable::default();
        for LoadedCertificate { key, facts } in certificates {
            for name in &facts.names {
                let names = match name.strip_prefix("*.") {
                    Some(parent) => table.wildcard.entry(parent.to_owned()),
                    None => table.exact.entry(name.clone()),
                };
                names.or_insert_with(|| key.clone());
            }
            table.fallback.get_or_insert(key);
            table.facts.push(facts);
        }
        table
    }

    /// # Errors
    /// The first of `hosts` that no certificate covers.
    pub(super) fn check_covers(&self, hosts: &[String]) -> Result<(), CertificateError> {
        let names: Vec<&str> =
            self.facts.iter().flat_map(|one| &one.names).map(String::as_str).collect();
        match hosts.iter().find(|host| !names.iter().any(|name| covers(name, host))) {
            None => Ok(()),
            Some(host) => Err(CertificateError::HostNotCovered {
                host: host.clone(),
                names: names.join(", "),
            }),
        }
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name else { return self.fallback.clone() };
        // rustls passes the name in lower case.
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).cloned()
    }
}

/// Certificates that prove control of a name to an ACME server, while it looks.
#[derive(Debug, Default)]
pub struct AlpnChallenges(Mutex<HashMap<String, Arc<CertifiedKey>>>);

impl AlpnChallenges {
    pub(super) fn insert(&self, host: &str, key: Arc<CertifiedKey>) {
        self.0.lock().insert(host.to_owned(), key);
    }

    pub(super) fn remove(&self, host: &str) {
        self.0.lock().remove(host);
    }

    fn find(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.0.lock().get(host).cloned()
    }
}

/// Chooses the certificate of each handshake.
#[derive(Debug)]
pub(super) struct CertificateResolver {
    table: ArcSwap<CertificateTable>,
    challenges: Arc<AlpnChallenges>,
    /// The only names that are answered for; empty for all that there is a certificate for.
    hosts: Vec<String>,
}

impl CertificateResolver {
    pub(super) fn new(hosts: Vec<String>, challenges: Arc<AlpnChallenges>) -> Self {
        CertificateResolver { table: ArcSwap::default(), challenges, hosts }
    }

    /// Handshakes from now on are answered by this table.
    pub(super) fn replace(&self, table: CertificateTable) {
        self.table.store(Arc::new(table));
    }

    pub(super) fn facts(&self) -> Vec<CertificateFacts> {
        self.table.load().facts.clone()
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        // RFC 8737 §3: the validating server offers this protocol and no other.
        if hello.alpn().is_some_and(|mut offered| offered.any(|one| one == ACME_ALPN)) {
            return self.challenges.find(name?);
        }
        let served =
            |name: &str| self.hosts.is_empty() || self.hosts.iter().any(|one| covers(one, name));
        if !name.is_none_or(served) {
            return None;
        }
        self.table.load().find(name)
    }
}
